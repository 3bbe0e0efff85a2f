"""Claims about reading files: every record with the line where it starts."""

from pathlib import Path

from zolite.data.readers.registry import read


def test_csv_lines_are_physical(tmp_path: Path) -> None:
    """Quoted newlines and blank lines are fine, and a record's line is where it starts in the file."""
    (tmp_path / "train.csv").write_bytes(b'\xef\xbb\xbftext,label\r\n"two\r\nlines",a\r\n\r\n"x, y",b\r\nz,a\r\n')
    found = [(line, record["text"]) for line, record in read(tmp_path / "train.csv") if isinstance(record, dict)]
    assert found == [(2, "two\r\nlines"), (5, "x, y"), (6, "z")]


def test_jsonl_lines_are_physical(tmp_path: Path) -> None:
    """Blank lines are skipped but counted, a BOM is dropped and U+2028 ends no line."""
    text = '\ufeff{"text": "a\u2028b", "label": "x"}\r\n\r\n{"text": "c", "label": "y"}'
    (tmp_path / "train.jsonl").write_bytes(text.encode())
    assert list(read(tmp_path / "train.jsonl")) == [
        (1, {"text": "a\u2028b", "label": "x"}),
        (3, {"text": "c", "label": "y"}),
    ]


def test_what_cannot_be_read_stands_in_its_place(tmp_path: Path) -> None:
    """A faulty line is a text among the records, the others are read, and a file never gives nothing."""
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n[]\n{"a": 2}\n')
    assert list(read(tmp_path / "a.jsonl")) == [(1, {"a": 1}), (2, "not a JSON object but a list"), (3, {"a": 2})]
    (tmp_path / "b.csv").write_text("")
    assert list(read(tmp_path / "b.csv")) == [(1, "the file has no rows")]
    ((line, what),) = read(tmp_path / "nowhere.csv")
    assert line == 1 and str(what).startswith("the file cannot be read: ")
