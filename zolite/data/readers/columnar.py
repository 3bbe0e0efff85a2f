"""Parquet, Arrow and Feather, by pyarrow."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

from zolite.data.readers import unpacked
from zolite.data.readers.reader import MOST_COLUMNS, Opened, Read, Record, Unreadable

ROWS = 256  # at a time
MOST_BYTES = 2**30  # of so many rows
PARQUET, ARROW, FEATHER_1 = b"PAR1", b"ARROW1", b"FEA1"
KEY = b"huggingface"  # of a schema's metadata: what `datasets` notes of the columns


def opened(file: Path) -> Opened:
    with _table(file) as (schema, _, about):
        names = _class_names(schema)
        if len(schema.names) > MOST_COLUMNS:
            raise Unreadable(f"it has {len(schema.names):,} columns; at most {MOST_COLUMNS:,} are read")
    said = tuple(f"numbers of {column!r} as the names that the file gives them" for column in names)
    return Opened(partial(_rows, file, names), said, "row", about)


def _rows(file: Path, names: dict[str, list[str]]) -> Iterator[Read]:
    number = 0
    with _table(file) as (_, batches, _):
        for batch in batches():
            for start in range(0, batch.num_rows, ROWS):
                part = batch.slice(start, ROWS)
                if part.nbytes > MOST_BYTES:
                    raise Unreadable(f"{ROWS} rows of {part.nbytes >> 20:,} MiB; at most {MOST_BYTES >> 20:,}", number)
                for record in part.to_pylist():
                    number += 1
                    yield number, _record(record, names)


@contextmanager
def _table(file: Path) -> Iterator[tuple[Any, Callable[[], Iterator[Any]], int]]:
    """(the schema, what gives the batches of rows, how many these have where the file says it)."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise Unreadable(unpacked.NO_PYARROW.format(f"{file.suffix} files")) from error
    with unpacked.seekable(file) as data:
        head = data.read(8)
        data.seek(0)
        if not head:
            raise Unreadable("the file is empty")
        try:
            yield _of_parquet(data) if head.startswith(PARQUET) else _of_arrow(data, head)
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"not {_format(head)}, or damaged: {' '.join(str(error).split())}") from error


def _format(head: bytes) -> str:
    return "Parquet" if head.startswith(PARQUET) else "Arrow"


def _of_parquet(data: BinaryIO) -> tuple[Any, Callable[[], Iterator[Any]], int]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(data)
    return table.schema_arrow, partial(table.iter_batches, batch_size=ROWS), table.metadata.num_rows


def _of_arrow(data: BinaryIO, head: bytes) -> tuple[Any, Callable[[], Iterator[Any]], int]:
    """A file of Arrow, which Feather is too, or a stream, as `datasets` writes its cache."""
    import pyarrow as pa

    if head.startswith(FEATHER_1):
        raise Unreadable("Feather of version 1: in pandas, `pd.read_feather(FILE).to_parquet(NEW)`")
    if head.startswith(ARROW):
        table = pa.ipc.open_file(data)
        return table.schema, lambda: (table.get_batch(i) for i in range(table.num_record_batches)), 0
    stream = pa.ipc.open_stream(data)
    return stream.schema, lambda: iter(stream), 0


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column to the names of its classes, of which rows have the numbers."""
    try:
        features = json.loads((schema.metadata or {})[KEY])["info"]["features"]
        return {column: what["names"] for column, what in features.items() if what.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _record(record: Record, names: dict[str, list[str]]) -> Record | str:
    for column, known in names.items():
        if isinstance(number := record.get(column), int):
            record[column] = known[number] if 0 <= number < len(known) else None  # -1 where it is not known
    try:
        for column, value in record.items():
            record[column] = _plain(value)
    except UnicodeDecodeError:
        return f"column {column!r} has bytes that are not UTF-8"
    return record


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None  # NaN is how some writers spell a missing value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)
