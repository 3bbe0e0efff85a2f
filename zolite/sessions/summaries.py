"""The list of sessions, remembered: a session is looked at again only where one of its files has changed.

What was seen stands in the cache, a file for each folder of sessions, and may be removed at any time.
"""

import contextlib
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zolite.common import files, guarded
from zolite.common.events import Evaluated
from zolite.common.paths import paths
from zolite.sessions import lock
from zolite.sessions.session import Summary, folders, summary_of

LOOKED_AT = ("session.toml", "journal.db", "journal.db-wal", "checkpoints", "trainer.log")
MOST_BYTES = 64 << 20  # of the file: some 100,000 sessions

Mark = list[list[int]]


@dataclass(frozen=True)
class Seen:
    mark: Mark
    summary: Summary


class Summaries:
    """What is known of the sessions there are. For one thread at a time."""

    def __init__(self) -> None:
        self._root = paths()["sessions"]
        name = hashlib.sha256(str(self._root.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._file = paths()["cache"] / f"sessions-{name}.json"
        self._seen = _read(self._file)

    def list_(self) -> list[Summary]:
        """Every session as it is now, newest first."""
        before, found = self._seen, folders()
        self._seen = {}
        summaries = [self._look(path, before.get(path.name)) for path in found]
        if self._seen.keys() != before.keys() or any(self._seen[name] is not before[name] for name in before):
            self._write()
        return sorted(summaries, key=lambda each: (each.created, each.name), reverse=True)

    def _look(self, path: Path, before: Seen | None) -> Summary:
        """A session that is written changes all the time, and is looked at each time."""
        mark = mark_of(path)  # before it is looked at: what is written meanwhile makes another
        if lock.is_held(path):
            return summary_of(path)
        if before is None or before.mark != mark:
            before = Seen(mark, summary_of(path))
        if before.summary.status != "running":  # it was begun meanwhile
            self._seen[path.name] = before
        return before.summary

    def _write(self) -> None:
        """Where that cannot be, it is looked at again."""
        seen = {name: {"mark": each.mark, "summary": each.summary.plain()} for name, each in self._seen.items()}
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            files.replace(self._file, json.dumps({"zolite": version("zolite"), "sessions": seen}).encode())


def mark_of(folder: Path) -> Mark:
    """What changes with a session's files; nobody who sends a folder can know it in advance."""
    return [_stat(f"{folder}/{name}") for name in LOOKED_AT]


def _stat(path: str) -> list[int]:
    try:
        found = os.lstat(path)
    except OSError:
        return []
    if stat.S_ISREG(found.st_mode) and not found.st_size:  # SQLite's log, which readers leave so
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _read(path: Path) -> dict[str, Seen]:
    """Nothing where another version wrote it, or where it is damaged."""
    try:
        found = json.loads(guarded.read(path, MOST_BYTES))
        rows = found["sessions"] if found["zolite"] == version("zolite") else {}
        return {name: Seen(row["mark"], _summary(row["summary"])) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _summary(row: dict[str, Any]) -> Summary:
    for key in ("best", "last"):
        row[key] = row[key] and Evaluated(**row[key])
    return Summary(**row)
