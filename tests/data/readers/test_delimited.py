"""Claims about tables as text: what separates and quotes their cells."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from zolite.data.readers.delimited import DELIMITERS
from zolite.data.readers.registry import opened, read

CELLS = st.text(st.sampled_from("ab,;|\t \"'é\n"), min_size=0, max_size=8)


def records(file: Path) -> list[Any]:
    return [record for _, record in read(file)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    delimiter=st.sampled_from(list(DELIMITERS)),
    codec=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    rows=st.lists(st.tuples(CELLS, CELLS, st.sampled_from("xy")), min_size=1, max_size=6),
)
def test_what_csv_writes_is_read(
    tmp_path: Path, delimiter: str, codec: str, ending: str, rows: list[tuple[str, ...]]
) -> None:
    """A table that Python's csv wrote is read as it was, and its delimiter is said where it is not the suffix's."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter, lineterminator=ending)
    writer.writerows([("text", "other", "label"), *rows])
    file = tmp_path / "a.csv"
    file.write_bytes(sink.getvalue().encode(codec))
    assert records(file) == [dict(zip(("text", "other", "label"), row, strict=True)) for row in rows]
    assert any(f"separated by {DELIMITERS[delimiter]}" in note for note in opened(file).notes) == (delimiter != ",")


@pytest.mark.parametrize(
    ("name", "text", "rows", "said"),
    [
        ("a.csv", 'text,label\n"say \\"hi\\", ok",a\nz,b\n', [('say "hi", ok', "a"), ("z", "b")], 'quotes as \\"'),
        ("a.csv", "text,label\n'a, b',x\nc,y\n", [("a, b", "x"), ("c", "y")], "cells quoted with '"),
        ("a.csv", 'text, label\n"a, b", x\nc, y\n', [("a, b", "x"), ("c", "y")], ""),
        ("a.csv", "sep=|\ntext|label\na;b|c\n", [("a;b", "c")], "separated by bars"),
        ("a.csv", "text;label\n1,5 EUR;x\n2,5 EUR;y\n", [("1,5 EUR", "x"), ("2,5 EUR", "y")], "semicolons"),
        ("a.csv", "text\tlabel\na, b\tx\n", [("a, b", "x")], "tabs"),
        ("a.csv", "'tis,label\n'twas so,x\nit's 'so,y\n", [("'twas so", "x"), ("it's 'so", "y")], ""),
        ("a.tsv", 'text\tlabel\n"open quote\tx\nsay "hi"\ty\n', [('"open quote', "x"), ('say "hi"', "y")], '" is text'),
        ("a.tsv", 'text\tlabel\n"a\tb"\tx\n', [("a\tb", "x")], ""),
        ("a.tsv", "text,label\na b,x\n", [("a b", "x")], "commas"),
        ("a.csv", " text ,label\nb , x\n", [("b ", " x")], ""),
        ("a.csv", "\n\ntext,label\na,x\n", [("a", "x")], ""),
        ("a.csv", "text\nhello\n", [("hello",)], ""),
    ],
)
def test_dialects(tmp_path: Path, name: str, text: str, rows: list[tuple[str, ...]], said: str) -> None:
    """What people's programs write, with what is said of it; a header loses the space around its names."""
    (tmp_path / name).write_text(text)
    found = records(tmp_path / name)
    assert [tuple(record.values()) for record in found] == rows
    assert not {name for record in found for name in record if name != name.strip()}
    notes = " ".join(opened(tmp_path / name).notes)
    assert said in notes and bool(said) == bool(notes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text,label\na,x\nb\n\nc,d,e\n", [(2, None), (3, "1 cells where the header has 2"), (5, "3 cells")]),
        ('text,label\n"a\nb",x\nc\n', [(2, None), (4, "1 cells where the header has 2")]),
        ('text,label\na,x\n"b"c,y\nd,x\n', [(2, None), (3, "not CSV from here on: ',' expected after '\"'")]),
        ("text,label,text\na,x,b\n", [(1, "the header has text more than once")]),
    ],
)
def test_faults_have_their_lines(tmp_path: Path, text: str, expected: list[tuple[int, str | None]]) -> None:
    """Ragged rows, quotes in the middle of nowhere, headers that name a column twice."""
    (tmp_path / "a.csv").write_text(text)
    found = list(read(tmp_path / "a.csv"))
    assert [line for line, _ in found] == [line for line, _ in expected]
    for (_, record), (_, what) in zip(found, expected, strict=True):
        assert isinstance(record, dict) if what is None else what in record


def test_a_ragged_file_keeps_its_delimiter(tmp_path: Path) -> None:
    """Rows that do not fit do not make another delimiter likelier under which all of them are one cell."""
    (tmp_path / "a.csv").write_text("text,label\n" + "a;b\n" * 9 + "a,x\n")
    assert sum(isinstance(record, dict) for record in records(tmp_path / "a.csv")) == 1


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\r\n,;\t|\0'), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_column_needs_no_delimiter(tmp_path: Path, text: str) -> None:
    assume(text.strip() and not text.startswith("'") and not text.isspace())
    (tmp_path / "a.csv").write_text(f"text\n{text}\n", encoding="utf-8")
    assert records(tmp_path / "a.csv") == [{"text": text}]
