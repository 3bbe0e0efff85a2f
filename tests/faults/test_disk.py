"""A disk that refuses: each call that changes it, once, while a checkpoint is written; and for a while, under a run."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite.common.errors import DiskFull, ZoliteError
from zolite.common.events import Event, Finished, Noted, StepDone
from zolite.config.recipe import Recipe
from zolite.sessions import session
from zolite.sessions.journal import Journal
from zolite.sessions.session import StepRow
from zolite.training import journal_writer
from zolite.training.replay import factors_at
from zolite.training.resume import begin

CALLS = ("open", "fsync", "rename", "replace", "mkdir")


class Refusing:
    """Makes the call number `at` that changes the disk fail; writes to files count too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: int) -> None:
        self.at, self.error, self.made = at, error, 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        real = os.fdopen

        def fdopen(*args: Any, **kwargs: Any) -> Any:
            file = real(*args, **kwargs)
            return File(file, self) if "w" in args[1] else file

        monkeypatch.setattr(os, "fdopen", fdopen)

    def count(self) -> None:
        self.made += 1
        if self.made == self.at:
            raise OSError(self.error, os.strerror(self.error))

    def counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count()
            return real(*args, **kwargs)

        return call


class File:
    """A file whose writes are counted."""

    def __init__(self, file: Any, refusing: Refusing) -> None:
        self.file, self.refusing = file, refusing

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.refusing.count()
        return int(self.file.write(data))

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return int(self.file.fileno())


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"theta": torch.full((1000,), value)}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_every_call_that_fails_leaves_the_checkpoint_before(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Whichever call fails, the error says so, nothing half-written is seen, the last one loads, and it works later."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append([StepRow(i, b"", b"", 1e-3, 1e-4, 0, 1e9, 0.1, 7) for i in (1, 2)])
        made.journal.commit()
        before, saved, at, refused = made.save(1, tensors(1.0), {}), None, 0, []
        while saved is None:
            at += 1
            with monkeypatch.context() as patch:
                Refusing(patch, at, error)
                try:
                    saved = made.save(2, tensors(2.0), {"x": at})
                except ZoliteError as met:
                    refused.append(met)
            found, problems = made.newest()
            assert problems == [] and found is not None
            if saved is None and found.step == 2:  # all but the folder's own entry is on the disk
                shutil.rmtree(found.path)
                found, _ = made.newest()
            assert found == (saved or before)
            assert torch.equal(found.tensors()["theta"], tensors(float(found.step))["theta"])
            assert len([n for n in os.listdir(made.path / "checkpoints") if not n.startswith(".")]) == found.step
        assert len(refused) == at - 1 >= 15
        assert all(isinstance(met, DiskFull) == (error != errno.EIO) and "step 2" in met.message for met in refused)


def never() -> bool:
    return False


def full_for(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, first: int, calls: int) -> None:
    """Makes a method find the disk full, `calls` times from call number `first` on."""
    real, made = getattr(kind, name), 0

    def method(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        if first <= made < first + calls:
            raise DiskFull("disk full while saving", "free some space")
        return real(*args, **kwargs)

    monkeypatch.setattr(kind, name, method)


@pytest.mark.parametrize(("kind", "name"), [(Journal, "commit"), (session.Session, "save"), (Journal, "take")])
@pytest.mark.parametrize("first", [2, 4, 7])
def test_a_run_waits_for_room_and_goes_on(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, kind: type, name: str, first: int
) -> None:
    """Whatever meets a full disk, the run says so once, tries again, and ends with the numbers of another."""
    chosen = recipe(train__steps=6, train__save_every=1)
    monkeypatch.setitem(journal_writer.FLUSH_SECONDS, "cpu", 0.0)
    monkeypatch.setattr(journal_writer, "ROOM_SECONDS", 0.0)
    monkeypatch.setattr("zolite.sessions.control.POLL_SECONDS", 0.0)
    list(begin(chosen, "straight", never))
    with monkeypatch.context() as patch:
        full_for(patch, kind, name, first, 3)
        events: list[Event] = list(begin(chosen, "waited", never))
    said = [e.message for e in events if isinstance(e, Noted) and "room on the disk" in e.message]
    assert [m.partition(":")[0] for m in said] == [
        "waiting for room on the disk",
        "there is room on the disk again; going on",
    ]
    assert [e.step for e in events if isinstance(e, StepDone)] == [1, 2, 3, 4, 5, 6]
    assert isinstance(events[-1], Finished) and events[-1].reason == "done"
    with session.open_("straight") as straight, session.open_("waited") as waited:
        assert [(r.step, r.losses) for r in straight.journal.steps()] == [
            (r.step, r.losses) for r in waited.journal.steps()
        ]
        a, b = factors_at(straight)[1], factors_at(waited)[1]
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_that_waits_can_be_stopped(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while there is no room ends the run with the disk's error, and what was committed is there."""
    monkeypatch.setitem(journal_writer.FLUSH_SECONDS, "cpu", 0.0)
    asked = []

    def stop() -> bool:
        return bool(asked)

    events: list[Event] = []
    with monkeypatch.context() as patch, pytest.raises(DiskFull):
        full_for(patch, session.Session, "save", 3, 10**9)
        for event in begin(recipe(train__steps=6, train__save_every=2), "stopped", stop):
            events.append(event)
            asked += [1] if isinstance(event, Noted) and "room on the disk" in event.message else []
    assert isinstance(events[-1], Noted)
    with session.open_("stopped") as found:
        assert found.journal.last_step() >= 2
        newest, problems = found.newest()
        assert newest is not None and not problems


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only place for sessions is refused in words before anything is there."""
    monkeypatch.setenv("ZOLITE_HOME", "/proc/zolite")
    with pytest.raises(ZoliteError, match="cannot save the session") as refused:
        session.create("first", Recipe(), {})
    assert "ZOLITE_HOME" in refused.value.hint or "doctor" in refused.value.hint
