"""Rows of training data: read, recognised (data/kinds), checked as a whole, split, fingerprinted."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError
from zolite.common.text import many
from zolite.config.recipe import DataPart
from zolite.data.kinds.kind import Kind, Row
from zolite.data.kinds.registry import KINDS
from zolite.data.labels import counted, joined, respelled, strangers, told, warned
from zolite.data.labels import problems as label_problems
from zolite.data.problems import as_text, faulty, refuse, repair, some
from zolite.data.records import Read, Record, read
from zolite.data.splits import SPLITS, Rule, by_column, demand, files_of, hold_out

Columns = dict[str, tuple[str, ...]]  # each kind's, for a template


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
    warnings: tuple[str, ...] = ()
    """what is likely wrong with them"""


def of(data: DataPart, required: Sequence[str] = ("train",)) -> Dataset:
    """The rows of a recipe, as `load` has them."""
    return load(Path(data.path).expanduser().resolve(), data.template, required, Rule.of(data))


def load(path: Path, template: str, required: Sequence[str] = ("train",), rule: Rule = Rule()) -> Dataset:  # noqa: B008
    """The splits in a folder, or in one file, of which a part becomes dev as the rule says.

    `required` names the splits that must be there; dev is held out of train where there is none.
    Raises UsageError with everything that is wrong with the files.
    """
    columns = columns_of(template)
    files = _files(path, rule)
    if not rule.split_by:
        demand(path, files, {"train", *required} - {"dev"})
    kind, tables, notes = _tables(path, files, columns, "train", rule)
    if rule.split_by:
        _demand_rows(path, tables, required, rule)
    names = {split: files.get(split, files["train"]).name for split in tables}
    labels = _labels(kind, tables["train"])  # before any row leaves it: dev may get a label's only row
    warnings = warned(counted(kind, tables["train"]), repair(path))
    if "dev" not in tables:
        held = hold_out(tables["train"], rule, kind.label_column, names["train"])
        tables |= {"train": _taken(tables["train"], held.train), "dev": _taken(tables["train"], held.dev)}
        notes = (*notes, held.note)
        names["dev"] = names["train"]
    names = {split: names[split] for split in SPLITS if split in names}
    return _dataset(kind, labels, {split: tables[split] for split in names}, names, notes, warnings)


def load_for_eval(path: Path, template: str, labels: tuple[str, ...], rule: Rule = Rule()) -> Dataset:  # noqa: B008
    """A folder's test, else dev, else train rows, or those of one file, with the labels to choose among.

    Of a file that says by a column which rows are which (`rule.split_by`), these are its test rows, else its dev rows.
    `labels`: those that a model was trained on; where there are none, the rows' own.
    Raises UsageError with everything that is wrong with that file, labels outside of `labels` too.
    """
    columns = columns_of(template)
    files = files_of(path)
    demand(path, files, () if files else ("test",))
    split = next(split for split in reversed(SPLITS) if split in files)
    file = files[split].name
    kind, tables, notes = _tables(path, {split: files[split]}, columns, split, replace(rule, group_by=""), labels)
    split = next(each for each in reversed(SPLITS) if each in tables)
    own = _labels(kind, chain(*tables.values()))
    if own and labels:
        refuse(list(strangers(file, kind, tables[split], labels, f"the model's labels ({some(labels)})")))
    known = labels if own and labels else own
    if len(known) == 1:
        raise UsageError(f"{path} has one label only: {known[0]}", f"{kind.metric} needs at least two")
    return _dataset(kind, known, {split: tables[split]}, {split: file}, notes)


def _files(path: Path, rule: Rule) -> dict[str, Path]:
    """As `files_of`; UsageError where a column is to say what files say already."""
    files = files_of(path)
    if rule.split_by and len(files) > 1:
        what = f"--split-by {rule.split_by}: {path} has a file for each of {some(files)}"
        raise UsageError(what, f"leave out --split-by, or give one file, such as --data {path / files['train'].name}")
    demand(path, files, ("train",) if rule.split_by else ())
    return files


def _demand_rows(path: Path, tables: Mapping[str, Sequence[Row]], required: Sequence[str], rule: Rule) -> None:
    """UsageError where no row says that it is of a split that must be there."""
    missing = [split for split in {"train": 0, **dict.fromkeys(required)} if split != "dev" and split not in tables]
    if missing:
        counts = some(f"{len(rows):,} {split}" for split, rows in tables.items())
        what = f"{path}: column {rule.split_by!r} names no row {' and none '.join(missing)} (it has {counts})"
        raise UsageError(what, f"write {' and '.join(missing)} there, or leave out --split-by")


def _dataset(
    kind: Kind,
    labels: tuple[str, ...],
    splits: dict[str, tuple[Row, ...]],
    names: dict[str, str],
    notes: tuple[str, ...],
    warnings: tuple[str, ...] = (),
) -> Dataset:
    said = (*_unread(splits), *notes)
    return Dataset(kind.name, labels, splits, names, _fingerprint(kind, splits), said, warnings)


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


def _tables(
    path: Path, files: Mapping[str, Path], columns: Columns, first: str, rule: Rule, known: Sequence[str] | None = None
) -> tuple[Kind, dict[str, tuple[Row, ...]], tuple[str, ...]]:
    """(kind, split to rows, notes); the first record of split `first` decides the kind. Raises UsageError.

    `known`: of rows that are evaluated, the labels of the model, if it has any. None: the rows are trained on.
    """
    found = {split: read(file) for split, file in files.items()}
    kind, leader = _kind_of(first, files, found, columns)
    checked = {split: _rows(files[split].name, records, kind, columns, rule) for split, records in found.items()}
    faults = [problem for _, faults in checked.values() for problem in faults]
    tables = {split: rows for split, (rows, _) in checked.items()}
    notes: tuple[str, ...] = ()
    if not faults:
        tables, notes = _parted(tables, first, files[first].name, leader, rule, evaluated=known is not None)
    if kind.label_column:
        tables, said = _joined(kind, tables, known or ())
        notes += said
        if "train" in tables and not checked[first][1]:  # a faulty row may hold a label's only use
            names = {split: files.get(split, files[first]).name for split in tables}
            faults += label_problems(kind, tables, names)
    refuse(faults, f"correct these places, or `{repair(path)}` writes a copy without these rows; nothing was started")
    return kind, tables, notes


def _parted(
    tables: dict[str, tuple[Row, ...]], first: str, file: str, leader: Record, rule: Rule, evaluated: bool
) -> tuple[dict[str, tuple[Row, ...]], tuple[str, ...]]:
    """Split to rows as the column of `rule.split_by` has it, and notes. UsageError where a column is in no row."""
    rows = tables[first]
    there = {rule.split_by: any(row.part for row in rows), rule.group_by: any(row.group for row in rows)}
    missing = [name for name, found in there.items() if name and not found]
    if missing and not evaluated:
        refuse(
            [f"{file}: no row has {' and none '.join(map(repr, missing))} ({_has(leader)})"],
            "name one of these columns",
        )
    if not rule.split_by or missing:
        alone = sum(not row.group for row in rows) if rule.group_by else 0
        return tables, (f"{many(alone, 'row')} without {rule.group_by!r}: each is a group of its own",) if alone else ()
    parts = {split: _taken(rows, places) for split, places in by_column(rows, rule, file).items()}
    counts = some(f"{split} {len(part):,}" for split, part in parts.items())
    return parts, (f"rows of {file} by column {rule.split_by!r}: {counts}",)


def _taken(rows: Sequence[Row], places: Iterable[int]) -> tuple[Row, ...]:
    return tuple(rows[i] for i in places)


def _joined(
    kind: Kind, tables: Mapping[str, tuple[Row, ...]], known: Sequence[str]
) -> tuple[dict[str, tuple[Row, ...]], tuple[str, ...]]:
    """The rows with one spelling of each label, and notes of what was joined."""
    counts = {split: counted(kind, rows) for split, rows in tables.items()}
    every = sum(counts.values(), Counter[str]())
    lead = dict.fromkeys(known, 1) or counts.get("train", every)
    spelling = {label: kept for label, kept in joined(lead, every).items() if label not in known and label in every}
    return {s: respelled(rows, kind.label_column, spelling) for s, rows in tables.items()}, told(spelling, every)


def _kind_of(
    first: str, files: Mapping[str, Path], found: Mapping[str, Sequence[Read]], columns: Columns
) -> tuple[Kind, Record]:
    """The kind by the first record of split `first`, and that record.

    UsageError where it has the columns of no kind, or there is no record.
    """
    leader = next(((line, record) for line, record in found[first] if isinstance(record, dict)), None)
    if leader and (name := recognised(leader[1], columns)):
        return KINDS[name], leader[1]
    unread = [f"{files[s].name}: line {line}: {r}" for s in found for line, r in found[s] if isinstance(r, str)]
    if leader is None:
        raise faulty(unread)
    expected = ", or ".join(" + ".join(names) for names in reversed(columns.values()))
    what = f"fits no kind of rows ({_has(leader[1])}); expected are {expected}"
    hint = 'name the columns of your file with --template "{text}\\n{label}"'
    raise faulty([f"{files[first].name}: line {leader[0]}: {what}", *unread], hint)


@dataclass(frozen=True)
class Checked:
    """A record, the row that it is, and what is wrong with it; one of the latter two, and no record where none was."""

    line: int
    record: Record | None
    row: Row | None
    faults: Sequence[str]


def each(data: DataPart) -> tuple[Kind, dict[str, tuple[Path, Callable[[], Iterator[Checked]]]]]:
    """The kind of rows, and split to its file and to what reads its records one by one, sound or not.

    Raises UsageError where the files are not to be read at all, or of no kind.
    """
    columns, rule = columns_of(data.template), Rule.of(data)
    files = files_of(Path(data.path).expanduser().resolve())
    found = {split: read(file) for split, file in files.items()}
    kind, _ = _kind_of(next(iter(files)), files, found, columns)
    return kind, {s: (files[s], partial(_checked, found[s], kind, columns, rule)) for s in files}


def _checked(records: Sequence[Read], kind: Kind, columns: Columns, rule: Rule) -> Iterator[Checked]:
    for line, record in records:
        if isinstance(record, str):
            yield Checked(line, None, None, (record,))
        elif faults := _faults(record, kind, columns):
            yield Checked(line, record, None, faults)
        else:
            row = kind.row(line, record, columns[kind.name])
            row = _placed(row, record, rule) if rule.split_by or rule.group_by else row
            yield Checked(line, record, row, ())


def _rows(
    file: str, records: Sequence[Read], kind: Kind, columns: Columns, rule: Rule
) -> tuple[tuple[Row, ...], list[str]]:
    """The sound rows of a file, and the problems of the others."""
    rows: list[Row] = []
    problems: list[str] = []
    for found in _checked(records, kind, columns, rule):
        problems += [f"{file}: line {found.line}: {fault}" for fault in found.faults]
        rows += [found.row] if found.row else []
    return tuple(rows), problems


def _placed(row: Row, record: Record, rule: Rule) -> Row:
    """The row with what its record says of its split and its group; "" where it says nothing."""
    part, group = record.get(rule.split_by), record.get(rule.group_by)
    return replace(row, part=_stated(part), group=_stated(group))


def _stated(value: Any) -> str:
    return "" if value is None else as_text(value).strip()


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


def _labels(kind: Kind, rows: Iterable[Row]) -> tuple[str, ...]:
    """Sorted; none where rows of that kind have none."""
    return tuple(sorted({row.columns[kind.label_column] for row in rows})) if kind.label_column else ()


def _fingerprint(kind: Kind, splits: Mapping[str, Sequence[Row]]) -> str:
    lines = [kind.name.encode()]
    for split, rows in splits.items():
        lines += [split.encode(), *(row.content() for row in rows)]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()
