"""Curves as characters: a table of cells for a terminal, without a widget.

    cells = draw((Curve("loss", points, "dim"), …), window, size, "braille")

A cell belongs to one curve, the last that passes through it: so the smoothed loss reads as a line through a cloud of
raw ones in one colour too. Curves that are compared carry a letter besides.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

from zolite.common.text import human_number
from zolite.monitor.series import Point, Series

# Dots of a cell, columns × rows, and their characters by the sum of the dots' bits.
_BRAILLE_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLOCK_BITS = ((1, 4), (2, 8))
_BLOCKS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"


@dataclass(frozen=True)
class Mode:
    """How fine a cell is."""

    columns: int
    rows: int
    bits: tuple[tuple[int, ...], ...]
    char: Callable[[int], str]


MODES = {
    "braille": Mode(2, 4, _BRAILLE_BITS, lambda bits: chr(0x2800 + bits)),
    "block": Mode(2, 2, _BLOCK_BITS, lambda bits: _BLOCKS[bits]),
    "ascii": Mode(1, 1, ((1,),), lambda bits: ""),
}
ASCII = {"cloud": ".", "line": "*", "marks": "o"}  # a curve's character where cells have no dots
MARKS = {"braille": "◆", "block": "◆", "ascii": "o"}
MARK_EVERY = 14  # columns between two letters of a curve


@dataclass(frozen=True)
class Curve:
    """`kind` is cloud (dots), line (connected) or marks (one sign a point, on a scale of its own: `span`)."""

    name: str
    points: Sequence[Point]
    style: str
    kind: str = "line"
    letter: str = ""
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Window:
    """The steps and values that are seen."""

    first: float
    last: float
    low: float
    high: float
    log: bool = False

    def across(self, step: float) -> float:
        """0 at the left end, 1 at the right."""
        return (step - self.first) / max(1e-9, self.last - self.first)

    def up(self, value: float) -> float:
        """0 at the bottom, 1 on top; what lies outside is drawn at the edge."""
        low, high = self.scaled(self.low), self.scaled(self.high)
        return min(1.0, max(0.0, (self.scaled(value) - low) / max(1e-12, high - low)))

    def scaled(self, value: float) -> float:
        return log10(max(value, 1e-12)) if self.log else value

    def value(self, share: float) -> float:
        """What stands so high."""
        low, high = self.scaled(self.low), self.scaled(self.high)
        found = low + share * (high - low)
        return float(10**found) if self.log else found


Cells = dict[tuple[int, int], tuple[str, str]]  # (column, row) to character and style


def span(curves: Iterable[Curve]) -> tuple[float, float] | None:
    """The values that a chart covers: all but a hundredth on either side of a cloud, so that one bad batch does not
    flatten it, and all of every line.
    """
    clouds, lines = [], []
    for curve in curves:
        if curve.kind == "cloud":
            clouds += [v for p in curve.points for v in (p.low, p.high)]
        elif curve.kind == "line":
            lines += [p.mean for p in curve.points]
    clouds.sort()
    cut = len(clouds) // 100
    values = clouds[cut : len(clouds) - cut] + lines
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or max(0.05, abs(high) * 0.05)
    return low - room if low - room > 0 or low <= 0 else low, high + room


def draw(curves: Sequence[Curve], window: Window, columns: int, rows: int, mode: str) -> Cells:
    """Cells of `columns` × `rows`; later curves cover earlier ones."""
    cells: Cells = {}
    for curve in curves:
        if curve.kind == "marks":
            _mark(cells, curve, window, columns, rows, mode)
        else:
            cells |= _dotted(curve, window, columns, rows, mode)
    for place, curve in enumerate(curves):
        if curve.letter:
            _letters(cells, curve, window, columns, rows, place)
    return cells


def _dotted(curve: Curve, window: Window, columns: int, rows: int, mode: str) -> Cells:
    fine = MODES[mode]
    wide, high = columns * fine.columns, rows * fine.rows
    dots = (_cloud if curve.kind == "cloud" else _line)(curve, window, wide, high)
    found: dict[tuple[int, int], int] = {}
    for x, y in dots:
        cell = x // fine.columns, y // fine.rows
        found[cell] = found.get(cell, 0) | fine.bits[x % fine.columns][y % fine.rows]
    return {cell: (fine.char(bits) or ASCII[curve.kind], curve.style) for cell, bits in found.items()}


def _place(window: Window, step: float, value: float, wide: int, high: int) -> tuple[int, int]:
    """Column and row of a dot, row 0 on top."""
    return round(window.across(step) * (wide - 1)), round((1 - window.up(value)) * (high - 1))


def _cloud(curve: Curve, window: Window, wide: int, high: int) -> set[tuple[int, int]]:
    inside = [p for p in curve.points if window.first <= p.step <= window.last]
    return {_place(window, p.step, value, wide, high) for p in inside for value in p[1:]}


def _line(curve: Curve, window: Window, wide: int, high: int) -> set[tuple[int, int]]:
    """Connected dots: each step of the line in a column, and what lies between two columns' heights."""
    places = [_place(window, p.step, p.mean, wide, high) for p in curve.points]
    dots = {(x, y) for x, y in places if 0 <= x < wide}
    for (x0, y0), (x1, y1) in itertools.pairwise(places):
        for x in range(max(x0, 0), min(x1, wide - 1) + 1):
            share = (x - x0) / max(1, x1 - x0)
            nextshare = min(1.0, (x + 1 - x0) / max(1, x1 - x0))
            top, bottom = sorted((round(y0 + share * (y1 - y0)), round(y0 + nextshare * (y1 - y0))))
            dots |= {(x, y) for y in range(top, max(top + 1, bottom))}
    return dots


