"""Rows of training data: read, recognised (data/kinds), checked as a whole, split, fingerprinted."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zolite.common.errors import UsageError
from zolite.data.kinds.kind import Kind, Row
from zolite.data.kinds.registry import KINDS
from zolite.data.problems import faulty, refuse, some
from zolite.data.records import Record, read
from zolite.data.splits import SPLITS, demand, files_of, hold_out
from zolite.data.table import Table, kept

Columns = dict[str, tuple[str, ...]]  # each kind's, for a template


@dataclass(frozen=True)
class Dataset:
    kind: str
    """a name in data/kinds/registry.py"""
    labels: tuple[str, ...]
    """sorted; empty where rows of that kind have none"""
    splits: dict[str, Table]
    """train and dev, and test where one was given; one of them where the rows are only evaluated"""
    files: dict[str, str]
    """split to the name of the file it came from"""
    notes: tuple[str, ...] = ()
    """what a person should know of the files"""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the kind and of every row's content, in order."""
        found = hashlib.sha256(self.kind.encode())
        for split, rows in self.splits.items():
            found.update(b"\n" + split.encode())
            for content in rows.contents():
                found.update(b"\n" + content)
        return found.hexdigest()


def load(path: Path, template: str, required: Sequence[str] = ("train",)) -> Dataset:
    """The splits in a folder, or in one file, of which a tenth becomes dev.

    `required` names the splits that must have a file; dev is held out of train where it has none.
    Raises UsageError with everything that is wrong with the files.
    """
    columns = columns_of(template)
    files = files_of(path)
    demand(path, files, {"train", *required} - {"dev"})
    kind, tables = _tables(files, columns, "train")
    labels = _labels(kind, tables["train"])  # before any row leaves it: dev may get a label's only row
    if "dev" not in files:
        tables["train"], tables["dev"] = hold_out(tables["train"], files["train"].name)
    names = {split: files.get(split, files["train"]).name for split in SPLITS if split in tables}
    return _dataset(kind, labels, {split: tables[split] for split in names}, names)


def load_for_eval(path: Path, template: str, labels: tuple[str, ...]) -> Dataset:
    """A folder's test, else dev, else train rows, or those of one file, with the labels to choose among.

    `labels`: those that a model was trained on; where there are none, the rows' own.
    Raises UsageError with everything that is wrong with that file, labels outside of `labels` too.
    """
    columns = columns_of(template)
    files = files_of(path)
    demand(path, files, () if files else ("test",))
    split = next(split for split in reversed(SPLITS) if split in files)
    file = files[split].name
    kind, tables = _tables({split: files[split]}, columns, split)
    own = _labels(kind, tables[split])
    if own and labels:
        refuse(_strangers(file, kind, tables[split], labels, f"the model's labels ({some(labels)})"))
    known = labels if own and labels else own
    if len(known) == 1:
        raise UsageError(f"{path} has one label only: {known[0]}", f"{kind.metric} needs at least two")
    return _dataset(kind, known, tables, {split: file})


def _dataset(kind: Kind, labels: tuple[str, ...], splits: dict[str, Table], names: dict[str, str]) -> Dataset:
    return Dataset(kind.name, labels, splits, names, _unread(splits))


def _unread(splits: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    counts = Counter(name for rows in splits.values() for row in rows for name in row.unread)
    named = some(f"{name!r} of {count} rows" for name, count in counts.items())
    return (f"columns that are not read: {named}",) if counts else ()


def columns_of(template: str) -> Columns:
    """Kind to the columns of its records; UsageError where the template is faulty."""
    return {name: kind.columns(template) for name, kind in KINDS.items()}


def recognised(record: Record, columns: Columns) -> str:
    """The kind of a record, or "" where it has the columns of none."""
    return next((kind for kind, names in columns.items() if record.keys() >= set(names)), "")


# ---- records to rows


def _tables(files: Mapping[str, Path], columns: Columns, first: str) -> tuple[Kind, dict[str, Table]]:
    """(kind, split to rows); the first record of split `first` decides the kind. Raises UsageError."""
    kind = _kind_of(first, files, columns)
    checked = {split: _rows(file, kind, columns) for split, file in files.items()}
    problems = [problem for _, faults in checked.values() for problem in faults]
    tables = {split: rows for split, (rows, _) in checked.items()}
    if kind.label_column and "train" in files and not checked["train"][1]:  # a faulty row may hold a label's only use
        problems += _label_problems(files, kind, tables)
    refuse(problems)
    return kind, tables


def _kind_of(first: str, files: Mapping[str, Path], columns: Columns) -> Kind:
    """By the first record of split `first`. UsageError where it has the columns of no kind, or there is no record."""
    leader = next(((line, record) for line, record in read(files[first]) if isinstance(record, dict)), None)
    if leader and (name := recognised(leader[1], columns)):
        return KINDS[name]
    unread = [f"{f.name}: line {line}: {r}" for f in files.values() for line, r in read(f) if isinstance(r, str)]
    if leader is None:
        raise faulty(unread)
    expected = ", or ".join(" + ".join(names) for names in reversed(columns.values()))
    what = f"fits no kind of rows ({_has(leader[1])}); expected are {expected}"
    hint = 'name the columns of your file with --template "{text}\\n{label}"'
    raise faulty([f"{files[first].name}: line {leader[0]}: {what}", *unread], hint)


def _rows(file: Path, kind: Kind, columns: Columns) -> tuple[Table, list[str]]:
    """The sound rows of a file, and the problems of the others."""
    problems: list[str] = []

    def sound() -> Iterator[Row]:
        for line, record in read(file):
            faults = [record] if isinstance(record, str) else _faults(record, kind, columns)
            problems.extend(f"{file.name}: line {line}: {fault}" for fault in faults)
            if not faults and isinstance(record, dict):
                yield kind.row(line, record, columns[kind.name])

    return kept(sound()), problems


def _faults(record: Record, kind: Kind, columns: Columns) -> list[str]:
    found = recognised(record, columns)
    if found not in ("", kind.name):
        return [f"a {found} row among {kind.name} rows"]
    missing = [name for name in columns[kind.name] if name not in record]
    if missing:
        return [f"no column {' and '.join(map(repr, missing))} ({_has(record)})"]
    return kind.faults(record, columns[kind.name])


def _has(record: Record) -> str:
    return f"it has: {some(map(str, record))}" if record else "it has no columns"


# ---- labels


def _label_problems(files: Mapping[str, Path], kind: Kind, tables: Mapping[str, Sequence[Row]]) -> list[str]:
    labels, train = _labels(kind, tables["train"]), files["train"].name
    others = [split for split in tables if split != "train"]
    few = [f"{train}: {len(labels)} label ({some(labels)}) in {len(tables['train'])} rows; at least 2 are needed"]
    strangers = [
        p for s in others for p in _strangers(files[s].name, kind, tables[s], labels, f"the labels of {train}")
    ]
    return (few if len(labels) < 2 else []) + strangers


def _strangers(file: str, kind: Kind, rows: Sequence[Row], labels: Sequence[str], among: str) -> list[str]:
    found = ((row.line, row.columns[kind.label_column]) for row in rows)
    return [
        f"{file}: line {line}: label {label!r} is not among {among}" for line, label in found if label not in labels
    ]


def _labels(kind: Kind, rows: Iterable[Row]) -> tuple[str, ...]:
    """Sorted; none where rows of that kind have none."""
    return tuple(sorted({row.columns[kind.label_column] for row in rows})) if kind.label_column else ()
