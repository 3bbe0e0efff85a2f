"""Rows of training data: read, recognised (data/kinds), checked as a whole, split, fingerprinted."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zolite.common.errors import UsageError
from zolite.config.recipe import DataPart
from zolite.data.columns import SAMPLE, Asked, Shape, recognised
from zolite.data.kinds.kind import Kind, Row
from zolite.data.no_shape import refusal
from zolite.data.problems import faulty, has, refuse, some
from zolite.data.records import Read, Record, read
from zolite.data.splits import SPLITS, demand, files_of, hold_out
from zolite.data.tasks import made


@dataclass(frozen=True)
class Dataset:
    kind: str
    """a name in data/kinds/registry.py"""
    labels: tuple[str, ...]
    """sorted; empty where rows of that kind have none"""
    splits: dict[str, tuple[Row, ...]]
    """train and dev, and test where one was given; one of them where the rows are only evaluated"""
    files: dict[str, str]
    """split to the name of the file it came from"""
    fingerprint: str
    """sha256 of the kind and of every row's content, in order"""
    notes: tuple[str, ...] = ()
    """what a person should know of the files"""


def of(data: DataPart, required: Sequence[str] = ("train",)) -> Dataset:
    """The rows of a recipe, as `load` has them."""
    path = Path(data.path).expanduser().resolve()
    return load(path, data.template, required, data.columns, data.verbalizer, data.task)


def of_for_eval(data: DataPart, labels: tuple[str, ...]) -> Dataset:
    """The rows of a recipe, as `load_for_eval` has them."""
    return load_for_eval(Path(data.path), data.template, labels, data.columns, data.verbalizer, data.task)


def load(
    path: Path,
    template: str,
    required: Sequence[str] = ("train",),
    columns: str = "",
    verbalizer: str = "",
    task: str = "",
) -> Dataset:
    """The splits in a folder, or in one file, of which a tenth becomes dev.

    `required` names the splits that must have a file; dev is held out of train where it has none.
    Raises UsageError with everything that is wrong with the files.
    """
    asked = Asked.of(template, columns, verbalizer, task)
    files = files_of(path)
    demand(path, files, {"train", *required} - {"dev"})
    shape, tables = _tables(path, files, asked, "train")
    kind = shape.kind
    labels = _labels(kind, tables["train"])  # before any row leaves it: dev may get a label's only row
    if "dev" not in files:
        tables["train"], tables["dev"] = hold_out(tables["train"], files["train"].name)
    names = {split: files.get(split, files["train"]).name for split in SPLITS if split in tables}
    return _dataset(shape, labels, {split: tables[split] for split in names}, names)


def load_for_eval(
    path: Path, template: str, labels: tuple[str, ...], columns: str = "", verbalizer: str = "", task: str = ""
) -> Dataset:
    """A folder's test, else dev, else train rows, or those of one file, with the labels to choose among.

    `labels`: those that a model was trained on; where there are none, the rows' own.
    Raises UsageError with everything that is wrong with that file, labels outside of `labels` too.
    """
    asked = Asked.of(template, columns, verbalizer, task)
    files = files_of(path)
    demand(path, files, () if files else ("test",))
    split = next(split for split in reversed(SPLITS) if split in files)
    file = files[split].name
    shape, tables = _tables(path, {split: files[split]}, asked, split)
    kind = shape.kind
    own = _labels(kind, tables[split])
    if own and labels:
        refuse(_strangers(file, kind, tables[split], labels, f"the model's labels ({some(labels)})"))
    known = labels if own and labels else own
    if len(known) == 1:
        raise UsageError(f"{path} has one label only: {known[0]}", f"{kind.metric} needs at least two")
    return _dataset(shape, known, tables, {split: file})


def _dataset(
    shape: Shape, labels: tuple[str, ...], splits: dict[str, tuple[Row, ...]], names: dict[str, str]
) -> Dataset:
    notes = (*shape.said, *_unread(splits))
    return Dataset(shape.kind.name, labels, splits, names, _fingerprint(shape.kind, splits), notes)


def _unread(splits: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    counts = Counter(name for rows in splits.values() for row in rows for name in row.unread)
    named = some(f"{name!r} of {count} rows" for name, count in counts.items())
    return (f"columns that are not read: {named}",) if counts else ()


# ---- records to rows


def _tables(
    path: Path, files: Mapping[str, Path], asked: Asked, first: str
) -> tuple[Shape, dict[str, tuple[Row, ...]]]:
    """(shape, split to rows); the first records of split `first` decide the shape. Raises UsageError."""
    found = {split: [(at, _made(each, asked.task)) for at, each in read(file)] for split, file in files.items()}
    shape = _shape_of(path, first, files, found, asked)
    checked = {split: _rows(files[split].name, records, shape, asked) for split, records in found.items()}
    problems = [problem for _, faults in checked.values() for problem in faults]
    tables = {split: rows for split, (rows, _) in checked.items()}
    if shape.kind.label_column and "train" in files and not checked["train"][1]:
        problems += _label_problems(files, shape.kind, tables)  # a faulty row may hold a label's only use
    refuse(problems)
    return shape, tables


def _made(each: Record | str, task: str) -> Record | str:
    """A record as the prompt of a published task wants it; what is no record as it is."""
    return made(task, each) if task and isinstance(each, dict) else each


def _shape_of(
    path: Path, first: str, files: Mapping[str, Path], found: Mapping[str, Sequence[Read]], asked: Asked
) -> Shape:
    """By the first records of split `first`. UsageError where they fit no kind, or there is no record."""
    records = ((line, record) for line, record in found[first] if isinstance(record, dict))
    leading = list(itertools.islice(records, SAMPLE))
    unread = [f"{files[s].name}: line {line}: {r}" for s in found for line, r in found[s] if isinstance(r, str)]
    if not leading:
        raise faulty(unread)
    sample = [record for _, record in leading]
    if shape := recognised(sample, asked):
        return shape
    raise refusal(path, f"{files[first].name}: line {leading[0][0]}", sample, asked, unread)


def _rows(file: str, records: Sequence[Read], shape: Shape, asked: Asked) -> tuple[tuple[Row, ...], list[str]]:
    """The sound rows of a file, and the problems of the others."""
    rows: list[Row] = []
    problems: list[str] = []
    columns = shape.kind.columns(asked.template)
    for line, record in records:
        row, faults = (None, [record]) if isinstance(record, str) else _row(line, record, shape, asked, columns)
        problems += [f"{file}: line {line}: {fault}" for fault in faults]
        rows += [row] if row else []
    return tuple(rows), problems


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


def _fingerprint(kind: Kind, splits: Mapping[str, Sequence[Row]]) -> str:
    lines = [kind.name.encode()]
    for split, rows in splits.items():
        lines += [split.encode(), *(row.content() for row in rows)]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()
