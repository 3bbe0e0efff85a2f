"""Claims about rows that are kept in a file: whatever is asked of a table, a tuple of the rows would say the same."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zolite.common.errors import ZoliteError
from zolite.data import table as tables
from zolite.data.kinds.kind import Row
from zolite.data.table import kept

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
objects = st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=3).map(tuple)
texts = st.dictionaries(st.text(), st.text(), max_size=3)
rows = st.builds(Row, st.integers(1, 10**9), texts, objects, objects, st.lists(st.text(), max_size=2).map(tuple))


@pytest.fixture(params=[0, 2**30], ids=["in a file", "in memory"])
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Tables of any size in a file, or none; read in parts of a few rows."""
    monkeypatch.setattr(tables, "IN_MEMORY", request.param)
    monkeypatch.setattr(tables, "PART", 64)
    monkeypatch.setenv("ZOLITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(rows, max_size=12), data=st.data())
def test_a_table_is_its_rows(limits: Path, rows: list[Row], data: st.DataObject) -> None:
    """Length, each row, slices, parts in any order, contents; keys of objects stay in their order."""
    table = kept(iter(rows))
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([]))
    parts: list[tuple[Sequence[Row], list[Row]]] = [
        (table, rows),
        (table[2:-1:2], rows[2:-1:2]),
        (table[::-1], rows[::-1]),
        (table.take(places), [rows[i] for i in places]),
        (table.take(places)[1:], [rows[i] for i in places][1:]),
    ]
    for part, expected in parts:
        assert len(part) == len(expected) and repr(list(part)) == repr(expected) and part == tuple(expected)
        assert [part[i] for i in range(-len(part), len(part))] == expected * 2
        assert list(part.contents()) == [row.content() for row in expected]  # type: ignore[attr-defined]
    assert (table != rows[1:]) == bool(rows)


def test_a_row_beyond_the_end_is_no_row(limits: Path) -> None:
    with pytest.raises(IndexError):
        kept([Row(1, {})])[1]


def test_nothing_is_left_of_a_table(limits: Path) -> None:
    """Its file has no name, even while it is there."""
    table = kept(Row(i, {"text": "a" * 100}) for i in range(100))
    assert table[99].line == 99
    assert not limits.exists() or not list(limits.iterdir())


def test_threads_may_read_one_table(limits: Path) -> None:
    table = kept(Row(i, {"text": str(i)}) for i in range(500))

    def lines(_: int) -> list[int]:
        return [row.line for row in table]

    with ThreadPoolExecutor(4) as pool:
        assert all(found == list(range(500)) for found in pool.map(lines, range(8)))


def test_an_error_on_the_way_is_the_readers(limits: Path) -> None:
    """What goes wrong while rows are read is raised as it is."""

    def rows() -> Iterator[Row]:
        yield Row(1, {})
        raise ValueError("line 2")

    with pytest.raises(ValueError, match="line 2"):
        kept(rows())


def test_a_cache_that_takes_no_rows_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setattr(tables, "IN_MEMORY", 0)
    monkeypatch.setenv("ZOLITE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ZoliteError, match="cannot be kept in the cache") as caught:
        list(kept([Row(1, {"text": "a"})]))
    assert "ZOLITE_CACHE" in caught.value.hint
