"""The lock of a session: who holds it writes, and one process holds it at a time."""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from zolite.common import files, guarded
from zolite.common.errors import ZoliteError
from zolite.common.text import visible

if sys.platform != "win32":
    import fcntl

LOCK, OWNER = "lock", "owner.json"
MOST_OWNER = 4 << 10  # bytes


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """A session's lock for what makes room: it writes nothing, and what cannot be a lock keeps nobody out."""
    lock = None
    with contextlib.suppress(OSError, ValueError):
        guarded.ensure_folder(path)
        lock = _taken(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def acquire(path: Path) -> filelock.BaseFileLock:
    """The lock on `lock`, a lock of the operating system: it is released when its process dies, however it dies,
    so a stale one cannot remain. The file itself stays and means nothing.
    """
    with files.saving("the lock", path):
        try:
            lock = _taken(path)
        except ValueError as error:
            raise ZoliteError(
                f"session {path.name} is damaged: {error}", f"remove {path / LOCK}, which holds nothing"
            ) from error
        with contextlib.suppress(OSError):  # for people only: a full disk is met by what needs room
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}
            files.replace(path / OWNER, json.dumps(owner).encode())
    return lock


def _taken(path: Path) -> filelock.BaseFileLock:
    """Raises ValueError where the file is none, and ZoliteError where another process holds it."""
    with contextlib.suppress(FileNotFoundError):
        guarded.ensure_file(path / LOCK)
    lock = filelock.FileLock(path / LOCK, mode=0o600, thread_local=False)
    try:
        # Not a wait for the owner: `is_held`, below, holds the lock for an instant.
        lock.acquire(timeout=0.5, poll_interval=0.01)
    except filelock.Timeout:
        raise ZoliteError(
            f"session {path.name} is being written by {_owner(path)}",
            f"`zolite watch {path.name}` looks on; stop that process to take over",
        ) from None
    return lock


def release(path: Path, lock: filelock.BaseFileLock | None) -> None:
    if lock is not None:
        try:
            if _owned(path).get("pid") == os.getpid():  # another session may stand there by now
                (path / OWNER).unlink(missing_ok=True)
        finally:
            lock.release()


def _owner(path: Path) -> str:
    owner = _owned(path)
    return visible(f"process {owner.get('pid')} on {owner.get('host')}") if owner else "another process"


def _owned(path: Path) -> dict[str, Any]:
    """Who holds it; nobody between taking the lock and saying so, and where the disk was full."""
    try:
        owner = guarded.json_of(path / OWNER, MOST_OWNER)
    except (OSError, ValueError):
        owner = None
    return owner if isinstance(owner, dict) else {}


def is_held(path: Path) -> bool:
    """Whether a process writes. Asked with a shared lock, so that two readers who ask at the same moment do not take
    each other for a writer.
    """
    lock = path / LOCK
    try:
        with guarded.opened(lock) as file:
            if sys.platform == "win32":
                return _busy(lock)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, ValueError):  # what is no file is no lock
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without flock, where filelock has its own way; a folder of someone else
        return _busy(lock)
    return False


def is_open(path: Path) -> bool:
    """Is a file still held by `hold`, in this process or in one that it was handed to?"""
    if sys.platform == "win32":  # which removes no file that is open
        return False
    try:
        with guarded.opened(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError):
        return False
    return False


def hold(handle: int) -> None:
    """Marks an open file as in use for as long as it, or a copy of the handle in another process, is open."""
    if sys.platform != "win32":
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _busy(path: Path) -> bool:
    """The same where no lock can be shared: tried for a moment, since another reader may be trying too."""
    lock = filelock.FileLock(path, mode=0o600, thread_local=False)
    try:
        lock.acquire(timeout=0.05, poll_interval=0.01)
    except filelock.Timeout:
        return True
    except OSError:  # someone else's folder, or a disk mounted read-only: nobody writes as far as one can see
        return False
    lock.release()
    return False
