"""What killed processes left among the sessions, removed by the next command that sees them dead."""

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from zolite.common import files, guarded
from zolite.common.errors import ZoliteError
from zolite.sessions import checkpoint, lock, scores

ABANDONED_SECONDS = 3600.0  # a session is built in milliseconds, and a copy of one in minutes
# What a kill leaves of files.replace.
REPLACED = re.compile(rf"\.({'|'.join(map(re.escape, ('session.toml', lock.OWNER, scores.FILE)))})\.\d+")


def sweep(root: Path) -> None:
    """Of the folder of all sessions: sessions half made or half removed, logs of runs that never began."""
    with contextlib.suppress(OSError):
        for name in os.listdir(root):
            kind = name.partition("-")[0] if name.startswith(".") else ""
            if kind in SWEEPS:
                SWEEPS[kind](root / name)


def _sweep_new(half: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - half.lstat().st_mtime > ABANDONED_SECONDS:
            discard(half)


def _sweep_log(log: Path) -> None:
    if not lock.is_open(log):
        discard(log)


def _sweep_dead(path: Path) -> None:
    """A session that was killed while it was written."""
    with contextlib.suppress(OSError, ValueError, ZoliteError):
        guarded.ensure_folder(path)
        owner = path / lock.OWNER
        if (os.path.lexists(owner) or left_in(path)) and not lock.is_held(path):
            with lock.held(path):
                sweep_session(path)
                discard(owner)


def left_in(path: Path) -> list[Path]:
    """Of one session: files that were being replaced, checkpoints half made or half removed."""
    found: list[Path] = []
    with contextlib.suppress(OSError, ValueError):
        found += [path / name for name in os.listdir(path) if REPLACED.fullmatch(name)]
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


SWEEPS: dict[str, Callable[[Path], None]] = {
    ".gone": discard,
    ".new": _sweep_new,
    ".log": _sweep_log,
    "": _sweep_dead,
}
