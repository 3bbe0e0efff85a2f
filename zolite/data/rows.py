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
from zolite.data.readers import registry as formats
from zolite.data.readers.reader import Opened, Read, Record
from zolite.data.sources import Sources, demand, look, named
from zolite.data.split_names import SPLITS
from zolite.data.splits import hold_out
from zolite.data.table import Table, kept

Columns = dict[str, tuple[str, ...]]  # each kind's, for a template
Files = dict[str, tuple[tuple[str, Opened], ...]]  # split to its files, by name


@dataclass(frozen=True)
class Dataset:
    kind: str
    """a name in data/kinds/registry.py"""
    labels: tuple[str, ...]
    """sorted; empty where rows of that kind have none"""
    splits: dict[str, Table]
    """train and dev, and test where one was given; one of them where the rows are only evaluated"""
    files: dict[str, str]
    """split to the name of the file it came from, or of the first and how many more there are"""
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


def load(path: Path | str, template: str, required: Sequence[str] = ("train",)) -> Dataset:
    """The splits of what `path` names (sources.look); of one file, a tenth becomes dev.

    `required` names the splits that must have a file; dev is held out of train where it has none.
    Raises UsageError with everything that is wrong with the files.
    """
    columns = columns_of(template)
    sources = look(str(path))
    demand(str(path), sources.files, {"train", *required} - {"dev"})
    files = _opened(sources)
    kind, tables = _tables(files, columns, "train")
    labels = _labels(kind, tables["train"])  # before any row leaves it: dev may get a label's only row
    names = {split: named(paths) for split, paths in sources.files.items()}
    if "dev" not in files:
        tables["train"], tables["dev"] = hold_out(tables["train"], names["train"])
    names = {split: names.get(split, names["train"]) for split in SPLITS if split in tables}
    notes = (*sources.notes, *_said(files))
    return _dataset(kind, labels, {split: tables[split] for split in names}, names, notes)


def load_for_eval(path: Path | str, template: str, labels: tuple[str, ...]) -> Dataset:
    """A folder's test, else dev, else train rows, or those of one file, with the labels to choose among.

    `labels`: those that a model was trained on; where there are none, the rows' own.
    Raises UsageError with everything that is wrong with that file, labels outside of `labels` too.
    """
    columns = columns_of(template)
    found = look(str(path)).files
    demand(str(path), found, () if found else ("test",))
    split = next(split for split in reversed(SPLITS) if split in found)
    file, files = named(found[split]), _opened(Sources({split: found[split]}))
    kind, tables = _tables(files, columns, split)
    own = _labels(kind, tables[split])
    if own and labels:
        refuse(_strangers(file, kind, tables[split], labels, f"the model's labels ({some(labels)})"))
    known = labels if own and labels else own
    if len(known) == 1:
        raise UsageError(f"{path} has one label only: {known[0]}", f"{kind.metric} needs at least two")
    return _dataset(kind, known, tables, {split: file}, _said(files))


def _dataset(
    kind: Kind,
    labels: tuple[str, ...],
    splits: dict[str, Table],
    names: dict[str, str],
    notes: tuple[str, ...],
) -> Dataset:
    return Dataset(kind.name, labels, splits, names, (*notes, *_unread(splits)))


def _opened(sources: Sources) -> Files:
    return {split: tuple((path.name, formats.opened(path)) for path in paths) for split, paths in sources.files.items()}


def _said(files: Files) -> tuple[str, ...]:
    """How files were understood, each note once."""
    notes = [f"{name}: {note}" for several in files.values() for name, opened in several for note in opened.notes]
    return tuple(dict.fromkeys(notes))


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


def _tables(files: Files, columns: Columns, first: str) -> tuple[Kind, dict[str, Table]]:
    """(kind, split to rows); the first record of split `first` decides the kind. Raises UsageError."""
    kind = _kind_of(first, files, columns)
    checked = {split: _rows(several, kind, columns) for split, several in files.items()}
    problems = [problem for _, faults in checked.values() for problem in faults]
    tables = {split: rows for split, (rows, _) in checked.items()}
    if kind.label_column and "train" in files and not checked["train"][1]:  # a faulty row may hold a label's only use
        problems += _label_problems(files, kind, tables)
    refuse(problems)
    return kind, tables


def _placed(several: Iterable[tuple[str, Opened]]) -> Iterator[tuple[str, Read]]:
    """(file and line as a message names them, the line with its record or fault) of files one behind the other."""
    for name, opened in several:
        for line, record in opened.rows():
            yield f"{name}: {opened.unit} {line}", (line, record)


def _kind_of(first: str, files: Files, columns: Columns) -> Kind:
    """By the first record of split `first`. UsageError where it has the columns of no kind, or there is no record."""
    leader = next(((place, record) for place, (_, record) in _placed(files[first]) if isinstance(record, dict)), None)
    if leader and (name := recognised(leader[1], columns)):
        return KINDS[name]
    every = (each for several in files.values() for each in _placed(several))
    unread = [f"{place}: {record}" for place, (_, record) in every if isinstance(record, str)]
    if leader is None:
        raise faulty(unread)
    expected = ", or ".join(" + ".join(names) for names in reversed(columns.values()))
    what = f"fits no kind of rows ({_has(leader[1])}); expected are {expected}"
    hint = 'name the columns of your file with --template "{text}\\n{label}"'
    raise faulty([f"{leader[0]}: {what}", *unread], hint)


def _rows(several: Sequence[tuple[str, Opened]], kind: Kind, columns: Columns) -> tuple[Table, list[str]]:
    """The sound rows of a split's files, and the problems of the others."""
    problems: list[str] = []

    def sound() -> Iterator[Row]:
        for place, (line, record) in _placed(several):
            faults = [record] if isinstance(record, str) else _faults(record, kind, columns)
            problems.extend(f"{place}: {fault}" for fault in faults)
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


def _label_problems(files: Files, kind: Kind, tables: Mapping[str, Sequence[Row]]) -> list[str]:
    labels, train = _labels(kind, tables["train"]), _name(files["train"])
    others = [split for split in tables if split != "train"]
    few = [f"{train}: {len(labels)} label ({some(labels)}) in {len(tables['train'])} rows; at least 2 are needed"]
    strangers = [
        p for s in others for p in _strangers(_name(files[s]), kind, tables[s], labels, f"the labels of {train}")
    ]
    return (few if len(labels) < 2 else []) + strangers


def _name(several: Sequence[tuple[str, Opened]]) -> str:
    return several[0][0] if len(several) == 1 else f"{several[0][0]} and {len(several) - 1} more"


def _strangers(file: str, kind: Kind, rows: Sequence[Row], labels: Sequence[str], among: str) -> list[str]:
    found = ((row.line, row.columns[kind.label_column]) for row in rows)
    return [
        f"{file}: line {line}: label {label!r} is not among {among}" for line, label in found if label not in labels
    ]


def _labels(kind: Kind, rows: Iterable[Row]) -> tuple[str, ...]:
    """Sorted; none where rows of that kind have none."""
    return tuple(sorted({row.columns[kind.label_column] for row in rows})) if kind.label_column else ()
