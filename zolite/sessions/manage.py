"""What is done to whole sessions: rename, fork, rewind, prune, remove. Without torch."""

import contextlib
import dataclasses
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from zolite.common import files
from zolite.common.errors import DiskFull, UsageError
from zolite.common.events import Finished
from zolite.sessions import checkpoint, leftovers, lock, session
from zolite.sessions.journal import Journal
from zolite.sessions.session import Session, making_room, open_
from zolite.sessions.steps import kept, reach


def rename(name: str, new: str) -> None:
    """Another name for a session that nobody writes, sound or not."""
    session.ensure_free(new)
    _moved(session.folder_of(name), new)


def remove(name: str) -> None:
    """Takes a session that nobody writes off the disk, sound or not. A link is removed, and not where it leads."""
    path = session.folder_of(name)
    gone = _moved(path, f".gone-{os.getpid()}-{time.time_ns()}")  # at once: a kill leaves no half of it under its name
    with files.saving(f"that session {name} is gone", path.parent):
        files.remove_tree(gone)
    leftovers.sweep(path.parent)


def _moved(path: Path, name: str) -> Path:
    """A session's folder, which nobody writes, under another name."""
    with contextlib.ExitStack() as held:
        held.enter_context(lock.held(path))
        if os.name == "nt":  # which renames no folder with an open file in it
            held.close()
        with files.saving(f"session {path.name}", path):
            there = path.rename(path.with_name(name))
            files.fsync_folder(path.parent)
    return there


def rewind(name: str, step: int) -> None:
    """Takes back everything after `step`, of a session that nobody writes."""
    with making_room(name) as found:
        reach(found, step)
        found.rewind(step)
        if _goes_on(found, step):
            with contextlib.suppress(DiskFull):  # rewinding is what makes room
                _ready(found.journal, step)


def _goes_on(found: Session, step: int) -> bool:
    return found.ending() != "done" or step < found.recipe.train.steps


def _ready(journal: Journal, step: int) -> None:
    """Says that a session goes on from there: what its journal has of its last run is over."""
    journal.event(Finished(step, "ready", 0.0, 0, 0))
    journal.commit()


def prune(name: str) -> int:
    """Removes the checkpoints that nothing needs, since the journal replays what was between; bytes freed.

    So it does with broken ones that were set aside. One that is ahead of the journal stays: nothing replays it.
    """
    with making_room(name) as found:
        folder, before = found.path / "checkpoints", files.size(found.path)
        newest, _ = found.newest()
        needed = kept(found.journal.evaluations()) | ({newest.step} if newest else set())
        checkpoint.remove(folder, [step for step in found.steps() if step not in needed])
        for each in (*checkpoint.out_of_use(folder), *leftovers.left_in(found.path)):
            leftovers.discard(each)
        return before - files.size(found.path)


def fork(name: str, new: str | None, step: int) -> str:
    """A new session that has the first `step` steps of another, which may be running; its name."""
    session.ensure_free(new)
    with open_(name) as source:
        reach(source, step)
        made = session.made(new, lambda folder: _copy(source, folder, step)).name
    try:
        with open_(made) as copy:
            reach(copy, step)
    except BaseException:
        remove(made)
        raise
    return made


def _copy(source: Session, folder: Path, step: int) -> None:
    """What a fork needs of a session, at one moment."""
    for found in filter(None, (source.at(at) for at in source.steps() if at <= step)):
        with contextlib.suppress(FileNotFoundError):  # its run may have removed it
            checkpoint.copy(found, folder / "checkpoints")
    _copied_journal(source.journal, folder / "journal.db", step, _goes_on(source, step))
    origin = {"forked_from": {"session": source.name, "step": step}}
    chapters = [c for c in source.chapters if c.since <= step]
    chapters[-1] = dataclasses.replace(chapters[-1], facts=chapters[-1].facts | origin)
    session.write_about(folder, tuple(chapters))


def _copied_journal(journal: Journal, path: Path, step: int, goes_on: bool) -> None:
    """A journal's content of one moment, up to a step, in a file of its own."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    source = f"{journal.path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(source, uri=True)) as old, closing(sqlite3.connect(path)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode = WAL")
    with closing(Journal(path, write=True)) as copy:
        copy.truncate(step)
        if goes_on:
            _ready(copy, step)


def send(name: str, command: str) -> None:
    """Leaves a command for the run that writes a session."""
    with open_(name) as found:
        if not found.running():
            raise UsageError(f"session {name} is not running", f"`zolite resume {name}` goes on with it")
        found.journal.post(command)
