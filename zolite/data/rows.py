"""Rows of training data: read, recognised (data/kinds), checked as a whole, split, fingerprinted."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError
from zolite.common.progress import counted as progressing
from zolite.common.text import many
from zolite.config.recipe import DataPart
from zolite.data.columns import SAMPLE, Asked, Shape, recognised
from zolite.data.exports import name_of, plain
from zolite.data.kinds import text
from zolite.data.kinds.kind import Kind, Row
from zolite.data.labels import counted, joined, respelled, strangers, told, warned
from zolite.data.labels import problems as label_problems
from zolite.data.no_shape import refusal
from zolite.data.problems import as_text, faulty, has, refuse, repair, some
from zolite.data.readers import registry as formats
from zolite.data.readers.reader import Opened, Read, Record
from zolite.data.sources import Sources, demand, look, named
from zolite.data.split_names import SPLITS
from zolite.data.splits import Rule, by_column, divided, hold_out
from zolite.data.table import Table, kept
from zolite.data.tasks import made

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
    warnings: tuple[str, ...] = ()
    """what is likely wrong with them"""

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
    return load(data.path, data.template, required, data.columns, data.verbalizer, data.task, Rule.of(data))


def of_for_eval(data: DataPart, labels: tuple[str, ...]) -> Dataset:
    """The rows of a recipe, as `load_for_eval` has them."""
    return load_for_eval(data.path, data.template, labels, data.columns, data.verbalizer, data.task, Rule.of(data))


def load(
    path: Path | str,
    template: str,
    required: Sequence[str] = ("train",),
    columns: str = "",
    verbalizer: str = "",
    task: str = "",
    rule: Rule = Rule(),  # noqa: B008 - it is frozen
) -> Dataset:
    """The splits of what `path` names (sources.look); of one file, a part becomes dev as the rule says.

    `required` names the splits that must be there; dev is held out of train where there is none.
    Raises UsageError with everything that is wrong with the files.
    """
    asked = Asked.of(template, columns, verbalizer, task)
    sources = look(str(path))
    _demand(str(path), sources, required, rule)
    files = _opened(sources)
    shape, tables, notes = _tables(path, files, asked, "train", rule)
    kind = shape.kind
    if rule.split_by:
        _demand_rows(path, tables, required, rule)
    names = {split: named(paths) for split, paths in sources.files.items()}
    names = {split: names.get(split, names["train"]) for split in tables}
    labels = counted(kind, tables["train"])  # before any row leaves it: dev may get a label's only row
    warnings = warned(labels, repair(path))
    if "dev" not in tables and kind.name == text.KIND.name and len(tables["train"]) == 1:
        before, behind, note = divided(tables["train"][0], rule, names["train"])
        tables |= {"train": kept([before]), "dev": kept([behind])}
        notes = (*notes, note)
        names["dev"] = names["train"]
    elif "dev" not in tables:
        held = hold_out(tables["train"], rule, kind.label_column, names["train"])
        tables |= {"train": tables["train"].take(held.train), "dev": tables["train"].take(held.dev)}
        notes = (*notes, held.note)
        names["dev"] = names["train"]
    names = {split: names[split] for split in SPLITS if split in names}
    notes = (*sources.notes, *_said(files), *notes)
    return _dataset(shape, tuple(sorted(labels)), {split: tables[split] for split in names}, names, notes, warnings)


def load_for_eval(
    path: Path | str,
    template: str,
    labels: tuple[str, ...],
    columns: str = "",
    verbalizer: str = "",
    task: str = "",
    rule: Rule = Rule(),  # noqa: B008 - it is frozen
) -> Dataset:
    """A folder's test, else dev, else train rows, or those of one file, with the labels to choose among.

    Of a file that says by a column which rows are which (`rule.split_by`), these are its test rows, else its dev rows.
    `labels`: those that a model was trained on; where there are none, the rows' own.
    Raises UsageError with everything that is wrong with that file, labels outside of `labels` too.
    """
    asked = Asked.of(template, columns, verbalizer, task)
    sources = look(str(path))
    found = sources.files
    demand(str(path), found, () if found else ("test",))
    split = next(split for split in reversed(SPLITS) if split in found)
    file, files = named(found[split]), _opened(replace(sources, files={split: found[split]}))
    shape, tables, notes = _tables(path, files, asked, split, replace(rule, group_by=""), labels)
    kind = shape.kind
    split = next(each for each in reversed(SPLITS) if each in tables)
    own = tuple(sorted(counted(kind, itertools.chain(*tables.values()))))
    if own and labels:
        refuse(list(strangers(file, kind, tables[split], labels, f"the model's labels ({some(labels)})")))
    known = labels if own and labels else own
    if len(known) == 1:
        raise UsageError(f"{path} has one label only: {known[0]}", f"{kind.metric} needs at least two")
    return _dataset(shape, known, {split: tables[split]}, {split: file}, (*_said(files), *notes))


def _demand(path: str, sources: Sources, required: Sequence[str], rule: Rule) -> None:
    """UsageError where a split that must be there has no file, or a column is to say what files say already."""
    demand(path, sources.files, {"train"} if rule.split_by else {"train", *required} - {"dev"})
    if rule.split_by and len(sources.files) > 1:
        what = f"--split-by {rule.split_by}: {path} has a file for each of {some(sources.files)}"
        first = sources.files["train"][0]
        raise UsageError(what, f"leave out --split-by, or give one file, such as --data {first}")


def _demand_rows(path: Path | str, tables: Mapping[str, Sequence[Row]], required: Sequence[str], rule: Rule) -> None:
    """UsageError where no row says that it is of a split that must be there."""
    missing = [split for split in {"train": 0, **dict.fromkeys(required)} if split != "dev" and split not in tables]
    if missing:
        counts = some(f"{len(rows):,} {split}" for split, rows in tables.items())
        what = f"{path}: column {rule.split_by!r} names no row {' and none '.join(missing)} (it has {counts})"
        raise UsageError(what, f"write {' and '.join(missing)} there, or leave out --split-by")


def _dataset(
    shape: Shape,
    labels: tuple[str, ...],
    splits: dict[str, Table],
    names: dict[str, str],
    notes: tuple[str, ...],
    warnings: tuple[str, ...] = (),
) -> Dataset:
    notes = (*notes, *shape.said, *_unread(splits))
    return Dataset(shape.kind.name, labels, splits, names, notes, warnings)


def _opened(sources: Sources) -> Files:
    return {split: tuple(_reader(path, sources.labelled) for path in paths) for split, paths in sources.files.items()}


def _reader(path: Path, labelled: bool) -> tuple[str, Opened]:
    """By its name; where folders are labels, its name with the folder."""
    opened = formats.opened(path)
    if not labelled:
        return path.name, opened
    label = path.parent.name
    return f"{label}/{path.name}", replace(opened, rows=partial(_with_label, opened, label))


def _with_label(opened: Opened, label: str) -> Iterator[Read]:
    for line, record in opened.rows():
        yield line, record | {"label": label} if isinstance(record, dict) else record


def _said(files: Files) -> tuple[str, ...]:
    """How files were understood, each note once."""
    leading = next(iter(files.values()))[0]
    first = next(leading[1].rows())[1]
    what = name_of(first) if isinstance(first, dict) else ""
    return (*_notes(files), *([f"{leading[0]}: read as {what}"] if what else []))


def _notes(files: Files) -> tuple[str, ...]:
    names: dict[str, list[str]] = {}
    for name, note in ((name, note) for several in files.values() for name, opened in several for note in opened.notes):
        names.setdefault(note, []).append(name)
    return tuple(f"{some(dict.fromkeys(known), 3)}: {note}" for note, known in names.items())


def _unread(splits: Mapping[str, Table]) -> tuple[str, ...]:
    counts = Counter(name for rows in splits.values() if rows.unread for row in rows for name in row.unread)
    named = some(f"{name!r} of {count} rows" for name, count in counts.items())
    return (f"columns that are not read: {named}",) if counts else ()


# ---- records to rows


def _tables(
    path: Path | str, files: Files, asked: Asked, first: str, rule: Rule, known: Sequence[str] | None = None
) -> tuple[Shape, dict[str, Table], tuple[str, ...]]:
    """(shape, split to rows, notes); the first records of split `first` decide the shape. Raises UsageError.

    `known`: of rows that are evaluated, the labels of the model, if it has any. None: the rows are trained on.
    """
    shape, leader = _shape_of(path, first, files, asked)
    checked = {split: _rows(several, shape, asked, rule) for split, several in files.items()}
    faults = [problem for _, faults in checked.values() for problem in faults]
    tables = {split: rows for split, (rows, _) in checked.items()}
    notes: tuple[str, ...] = ()
    if not faults:
        tables, notes = _parted(tables, first, _name(files[first]), leader, rule, evaluated=known is not None)
    if shape.kind.label_column:
        tables, said = _joined(shape.kind, tables, known or ())
        notes += said
        if "train" in tables and not checked[first][1]:  # a faulty row may hold a label's only use
            names = {split: _name(files.get(split, files[first])) for split in tables}
            faults += label_problems(shape.kind, tables, names)
    refuse(faults, f"correct these places, or `{repair(path)}` writes a copy without these rows; nothing was started")
    return shape, tables, notes


def _parted(
    tables: dict[str, Table], first: str, file: str, leader: Record, rule: Rule, evaluated: bool
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Split to rows as the column of `rule.split_by` has it, and notes. UsageError where a column is in no row."""
    rows = tables[first]
    asked = {rule.split_by: "part", rule.group_by: "group"}
    missing = [name for name, part in asked.items() if name and not any(getattr(row, part) for row in rows)]
    if missing and not evaluated:
        refuse(
            [f"{file}: no row has {' and none '.join(map(repr, missing))} ({has(leader)})"],
            "name one of these columns",
        )
    if not rule.split_by or missing:
        alone = sum(not row.group for row in rows) if rule.group_by else 0
        return tables, (f"{many(alone, 'row')} without {rule.group_by!r}: each is a group of its own",) if alone else ()
    parts = {split: rows.take(places) for split, places in by_column(rows, rule, file).items()}
    counts = some(f"{split} {len(part):,}" for split, part in parts.items())
    return parts, (f"rows of {file} by column {rule.split_by!r}: {counts}",)


