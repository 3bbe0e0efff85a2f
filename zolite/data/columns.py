"""Which columns of a file are what to a shape of rows: by their names, by other names that data have, or as asked for.

    shape = recognised(records, Asked.of(template, columns, verbalizer))
    shape.kind, shape.said, shape.record(records[0])

Names are compared without case, white space at their ends and the difference of space, hyphen and underscore.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zolite.common.errors import UsageError
from zolite.config.fields import pairs
from zolite.config.recipe import DataPart
from zolite.data.kinds.kind import Kind, Spelling
from zolite.data.kinds.registry import KINDS
from zolite.data.kinds.template import of_prompts, parsed
from zolite.data.problems import as_text, some
from zolite.data.readers.reader import Record

SAMPLE = 1000  # records by which a file is recognised
_INVISIBLE = re.compile("[\ufeff\u200b-\u200f\u2060\u00ad]")
_FROM = re.compile(r"(\w+)_from_([01])")


@functools.lru_cache(4096)  # the spellings of columns, again and again
def plain(name: str) -> str:
    """A column's name as it is compared."""
    return re.sub(r"[\s\-]+", "_", _INVISIBLE.sub("", name).strip().casefold())


@dataclass(frozen=True)
class Asked:
    """What a person said of the columns: the settings data.template, data.columns and data.verbalizer."""

    template: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """a shape's column to the file's, or several of them with + between"""
    constants: Mapping[str, int] = field(default_factory=dict)
    """of COLUMN_from_0 and COLUMN_from_1: where its numbers begin, as COLUMN_from"""
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """column to value to the word in its place; "" is the label or the answer"""
    task: str = ""
    """the published task whose prompt the rows are for, or "" (data/tasks.py)"""

    @staticmethod
    def of(template: str, columns: str = "", verbalizer: str = "", task: str = "") -> Asked:
        """UsageError where they cannot be read."""
        parsed(template)
        try:
            given, words = pairs(columns), pairs(verbalizer)
        except ValueError as error:
            hint = "for example --columns 'text=Body,label=\"Category, final\"': double quotes keep a comma"
            raise UsageError(f"data.columns or data.verbalizer: {error}", hint) from error
        constants = {f"{m[1]}_from": int(m[2]) for name, _ in given if (m := _FROM.fullmatch(name))}
        named = {(m[1] if (m := _FROM.fullmatch(name)) else name): value for name, value in given}
        table: dict[str, dict[str, str]] = {}
        for key, word in words:
            column, _, value = key.rpartition(":")
            table.setdefault(column.strip(), {})[value.strip()] = word
        return Asked(template, named, constants, table, task)

    @property
    def custom(self) -> bool:
        """Is the template another than the default one?"""
        return self.template != DataPart.template

    def offered(self) -> Iterator[Kind]:
        """Kinds that rows may be of: those that a template of prompts is for, or first those of one with {label}."""
        if of_prompts(self.template):
            yield from (kind for kind in KINDS.values() if kind.names.templates)
        else:
            yield from (kind for kind in KINDS.values() if self.custom and kind.label_column)
            yield from (kind for kind in KINDS.values() if not (self.custom and kind.label_column))


