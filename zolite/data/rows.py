"""Rows of training data: read from JSONL or CSV, checked as a whole, split, fingerprinted.

label        the columns of the template     the answer is one of the labels found in train
completion   prompt, completion              the answer is the completion
messages     messages                        the answers are the assistant's messages
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from zolite.common.errors import UsageError, listed

SPLITS = ("train", "dev", "test")
HELD_OUT = 200  # most rows taken out of train as dev: enough to see a difference of a few per cent

_Record = dict[str, Any]
_Read = tuple[int, _Record | str]  # a line number with the record that starts there, or with what is wrong there


@dataclass(frozen=True)
class Row:
    """The columns that its kind uses, as text, and the line of the file where it starts."""

    line: int
    columns: dict[str, str]
    messages: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Dataset:
    kind: str
    """label, completion or messages"""
    labels: tuple[str, ...]
    """sorted; empty unless kind is label"""
    splits: dict[str, tuple[Row, ...]]
    """train and dev, and test where one was given"""
    files: dict[str, str]
    """split to the name of the file it came from"""
    fingerprint: str
    """sha256 of the kind and of every row's content, in order"""


def load(path: Path, template: str, required: Sequence[str] = ("train",)) -> Dataset:
    """The splits in a folder, or in one file, of which a tenth becomes dev.

    `required` names the splits that must have a file; dev is held out of train where it has none.
    Raises UsageError with everything that is wrong with the files.
    """
    columns = columns_of(template)
    files = _files(path)
    _demand(path, files, {"train", *required} - {"dev"})
    kind, tables = _tables(files, columns, "train")
    labels = _labels(tables["train"])  # before any row leaves it: dev may get a label's only row
    if "dev" not in files:
        tables["train"], tables["dev"] = _hold_out(tables["train"], files["train"].name)
    names = {split: files.get(split, files["train"]).name for split in SPLITS if split in tables}
    splits = {split: tables[split] for split in names}
    return Dataset(kind, labels, splits, names, _fingerprint(kind, splits))


def load_for_eval(path: Path, template: str, labels: tuple[str, ...]) -> tuple[str, tuple[Row, ...], str]:
    """(kind, rows, file name) of a folder's test, else dev, else train file, or of one file.

    Raises UsageError with everything that is wrong with that file; labels outside `labels`, if given, are.
    """
    columns = columns_of(template)
    files = _files(path)
    _demand(path, files, () if files else ("test",))
    split = next(split for split in reversed(SPLITS) if split in files)
    kind, tables = _tables({split: files[split]}, columns, split)
    if kind == "label" and labels:
        _refuse(_strangers(files[split].name, tables[split], labels, f"the model's labels ({_some(labels)})"))
    return kind, tables[split], files[split].name


def pieces(template: str) -> tuple[tuple[str, str], ...]:
    """The template as (literal text, column after it), the last column being label.

    Raises UsageError where it is not made of text, {column}s and a {label} at its end.
    """
    hint = 'for example --set data.template="{text}\\nCategory: {label}"'
    found: list[tuple[str, str]] = []
    literal = ""
    try:
        for text, name, spec, conversion in Formatter().parse(template):
            literal += text
            if spec or conversion or name == "":
                raise ValueError(f"{{{name}}} is to be a column's name and nothing else")
            if name is not None:
                found.append((literal, name))
                literal = ""
    except ValueError as error:
        raise UsageError(f"data.template {template!r} cannot be filled in: {error}", hint) from error
    names = [name for _, name in found]
    if literal.strip() or names[-1:] != ["label"] or names.count("label") > 1:
        raise UsageError(f"data.template {template!r} does not have {{label}} once, at its end", hint)
    if len(found) == 1:
        raise UsageError(f"data.template {template!r} names no column besides label", hint)
    return tuple(found)


def columns_of(template: str) -> tuple[str, ...]:
    """The columns a template names, each once, label last; raises UsageError as `pieces` does."""
    return tuple(dict.fromkeys(name for _, name in pieces(template)))


# ---- files


def _files(path: Path) -> dict[str, Path]:
    """Split to file, in the order of SPLITS; one file alone counts as train."""
    if path.is_file():
        found = {"train": [path]}
    elif path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file())
        found = {split: [file for file in inside if file.stem == split] for split in SPLITS}
    else:
        raise UsageError(f"data {path} is no file and no folder", "give a folder with train.jsonl or .csv, or a file")
    problems = [
        f"{file.name}: {file.suffix or 'a file without extension'} is not supported"
        for files in found.values()
        for file in files
        if file.suffix.lower() not in _READERS
    ]
    problems += [
        f"{split}: {len(files)} files ({_some(file.name for file in files)})"
        for split, files in found.items()
        if len(files) > 1
    ]
    _refuse(problems, "supported are .jsonl and .csv in UTF-8, one file a split")
    return {split: files[0] for split, files in found.items() if files}


