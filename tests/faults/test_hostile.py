"""Session folders that are damaged or made to do harm: every command ends on each of them, in words, and elsewhere
nothing is touched. tests/faults/hostile.py makes them, and says what is done to them.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zolite.config.recipe import Recipe
from zolite.training.resume import begin

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork, pipes and /proc")

COUNT, SEED, MOST_GROWN = 400, 21, 300 << 20  # folders, bytes
EVERY = 1 if os.environ.get("ZOLITE_LONG") else 50  # of these folders so manyeth is tried


@pytest.fixture
def tried(recipe: Callable[..., Recipe], home: Path) -> list[dict[str, Any]]:
    """Every command on every folder: what hostile.py found."""
    list(begin(recipe(method__name="lozo-m", train__steps=4, train__save_every=2), "sound", lambda: False))
    outside = home.parent / "outside"
    shutil.copytree(home / "sessions" / "sound", outside / "sound")
    (outside / "precious.txt").write_text("kept")
    script = Path(__file__).with_name("hostile.py")
    found = subprocess.run(
        [sys.executable, str(script), str(home.parent), str(COUNT), str(SEED), str(EVERY)],
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in found.stdout.splitlines()]


def obeyed(text: str) -> bool:
    """Is there anything in it that a terminal does something for?"""
    return any(not c.isprintable() and c not in "\n\t\u200c\u200d\xa0" for c in text)


def test_every_command_ends_in_words_and_touches_nothing_else(tried: list[dict[str, Any]]) -> None:
    """No traceback, no signal, no escape sequence, no more memory than any session needs, nothing outside changed; and
    whatever it is, `rm` removes it.
    """
    wrong = [
        (each["damage"], each["command"], what, each["stderr"][-300:])
        for each in tried
        for what, bad in {
            "ended otherwise": each["code"] not in (0, 1, 2),
            "a traceback": "Traceback" in each["stderr"],
            "raw escapes": obeyed(each["stdout"] + each["stderr"]),
            "memory": each["grown"] > MOST_GROWN,
            "changed outside": each["changed"],
            "still there": each["command"] == "rm" and (each["code"] or not each["gone"]),
            "said nothing": each["command"] != "home" and not each["stdout"] + each["stderr"],
        }.items()
        if bad
    ]
    assert wrong == []
    assert len(tried) >= 2 + 5 * COUNT // EVERY
