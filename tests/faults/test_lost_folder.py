"""A run whose folder is moved, removed or replaced under it notices within a commit, stops, and says so."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zolite.common.errors import ZoliteError
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions
from zolite.sessions.session import Session, StepRow

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows moves no folder with open files in it")


def moved(path: Path) -> None:
    path.rename(path.with_name("moved"))


def moved_and_copied(path: Path) -> None:
    """In its place is a copy, which is another run's by now."""
    moved(path)
    shutil.copytree(path.with_name("moved"), path)


def unlinked(path: Path) -> None:
    (path / "journal.db").unlink()


def replaced(path: Path) -> None:
    shutil.copy(path / "journal.db", path / "copy")
    (path / "copy").replace(path / "journal.db")


def log_unlinked(path: Path) -> None:
    (path / "journal.db-wal").unlink()


LOSSES: dict[Callable[[Path], None], str] = {
    shutil.rmtree: "the folder of session run, was removed",
    moved: "was moved from .*/run to .*/moved",
    moved_and_copied: "was moved from .*/run to .*/moved",
    unlinked: "journal.db, the journal of session run, was removed",
    replaced: "journal.db, the journal of session run, was replaced by another",
    log_unlinked: "journal.db-wal, the journal of session run, was removed",
}


def row(step: int) -> StepRow:
    return StepRow(step, b"\0" * 4, b"\0" * 8, 1e-3, 1e-4, 0, 1e9, 0.1, 7)


def add_and_commit(session: Session) -> None:
    session.journal.append([row(3)])
    session.journal.commit()


WRITES: dict[str, Callable[[Session], object]] = {
    "commit": add_and_commit,
    "save": lambda session: session.save(2, {"x": torch.zeros(9)}, {}),
    "control": lambda session: session.journal.take(),
    "rewind": lambda session: session.journal.truncate(1),
}


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("write", WRITES)
def test_the_next_write_says_what_has_become_of_the_folder(
    write: str, lose: Callable[[Path], None], home: Path
) -> None:
    """It raises, with how far the run had come; nothing appears at the old place, and another's files stay."""
    raised = pytest.raises(ZoliteError, match=LOSSES[lose])
    with raised as lost, sessions.create("run", recipes.resolve(Recipe()), {}) as session:
        session.journal.append([row(1), row(2)])
        session.journal.commit()
        lose(session.path)
        there = sorted(map(str, home.rglob("*")))
        WRITES[write](session)
    assert "it had 2 steps there" in lost.value.message and lost.value.hint
    new = set(map(str, home.rglob("*"))) - set(there)
    assert not {n for n in new if "/run" in n and not n.endswith(("-wal", "-shm"))}
    if lose is moved_and_copied:
        assert (home / "sessions" / "run" / "journal.db").exists()
    if lose in (moved, moved_and_copied):
        with sessions.open_("moved") as kept:
            assert kept.journal.last_step() == 2


def test_a_run_that_is_where_it_was_notices_nothing(made: Callable[..., Path]) -> None:
    """Readers, forks and commands from outside change no place."""
    made("run")
    with sessions.open_("run", write=True) as session:
        with sessions.open_("run") as reader:
            reader.journal.post("pause")
            list(reader.journal.steps())
        assert session.journal.take() == ["pause"]
        session.journal.append([row(7)])
        session.journal.commit()
        session.save(7, {"x": torch.zeros(9)}, {})
