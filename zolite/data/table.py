"""Rows kept in a file and not in memory: a sequence that makes each row when it is asked for.

    table = kept(rows)            any iterable of rows, read once
    table[3], table[:5], len(table), iteration, comparison: as of a tuple
    table.take([4, 0, 7])         these rows, in that order, of the same file
    table.contents()              what fingerprints are made of, without making rows

A table of a few MiB stays in memory. The file of a larger one has no name in its folder, so nothing is left of it when
the process ends, however it ends.
"""

from __future__ import annotations

import array
import itertools
import marshal
import operator
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

from zolite.common.files import caching
from zolite.common.paths import paths
from zolite.common.progress import counted
from zolite.data.kinds.kind import Row

IN_MEMORY = 16 * 2**20  # bytes of rows
PART = 2**20  # bytes that are read at a time, about

_FIELDS = tuple(each.name for each in fields(Row))
_values = operator.attrgetter(*_FIELDS)


class _Blobs:
    """Bytes appended one after the other, and read by their number."""

    def __init__(self) -> None:
        # Of numbers and texts of this process alone, never of a file that was found somewhere.
        self._file = tempfile.SpooledTemporaryFile(max_size=0, dir=str(paths()["cache"]))  # noqa: SIM115 - it lives on
        self._ends = array.array("q", [0])
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._lock = threading.Lock()
        self.in_memory = True
        self.unread = False  # has any row columns that are not read?

    def append(self, blob: bytes) -> None:
        self._ends.append(self._ends[-1] + len(blob))
        self._buffer.append(blob)
        self._buffered += len(blob)
        if self._buffered > PART:
            self.write()

    @property
    def size(self) -> int:
        """Bytes of all."""
        return self._ends[-1]

    def read(self, order: Sequence[int]) -> Iterator[bytes]:
        """In that order; neighbours are read together."""
        for first, last in _stretches(order, self._ends):
            start, ends = self._ends[first], self._ends[first : last + 2]
            data = self._at(start, ends[-1] - start)
            for a, b in itertools.pairwise(ends):
                yield data[a - start : b - start]

    def _at(self, start: int, count: int) -> bytes:
        with self._lock:
            self._flush()
            self._file.seek(start)
            found: bytes = self._file.read(count)
        return found

    def write(self) -> None:
        """What waits: it may be what makes the file too large for memory."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        with caching("rows"):
            if self.in_memory and self.size > IN_MEMORY:
                paths()["cache"].mkdir(parents=True, exist_ok=True)
                self._file.rollover()
                self.in_memory = False
            self._file.seek(self.size - self._buffered)
            self._file.write(b"".join(self._buffer))
        self._buffer, self._buffered = [], 0


def _stretches(order: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of numbers that follow one another, of about PART bytes at most."""
    first = last = -1
    for i in order:
        if i == last + 1 and first >= 0 and ends[i] - ends[first] < PART:
            last = i
            continue
        if first >= 0:
            yield first, last
        first = last = i
    if first >= 0:
        yield first, last


@dataclass(frozen=True, eq=False)
class Table(Sequence[Row]):
    """Rows of a file, all of them or some. Any thread may read it."""

    _rows: _Blobs = field(repr=False)
    _contents: _Blobs = field(repr=False)
    _order: Sequence[int]
    """the number of each row in the file: a range, or an array where they do not follow one another"""

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Table: ...

    def __getitem__(self, index: int | slice) -> Row | Table:
        if isinstance(index, slice):
            return Table(self._rows, self._contents, self._order[index])
        return next(_made(self._rows.read((self._order[index],))))

    def __iter__(self) -> Iterator[Row]:
        return counted(_made(self._rows.read(self._order)), "looking through rows", len(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def take(self, places: Iterable[int]) -> Table:
        """The rows at these places of the table."""
        return Table(self._rows, self._contents, array.array("q", (self._order[i] for i in places)))

    def contents(self) -> Iterator[bytes]:
        """Each row's `content()`, which was made when the row was kept."""
        return counted(self._contents.read(self._order), "looking through rows", len(self))

    @property
    def in_memory(self) -> bool:
        """Is the file that they are of a small one?"""
        return self._rows.in_memory

    @property
    def unread(self) -> bool:
        """May any row have columns that are not read?"""
        return self._rows.unread


def kept(rows: Iterable[Row]) -> Table:
    """The rows as a table. Raises DiskFull, and ZoliteError where the cache may not be written."""
    blobs, contents, count = _Blobs(), _Blobs(), 0
    for row in rows:
        blobs.append(marshal.dumps(_values(row)))
        contents.append(row.content())
        blobs.unread = blobs.unread or bool(row.unread)
        count += 1
    blobs.write()
    contents.write()
    return Table(blobs, contents, range(count))


def _made(blobs: Iterable[bytes]) -> Iterator[Row]:
    for blob in blobs:
        values: Any = marshal.loads(blob)  # of this process, by `kept`
        yield Row(*values)
