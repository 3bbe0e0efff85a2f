"""A run that has not begun yet has nothing to save: who ends it does not wait, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from zolite.tui.client import Client

from zolite.common.errors import ZoliteError
from zolite.common.events import Finished, Working, from_json
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions
from zolite.sessions.session import StepRow

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows ends processes by force")

PATIENCE = 240  # seconds; what is ended would go on for many times as long
LONG = {
    "Python": "time.sleep(36_000)",
    "one call of a library": "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
    "one that waits for its threads": "pool.submit(hashlib.pbkdf2_hmac, 'sha256', b'', b'', 2**31 - 1).result()",
    "one that takes every exception": "[swallow() for _ in range(36_000)]",
}
"""What preparing a run may spend its time with."""
SITE = """
import sys
import time
if "--detach" not in sys.orig_argv and {{"train", "resume"}} & set(sys.orig_argv):
    import concurrent.futures, hashlib, os, pathlib, time, types
    pool = concurrent.futures.ThreadPoolExecutor(1)
    def swallow():
        try:
            time.sleep(3_600)
        except BaseException:
            pass
    def prepare(*given, **named):
        pathlib.Path({beside!r}).write_text(str(os.getpid()))
        pathlib.Path({beside!r}).rename({said!r})
        {long}
    def resume(name, *given):
        from zolite.sessions import session
        with session.open_(name, write=True):
            prepare()
    sys.modules["zolite.training.resume"] = types.SimpleNamespace(begin=prepare, resume=resume)  # without torch
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """slow(long): preparing takes that from here on, in every process; the file in which it says its number."""

    def make(long: str) -> Path:
        site, said = tmp_path / "site", tmp_path / "process"
        site.mkdir()
        text = SITE.format(beside=str(tmp_path / "beside"), said=str(said), long=LONG[long])
        (site / "sitecustomize.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(site))
        return said

    return make


def started(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "zolite", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(said: Path, child: "subprocess.Popen[str]") -> None:
    while not said.exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(("long", "number"), [*((long, signal.SIGTERM) for long in LONG), ("Python", signal.SIGINT)])
def test_a_run_that_is_prepared_ends_when_it_is_told(
    slow: Callable[[str], Path], home: Path, tmp_path: Path, long: str, number: int
) -> None:
    """By either signal, in Python and in a library: it says so, and leaves no session."""
    said = slow(long)
    child = started("train", "builtin:smollm2-135m", "--data", str(tmp_path), "--name", "run", "--json")
    until(said, child)
    child.send_signal(number)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (130, "ended before its first step\n")
    said = [from_json(line) for line in out.splitlines()]
    assert {type(event) for event in said} == {Working} and said[0].phase == "importing PyTorch"  # type: ignore[union-attr]
    assert sessions.list_() == []


def test_cancel_ends_the_trainer_behind_the_command(slow: Callable[[str], Path], home: Path, tmp_path: Path) -> None:
    """Given up in the app while it is prepared: the trainer is gone when the command is, and no trace of it stays."""
    said = slow("one call of a library")
    words = ("train", "builtin:smollm2-135m", "--data", str(tmp_path), "--name", "run")
    with pytest.raises(ZoliteError, match="130"):
        Client().start(*words, gone=said.exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)
    assert os.listdir(home / "sessions") == []


def test_terminating_the_command_ends_the_trainer(slow: Callable[[str], Path], home: Path, tmp_path: Path) -> None:
    """`--detach` that is told to end while it waits takes along what it has started."""
    said = slow("Python")
    child = started("train", "builtin:smollm2-135m", "--data", str(tmp_path), "--detach")
    until(said, child)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=PATIENCE) == 130
    child.communicate()
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)


def test_a_resume_that_is_given_up_leaves_its_session_as_it_was(slow: Callable[[str], Path], home: Path) -> None:
    """It does not show as running any more, and its journal and its end are what they were."""
    recipe = recipes.resolve(recipes.override(Recipe(), {"data.path": "rows", "train.steps": 9}))
    with sessions.create("run", recipe, {}) as session:
        session.journal.append([StepRow(1, b"", b"", 1e-3, 1e-4, 0, 1e9, 0.1, 7)])
        session.journal.event(Finished(1, "interrupted", 1.0, 0, 7))
    said = slow("one call of a library")
    child = started("resume", "run", "--json")
    until(said, child)
    (before,) = sessions.list_()
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE)
    (after,) = sessions.list_()
    assert (child.returncode, before.status, after.status, after.step) == (130, "running", "interrupted", 1), err
