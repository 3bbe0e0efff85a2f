"""Plots as characters of a terminal, the same in the terminal's view and in the app.

    rows = chart((Curve("loss", points, "raw", "cloud"), …), (first, last), (width, height), "braille")

What is drawn is text in pieces, each with the name of its style, which the surface maps to colours. A cell belongs to
one curve, the last that passes through it: so the smoothed loss reads as a line through a cloud of raw ones in one
colour too. Curves that are compared carry a letter besides.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log10

from zolite.monitor.axis import Axis, axis, inside, percents, widened
from zolite.monitor.series import Point, Series, usable

Piece = tuple[str, str]
"""Text and the name of its style."""

# Dots of a cell, columns × rows, and their characters by the sum of the dots' bits.
_BRAILLE_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLOCK_BITS = ((1, 4), (2, 8))
_QUARTERS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"


@dataclass(frozen=True)
class Mode:
    """How fine a cell is."""

    columns: int
    rows: int
    bits: tuple[tuple[int, ...], ...]
    char: Callable[[int], str]


MODES = {
    "braille": Mode(2, 4, _BRAILLE_BITS, lambda bits: chr(0x2800 + bits)),
    "block": Mode(2, 2, _BLOCK_BITS, lambda bits: _QUARTERS[bits]),
    "ascii": Mode(1, 1, ((1,),), lambda bits: ""),
}
FINE = {"cloud": "·", "line": "━", "marks": "◆"}
ASCII = {"cloud": ".", "line": "*", "marks": "o"}  # what cells without dots are drawn of
SIGNS = {"braille": FINE, "block": FINE, "ascii": ASCII}  # of a kind of curve, in the legend; and marks themselves
AXES = {"braille": ("┤", "│"), "block": ("┤", "│"), "ascii": ("+", "|")}  # where there is a label, and elsewhere
BARS = {"braille": ("━", "─", "┃"), "block": ("█", "░", "┃"), "ascii": ("#", "-", "|")}  # full, empty, a mark
BLOCKS = {"braille": "▁▂▃▄▅▆▇█", "block": "▁▂▃▄▅▆▇█", "ascii": " .:-=+*#"}  # of a sparkline, the lowest first
EIGHTHS = {"braille": " ▁▂▃▄▅▆▇█", "block": " ▁▂▃▄▅▆▇█", "ascii": "    #####"}  # of a cell that is so full
LEAST = 8  # columns of a chart
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


Cells = dict[tuple[int, int], tuple[str, str]]  # (column, row) to character and style


# --- curves ----------------------------------------------------------------------------------------------------------


def span(curves: Iterable[Curve]) -> tuple[float, float] | None:
    """The values that a chart covers: all but a hundredth on either side of a cloud, so that one bad batch does not
    flatten it, and all of every line and of marks without a scale of their own.
    """
    clouds, others = [], []
    for curve in curves:
        if curve.kind == "cloud":
            clouds += [v for p in curve.points for v in (p.low, p.high)]
        elif curve.kind == "line" or curve.span is None:
            others += [p.mean for p in curve.points]
    clouds.sort()
    cut = len(clouds) // 100
    values = clouds[cut : len(clouds) - cut] + others
    return widened(min(values), max(values)) if values else None


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
            cells[_place(own, point.step, point.mean, columns, rows)] = (SIGNS[mode]["marks"], curve.style)


def _letters(cells: Cells, curve: Curve, window: Window, columns: int, rows: int, place: int) -> None:
    """A curve's letter on it every few columns, where no other curve's stands."""
    by_column = {_place(window, p.step, p.mean, columns, rows)[0]: p for p in curve.points}
    for column in range(4 + 5 * place, columns, MARK_EVERY):
        point = by_column.get(column) or by_column.get(column + 1)
        if point is not None:
            x, y = _place(window, point.step, point.mean, columns, rows)
            if 0 <= x < columns:
                cells[x, y] = (curve.letter, f"strong {curve.style}")


def most_ticks(rows: int) -> int:
    """So many that they have rows between them."""
    return rows // 4 + 1


def by_row(found: Axis, texts: Sequence[str], rows: int) -> dict[int, str]:
    """Texts of an axis' ticks by the row that each is nearest to, row 0 on top; its ends have theirs in any case."""
    window = Window(0, 1, found.low, found.high, found.log)
    low, *between, high = zip(found.ticks, texts, strict=True)
    return {round((1 - window.up(tick)) * (rows - 1)): text for tick, text in (*between, low, high)}