def _mark(cells: Cells, curve: Curve, window: Window, columns: int, rows: int, mode: str) -> None:
    own = Window(window.first, window.last, *curve.span) if curve.span else window
    for point in curve.points:
        if window.first <= point.step <= window.last and isfinite(point.mean):
            cells[_place(own, point.step, point.mean, columns, rows)] = (MARKS[mode], curve.style)


def _letters(cells: Cells, curve: Curve, window: Window, columns: int, rows: int, place: int) -> None:
    """A curve's letter on it every few columns, where no other curve's stands."""
    by_column = {_place(window, p.step, p.mean, columns, rows)[0]: p for p in curve.points}
    for column in range(4 + 5 * place, columns, MARK_EVERY):
        point = by_column.get(column) or by_column.get(column + 1)
        if point is not None:
            x, y = _place(window, point.step, point.mean, columns, rows)
            if 0 <= x < columns:
                cells[x, y] = (curve.letter, f"bold {curve.style}")


def ticks(window: Window, rows: int) -> dict[int, str]:
    """Labels of the vertical axis by row: the ends and, where there is room, places between."""
    gap = 3 if rows >= 8 else 2
    places = sorted({0, rows - 1, *range(gap, rows - gap, gap)}) if rows > 3 else [0, rows - 1]
    return {row: human_number(window.value(1 - row / max(1, rows - 1))) for row in places}


def step_ticks(first: float, last: float, columns: int) -> str:
    """Round numbers below the chart, each beginning under its column."""
    text = [" "] * columns
    unit = _round_up(max(1.0, (last - first) / max(1, columns // 9)))
    step = (floor(first / unit) + (first % unit > 0)) * unit
    while step <= last:
        label = f"{step:,.0f}"
        column = round((step - first) / max(1e-9, last - first) * (columns - 1))
        start = min(max(0, column - len(label) // 2), columns - len(label))
        if start >= 0 and all(c == " " for c in text[max(0, start - 1) : start + len(label) + 1]):
            text[start : start + len(label)] = label
        step += unit
    return "".join(text)


def _round_up(x: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, …"""
    power = 10 ** floor(log10(x))
    return float(next(k * power for k in (1, 2, 5, 10) if k * power >= x * (1 - 1e-9)))


def sampled(series: Series, last: int, columns: int) -> list[float]:
    """A series in so many values, of steps at equal distances up to the last; from its first on."""
    count = min(columns, last)
    found = [series.at(last * (i + 1) / count) for i in range(count)]
    return [value for value in found if value is not None]
