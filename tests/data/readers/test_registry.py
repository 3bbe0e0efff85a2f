"""Claims about reading files, whatever their format: every record with its line, and what is no data."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zolite.data.readers import delimited, jsonl, reader, unpacked
from zolite.data.readers.registry import ADVICE, READERS, opened, read, stem_of, suffix_of, unsupported

ROWS = [{"text": f"row {i}, with é, a | and a ; in it", "label": "ab"[i % 2]} for i in range(7)]


def spelled(suffix: str, rows: list[dict[str, Any]]) -> bytes:
    """A file of these rows in the format of a suffix; of text formats, their texts."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if suffix in (".jsonl", ".ndjson"):
        return lines.encode()
    if suffix == ".json":
        return json.dumps(rows, indent=1).encode()
    if suffix in (".csv", ".tsv"):
        between = {".csv": ",", ".tsv": "\t"}[suffix]
        return "".join(
            between.join(f'"{c}"' for c in cells) + "\n" for cells in [rows[0], *map(dict.values, rows)]
        ).encode()
    if suffix in (".txt", ".md"):
        return rows[0]["text"].encode()
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    if suffix == ".parquet":
        pq.write_table(table, sink)
    else:
        feather.write_feather(table, sink)
    return bytes(sink.getvalue())


PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def only_fault(file: Path) -> str:
    ((_, what),) = read(file)
    assert isinstance(what, str)
    return what


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("suffix", READERS)
def test_every_format_gives_the_same_records(tmp_path: Path, suffix: str, packed: str) -> None:
    """Plain and packed; the suffix is read in small letters, and documents are one record."""
    file = tmp_path / f"Rows{suffix.upper()}{packed}"
    file.write_bytes(PACKERS[packed](spelled(suffix, ROWS)))
    found = [record for _, record in read(file)]
    assert found == ([{"text": ROWS[0]["text"]}] if suffix in (".txt", ".md") else ROWS)
    assert (suffix_of(file), stem_of(file), unsupported(file)) == (suffix, "Rows", "")


@pytest.mark.parametrize("suffix", READERS)
def test_reading_again_gives_the_same(tmp_path: Path, suffix: str) -> None:
    """An opened file is read from its first row each time."""
    file = tmp_path / f"a{suffix}"
    file.write_bytes(spelled(suffix, ROWS))
    found = opened(file)
    assert list(found.rows()) == list(found.rows())


@pytest.mark.parametrize("suffix", READERS)
def test_an_empty_file_says_so(tmp_path: Path, suffix: str) -> None:
    """A file never gives nothing."""
    (tmp_path / f"a{suffix}").write_bytes(b"")
    assert only_fault(tmp_path / f"a{suffix}") in ("the file has no rows", "the file is empty")


def test_csv_lines_are_physical(tmp_path: Path) -> None:
    """Quoted newlines and blank lines are fine, and a record's line is where it starts in the file."""
    (tmp_path / "train.csv").write_bytes(b'\xef\xbb\xbftext,label\r\n"two\r\nlines",a\r\n\r\n"x, y",b\r\nz,a\r\n')
    found = [(line, record["text"]) for line, record in read(tmp_path / "train.csv") if isinstance(record, dict)]
    assert found == [(2, "two\r\nlines"), (5, "x, y"), (6, "z")]


def test_jsonl_lines_are_physical(tmp_path: Path) -> None:
    """Blank lines are skipped but counted, a BOM is dropped and U+2028 ends no line."""
    text = '\ufeff{"text": "a\u2028b", "label": "x"}\r\n\r\n{"text": "c", "label": "y"}'
    (tmp_path / "train.jsonl").write_bytes(text.encode())
    expected = [(1, {"text": "a\u2028b", "label": "x"}), (3, {"text": "c", "label": "y"})]
    assert list(read(tmp_path / "train.jsonl")) == expected


def test_what_cannot_be_read_stands_in_its_place(tmp_path: Path) -> None:
    """A faulty line is a text among the records, the others are read, and a file never gives nothing."""
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n[]\n{"a": 2}\n')
    assert list(read(tmp_path / "a.jsonl")) == [(1, {"a": 1}), (2, "not a JSON object but a list"), (3, {"a": 2})]
    ((line, what),) = read(tmp_path / "nowhere.csv")
    assert line == 1 and str(what).startswith("the file cannot be read: ")


@pytest.mark.parametrize("suffix", ADVICE)
def test_other_files_are_refused_with_what_to_do(suffix: str) -> None:
    """A spreadsheet, an archive, a database: named as what it is, with how its rows become readable."""
    assert unsupported(Path(f"a{suffix}")).startswith("it is ") and suffix not in READERS
    assert unsupported(Path("a.xyz")) == ".xyz is not supported"
    assert unsupported(Path("a")) == "a file without extension is not supported"