@dataclass(frozen=True)
class Shape:
    """A kind and where its columns are in a file."""

    kind: Kind
    taken: Mapping[str, Spelling]
    """the kind's column to the file's, or to several of the file's"""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """what holds for every record, as more columns"""
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @functools.cached_property
    def needed(self) -> tuple[str, ...]:
        """The file's columns that every record must have."""
        optional = self.kind.names.optional
        return tuple(column for name, each in self.taken.items() if name not in optional for column in _listed(each))

    @functools.cached_property
    def used(self) -> frozenset[str]:
        """The file's columns that are read."""
        return _used(self.taken)

    @functools.cached_property
    def _needs(self) -> frozenset[str]:
        return frozenset(self.needed)

    @functools.cached_property
    def _as_it_is(self) -> bool:
        """Are records of the shape's columns alone what `record` makes of them?"""
        own = all(name == column for name, column in self.taken.items())
        return own and not self.words and not self.constants

    def missing(self, record: Record) -> list[str]:
        """Columns of the file that a record lacks, and its kind needs."""
        if self._needs <= record.keys():
            return []
        return [column for column in self.needed if column not in record]

    def record(self, record: Record) -> Record:
        """With the kind's columns in the place of the file's."""
        if self._as_it_is and record.keys() <= self.used:
            return record
        found = {
            name: record[column] if isinstance(column, str) else self._several(name, record, column)
            for name, column in self.taken.items()
            if column in record or (not isinstance(column, str) and all(each in record for each in column))
        }
        for name, table in self.words.items():
            if name in found:
                found[name] = _worded(found[name], table)
        return {**found, **self.constants}

    def _several(self, name: str, record: Record, columns: tuple[str, ...]) -> Any:
        """Those of them that are not blank, as lines where the column is text."""
        found = {each: record[each] for each in columns if record[each] not in (None, "")}
        nested = any(isinstance(value, list | dict) for value in found.values())
        lines = name in self.kind.names.joined and not nested
        return "\n".join(map(as_text, found.values())) if lines else found

    @property
    def said(self) -> tuple[str, ...]:
        """For a person; nothing of rows whose columns have their own names and are trained as they are."""
        becomes = self.kind.names.becomes
        if not becomes and all(name == column for name, column in self.taken.items()):
            return ()
        taken = (_told(name, column) for name, column in self.taken.items())
        first = [f"{name} {value}" for name, value in self.constants.items()]
        return (f"{self.kind.name} rows: {', '.join([*taken, *first])}" + (f" → {becomes}" if becomes else ""),)


def recognised(sample: Sequence[Record], asked: Asked) -> Shape | None:
    """The first kind that has its columns in the first record, of the first records of a file; None where none has.

    Raises UsageError where what was asked for is not there, or is clear for no kind.
    """
    first, every = _Columns(sample[0]), _Columns(name for record in sample for name in record)
    _check(every.names, asked)
    for kind in asked.offered():
        taken = _together(kind, first, sample, asked) or _taken(kind, first, every, asked)
        if taken is None:
            continue
        shape = Shape(kind, taken, asked.constants, _words(kind, taken, asked))
        beside = (kind.names.beside(plain(name)) for name in first.names if name not in shape.used)
        if (asked.columns or asked.custom or all(beside)) and kind.names.fits(shape.record(sample[0])):
            return _settled(shape, sample)
    return None


