"""Rows of training data: read, recognised (data/kinds), checked as a whole, split, fingerprinted."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from zolite.common.errors import UsageError
from zolite.config.recipe import DataPart
from zolite.data.columns import SAMPLE, Asked, Shape, recognised
from zolite.data.kinds.kind import Kind, Row
from zolite.data.no_shape import refusal
from zolite.data.problems import faulty, has, refuse, some
from zolite.data.readers import registry as formats
from zolite.data.readers.reader import Opened, Read, Record
from zolite.data.sources import Sources, demand, look, named
from zolite.data.split_names import SPLITS
from zolite.data.splits import hold_out
from zolite.data.table import Table, kept

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


def of(data: DataPart, required: Sequence[str] = ("train",)) -> Dataset:
    """The rows of a recipe, as `load` has them."""
    return load(data.path, data.template, required, data.columns, data.verbalizer)


def load(
    path: Path | str, template: str, required: Sequence[str] = ("train",), columns: str = "", verbalizer: str = ""
) -> Dataset:
    """The splits of what `path` names (sources.look); of one file, a tenth becomes dev.

    `required` names the splits that must have a file; dev is held out of train where it has none.
    Raises UsageError with everything that is wrong with the files.
    """
    asked = Asked.of(template, columns, verbalizer)
    sources = look(str(path))
    demand(str(path), sources.files, {"train", *required} - {"dev"})
    files = _opened(sources)
    shape, tables = _tables(path, files, asked, "train")
    kind = shape.kind
    labels = _labels(kind, tables["train"])  # before any row leaves it: dev may get a label's only row
    names = {split: named(paths) for split, paths in sources.files.items()}
    if "dev" not in files:
        tables["train"], tables["dev"] = hold_out(tables["train"], names["train"])
    names = {split: names.get(split, names["train"]) for split in SPLITS if split in tables}
    notes = (*sources.notes, *_said(files))
    return _dataset(shape, labels, {split: tables[split] for split in names}, names, notes)


def load_for_eval(
    path: Path | str, template: str, labels: tuple[str, ...], columns: str = "", verbalizer: str = ""
) -> Dataset:
    """A folder's test, else dev, else train rows, or those of one file, with the labels to choose among.

    `labels`: those that a model was trained on; where there are none, the rows' own.
    Raises UsageError with everything that is wrong with that file, labels outside of `labels` too.
    """
    asked = Asked.of(template, columns, verbalizer)
    found = look(str(path)).files
    demand(str(path), found, () if found else ("test",))
    split = next(split for split in reversed(SPLITS) if split in found)
    file, files = named(found[split]), _opened(Sources({split: found[split]}))
    shape, tables = _tables(path, files, asked, split)
    kind = shape.kind
    own = _labels(kind, tables[split])
    if own and labels:
        refuse(_strangers(file, kind, tables[split], labels, f"the model's labels ({some(labels)})"))
    known = labels if own and labels else own
    if len(known) == 1:
        raise UsageError(f"{path} has one label only: {known[0]}", f"{kind.metric} needs at least two")
    return _dataset(shape, known, tables, {split: file}, _said(files))


def _dataset(
    shape: Shape,
    labels: tuple[str, ...],
    splits: dict[str, Table],
    names: dict[str, str],
    notes: tuple[str, ...],
) -> Dataset:
    return Dataset(shape.kind.name, labels, splits, names, (*notes, *shape.said, *_unread(splits)))


def _opened(sources: Sources) -> Files:
    return {split: tuple((path.name, formats.opened(path)) for path in paths) for split, paths in sources.files.items()}


def _said(files: Files) -> tuple[str, ...]:
    """How files were understood, each note once."""
    names: dict[str, list[str]] = {}
    for name, note in ((name, note) for several in files.values() for name, opened in several for note in opened.notes):
        names.setdefault(note, []).append(name)
    return tuple(f"{some(dict.fromkeys(known), 3)}: {note}" for note, known in names.items())


def _unread(splits: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    counts = Counter(name for rows in splits.values() for row in rows for name in row.unread)
    named = some(f"{name!r} of {count} rows" for name, count in counts.items())
    return (f"columns that are not read: {named}",) if counts else ()


# ---- records to rows


def _tables(path: Path | str, files: Files, asked: Asked, first: str) -> tuple[Shape, dict[str, Table]]:
    """(shape, split to rows); the first records of split `first` decide the shape. Raises UsageError."""
    shape = _shape_of(path, first, files, asked)
    checked = {split: _rows(several, shape, asked) for split, several in files.items()}
    problems = [problem for _, faults in checked.values() for problem in faults]
    tables = {split: rows for split, (rows, _) in checked.items()}
    if shape.kind.label_column and "train" in files and not checked["train"][1]:
        problems += _label_problems(files, shape.kind, tables)  # a faulty row may hold a label's only use
    refuse(problems)
    return shape, tables


def _placed(several: Iterable[tuple[str, Opened]]) -> Iterator[tuple[str, Read]]:
    """(file and line as a message names them, the line with its record or fault) of files one behind the other."""
    for name, opened in several:
        for line, record in opened.rows():
            yield f"{name}: {opened.unit} {line}", (line, record)


def _shape_of(path: Path | str, first: str, files: Files, asked: Asked) -> Shape:
    """By the first records of split `first`. UsageError where they fit no kind, or there is no record."""
    records = ((place, record) for place, (_, record) in _placed(files[first]) if isinstance(record, dict))
    leading = list(itertools.islice(records, SAMPLE))
    sample = [record for _, record in leading]
    if sample and (shape := recognised(sample, asked)):
        return shape
    every = (each for several in files.values() for each in _placed(several))
    unread = [f"{place}: {record}" for place, (_, record) in every if isinstance(record, str)]
    if not leading:
        raise faulty(unread)
    raise refusal(path, leading[0][0], sample, asked, unread)


def _rows(several: Sequence[tuple[str, Opened]], shape: Shape, asked: Asked) -> tuple[Table, list[str]]:
    """The sound rows of a split's files, and the problems of the others."""
    problems: list[str] = []
    columns = shape.kind.columns(asked.template)

    def sound() -> Iterator[Row]:
        for place, (line, record) in _placed(several):
            row, faults = (None, [record]) if isinstance(record, str) else _row(line, record, shape, asked, columns)
            problems.extend(f"{place}: {fault}" for fault in faults)
            if row:
                yield row

    return kept(sound()), problems


def _row(
    line: int, record: Record, shape: Shape, asked: Asked, columns: Sequence[str]
) -> tuple[Row | None, Sequence[str]]:
    """A record as a row, or what is wrong with it."""
    if missing := shape.missing(record):
        if (other := _other(record, shape, asked)) is not None:
            return None, [f"a {other.name} row among {shape.kind.name} rows"]
        return None, [f"no column {' and '.join(map(repr, missing))} ({has(record)})"]
    mapped = shape.record(record)
    if faults := shape.kind.faults(mapped, columns):
        return None, faults
    row = shape.kind.row(line, mapped, columns)
    unread = tuple(sorted(record.keys() - shape.used))
    return (replace(row, unread=unread) if unread else row), ()


def _other(record: Record, shape: Shape, asked: Asked) -> Kind | None:
    """The kind of a record that has none of the columns of a shape, where it has those of another one."""
    if not record or shape.used & record.keys():
        return None
    found = recognised([record], replace(asked, columns={}, constants={}))
    return found.kind if found else None


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
