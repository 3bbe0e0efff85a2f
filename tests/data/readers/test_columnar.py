"""Claims about Parquet, Arrow and Feather: their values as JSON has them."""

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zolite.data.readers.registry import opened, read


def arrow_file(path: Path, table: Any) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def arrow_stream(path: Path, table: Any) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "a.parquet": lambda path, table: pq.write_table(table, path, row_group_size=100),
    "file.arrow": arrow_file,
    "stream.arrow": arrow_stream,
}


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_numbered_and_called_rows(tmp_path: Path, name: str) -> None:
    """More of them than are read at a time, over the bounds of groups and batches."""
    table = pa.table({"text": [f"t{i}" for i in range(1000)], "label": [i % 2 for i in range(1000)]})
    WRITERS[name](tmp_path / name, table)
    assert opened(tmp_path / name).unit == "row"
    assert list(read(tmp_path / name)) == [(i + 1, {"text": f"t{i}", "label": i % 2}) for i in range(1000)]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime(2024, 5, 1, 12, 30), "2024-05-01T12:30:00"),
        (date(2024, 5, 1), "2024-05-01"),
        (Decimal("1.50"), "1.50"),
        (b"bytes", "bytes"),
        (float("nan"), None),
        (None, None),
        (True, True),
        ([{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}]),
    ],
)
def test_values_are_as_json_has_them(tmp_path: Path, value: Any, plain: Any) -> None:
    pq.write_table(pa.table({"a": [value], "b": ["x"]}), tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet")) == [(1, {"a": plain, "b": "x"})]


def test_bytes_that_are_no_text_are_a_fault_of_their_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"\xff\xd8", b"ok"]}), tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet")) == [
        (1, "column 'image' has bytes that are not UTF-8"),
        (2, {"image": "ok"}),
    ]


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    """Where the file names them, as files of the hub do; -1 is no class."""
    about = {
        "info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}}
    }
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(table, tmp_path / "a.parquet")
    found = opened(tmp_path / "a.parquet")
    assert [record["label"] for _, record in found.rows() if isinstance(record, dict)] == ["pos", "neg", None]
    assert found.notes == ("numbers of 'label' as the names that the file gives them",)
    for broken in ("[]", "nothing", '{"info": {"features": null}}'):
        pq.write_table(table.replace_schema_metadata({"huggingface": broken}), tmp_path / "a.parquet")
        assert [record["label"] for _, record in read(tmp_path / "a.parquet") if isinstance(record, dict)] == [1, 0, -1]


def test_feather_of_version_1_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1 and more")
    ((_, what),) = read(tmp_path / "a.feather")
    assert "Feather of version 1" in str(what)
