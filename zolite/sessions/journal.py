"""The journal: one row a step in SQLite, with the events, evaluations and commands of a run (docs/store.md)."""

import functools
import math
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from zolite.common import guarded
from zolite.common.errors import ZoliteError
from zolite.common.events import LARGEST, Evaluated, Event, StepDone, from_json, to_json, typed
from zolite.common.files import reading, saving
from zolite.sessions.place import Place

COMMIT_SECONDS = 0.5
BUSY_MILLISECONDS = 5000  # until a reader gives up: it only ever waits for who has the file to itself
# Who writes waits for another's commit, which a busy disk may take long to sync, and for its turn among many: SQLite
# looks again ten times a second, and a run must not end because somebody asked it for something.
WRITE_MILLISECONDS = 60_000
SKIPPED = 1  # flag of a step: a loss was not finite
PAGE_ROWS = 4096
MOST_VALUE = 4 << 20  # bytes of a text or of numbers in it
LAST = 2**63 - 1  # SQLite's largest number: no step is after it


class StepRow(NamedTuple):
    """What a step leaves behind: with the recipe's seed, enough to apply it again without the model.

    A tuple, since a long run has millions of them.
    """

    step: int  # its number, from 1
    coefs: bytes  # float32 little endian, one a direction
    losses: bytes  # float32 little endian, one a point measured
    eps: float
    lr: float
    flags: int  # SKIPPED
    time: float  # unix seconds
    seconds: float
    memory_bytes: int

    @property
    def loss(self) -> float:
        """The mean of the losses; not a number where there is none."""
        values = floats(self.losses)
        return math.fsum(values) / len(values) if values else math.nan


def floats(data: bytes) -> tuple[float, ...]:
    """float32 numbers; what is left of a last one does not count."""
    count = len(data) // 4
    return _layout(count).unpack(data if len(data) == 4 * count else data[: 4 * count])


@functools.cache
def _layout(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}f")


@dataclass(frozen=True)
class MemoryRow:
    """Memory in use at a moment, for the graph."""

    time: float  # unix seconds
    step: int
    now_bytes: int
    peak_bytes: int