def _joined(kind: Kind, tables: Mapping[str, Table], known: Sequence[str]) -> tuple[dict[str, Table], tuple[str, ...]]:
    """The rows with one spelling of each label, and notes of what was joined."""
    counts = {split: counted(kind, rows) for split, rows in tables.items()}
    every = sum(counts.values(), Counter[str]())
    lead = dict.fromkeys(known, 1) or counts.get("train", every)
    spelling = {label: one for label, one in joined(lead, every).items() if label not in known and label in every}
    if spelling:
        tables = {split: kept(respelled(rows, kind.label_column, spelling)) for split, rows in tables.items()}
    return dict(tables), told(spelling, every)


def _placed(several: Iterable[tuple[str, Opened]], task: str) -> Iterator[tuple[str, Read]]:
    """(file and line as a message names them, the line with its record or fault) of files one behind the other.

    Records are as the prompt of a published task wants them, where there is one.
    """
    for name, opened in several:
        for line, found in opened.rows():
            place = f"{name}: {opened.unit} {line}"
            for record in plain(found) if isinstance(found, dict) else (found,):
                yield place, (line, made(task, record) if isinstance(record, dict) else record)


def _shape_of(path: Path | str, first: str, files: Files, asked: Asked) -> tuple[Shape, Record]:
    """The shape by the first records of split `first`, and the first of them.

    UsageError where they fit no kind, or there is no record.
    """
    records = ((place, record) for place, (_, record) in _placed(files[first], asked.task) if isinstance(record, dict))
    leading = list(itertools.islice(records, SAMPLE))
    sample = [record for _, record in leading]
    if sample and (shape := recognised(sample, asked)):
        return shape, sample[0]
    every = (each for several in files.values() for each in _placed(several, asked.task))
    unread = [f"{place}: {record}" for place, (_, record) in every if isinstance(record, str)]
    if not leading:
        raise faulty(unread)
    raise refusal(path, leading[0][0], sample, asked, unread)


