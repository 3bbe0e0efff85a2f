"""Claims about JSON documents: which of their objects are rows, and where they start."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zolite.data.readers import json_values
from zolite.data.readers.registry import opened, read

VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6), st.lists(st.integers(), max_size=3))
RECORDS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), min_size=1, max_size=5)
ROWS = [{"text": "a", "label": "x"}, {"text": "b\n", "label": "y"}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS, indent=st.sampled_from([None, 0, 3]), chunk=st.integers(1, 40), ascii_=st.booleans())
def test_arrays_are_read_as_json_reads_them(
    tmp_path: Path, records: list[dict[str, Any]], indent: int | None, chunk: int, ascii_: bool
) -> None:
    """However they are written and wherever reading divides them; each with the line of its first letter."""
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "CHUNK", chunk)
        found = list(read(tmp_path / "a.json"))
    assert [record for _, record in found] == records
    lines = text.split("\n")
    assert all(lines[line - 1].lstrip(" [").startswith("{") for line, _ in found)
    assert len({line for line, _ in found}) == (1 if indent is None else len(records))


@pytest.mark.parametrize(
    ("document", "rows", "said"),
    [
        (ROWS, ROWS, ""),
        ({"data": ROWS}, ROWS, "rows are read from 'data'"),
        ({"version": "1.0", "data": ROWS, "tags": []}, ROWS, "rows are read from 'data', version, tags is not read"),
        ({"text": ["a", "b\n"], "label": ["x", "y"]}, ROWS, "columns: text, label"),
        ({"text": {"0": "a", "1": "b\n"}, "label": {"0": "x", "1": "y"}}, ROWS, "columns: text, label"),
        ({"q1": ROWS[0], "q2": ROWS[1]}, ROWS, "an object of rows, by their keys"),
        (ROWS[0], ROWS[:1], ""),
        ({"messages": [{"role": "user", "content": "a"}]}, [{"messages": [{"role": "user", "content": "a"}]}], ""),
    ],
)
def test_shapes_of_documents(tmp_path: Path, document: Any, rows: list[Any], said: str) -> None:
    """An array of objects, one inside of an object, columns, pandas' columns, objects by key, one object."""
    for indent in (None, 2):
        (tmp_path / "a.json").write_text(json.dumps(document, indent=indent))
        assert [record for _, record in read(tmp_path / "a.json")] == rows
        assert " ".join(opened(tmp_path / "a.json").notes) == said


@pytest.mark.parametrize("indent", [None, 2])
def test_json_lines_under_the_name_of_json(tmp_path: Path, indent: int | None) -> None:
    """Objects behind one another, in a line each or in several."""
    conversation = {"messages": [{"role": "user", "content": "a"}]}
    for rows in (ROWS, [conversation] * 3):
        (tmp_path / "a.json").write_text("\n".join(json.dumps(row, indent=indent) for row in rows))
        assert [record for _, record in read(tmp_path / "a.json")] == rows
        assert "read as JSON Lines" in opened(tmp_path / "a.json").notes[0]


@pytest.mark.parametrize("document", [{"data": ROWS * 30}, {"v": 1, "data": ROWS * 30, "end": [1]}])
def test_long_objects_are_read_by_their_array(
    tmp_path: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object longer than what is read whole gives the rows of its first array of objects."""
    monkeypatch.setattr(json_values, "MOST_LETTERS", 200)
    monkeypatch.setattr(json_values, "CHUNK", 16)
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert [record for _, record in read(tmp_path / "a.json")] == ROWS * 30
    (tmp_path / "a.json").write_text(json.dumps({"text": ["abc"] * 200}))
    ((_, what),) = read(tmp_path / "a.json")
    assert "pd.read_json('a.json').to_json('a.jsonl', orient='records', lines=True)" in str(what)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('[{"a": 1},\n{"a": 2},\n{"a" 3}]', 3, "not JSON from here on: Expecting ':' delimiter"),
        ('[{"a": 1}\n{"a": 2}]', 2, "'{' where , or ] was expected"),
        ('[{"a": 1},\n', 2, "not JSON from here on: Expecting value"),
        ('[{"a": 1}]\nmore', 2, "more text behind the end of the array"),
        ('[{"a": "\\ud800"}]', 1, "not usable JSON"),
        ("[1]", 1, "not a JSON object but a number"),
        ('"text"', 1, "not an array of objects but text"),
        ('{"train": [{"a": 1}], "test": [{"a": 2}]}', 1, "it has 2 arrays of objects (train, test)"),
        ('{"a": [1, 2], "b": [1]}', 1, "its columns have not as many values: a 2, b 1"),
        ("{'a': 1}", 1, "not JSON from here on: Expecting property name"),
    ],
)
def test_faults_have_their_lines(tmp_path: Path, text: str, line: int, what: str) -> None:
    (tmp_path / "a.json").write_text(text)
    *_, (at, said) = read(tmp_path / "a.json")
    assert at == line and what in str(said)


def test_nan_is_a_missing_value(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": NaN, "b": -Infinity}]')
    assert list(read(tmp_path / "a.json")) == [(1, {"a": None, "b": None})]