# ---- what is no data by its first bytes


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".txt", ".parquet"])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12345\n",
            "a Git LFS pointer to a file of 12,345",
        ),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
        (b"\xef\xbb\xbf<html lang='en'>", "an HTML page"),
        (b"PK\x03\x04\x14\x00", "a zip archive or an Excel workbook"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"BZh91AY", "packed with bzip2"),
    ],
)
def test_foreign_content_is_named(tmp_path: Path, suffix: str, data: bytes, what: str) -> None:
    """Whatever the name says; also inside of what is packed."""
    (tmp_path / f"a{suffix}").write_bytes(data)
    assert f"it is {what}" in only_fault(tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}.gz").write_bytes(gzip.compress(data))
    assert f"it is {what}" in only_fault(tmp_path / f"a{suffix}.gz")


def test_pipes_devices_and_loops_are_refused(tmp_path: Path) -> None:
    """Nothing waits for a pipe, reads a device without end or follows links in a circle."""
    os.mkfifo(tmp_path / "a.jsonl")
    assert only_fault(tmp_path / "a.jsonl").startswith("it is a pipe or a device")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    assert only_fault(tmp_path / "zero.csv").startswith("it is a pipe or a device")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert only_fault(tmp_path / "loop.csv").startswith("the file cannot be read")


# ---- limits


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt"])
def test_a_row_without_end_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row longer than the limit ends the file, with its line, before more of it is read."""
    for module in (reader, jsonl, delimited):
        monkeypatch.setattr(module, "MOST_LETTERS", 1000, raising=False)
    for name in ("encoding", "document", "json_values"):
        monkeypatch.setattr(f"zolite.data.readers.{name}.MOST_LETTERS", 1000)
    monkeypatch.setattr("zolite.data.readers.json_values.CHUNK", 64)
    (tmp_path / f"a{suffix}").write_text('{"text": "' + "x" * 5000)
    assert "1,000 letters" in only_fault(tmp_path / f"a{suffix}")


def test_cells_are_longer_than_csv_allows_by_itself(tmp_path: Path) -> None:
    """A cell of 300,000 letters is read in every format of text."""
    text = "é" * 300_000
    for suffix, data in {
        ".csv": f'text,label\n"{text}",a\n', ".tsv": f"text\tlabel\n{text}\ta\n",
        ".jsonl": json.dumps({"text": text, "label": "a"}), ".json": json.dumps([{"text": text, "label": "a"}]),
    }.items():  # fmt: skip
        (tmp_path / f"a{suffix}").write_text(data, encoding="utf-8")
        assert [record for _, record in read(tmp_path / f"a{suffix}")] == [{"text": text, "label": "a"}]


def test_a_header_of_too_many_columns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text(",".join(f"c{i}" for i in range(300_000)) + "\n")
    assert "the header has 300,000 columns; at most 10,000 are read" in only_fault(tmp_path / "a.csv")
    monkeypatch.setattr("zolite.data.readers.columnar.MOST_COLUMNS", 10)
    pq.write_table(pa.table({f"c{i}": [1] for i in range(11)}), tmp_path / "a.parquet")
    assert "it has 11 columns" in only_fault(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000]
)
def test_deep_nesting_is_refused(tmp_path: Path, suffix: str, text: str) -> None:
    (tmp_path / f"a{suffix}").write_text(text)
    assert "nested too deeply" in only_fault(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, suffix: str, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what comes out of how much, not by what it would come to."""
    monkeypatch.setattr(unpacked, "FREE", unpacked.CHUNK)
    (tmp_path / f"a{suffix}{packed}").write_bytes(PACKERS[packed](b" " * (unpacked.FREE + 2 * unpacked.CHUNK)))
    assert "as no text does" in only_fault(tmp_path / f"a{suffix}{packed}")


def test_text_that_packs_well_is_read(tmp_path: Path) -> None:
    """A file that unpacks to more than any file may without question, at the ratio of repeated text."""
    line = json.dumps({"text": "the same sentence again and again " * 2, "label": "a"}) + "\n"
    count = unpacked.FREE // len(line) // 8
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((line * count).encode(), 1))
    assert sum(isinstance(record, dict) for _, record in read(tmp_path / "a.jsonl.gz")) == count


# ---- damage


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_said_and_never_raised(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes of a file are lost or changed, reading it gives records and texts and ends."""
    suffix, packed = data.draw(st.sampled_from(list(READERS))), data.draw(st.sampled_from(list(PACKERS)))
    whole = bytearray(PACKERS[packed](spelled(suffix, ROWS)))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / f"a{suffix}{packed}"
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = opened(file)
    for number, record in found.rows():
        assert isinstance(number, int) and isinstance(record, dict | str)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_packed_file_that_is_not_whole_says_so(tmp_path: Path, packed: str) -> None:
    (tmp_path / f"a.jsonl{packed}").write_bytes(PACKERS[packed](spelled(".jsonl", ROWS))[:-6])
    assert "damaged or not whole" in only_fault(tmp_path / f"a.jsonl{packed}")


def test_without_pyarrow_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.parquet", "a.jsonl.zst"):
        suffix, packed = (".parquet", "") if name == "a.parquet" else (".jsonl", ".zst")
        (tmp_path / name).write_bytes(PACKERS[packed](spelled(suffix, ROWS)))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install pyarrow" in only_fault(tmp_path / "a.parquet")
    assert "pip install pyarrow" in only_fault(tmp_path / "a.jsonl.zst")
