"""Claims about recordings: a run in one file, the same when read back, with nothing of the machine it comes from."""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Evaluated, Exported, Finished, Noted, Saved, Started
from zolite.config.recipe import Recipe, resolve
from zolite.sessions import recording
from zolite.sessions import session as sessions
from zolite.sessions.recording import Recording
from zolite.sessions.session import MemoryRow, StepRow
from zolite.training.resume import begin

FLOATS = st.floats(width=32)


def packed(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def made(losses: list[list[float]]) -> Recording:
    rows = [StepRow(i, packed(0.5), packed(*v), 1e-2, 3e-3, 0, 1e9 + i, 0.1, 5) for i, v in enumerate(losses, 1)]
    told = ((0, Started("a", 1, 9, "CPU", 5, 7)), (1, Evaluated(1, "dev", "accuracy", 0.5, 3, 0.1)))
    return Recording("a", 1e9, resolve(Recipe()), "CPU", tuple(rows), told, (MemoryRow(1e9, 1, 5, 6),))


@given(losses=st.lists(st.lists(FLOATS, min_size=1, max_size=3), max_size=5))
def test_round_trip(losses: list[list[float]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Read back, everything is as it was, losses to the bit; of those that are no numbers only that is known."""
    path, original = tmp_path_factory.mktemp("r") / "run.jsonl", made(losses)
    recording.write(original, path)
    found = recording.read(path)
    assert replace(found, rows=()) == replace(original, rows=())
    for before, after in zip(original.rows, found.rows, strict=True):
        finite = [
            v if math.isfinite(v) else math.nan for v in struct.unpack(f"<{len(before.losses) // 4}f", before.losses)
        ]
        assert after == before._replace(losses=packed(*finite))


def test_of_a_session(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """A real run's recording has every step and event of its journal, and none of the machine's folders."""
    for _ in begin(recipe(train__steps=5), "run", lambda: False):
        pass
    with sessions.open_("run") as session:
        found = recording.of(session)
        assert list(found.rows) == list(session.journal.steps()) and len(found.rows) == 5
        assert [event for _, event in found.events] == session.journal.events()
        assert isinstance(found.events[-1][1], Finished) and any(isinstance(e, Saved) for _, e in found.events)
    exported = (5, Exported(5, str(tmp_path / "out")))
    recording.write(replace(found, events=(*found.events, exported)), tmp_path / "run.jsonl")
    text = (tmp_path / "run.jsonl").read_text()
    assert str(tmp_path.parent) not in text and '"out"' in text
    assert recording.read(tmp_path / "run.jsonl").rows == found.rows


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:1], "{}"],
        lambda lines: [*lines, "nonsense"],
        lambda lines: lines[:1] + lines[2:],
        lambda lines: [lines[0], lines[1].replace('"lr": 0.003', '"lr": "fast"')],
        lambda lines: [json.dumps(json.loads(lines[0]) | {"recording": 2})],
        lambda lines: ["{}"],
        lambda lines: [],
        lambda lines: [json.dumps({"kind": "told", "at": "x", "event": "paused", "step": 1})],
    ],
)
def test_damage(damage: Callable[[list[str]], list[str]], tmp_path: Path) -> None:
    """A file that is no recording, or a damaged one, is refused in words, whatever is wrong with it."""
    recording.write(made([[1.0], [2.0]]), tmp_path / "a")
    lines = damage((tmp_path / "a").read_text().splitlines())
    (tmp_path / "b").write_text("\n".join(lines))
    with pytest.raises(ZoliteError) as error:
        recording.read(tmp_path / "b")
    assert str(tmp_path / "b") in error.value.message and error.value.hint


def test_never_over_a_file(tmp_path: Path) -> None:
    """A recording replaces nothing, and one that is not there is refused."""
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        recording.write(made([]), tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    with pytest.raises(UsageError, match="no recording at"):
        recording.read(tmp_path / "b")


def test_text_of_all_languages(tmp_path: Path) -> None:
    """What was said comes back whatever its letters."""
    note = Noted("warning", "größer → 大 \u2028 \x1b[2J")
    recording.write(replace(made([]), events=((0, note),)), tmp_path / "a")
    assert recording.read(tmp_path / "a").events == ((0, note),)