def _demand(path: Path, files: Mapping[str, Path], required: Iterable[str]) -> None:
    missing = [split for split in SPLITS if split in required and split not in files]
    if missing:
        there = _some(sorted(file.name for file in path.iterdir())) if path.is_dir() else f"one file: {path.name}"
        raise UsageError(
            f"data {path} has no {' and no '.join(missing)} file (it has {there})",
            f"give a folder with {' and '.join(f'{split}.jsonl or {split}.csv' for split in missing)}",
        )


def _read(file: Path) -> list[_Read]:
    """Every record of a file, or what is wrong in its place; never empty."""
    try:
        data = file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        return [(1, f"the file cannot be read: {error.strerror}")]
    except UnicodeDecodeError as error:
        return [(data.count(b"\n", 0, error.start) + 1, f"byte {error.start} of the file is not UTF-8")]
    return list(_READERS[file.suffix.lower()](text.removeprefix("\ufeff"))) or [(1, "the file has no rows")]


def _read_jsonl(text: str) -> Iterator[_Read]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines, which also breaks at U+2028 inside a string
        if line.strip():
            yield number, _object(line)


def _object(line: str) -> _Record | str:
    try:
        value = json.loads(line, parse_constant=lambda _: None)  # NaN is how some writers spell a missing value
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no tokenizer takes it
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"not usable JSON: {error}"
    return value if isinstance(value, dict) else f"not a JSON object but {_noun(value)}"


def _read_csv(text: str) -> Iterator[_Read]:
    # csv.reader and not DictReader: a ragged row and the line where a record starts are lost in the latter.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            if cells and not header:
                header = cells
                if twice := sorted({name for name in header if name and header.count(name) > 1}):
                    yield start, f"the header has {_some(twice)} more than once"
                    return
            elif cells:
                yield start, _record(header, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        yield start, f"not CSV from here on: {error}"


def _record(header: list[str], cells: list[str]) -> _Record | str:
    if len(cells) != len(header):
        return f"{len(cells)} cells where the header has {len(header)}"
    return dict(zip(header, cells, strict=True))


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv}


# ---- records to rows


def _tables(files: Mapping[str, Path], columns: tuple[str, ...], first: str) -> tuple[str, dict[str, tuple[Row, ...]]]:
    """(kind, split to rows); the first record of split `first` decides the kind. Raises UsageError."""
    read = {split: _read(file) for split, file in files.items()}
    leader = next(((line, record) for line, record in read[first] if isinstance(record, dict)), None)
    kind = _kind(leader[1], columns) if leader else ""
    checked = {split: _rows(files[split].name, records, kind, columns) for split, records in read.items()}
    problems = [problem for _, found in checked.values() for problem in found]
    tables = {split: rows for split, (rows, _) in checked.items()}
    if leader and not kind:
        expected = f"expected are {' + '.join(columns)}, or prompt + completion, or messages"
        misfit = f"{files[first].name}: line {leader[0]}: fits no kind ({_has(leader[1])}); {expected}"
        _refuse([misfit, *problems], 'name the columns of your file with --set data.template="{text}\\n{label}"')
    if kind == "label" and "train" in files and not checked["train"][1]:  # a faulty row may hold a label's only use
        problems += _label_problems(files, tables)
    _refuse(problems)
    return kind, tables


def _rows(file: str, read: Sequence[_Read], kind: str, columns: tuple[str, ...]) -> tuple[tuple[Row, ...], list[str]]:
    """The sound rows of a file, and the problems of the others."""
    rows: list[Row] = []
    problems: list[str] = []
    for line, record in read:
        faults = [record] if isinstance(record, str) else _faults(record, kind, columns)
        problems += [f"{file}: line {line}: {fault}" for fault in faults]
        if kind and not faults and isinstance(record, dict):
            rows.append(_row(line, record, kind, columns))
    return tuple(rows), problems


def _row(line: int, record: _Record, kind: str, columns: tuple[str, ...]) -> Row:
    if kind == "messages":
        return Row(line, {}, tuple(_present(message) for message in record["messages"]))
    texts = {name: _text(record[name]) for name in _needs(columns)[kind]}
    # A label with a space around it would be a candidate of its own.
    return Row(line, {name: text.strip() if name == "label" else text for name, text in texts.items()})


