"""Claims about curves as characters: all of them inside, each where it belongs, in the characters asked for."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zolite.tui.widgets.canvas import MODES, Curve, Window, draw, sampled, span, step_ticks, ticks

from zolite.monitor.series import Point, Series

NUMBERS = st.floats(-1e9, 1e9)
CHARACTERS = {
    "braille": {chr(0x2800 + i) for i in range(1, 256)} | {"◆"},
    "block": set("▘▝▀▖▌▞▛▗▚▐▜▄▙▟█◆"),
    "ascii": set(".*o"),
}


def points(values: list[float]) -> list[Point]:
    return [Point(i, v, v, v) for i, v in enumerate(values)]


@given(st.lists(NUMBERS, min_size=1, max_size=60), NUMBERS, NUMBERS, st.sampled_from(list(MODES)), st.booleans())
@settings(deadline=None)
def test_nothing_leaves_the_chart(values: list[float], a: float, b: float, mode: str, log: bool) -> None:
    """Whatever the numbers and the window, cells are inside, and of the mode's characters or a curve's letter."""
    low, high = sorted((a, b))
    window = Window(0, max(1, len(values) - 1), low, high, log)
    curves = [Curve(kind, points(values), "x", kind) for kind in ("cloud", "line", "marks")]
    cells = draw([*curves, Curve("b", points(values), "y", letter="B")], window, 30, 8, mode)
    assert all(0 <= x < 30 and 0 <= y < 8 for x, y in cells)
    assert {char for char, _ in cells.values()} <= CHARACTERS[mode] | {"B"}
    assert {style for _, style in cells.values()} <= {"x", "y", "bold y"}


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.sampled_from(list(MODES)))
@settings(deadline=None)
def test_a_line_is_connected(values: list[float], mode: str) -> None:
    """From its first point to its last a line has a cell in every column, each beside or below the one before."""
    window = Window(0, len(values) - 1, -100, 100)
    cells = draw([Curve("a", points(values), "x")], window, 40, 10, mode)
    by_column = [sorted(y for x, y in cells if x == column) for column in range(40)]
    assert all(by_column)
    for before, after in itertools.pairwise(by_column):
        assert after[0] <= before[-1] + 1 and before[0] <= after[-1] + 1


def test_higher_is_higher() -> None:
    """The greatest value is drawn at the top, the least at the bottom, on either scale; the middle differs."""
    rising = [Curve("a", points([1.0, 10.0, 100.0]), "x", "marks")]
    rows = {}
    for log in (False, True):
        cells = draw(rising, Window(0, 2, 1, 100, log), 3, 21, "block")
        rows[log] = [y for _, y in sorted(cells)]
        assert rows[log][0] == 20 and rows[log][2] == 0
    assert rows[False][1] == 18 and rows[True][1] == 10


def test_later_curves_cover_earlier_ones() -> None:
    """The smoothed line is whole where it crosses the cloud of raw losses."""
    cloud = Curve("loss", [Point(i, 0.0, 1.0, 0.5) for i in range(20)], "raw", "cloud")
    line = Curve("mean", points([0.5] * 20), "mean")
    alone = draw([line], Window(0, 19, 0, 1), 20, 5, "braille")
    both = draw([cloud, line], Window(0, 19, 0, 1), 20, 5, "braille")
    assert {cell: both[cell] for cell in alone} == alone and any(style == "raw" for _, style in both.values())


def test_letters_tell_curves_apart() -> None:
    """Curves that lie on each other still show both their letters."""
    curves = [Curve(c, points([1.0] * 200), c, letter=c.upper()) for c in "ab"]
    cells = draw(curves, Window(0, 199, 0, 2), 80, 5, "braille")
    assert {"A", "B"} <= {char for char, _ in cells.values()}


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=300))
def test_span(values: list[float]) -> None:
    """It covers every line, all but a few per cent of a cloud, and has a height."""
    line, cloud = Curve("a", points(values), "x"), Curve("b", points(values), "x", "cloud")
    low, high = span([line]) or (0, 0)
    assert low <= min(values) and max(values) <= high and low < high and low > 0
    low, high = span([cloud]) or (0, 0)
    assert sum(low <= v <= high for v in values) >= 0.95 * len(values)
    assert span([]) is None


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(8, 200))
@settings(deadline=None)
def test_step_ticks(first: int, size: int, columns: int) -> None:
    """The line below is as wide as the chart; its numbers are inside the window, ascending and whole."""
    text = step_ticks(first, first + size, columns)
    found = [int(word.replace(",", "")) for word in text.split()]
    assert len(text) == columns and found == sorted(set(found))
    assert all(first <= step <= first + size for step in found)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 12, 40])
def test_ticks(rows: int) -> None:
    """Top and bottom have their values."""
    found = ticks(Window(0, 1, 0.5, 2.0), rows)
    assert found[0] == "2.000" and (rows == 1 or found[rows - 1] == "0.5000")


@given(st.lists(st.floats(-1e3, 1e3, width=32), max_size=200), st.integers(1, 60))
def test_sampled(values: list[float], columns: int) -> None:
    """A series in a line of text is no wider than the line."""
    series = Series()
    for i, value in enumerate(values, 1):
        series.append(i, value)
    found = sampled(series, len(values), columns)  # of the same steps at equal distances
    assert len(found) == min(columns, len(values)) and found[-1:] == pytest.approx(values[-1:])
