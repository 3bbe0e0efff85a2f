"""A checkpoint ahead of its journal: an older one was put back, or a rewind was killed halfway. Never used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zolite.common.events import Noted
from zolite.config.recipe import Recipe
from zolite.sessions import manage
from zolite.sessions import session as sessions
from zolite.sessions.steps import base, chosen, end
from zolite.training.replay import factors_at
from zolite.training.resume import begin, resume
from zolite.training.verify import CPU, verify


def put_back(folder: Path, step: int) -> None:
    """The journal as it was after that step."""
    with sessions.open_(folder.name, write=True) as session:
        session.journal.truncate(step)


@pytest.mark.parametrize("step", [0, 3, 5])
def test_no_reader_takes_it_for_the_newest(step: int, made: Callable[..., Path]) -> None:
    """The newest, the base of a replay, the steps that can be chosen: all end where the journal does."""
    folder = made("run")
    put_back(folder, step)
    with sessions.open_("run") as session:
        newest, problems = session.newest()
        assert newest is not None and newest.step <= step and not problems
        assert base(session) == newest and end(session) == chosen(session, "last") == step
        assert max(session.steps()) <= step and session.at(6) is None
        assert session.ahead() == [s for s in (6, 4, 2) if s > step]
    manage.prune("run")
    assert (folder / "checkpoints" / "000006").exists()  # it may be all that is left of those steps
    manage.fork("run", "other", step)
    with sessions.open_("other") as fork:
        assert fork.ahead() == [] and max(fork.steps()) <= step


def test_a_writer_sets_it_aside(made: Callable[..., Path]) -> None:
    """Under its own name it would be taken for the checkpoint of other numbers, when the run comes to that step."""
    folder = made("run")
    put_back(folder, 3)
    with sessions.open_("run", write=True) as session:
        assert session.set_aside == [6, 4]
        assert session.steps() == [2, 0] and session.ahead() == []
    names = {p.name.partition("-")[0] for p in (folder / "checkpoints").iterdir()}
    assert names == {"000000", "000002", "000004.ahead", "000006.ahead"}
    with sessions.open_("run", write=True) as session:
        assert session.set_aside == []


def test_a_resume_from_an_older_journal_ends_as_the_run_did(recipe: Callable[..., Recipe], home: Path) -> None:
    """It says what is ahead, goes on from the journal's end, and verify holds of all that it saves."""
    settings = recipe(method__name="lozo-m", train__steps=3, train__save_every=1)
    list(begin(settings, "run", lambda: False))
    folder = home / "sessions" / "run"
    shutil.copy(folder / "journal.db", home / "older")
    list(resume("run", {"train.steps": 6}, True, lambda: False))
    with sessions.open_("run") as session:
        wanted = factors_at(session)[1]
    shutil.copy(home / "older", folder / "journal.db")
    with sessions.open_("run") as session:
        verdicts = {v.step: v.state for v in verify(session, CPU)}
        assert verdicts[6] == verdicts[4] == "ahead" and not all(v == "same" for v in verdicts.values())
    events = list(resume("run", {"train.steps": 6}, True, lambda: False))
    said = [e.message for e in events if isinstance(e, Noted) and "journal ends at step 3" in e.message]
    assert len(said) == 1 and "6, 5, 4" in said[0]
    with sessions.open_("run") as session:
        assert all(v.sound for v in verify(session, CPU))
        again = factors_at(session)[1]
    assert again.keys() == wanted.keys() and all(torch.equal(again[n], wanted[n]) for n in wanted)