class _Columns:
    """Names of columns, each once, and by how they are compared."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = dict.fromkeys(names)
        self.by_plain: dict[str, list[str]] = {}
        for name in self.names:
            self.by_plain.setdefault(plain(name), []).append(name)

    def like(self, name: str, used: frozenset[str]) -> str | None:
        """The first column of that name that is not used yet."""
        return next((each for each in self.by_plain.get(plain(name), ()) if each not in used), None)


def _settled(shape: Shape, sample: Sequence[Record]) -> Shape:
    """With what the first records show."""
    whole = [shape.record(record) for record in sample[:SAMPLE] if not shape.missing(record)]
    constants = {**shape.constants, **shape.kind.names.settled(whole)}
    return replace(shape, constants=constants)


# ---- a kind's columns in a file


def _taken(kind: Kind, first: _Columns, every: _Columns, asked: Asked) -> dict[str, Spelling] | None:
    """None where the first record lacks one, or one was asked for that the kind does not know.

    What is optional may be in `every` record but the first.
    """
    needed = kind.columns(asked.template)
    known = (*needed, *kind.names.optional)
    if not {*asked.columns, *asked.constants} <= set(known):
        return None
    found: dict[str, Spelling] = {
        name: _given(asked.columns[name], every.names) for name in known if name in asked.columns
    }
    for columns, file in ((needed, first), (kind.names.optional, every)):
        used = _used(found)
        found |= {name: name for name in columns if name in file.names and name not in used and name not in found}
        for name in columns:
            if name not in found and (column := _spelled(name, kind, file, _used(found))):
                found[name] = column
    return {name: found[name] for name in known if name in found} if found.keys() >= set(needed) else None


def _together(kind: Kind, first: _Columns, sample: Sequence[Record], asked: Asked) -> dict[str, Spelling] | None:
    """Where the file's columns are clear beside one another, and the kind's own are not all there."""
    needed = kind.columns(asked.template)
    if asked.columns or asked.custom or all(name in first.names for name in needed):
        return None
    names = {spelled: several[0] for spelled, several in first.by_plain.items()}
    for find in kind.names.together:
        taken = find(names, sample)
        if taken and not any(name in first.names and name not in _listed(taken[name]) for name in taken):
            return {name: taken[name] for name in (*needed, *kind.names.optional) if name in taken}
    return None


def _used(taken: Mapping[str, Spelling]) -> frozenset[str]:
    return frozenset(column for each in taken.values() for column in _listed(each))


def _spelled(name: str, kind: Kind, file: _Columns, used: frozenset[str]) -> Spelling | None:
    """The column or columns of a file that are one of a column's spellings, its own name first."""
    for spelling in (name, *kind.names.spellings.get(name, ())):
        columns = [file.like(each, used) for each in _listed(spelling)]
        there = tuple(each for each in columns if each is not None)
        if len(there) == len(columns):
            return there[0] if isinstance(spelling, str) else there
    return None


def _given(column: str, names: Mapping[str, Any]) -> Spelling:
    several = tuple(each.strip() for each in column.split("+"))
    return column if column in names or len(several) == 1 else several


def _listed(column: Spelling) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _told(name: str, column: Spelling) -> str:
    columns = " + ".join(_listed(column))
    return name if name == columns else f"{name} = {columns!r}"


# ---- words for values


def _words(kind: Kind, taken: Mapping[str, Spelling], asked: Asked) -> dict[str, Mapping[str, str]]:
    """By the kind's columns; UsageError for a column that it does not take."""
    own = {column: name for name, column in taken.items() if isinstance(column, str)}
    answer = kind.names.answer[:1]
    found: dict[str, Mapping[str, str]] = {}
    for column, table in asked.words.items():
        name = column if column in taken else own.get(column, "") if column else "".join(answer)
        if not name:
            what = f"data.verbalizer has words for column {column!r}, which {kind.name} rows do not read"
            raise UsageError(what, f"they read {some(map(repr, taken))}: write COLUMN:VALUE=WORD")
        found[name] = table
    return found


def _worded(value: Any, table: Mapping[str, str]) -> Any:
    return value if value is None or isinstance(value, list | dict) else table.get(as_text(value).strip(), value)


# ---- what was asked for


def _check(names: Mapping[str, Any], asked: Asked) -> None:
    """Raises UsageError with every column that the file or no shape has."""
    fields = {name for _, name in parsed(asked.template)[0]}
    known = dict.fromkeys(
        name for kind in asked.offered() for name in (*kind.columns(asked.template), *kind.names.optional)
    )
    problems = [
        f"--columns {name}=…: no shape of rows reads a column {name!r}{_nearest(name, known)}"
        for name in asked.columns
        if name not in known and name not in fields
    ]
    problems += [
        f"--columns {name}={column}: the file has no column {each!r}{_nearest(each, names)}"
        for name, column in asked.columns.items()
        for each in _listed(_given(column, names))
        if each not in names
    ]
    if problems:
        raise UsageError("\n".join(problems), f"the file has: {some(map(repr, names))}")


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    spelled = {plain(each): each for each in known}
    close = difflib.get_close_matches(plain(name), spelled, 1)
    return f" (did you mean {spelled[close[0]]!r}?)" if close else ""