def _version_1(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE step (step INTEGER PRIMARY KEY, coefs BLOB NOT NULL, losses BLOB NOT NULL, eps REAL NOT NULL,"
        " lr REAL NOT NULL, flags INTEGER NOT NULL, time REAL NOT NULL, seconds REAL NOT NULL,"
        " memory_bytes INTEGER NOT NULL)"
    )
    db.execute(
        "CREATE TABLE event (id INTEGER PRIMARY KEY, time REAL NOT NULL, step INTEGER NOT NULL, json TEXT NOT NULL)"
    )
    # value may be NULL, because SQLite stores not-a-number as NULL
    db.execute(
        "CREATE TABLE eval (step INTEGER NOT NULL, split TEXT NOT NULL, metric TEXT NOT NULL, value REAL,"
        " rows INTEGER NOT NULL, seconds REAL NOT NULL, time REAL NOT NULL)"
    )
    db.execute(
        "CREATE TABLE memory (time REAL NOT NULL, step INTEGER NOT NULL, now_bytes INTEGER NOT NULL,"
        " peak_bytes INTEGER NOT NULL)"
    )
    db.execute(
        "CREATE TABLE command (id INTEGER PRIMARY KEY, time REAL NOT NULL, verb TEXT NOT NULL,"
        " done INTEGER NOT NULL DEFAULT 0)"
    )


def _version_2(db: sqlite3.Connection) -> None:
    for name in ("says", "said_right", "majority"):  # shares of rows; NULL where they were not measured
        db.execute(f"ALTER TABLE eval ADD COLUMN {name} REAL")


def _version_3(db: sqlite3.Connection) -> None:
    """Events `sampled` are new."""


# MIGRATIONS[v] brings a journal of version v to v + 1. Never change one that was released: append another. A new kind
# of event is a new version too, with nothing to do, so that an older zolite says so instead of tripping over it.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_version_1, _version_2, _version_3)
READABLE = 1  # the oldest version that a reader takes as it is: what it lacks has defaults


def create(path: Path) -> None:
    """An empty journal of the newest version."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # SQLite gives its other files this mode too
    with saving("the journal", path), closing(_connect(path, write=True)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        _migrate(db, 0)


class Journal:
    """The journal of one session: one writer (the holder of the session's lock), any number of readers.

    What is appended waits in a list, not in an open transaction, so that a slow step never keeps SQLite's
    write lock and a reader can post a command at any time.
    """

    def __init__(self, path: Path, write: bool = False, old: bool = False) -> None:
        """`write` is for the holder of the session's lock; with `old` a journal of an older version stays as it is."""
        self.path = path
        self.write = write
        self._pending: list[tuple[str, tuple[Any, ...]]] = []
        self._committed = -math.inf  # monotonic seconds
        with reading("the journal", path):
            _ensure_files(path)
            self._db = _opened(path, write)
            try:
                _check_version(self._db, path, write and not old)
                self._last = int(self._db.execute("SELECT coalesce(max(step), 0) FROM step").fetchone()[0])
            except BaseException:
                self._db.close()
                raise
        self._place = Place(path) if write else None

    def append(self, rows: Sequence[StepRow]) -> None:
        """Adds steps; each must follow the one before, since a replay with a gap would be wrong in silence."""
        for row in rows:
            if row.step != self._last + 1:
                raise ZoliteError(
                    f"step {row.step} cannot follow step {self._last} in {self.path}",
                    "the run and its journal disagree: start again from the last checkpoint with `zolite resume`",
                )
            self._pending.append(("INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tuple(row)))
            self._last = row.step
        self.commit_due()

    def event(self, event: Event) -> None:
        """Adds an event; a step's is not stored, since its row says the same."""
        if isinstance(event, StepDone):
            return
        now, step = time.time(), getattr(event, "step", self._last)
        # A path may hold half a character pair, which UTF-8 refuses and JSON's escape carries through.
        text = to_json(event).encode("utf-8", "backslashreplace").decode()
        self._pending.append(("INSERT INTO event (time, step, json) VALUES (?, ?, ?)", (now, step, text)))
        if isinstance(event, Evaluated):
            self._pending.append((f"INSERT INTO eval VALUES ({', '.join('?' * 10)})", _eval_row(event, now)))
        self.commit_due()

    def memory(self, row: MemoryRow) -> None:
        """Adds a point to the graph of memory."""
        self._pending.append(("INSERT INTO memory VALUES (?, ?, ?, ?)", astuple(row)))
        self.commit_due()

    def commit_due(self) -> None:
        """Commits if the last commit is half a second ago: quick steps share one, slow ones get one each."""
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Puts everything added so far on the disk. If that fails it stays added, and the next commit tries again.

        Raises ZoliteError where the folder or the file is not in its place any more: what is written goes nowhere then.
        """
        self.ensure_there()
        if not self._pending:
            return
        needed = sum(len(v) if isinstance(v, bytes | str) else 8 for _, values in self._pending for v in values)
        with saving("the journal", self.path, needed), _transaction(self._db):
            for statement, values in self._pending:
                self._db.execute(statement, values)
        self._pending.clear()
        self._committed = time.monotonic()

    def ensure_there(self) -> None:
        """Only a writer asks; what it has not committed is dropped, so that it ends."""
        if self._place and (lost := self._place.lost()):
            self._pending.clear()
            (last,) = self._db.execute("SELECT coalesce(max(step), 0) FROM step").fetchone()
            raise ZoliteError(f"{lost.what}; it had {last} steps there", lost.hint)

    def last_step(self) -> int:
        """The newest step, 0 before the first."""
        return self._last if self.write else int(self._rows("SELECT coalesce(max(step), 0) FROM step")[0][0])

    def steps(self, after: int = 0, upto: int = LAST) -> Iterator[StepRow]:
        """The steps after `after`, in order. Read page by page: an open query would keep the log from shrinking."""
        query = "SELECT * FROM step WHERE step > ? AND step <= ? ORDER BY step LIMIT ?"
        while page := self._rows(query, (after, upto, PAGE_ROWS)):
            with reading("the journal", self.path):
                steps = _step_rows(page)
            yield from steps
            after = page[-1][0]

    def events(self) -> list[Event]:
        """Everything but the steps, oldest first."""
        with reading("the journal", self.path):
            return [from_json(text) for (text,) in self._rows("SELECT json FROM event ORDER BY id")]

    def latest(self, *kinds: type[Event]) -> Event | None:
        """The last event of one of these kinds; a long run's are not all read."""
        self.commit()
        query = "SELECT json FROM event ORDER BY id DESC"
        with reading("the journal", self.path), closing(self._db.execute(query)) as rows:
            return next((event for (text,) in rows if isinstance(event := from_json(text), kinds)), None)

    def news(self, step: int, seen: int) -> tuple[list[StepRow], list[tuple[int, tuple[int, Event]]]]:
        """Steps after `step`, and (id, (step, event)) after event `seen`, from one moment; a page at a time."""
        with reading("the journal", self.path), _transaction(self._db, "BEGIN"):
            query = "SELECT * FROM step WHERE step > ? ORDER BY step LIMIT ?"
            rows = _step_rows(self._db.execute(query, (step, PAGE_ROWS)).fetchall())
            upto = rows[-1].step if len(rows) == PAGE_ROWS else LAST
            query = "SELECT id, step, json FROM event WHERE id > ? ORDER BY id"
            events = takewhile(lambda row: row[1] <= upto, self._db.execute(query, (seen,)).fetchall())
            return rows, [(number, (at, from_json(text))) for number, at, text in events]

    def evaluations(self) -> list[Evaluated]:
        """Oldest first."""
        rows = self._rows("SELECT * FROM eval ORDER BY rowid")
        with reading("the journal", self.path):
            return [_evaluated(row) for row in rows]

    def memories(self, upto: int = LAST) -> list[MemoryRow]:
        """The graph of memory up to a step, oldest first."""
        return [row for _, row in self.memory_news(0, upto)]

    def memory_news(self, seen: int, upto: int) -> list[tuple[int, MemoryRow]]:
        """(id, point) of those after point `seen`, until one is of a later step than `upto`."""
        self.commit()
        query = "SELECT rowid, * FROM memory WHERE rowid > ? ORDER BY rowid"
        with reading("the journal", self.path), closing(self._db.execute(query, (seen,))) as rows:
            return [(row[0], typed(MemoryRow(*row[1:]))) for row in takewhile(lambda row: row[2] <= upto, rows)]

    def last_memory(self) -> MemoryRow | None:
        rows = self._rows("SELECT * FROM memory ORDER BY rowid DESC LIMIT 1")
        with reading("the journal", self.path):
            return typed(MemoryRow(*rows[0])) if rows else None

    def check(self) -> None:
        """Raises where SQLite finds the file damaged or a step is missing."""
        found = "; ".join(str(text) for (text,) in self._rows("PRAGMA integrity_check(3)"))
        count, last = self._rows("SELECT count(*), coalesce(max(step), 0) FROM step")[0]
        if found != "ok" or count != last:
            what = f"{last - count} of its {last} steps are missing" if found == "ok" else found
            raise ZoliteError(f"the journal at {self.path} is damaged: {what}", "restore the session from a copy")

    def truncate(self, after: int) -> None:
        """Takes back every step after `after`, and the events among them."""
        self.commit()
        with saving("the journal", self.path), _transaction(self._db):
            for table in ("step", "event", "eval", "memory"):
                self._db.execute(f"DELETE FROM {table} WHERE step > ?", (after,))
        self._last = min(self._last, after)

    def post(self, verb: str) -> None:
        """Leaves a command for the writer; readers may do this, on a connection of its own."""
        with saving("a command", self.path), closing(_connect(self.path, write=True)) as db:
            db.execute("INSERT INTO command (time, verb) VALUES (?, ?)", (time.time(), verb))

    def take(self) -> list[str]:
        """The commands left since the last call. Cheap enough for every step: without one it only looks."""
        self.ensure_there()
        with reading("the journal", self.path):
            rows = self._db.execute("SELECT id, verb FROM command WHERE done = 0 ORDER BY id").fetchall()
        if rows:
            with saving("a command", self.path), _transaction(self._db):
                self._db.execute("UPDATE command SET done = 1 WHERE id <= ?", (rows[-1][0],))
        return [verb for _, verb in rows]

    def close(self) -> None:
        """Commits and lets go of the file."""
        try:
            self.commit()
        finally:
            self._db.close()
            if self._place:
                self._place.close()
                self._place = None

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        self.commit()
        with reading("the journal", self.path):
            return self._db.execute(query, values).fetchall()


PLAIN = (int, bytes, bytes, float, float, int, float, float, int)


def _step_rows(page: list[tuple[Any, ...]]) -> list[StepRow]:
    """Of a file that may come from anywhere: looked at one by one where a column has anything else than it should."""
    rows, columns = list(map(StepRow._make, page)), list(zip(*page, strict=True))
    plain = all({*map(type, column)} == {kind} for column, kind in zip(columns, PLAIN, strict=False))
    small = plain and all(min(column) > -LARGEST for column, kind in zip(columns, PLAIN, strict=False) if kind is int)
    return rows if small else list(map(typed, rows))


def _eval_row(event: Evaluated, now: float) -> tuple[Any, ...]:
    """The time stands where it stood in version 1, and what came later behind it."""
    values = astuple(event)
    return (*values[:6], now, *values[6:])


def _evaluated(row: tuple[Any, ...]) -> Evaluated:
    known: list[Any] = [math.nan if value is None else value for value in (*row[:6], *row[7:])]
    return typed(Evaluated(*known))


def _opened(path: Path, write: bool) -> sqlite3.Connection:
    """On a full disk SQLite cannot make the memory that its connections share. Who holds the session's lock does
    without, and so does a reader where all that was written is in the file itself.
    """
    try:
        return _connect(path, write)
    except sqlite3.OperationalError as error:
        log = path.with_name(f"{path.name}-wal")
        if "locked" in str(error) or not (write or not log.exists() or log.stat().st_size == 0):
            raise
        return _connect(path, write, alone=True)


def _connect(path: Path, write: bool, alone: bool = False) -> sqlite3.Connection:
    # Autocommit, so that transactions begin and end where this file says. Readers hold no state between calls, so
    # an app may call one from any thread.
    uri = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
    # Even a reader makes SQLite's shared memory file. Where it cannot (an archive, a disk mounted read-only) and nobody
    # wrote since the last clean close, SQLite may be told that the file does not change.
    closed = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    if not write and (alone or closed):
        uri += "&immutable=1"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=write)
    try:
        _prepare(db, alone and write)
        if write:
            db.execute(f"PRAGMA busy_timeout = {WRITE_MILLISECONDS}")
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, alone: bool) -> None:
    db.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    if alone:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first look at the file
    # FULL syncs the log at every commit, so a checkpoint, which is synced too, never gets ahead of the journal in a
    # power cut. With a few commits a second at most that costs nothing.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA trusted_schema = OFF")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE)
    db.execute("SELECT count(*) FROM sqlite_schema")


def _ensure_files(path: Path) -> None:
    """SQLite would follow a link, wait for a pipe, and do what a rollback log says: here there is none."""
    guarded.ensure_file(path)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            guarded.ensure_file(path.with_name(path.name + suffix))
    if os.path.lexists(log := path.with_name(f"{path.name}-journal")):
        raise ValueError(f"{log.name} stands beside it, which no journal has")


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # on a full disk SQLite has rolled back by itself
            db.execute("ROLLBACK")
        raise


def _check_version(db: sqlite3.Connection, path: Path, write: bool) -> None:
    version, known = int(db.execute("PRAGMA user_version").fetchone()[0]), len(MIGRATIONS)
    if version > known:
        raise ZoliteError(
            f"the journal at {path} has version {version}, newer than {known}, the newest this zolite reads",
            "upgrade zolite to the version that wrote it",
        )
    if version == 0:  # sessions appear with a whole journal, so an empty one has lost its rows
        raise ZoliteError(f"the journal at {path} is empty", "restore it from a backup; its steps are lost otherwise")
    if foreign := sorted(_tables(db) ^ _wanted(version)):
        raise ValueError(f"{foreign[0][0]} {foreign[0][1]!r} is not what a journal of version {version} has")
    if version < known and write:
        _migrate(db, version)
    elif version < READABLE:
        raise ZoliteError(
            f"the journal at {path} has version {version}, older than {known}", "`zolite resume` brings it up to date"
        )


def _tables(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """(kind, name, SQL) of what is in a database, but for SQLite's statistics.

    A view or a trigger would run, and a column can be made to compute: only a journal's own tables are read.
    """
    found = db.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'")
    return {(str(kind), str(name), str(sql)) for kind, name, sql in found}


@functools.cache
def _wanted(version: int) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        for migration in MIGRATIONS[:version]:
            migration(db)
        return _tables(db)


def _migrate(db: sqlite3.Connection, version: int) -> None:
    with _transaction(db):
        for migration in MIGRATIONS[version:]:
            migration(db)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
