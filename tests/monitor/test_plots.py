"""Claims about plots as characters: all of them inside, each where it belongs, in the characters asked for."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.monitor.axis import axis
from zolite.monitor.plots import (
    MODES,
    Curve,
    Window,
    bar,
    by_row,
    chart,
    columns,
    draw,
    flowing,
    sampled,
    span,
    sparkline,
    step_ticks,
)
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
def test_nothing_leaves_the_chart(values: list[float], a: float, b: float, mode: str, log: bool) -> None:
    """Whatever the numbers and the window, cells are inside, and of the mode's characters or a curve's letter."""
    low, high = sorted((a, b))
    window = Window(0, max(1, len(values) - 1), low, high, log)
    curves = [Curve(kind, points(values), "x", kind) for kind in ("cloud", "line", "marks")]
    cells = draw([*curves, Curve("b", points(values), "y", letter="B")], window, 30, 8, mode)
    assert all(0 <= x < 30 and 0 <= y < 8 for x, y in cells)
    assert {char for char, _ in cells.values()} <= CHARACTERS[mode] | {"B"}
    assert {style for _, style in cells.values()} <= {"x", "y", "strong y"}


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.sampled_from(list(MODES)))
def test_a_line_is_connected(values: list[float], mode: str) -> None:
    """From its first point to its last a line has a cell in every column, each beside or below the one before."""
    window = Window(0, len(values) - 1, -100, 100)
    cells = draw([Curve("a", points(values), "x")], window, 40, 10, mode)
    by_column = [sorted(y for x, y in cells if x == column) for column in range(40)]
    assert all(by_column)
    for before, after in itertools.pairwise(by_column):
        assert after[0] <= before[-1] + 1 and before[0] <= after[-1] + 1


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=60), st.integers(1, 60), st.sampled_from(list(MODES)))
def test_a_line_never_runs_back(values: list[float], count: int, mode: str) -> None:
    """What comes later changes nothing to the left of where the line was."""
    count, window = min(count, len(values)), Window(0, len(values) - 1, -100, 100)
    before = draw([Curve("a", points(values[:count]), "x")], window, 40, 10, mode)
    after = draw([Curve("a", points(values), "x")], window, 40, 10, mode)
    end = max(x for x, _ in before)
    assert {c: s for c, s in after.items() if c[0] < end} == {c: s for c, s in before.items() if c[0] < end}


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
def test_step_ticks(first: int, size: int, columns: int) -> None:
    """The line below is as wide as the chart; its numbers are inside the window, ascending and whole."""
    text = step_ticks(first, first + size, columns)
    found = [int(word.replace(",", "")) for word in text.split()]
    assert len(text) == columns and found == sorted(set(found))
    assert all(first <= step <= first + size for step in found)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 12, 40])
def test_ticks_by_row(rows: int) -> None:
    """Bottom and top are the axis' ends, and what is between stands at its height."""
    found = axis(0.5, 2.0, 4)
    rows_of = by_row(found, found.texts, rows)
    assert rows_of[0] == "2.0" and (rows == 1 or rows_of[rows - 1] == "0.5")
    assert rows < 12 or rows_of[round((rows - 1) / 3)] == "1.5"


@given(st.lists(st.floats(-1e3, 1e3, width=32), max_size=200), st.integers(1, 60))
def test_sampled(values: list[float], width: int) -> None:
    """A series in a line of text is no wider than the line."""
    series = Series()
    for i, value in enumerate(values, 1):
        series.append(i, value)
    found = sampled(series, len(values), width)  # of the same steps at equal distances
    assert len(found) == min(width, len(values)) and found[-1:] == pytest.approx(values[-1:])


@given(
    st.lists(NUMBERS, max_size=60), st.integers(1, 120), st.integers(1, 30), st.sampled_from(list(MODES)), st.booleans()
)
def test_a_chart_keeps_to_its_size(values: list[float], width: int, height: int, mode: str, log: bool) -> None:
    """Rows and columns are no more than there are, whatever the numbers; each style is a curve's, or the axis."""
    marks = Curve("score", points([abs(v) % 1 for v in values]), "dev", "marks", span=(0.0, 1.0))
    curves = [Curve("loss", points(values), "raw", "cloud"), Curve("mean", points(values), "mean"), marks]
    rows = chart([c for c in curves if c.points], (0, 60), (width, height), mode, log, ["zoomed"])
    assert len(rows) <= height and all(len("".join(text for text, _ in row)) <= width for row in rows)
    assert {style for row in rows for _, style in row} <= {"", "axis", "raw", "mean", "dev"}


def test_a_chart_has_labels_and_a_legend() -> None:
    """Its values are on the left, steps below, what is what under them, and the scale of marks on the right."""
    line, marks = (
        Curve("loss", points([3.0, 1.0]), "x"),
        Curve("score", points([0.25, 0.75]), "y", "marks", span=(0.25, 0.75)),
    )
    rows = ["".join(text for text, _ in row) for row in chart([line, marks], (0, 1), (60, 10), "ascii", notes=["n"])]
    assert len(rows) == 10 and rows[0].startswith("3 +") and rows[0].rstrip().endswith("100%")
    assert rows[7].rstrip().endswith("0%") and rows[8].split() == ["0", "1"] and rows[9].split() == [
        "*", "loss", "o", "score", "n",
    ]  # fmt: skip
    assert chart([], (0, 1), (60, 10), "braille") == [[("no loss yet", "axis")]]


def test_a_sparkline_leaves_gaps() -> None:
    """Values are blocks from lowest to highest; what is not finite is a gap."""
    assert sparkline([0, 1, math.nan, 0.5]) == "▁█ ▅"
    assert sparkline([2, 2]) == "▄▄"
    assert sparkline([98, 100], floor=0.0) == "██"
    assert sparkline([]) == ""
    assert sparkline([0, 1, 0.5], "ascii").isascii()


@given(
    st.floats(-1, 2) | st.just(math.nan), st.integers(-3, 60), st.none() | st.floats(-1, 2), st.sampled_from([*MODES])
)
def test_a_bar_is_as_wide_as_it_should_be(share: float, width: int, mark: float | None, mode: str) -> None:
    """And its full part is the share of it; a mark takes one cell's place."""
    pieces = bar(share, width, mode, mark)
    assert sum(len(text) for text, _ in pieces) == max(0, width)
    full = sum(len(text) for text, style in pieces if style == "full")
    expected = min(1.0, max(0.0, share)) * max(0, width) if math.isfinite(share) else 0
    assert abs(full - expected) <= 0.5 + (mark is not None)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=30), st.integers(1, 9), st.sampled_from([*MODES]))
def test_columns_are_as_high_as_their_counts(counts: list[int], rows: int, mode: str) -> None:
    """The highest reaches the top, and a higher one is nowhere emptier than a lower one."""
    drawn = columns(counts, rows, mode)
    heights = [sum(line[i] != " " for line in drawn) for i in range(len(counts))]
    assert [len(line) for line in drawn] == [len(counts)] * rows
    assert max(counts) == 0 or heights[counts.index(max(counts))] == rows
    assert all(a <= b for (_, a), (_, b) in itertools.pairwise(sorted(zip(counts, heights, strict=True))))


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 60))
def test_flowing(widths: list[int], width: int) -> None:
    """Every part is there once, in order, and a line of several is no wider than there is room."""
    lines = flowing(widths, width)
    assert [i for line in lines for i in line] == list(range(len(widths)))
    assert all(len(line) == 1 or sum(widths[i] for i in line) + 3 * (len(line) - 1) <= width for line in lines)
