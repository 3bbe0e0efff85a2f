"""The records of a data file, each with the line where it starts: JSONL and CSV in UTF-8."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zolite.data.problems import noun, some

Record = dict[str, Any]  # column to value
Read = tuple[int, Record | str]  # a line number with the record that starts there, or with what is wrong there


def read(file: Path) -> list[Read]:
    """Every record of a file, or what is wrong in its place; never empty."""
    try:
        data = file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        return [(1, f"the file cannot be read: {error.strerror}")]
    except UnicodeDecodeError as error:
        return [(data.count(b"\n", 0, error.start) + 1, f"byte {error.start} of the file is not UTF-8")]
    return list(READERS[file.suffix.lower()](text.removeprefix("\ufeff"))) or [(1, "the file has no rows")]


def _read_jsonl(text: str) -> Iterator[Read]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines, which also breaks at U+2028 inside a string
        if line.strip():
            yield number, _object(line)


def _object(line: str) -> Record | str:
    try:
        value = json.loads(line, parse_constant=lambda _: None)  # NaN is how some writers spell a missing value
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no tokenizer takes it
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"not usable JSON: {error}"
    return value if isinstance(value, dict) else f"not a JSON object but {noun(value)}"


def _read_csv(text: str) -> Iterator[Read]:
    # csv.reader and not DictReader: a ragged row and the line where a record starts are lost in the latter.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            if cells and not header:
                header = cells
                if twice := sorted({name for name in header if name and header.count(name) > 1}):
                    yield start, f"the header has {some(twice)} more than once"
                    return
            elif cells:
                yield start, _record(header, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        yield start, f"not CSV from here on: {error}"


def _record(header: list[str], cells: list[str]) -> Record | str:
    if len(cells) != len(header):
        return f"{len(cells)} cells where the header has {len(header)}"
    return dict(zip(header, cells, strict=True))


READERS = {".jsonl": _read_jsonl, ".csv": _read_csv}
