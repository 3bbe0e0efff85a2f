"""Whether a run still writes where it thinks: the folder of a session may be moved or removed under it."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lost:
    """What has become of a session's folder, and what to do."""

    what: str
    hint: str


class Place:
    """A session's folder and journal as they were when it was opened for writing."""

    def __init__(self, journal: Path) -> None:
        self.journal, self.folder = journal, journal.parent
        self._files = (self.folder, journal, journal.with_name(f"{journal.name}-wal"))
        self._known = [_identity(path) for path in self._files]
        self._handle = None if os.name == "nt" else os.open(self.folder, os.O_RDONLY)

    def lost(self) -> Lost | None:
        """None while everything is where it was."""
        for path, known in zip(self._files, self._known, strict=True):
            if known and _identity(path) != known:
                return self._lost(path)
        return None

    def _lost(self, path: Path) -> Lost:
        name, now = self.folder.name, self._now()
        if now and now != self.folder:
            return Lost(
                f"the folder of session {name} was moved from {self.folder} to {now} while it ran",
                f"`zolite resume {now.name}` goes on if that is among the sessions; else move it back first",
            )
        what = "removed" if not os.path.lexists(path) else "replaced by another"
        if path == self.folder:
            return Lost(
                f"{self.folder}, the folder of session {name}, was {what} while it ran",
                "nothing that it saved is left: restore the folder from a copy, or start a new session",
            )
        return Lost(
            f"{path}, the journal of session {name}, was {what} while it ran",
            f"restore the file from a copy; the checkpoints in {self.folder / 'checkpoints'} are still there",
        )

    def _now(self) -> Path | None:
        """Where the folder is now, as far as the system says so; None where it is gone."""
        with contextlib.suppress(OSError):
            now = Path(os.readlink(f"/proc/self/fd/{self._handle}"))
            return now if _identity(now) == self._known[0] else None
        return None

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