@dataclass(frozen=True)
class Checked:
    """A record with its file and line, the row that it is, and what is wrong with it; one of the latter two."""

    place: str
    record: Record | None
    row: Row | None
    faults: Sequence[str]


Reading = Callable[[], Iterator[Checked]]


def each(data: DataPart) -> tuple[Shape, dict[str, Reading]]:
    """The shape of rows, and split to what reads its records one by one, sound or not.

    Raises UsageError where the files are not to be read at all, or of no shape.
    """
    asked, rule = Asked.of(data.template, data.columns, data.verbalizer, data.task), Rule.of(data)
    files = _opened(look(data.path))
    shape, _ = _shape_of(data.path, next(iter(files)), files, asked)
    return shape, {split: partial(_checked, several, shape, asked, rule) for split, several in files.items()}


def _checked(several: Sequence[tuple[str, Opened]], shape: Shape, asked: Asked, rule: Rule) -> Iterator[Checked]:
    columns = shape.kind.columns(asked.template)
    for place, (line, record) in _placed(several, asked.task):
        if isinstance(record, str):
            yield Checked(place, None, None, (record,))
            continue
        row, faults = _row(line, record, shape, asked, columns)
        if row and (rule.split_by or rule.group_by):
            row = _stating(row, record, rule)
        yield Checked(place, record, row, faults)


def _rows(several: Sequence[tuple[str, Opened]], shape: Shape, asked: Asked, rule: Rule) -> tuple[Table, list[str]]:
    """The sound rows of a split's files, and the problems of the others."""
    problems: list[str] = []

    def sound() -> Iterator[Row]:
        for found in _checked(several, shape, asked, rule):
            problems.extend(f"{found.place}: {fault}" for fault in found.faults)
            if found.row:
                yield found.row

    about = [opened.about for _, opened in several]
    return kept(progressing(sound(), "reading rows", sum(about) if all(about) else 0)), problems


def _stating(row: Row, record: Record, rule: Rule) -> Row:
    """The row with what its record says of its split and its group; "" where it says nothing."""
    part, group = (record.get(name) if name else None for name in (rule.split_by, rule.group_by))
    unread = tuple(name for name in row.unread if name not in (rule.split_by, rule.group_by))
    return replace(row, part=_stated(part), group=_stated(group), unread=unread)


def _stated(value: Any) -> str:
    return "" if value is None else as_text(value).strip()


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
    unread = record.keys() - shape.used
    return (replace(row, unread=tuple(sorted(unread))) if unread else row), ()


def _other(record: Record, shape: Shape, asked: Asked) -> Kind | None:
    """The kind of a record that has none of the columns of a shape, where it has those of another one."""
    if not record or shape.used & record.keys():
        return None
    found = recognised([record], replace(asked, columns={}, constants={}))
    return found.kind if found else None


def _name(several: Sequence[tuple[str, Opened]]) -> str:
    return several[0][0] if len(several) == 1 else f"{several[0][0]} and {len(several) - 1} more"
