"""A copy of rows without what is wrong with them: `repair(data, OUT)` writes it and says what was done.

Faulty and blank rows are left out, and so are rows that equal an earlier one of their split, rows of train that dev or
test has too, and rows of dev or test with a label that train does not have. Labels that are the same in another
spelling, and those that look alike, get one spelling. What is written is UTF-8, every column as it was read.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError
from zolite.common.files import saving
from zolite.common.text import many
from zolite.config.recipe import DataPart
from zolite.data import labels
from zolite.data import rows as tables
from zolite.data.columns import Shape
from zolite.data.kinds.kind import Kind, Row
from zolite.data.leakage import letters, text_of
from zolite.data.problems import as_text, some
from zolite.data.readers.reader import Record
from zolite.data.rows import Checked, Reading
from zolite.data.split_names import NAMES


@dataclass(frozen=True)
class Repaired:
    """What was written: rows by file, and what was done to get there."""

    files: dict[str, int]
    done: tuple[str, ...]


def repair(data: DataPart, out: Path) -> Repaired:
    """Writes OUT, a new file where the rows are in one, else a new folder.

    Raises UsageError where OUT cannot be that, or nothing of the rows can be read.
    """
    shape, sources = tables.each(data)
    kind = shape.kind
    targets = _targets(out, sources)
    found = _survey(kind, sources, by_column=bool(data.split_by))
    left = _Left(shape, found)
    written = {}
    if len(sources) > 1:
        out.mkdir()
    for split, read in sources.items():
        with saving("the repaired rows", targets[split]), _new(targets[split], found.columns) as write:
            count = 0
            for count, record in enumerate(left.records(split, read()), 1):  # noqa: B007 - it is what is left
                write(record)
        written[str(targets[split])] = count
    return Repaired(written, tuple(left.said()))


Sources = Mapping[str, Reading]


def _targets(out: Path, sources: Sources) -> dict[str, Path]:
    """The new file of each split."""
    if out.exists():
        raise UsageError(f"--fix {out}: it exists already", "name a new one")
    if not out.parent.is_dir():
        raise UsageError(f"--fix {out}: there is no folder {out.parent}", "make it, or name another place")
    one = len(sources) == 1
    if one and out.suffix not in WRITERS:
        raise UsageError(f"--fix {out}: the rows are in one file", f"name a new file, such as {out}.jsonl or {out}.csv")
    if not one and out.suffix:
        raise UsageError(f"--fix {out}: the rows are in {len(sources)} files", f"name a new folder: {out.stem}")
    return {split: out if one else out / f"{split}.jsonl" for split in sources}


# ---- what there is


@dataclass
class _Found:
    """Of all sound rows."""

    counts: Counter[str] = field(default_factory=Counter)
    """by label, as it was read"""
    train: Counter[str] = field(default_factory=Counter)
    held: set[int] = field(default_factory=set)
    """hashes of the texts of dev and test"""
    columns: dict[str, None] = field(default_factory=dict)
    by_column: bool = False

    def split_of(self, split: str, row: Row) -> str:
        """As the row says, where a column says it; else its file's."""
        return NAMES.get(row.part.lower(), split) if self.by_column else split


def _survey(kind: Kind, sources: Sources, by_column: bool) -> _Found:
    found = _Found(by_column=by_column)
    for split, read in sources.items():
        for each in read():
            if each.row and each.record is not None:
                found.columns |= dict.fromkeys(each.record)
                mine = found.split_of(split, each.row)
                if kind.label_column:
                    label = each.row.columns[kind.label_column]
                    found.counts[label] += 1
                    found.train += Counter({label: int(mine == "train")})
                if mine != "train":
                    found.held.add(_hash(kind, each.row))
    return found


def _hash(kind: Kind, row: Row) -> int:
    return hash(letters(text_of(row, kind.label_column)))


# ---- what is left


class _Left:
    """Goes through the rows once more, and notes what it leaves out and changes."""

    def __init__(self, shape: Shape, found: _Found) -> None:
        self.kind, self.found = shape.kind, found
        self.column = shape.taken.get(self.kind.label_column)  # as the file has it
        self.spelling = labels.joined(found.train or found.counts, found.counts, by=labels.looks)
        self.known = {self.spelling.get(label, label) for label in found.train or found.counts}
        self.out: dict[str, list[str]] = {}
        self.many: Counter[str] = Counter()

    def records(self, split: str, checked: Iterator[Checked]) -> Iterator[Record]:
        seen: set[tuple[str, int]] = set()
        for each in checked:
            if each.row is None or each.record is None:
                self._leave("that are faulty or blank", each.place)
                continue
            row, mine = self._respelled(each.row), self.found.split_of(split, each.row)
            if why := self._against(row, mine, seen):
                self._leave(why, each.place)
                continue
            seen.add((mine, hash(row.content())))
            column = self.kind.label_column
            changed = {self.column: row.columns[column]} if isinstance(self.column, str) and row is not each.row else {}
            yield {**each.record, **changed}

    def _against(self, row: Row, split: str, seen: set[tuple[str, int]]) -> str:
        """Why a row is left out, "" where it stays."""
        column = self.kind.label_column
        if column and not labels.key(row.columns[column]):
            return "whose label cannot be seen"
        if column and split != "train" and row.columns[column] not in self.known:
            return "of dev or test with a label that train does not have"
        if (split, hash(row.content())) in seen:
            return "that equal an earlier one"
        return "of train that dev or test has too" * (split == "train" and _hash(self.kind, row) in self.found.held)

    def _respelled(self, row: Row) -> Row:
        column = self.kind.label_column
        kept = self.spelling.get(row.columns[column]) if column else None
        return replace(row, columns=row.columns | {column: kept}) if kept else row

    def _leave(self, why: str, where: str) -> None:
        self.many[why] += 1
        if self.many[why] <= 20:
            self.out.setdefault(why, []).append(where)

    def said(self) -> Iterator[str]:
        for why, count in self.many.items():
            more = f" and {count - 5:,} more" if count > 5 else ""
            yield f"{many(count, 'row')} {why} left out: {some(self.out[why][:5])}{more}"
        if self.spelling:
            pairs = sorted(self.spelling.items(), key=lambda pair: (pair[1], pair[0]))
            yield "labels joined: " + some(f"{a!r} ({many(self.found.counts[a], 'row')}) as {b!r}" for a, b in pairs)


# ---- files

Write = Callable[[Record], None]


@contextlib.contextmanager
def _new(path: Path, columns: Mapping[str, None]) -> Iterator[Write]:
    """What writes a record at the end of a file, which has its name when all are written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            yield WRITERS[path.suffix](file, list(columns))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _jsonl(file: Any, columns: list[str]) -> Write:
    def write(record: Record) -> None:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")

    return write


def _csv(file: Any, columns: list[str]) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)

    def write(record: Record) -> None:
        values = [record.get(name) for name in columns]
        if any(isinstance(value, list | dict) for value in values):
            raise UsageError("a cell of a .csv file holds no list and no object", "name a .jsonl file for --fix")
        writer.writerow(["" if value is None else as_text(value) for value in values])

    return write


WRITERS: Mapping[str, Callable[[Any, list[str]], Write]] = {".jsonl": _jsonl, ".csv": _csv}
