"""What a run does when it takes no steps, in a file of its session, for who looks at it from elsewhere.

    put(folder, event)       a Working event, in the place of the one before
    clear(folder)            it takes steps again
    read(folder)             None where there is none, or it cannot be read

The file says nothing that is worth keeping: it is not in the journal, and no error of the disk is one of the run.
"""

import contextlib
from pathlib import Path

from zolite.common import guarded
from zolite.common.events import Working, from_json, to_json

NAME = "working.json"
MOST = 4096  # bytes


def put(folder: Path, event: Working) -> None:
    with contextlib.suppress(OSError):
        file = folder / NAME  # a reader that sees half of it sees nothing
        file.touch(0o600)
        file.write_text(to_json(event), encoding="utf-8", errors="backslashreplace")


def clear(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / NAME).unlink()


def read(folder: Path) -> Working | None:
    try:
        event = from_json(guarded.tail(folder / NAME, MOST))
    except (OSError, ValueError):
        return None
    return event if isinstance(event, Working) else None
