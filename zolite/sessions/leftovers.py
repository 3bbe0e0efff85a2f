"""What killed processes left among the sessions, removed by the next command that sees them dead."""

import contextlib
import time
from pathlib import Path

from zolite.common import files, guarded
from zolite.common.errors import ZoliteError
from zolite.sessions import checkpoint, lock, scores

ABANDONED_SECONDS = 3600.0  # a session is built in milliseconds, and a copy of one in minutes


def sweep(root: Path) -> None:
    """Of the folder of all sessions: sessions half made or half removed, logs of runs that never began."""
    for gone in root.glob(".gone-*"):
        discard(gone)
    for half in root.glob(".new-*"):
        with contextlib.suppress(OSError):
            if time.time() - half.lstat().st_mtime > ABANDONED_SECONDS:
                discard(half)
    for log in root.glob(".log-*"):
        if not lock.is_open(log):
            discard(log)
    for path in root.glob("[!.]*"):
        with contextlib.suppress(OSError, ValueError, ZoliteError):
            guarded.ensure_folder(path)
            owner = path / lock.OWNER
            if (owner.exists() or left_in(path)) and not lock.is_held(path):
                with lock.held(path):
                    sweep_session(path)
                    discard(owner)


def left_in(path: Path) -> list[Path]:
    """Of one session: files that were being replaced, checkpoints half made or half removed."""
    found = [each for name in ("session.toml", lock.OWNER, scores.FILE) for each in files.left_beside(path / name)]
    with contextlib.suppress(OSError, ValueError):
        guarded.ensure_folder(path / "checkpoints")
        found += checkpoint.left(path / "checkpoints")
    return found


def sweep_session(path: Path) -> None:
    """Of one session, for the holder of its lock."""
    for each in left_in(path):
        discard(each)


def discard(path: Path) -> None:
    """What cannot be removed stays, for the next one to try."""
    with contextlib.suppress(OSError):
        files.remove_tree(path)