def step_ticks(first: float, last: float, columns: int) -> str:
    """Round numbers below the chart, each under its column."""
    text = [" "] * columns
    for step in inside(first, last, columns // 9, least=1.0):
        label = f"{step:,.0f}"
        column = round((step - first) / max(1e-9, last - first) * (columns - 1))
        start = min(max(0, column - len(label) // 2), columns - len(label))
        if start >= 0 and all(c == " " for c in text[max(0, start - 1) : start + len(label) + 1]):
            text[start : start + len(label)] = label
    return "".join(text)


def sampled(series: Series, last: int, columns: int) -> list[float]:
    """A series in at most so many values, of steps at equal distances up to the last; from its first on."""
    count = min(columns, last)
    found = [series.at(last * (i + 1) / count) for i in range(count)]
    return [value for value in found if value is not None]


# --- charts ----------------------------------------------------------------------------------------------------------


def chart(
    curves: Sequence[Curve],
    steps: tuple[float, float],
    size: tuple[int, int],
    mode: str,
    log: bool = False,
    notes: Sequence[str] = (),
) -> list[list[Piece]]:
    """Curves with labels left and below and a legend, in `size` columns and rows; no rows where it is too narrow."""
    width, height = size
    found = span(curves)
    if found is None:
        return [[("no loss yet"[:width], "axis")]]
    log, rows = log and found[0] > 0, max(1, height - 2)
    values = axis(*found, most_ticks(rows), log)
    curves, right = _own_scale(curves, rows)
    window = Window(*steps, values.low, values.high, log)
    labels = by_row(values, values.texts, rows)
    margin, beside = max(map(len, labels.values())) + 2, max(map(len, right.values()), default=-1) + 1
    columns = width - margin - beside
    if columns < LEAST:
        return []
    left = [(f"{labels.get(y, ''):>{margin - 2}} {AXES[mode][y not in labels]}", "axis") for y in range(rows)]
    own = next((c.style for c in curves if c.span), "axis")
    ends = [[(f" {right.get(y, ''):<{beside - 1}}", own)] if beside else [] for y in range(rows)]
    table = _table(draw(curves, window, columns, rows, mode), columns, rows)
    body = [[start, *row, *end] for start, row, end in zip(left, table, ends, strict=True)]
    indent = " " * margin
    below = [(indent + step_ticks(*steps, columns), "axis")]
    words = _legend(curves, mode, ["log scale"] * log + list(notes), columns + beside)
    return [*body, below, [(indent, ""), *words]][:height]


def _table(cells: Cells, columns: int, rows: int) -> list[list[Piece]]:
    """Each row as pieces of one style."""
    table: list[list[Piece]] = [[] for _ in range(rows)]
    place = [0] * rows
    for (x, y), (char, style) in sorted(cells.items()):
        if not (0 <= x < columns and 0 <= y < rows):
            continue
        row = table[y]
        if x > place[y]:
            row.append((" " * (x - place[y]), ""))
        if row and row[-1][1] == style:
            row[-1] = (row[-1][0] + char, style)
        else:
            row.append((char, style))
        place[y] = x + 1
    return [[*row, (" " * (columns - at), "")] for row, at in zip(table, place, strict=True)]


def _own_scale(curves: Sequence[Curve], rows: int) -> tuple[list[Curve], dict[int, str]]:
    """Marks that have a scale of their own get one with round ends; its texts by row."""
    own = next((c for c in curves if c.kind == "marks" and c.span and c.points), None)
    if own is None or own.span is None or not all(map(isfinite, own.span)) or rows < 2:
        return list(curves), {}
    found = axis(*widened(*own.span), most_ticks(rows))
    scaled = replace(own, span=(found.low, found.high))
    return [scaled if c is own else c for c in curves], by_row(found, percents(found.ticks), rows)


def _legend(curves: Sequence[Curve], mode: str, notes: Sequence[str], room: int) -> list[Piece]:
    """What is what, as far as there is room."""
    pieces: list[Piece] = []
    for curve in curves:
        sign = curve.letter or SIGNS[mode][curve.kind]
        if (room := room - len(sign) - len(curve.name) - 4) < 0:
            break
        pieces += [(f"{sign} ", curve.style), (f"{curve.name}   ", "axis")]
    return [*pieces, (text, "axis")] if notes and room >= len(text := ", ".join(notes)) else pieces


# --- in a line of text -----------------------------------------------------------------------------------------------


def sparkline(values: Sequence[float], mode: str = "braille", floor: float | None = None) -> str:
    """One character a value; a value that is not finite is a gap. The lowest block is the least value, or `floor`."""
    blocks = BLOCKS[mode]
    known = [v for v in values if usable(v)]
    low, high = (min(known) if floor is None else floor, max(known)) if known else (0.0, 0.0)

    def block(v: float) -> str:
        return blocks[round((v - low) / (high - low) * 7) if high > low else 3] if usable(v) else " "

    return "".join(map(block, values))


def bar(share: float, width: int, mode: str = "braille", mark: float | None = None) -> list[Piece]:
    """A full part and an empty one, distinct without colour too; `mark` is a second place on it."""
    full, empty, sign = BARS[mode]
    width = max(0, width)
    cells = _cells(share, width)
    pieces = [(full * cells, "full"), (empty * (width - cells), "empty")]
    if mark is None or not width:
        return pieces
    at = min(width - 1, max(0, _cells(mark, width) - 1))
    before = [(full * min(cells, at), "full"), (empty * max(0, at - cells), "empty")]
    after = [(full * max(0, cells - at - 1), "full"), (empty * (width - max(cells, at + 1)), "empty")]
    return [*before, (sign, "mark"), *after]


def _cells(share: float, width: int) -> int:
    return min(width, max(0, round(share * width))) if isfinite(share) else 0


def columns(counts: Sequence[int], rows: int, mode: str = "braille") -> list[str]:
    """Counts as columns that stand beside each other, so many rows high, the first row on top."""
    top, levels = max(counts, default=0) or 1, EIGHTHS[mode]
    heights = [count / top * rows * 8 for count in counts]
    return ["".join(levels[min(8, max(0, round(h - 8 * (rows - 1 - row))))] for h in heights) for row in range(rows)]


def flowing(widths: Sequence[int], width: int, gap: int = 3) -> list[list[int]]:
    """Which parts stand in which line, side by side and going on below where there is no more room."""
    lines: list[list[int]] = []
    used = 0
    for i, size in enumerate(widths):
        if lines and used + gap + size <= width:
            lines[-1].append(i)
            used += gap + size
        else:
            lines.append([i])
            used = size
    return lines