def _needs(columns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Kind to the columns it needs; the first that a row satisfies is its kind."""
    return {"messages": ("messages",), "completion": ("prompt", "completion"), "label": columns}


def _kind(record: _Record, columns: tuple[str, ...]) -> str:
    """The kind of a record, or "" where its columns fit none."""
    return next((kind for kind, names in _needs(columns).items() if record.keys() >= set(names)), "")


# ---- checks


def _faults(record: _Record, kind: str, columns: tuple[str, ...]) -> list[str]:
    if not kind:
        return []
    found = _kind(record, columns)
    if found not in ("", kind):
        return [f"a {found} row among {kind} rows"]
    missing = [name for name in _needs(columns)[kind] if name not in record]
    if missing:
        return [f"no column {' and '.join(map(repr, missing))} ({_has(record)})"]
    return _CHECKS[kind](record, columns)


def _label_faults(record: _Record, columns: tuple[str, ...]) -> list[str]:
    def fault(value: Any) -> str:
        if value is None or isinstance(value, list | dict):
            return _noun(value)
        return "" if _text(value).strip() else "blank"

    return [f"column {name!r} is {fault(record[name])}" for name in columns if fault(record[name])]


def _completion_faults(record: _Record, _: tuple[str, ...]) -> list[str]:
    pair = ("prompt", "completion")
    faults = [f"column {n!r} is {_noun(record[n])}, not text" for n in pair if not isinstance(record[n], str)]
    return faults or ([] if record["completion"].strip() else ["column 'completion' is blank"])


def _messages_faults(record: _Record, _: tuple[str, ...]) -> list[str]:
    messages = record["messages"]
    if not isinstance(messages, list):
        return [f"column 'messages' is {_noun(messages)}, not a list (conversations need a .jsonl file)"]
    faults = [f"message {i}: {fault}" for i, m in enumerate(messages, 1) for fault in _message_faults(m)]
    answered = any(m["role"] == "assistant" and m["content"].strip() for m in messages) if not faults else True
    return faults if answered else [f"none of {len(messages)} messages is an assistant's with content"]


def _message_faults(message: Any) -> list[str]:
    if not isinstance(message, dict):
        return [f"{_noun(message)}, not an object with role and content"]
    texts = {"role": None, "content": None} | _present(message)
    faults = [f"{key!r} is {_noun(value)}, not text" for key, value in texts.items() if not isinstance(value, str)]
    return faults or ([] if texts["role"] else ["'role' is blank"])


_CHECKS = {"label": _label_faults, "completion": _completion_faults, "messages": _messages_faults}


def _label_problems(files: Mapping[str, Path], tables: Mapping[str, Sequence[Row]]) -> list[str]:
    labels, train = _labels(tables["train"]), files["train"].name
    others = [split for split in tables if split != "train"]
    few = [f"{train}: {len(labels)} label ({_some(labels)}) in {len(tables['train'])} rows; at least 2 are needed"]
    strangers = [p for s in others for p in _strangers(files[s].name, tables[s], labels, f"the labels of {train}")]
    return (few if len(labels) < 2 else []) + strangers


def _strangers(file: str, rows: Sequence[Row], labels: Sequence[str], among: str) -> list[str]:
    outside = [row for row in rows if row.columns["label"] not in labels]
    return [f"{file}: line {row.line}: label {row.columns['label']!r} is not among {among}" for row in outside]


def _refuse(problems: Sequence[str], hint: str = "correct these places; nothing was started") -> None:
    if problems:
        raise UsageError("the data has problems:\n" + listed(problems), hint)


# ---- content


def _hold_out(rows: tuple[Row, ...], file: str) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(train, dev), both in file order: dev is the tenth with the lowest hashes, whatever the order of the rows."""
    if len(rows) < 2:
        _refuse([f"{file}: {len(rows)} row; at least 2 are needed to hold one out as dev"], "add rows or a dev file")
    count = min(HELD_OUT, max(1, len(rows) // 10))
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(_content(rows[i])).digest())
    held = set(order[:count])
    return tuple(r for i, r in enumerate(rows) if i not in held), tuple(r for i, r in enumerate(rows) if i in held)


def _labels(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(sorted({row.columns["label"] for row in rows if "label" in row.columns}))


def _fingerprint(kind: str, splits: Mapping[str, Sequence[Row]]) -> str:
    lines = [kind.encode()]
    for split, rows in splits.items():
        lines += [split.encode(), *map(_content, rows)]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def _content(row: Row) -> bytes:
    """What a row says, without where it stands: one line, the same for every order of keys."""
    return json.dumps([row.columns, row.messages], sort_keys=True).encode()


def _present(message: _Record) -> _Record:
    """A message without its nulls, which some writers put for every key that any message has."""
    return {key: value for key, value in message.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _noun(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def _has(record: _Record) -> str:
    return f"it has: {_some(map(str, record))}" if record else "it has no columns"


def _some(names: Iterable[str], limit: int = 12) -> str:
    """The first few names in a line."""
    known = list(names)
    return ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "")
