"""Curves by step as SVG: numbers, ticks and smoothing are those of the terminal and the app (zolite/monitor).

    svg = drawn(Picture("loss", "nats a token", (Line("first", points, raw=raw),), (0, 240)))

Colours are those of the page around it (style.py); `alone` makes a file of its own of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zolite.monitor.axis import Axis, axis, inside, percents, widened
from zolite.monitor.plots import Curve, span
from zolite.monitor.series import Point
from zolite.report.markup import Markup, tag
from zolite.report.style import CHART, PALETTE

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 16, 14, 46  # around what is drawn
TICKS, STEPS = 6, 7  # at most, about
LEGEND = 20  # pixels of a line of it
LETTER = 9.5  # pixels that a letter of the legend takes, about
DASHES = ("", "7 4", "2 4", "10 4 2 4", "5 2 1 2", "1 3")  # of several curves, so that they differ in print too


@dataclass(frozen=True)
class Line:
    """`points` are connected; `raw` lies behind them, as dots. With `marks` each point is a measurement."""

    name: str
    points: Sequence[Point]
    raw: Sequence[Point] = ()
    marks: bool = False  # then low and high of a point are its interval


@dataclass(frozen=True)
class Picture:
    """Lines over the steps from `steps[0]` to `steps[1]`."""

    title: str
    unit: str
    lines: Sequence[Line]
    steps: tuple[float, float]
    shares: bool = False  # values from 0 to 1, shown in per cent
    best: int | None = None  # the step that is marked
    level: tuple[float, str] | None = None  # a height that is marked, and its name
    zero: bool = False  # does the axis begin there?


@dataclass(frozen=True)
class _Scale:
    steps: tuple[float, float]
    values: Axis
    down: float  # where the drawing begins

    def x(self, step: float) -> float:
        first, last = self.steps
        return LEFT + (step - first) / max(1.0, last - first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.values.low) / (self.values.high - self.values.low)
        return self.down + (1 - min(1.0, max(0.0, share))) * (HEIGHT - TOP - BOTTOM)


def drawn(picture: Picture) -> Markup:
    """Nothing where there is no value."""
    values = _values(picture)
    if values is None:
        return Markup()
    legend, lines = _legend(picture)
    scale = _Scale(picture.steps, values, float(TOP + LEGEND * lines))
    tall = HEIGHT + LEGEND * lines
    parts = [*legend, *_grid(scale, picture), *_raw(picture, scale), *_level(picture, scale), *_best(picture, scale)]
    for place, line in enumerate(picture.lines):
        parts += _line(line, place, scale, picture.shares)
    about = f"{picture.title} by step: {', '.join(line.name for line in picture.lines)}"
    box = {"viewBox": f"0 0 {WIDTH} {tall}", "role": "img", "aria_label": about}
    return tag("svg", tag("title", about), parts, xmlns="http://www.w3.org/2000/svg", class_="chart", **box)


def alone(svg: Markup) -> str:
    """A file of its own, in light and dark."""
    style = tag("style", Markup(f"{PALETTE}{CHART}.chart {{ background: var(--ground); }}"))
    return svg.replace("<title>", f"{style}<title>", 1)


def _values(picture: Picture) -> Axis | None:
    curves = [Curve("", line.points, "") for line in picture.lines]
    curves += [Curve("", line.raw, "", "cloud") for line in picture.lines]
    found = span(curves)
    if found is None:
        return None
    ends = [v for line in picture.lines if line.marks for p in line.points for v in (p.low, p.high)]
    seen = [*found, *ends, *([picture.level[0]] if picture.level else []), *([0.0] if picture.zero else [])]
    return axis(*widened(min(seen), max(seen)), TICKS)


# --- what is drawn, from the back to the front ------------------------------------------------------------------------


def _grid(scale: _Scale, picture: Picture) -> Iterator[Markup]:
    ticks = scale.values.ticks
    for value, label in zip(ticks, percents(ticks) if picture.shares else scale.values.texts, strict=True):
        y = scale.y(value)
        yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")
        yield tag("text", label, x=LEFT - 8, y=y + 4, text_anchor="end")
    below = scale.y(scale.values.low)
    for step in inside(*scale.steps, STEPS, least=1.0):
        x = scale.x(step)
        yield tag("line", x1=x, x2=x, y1=below, y2=below + 5, class_="grid")
        yield tag("text", f"{step:,.0f}", x=x, y=below + 19, text_anchor="middle")
    yield tag("text", "step", x=WIDTH - RIGHT, y=below + 39, text_anchor="end")
    yield tag("text", picture.unit, x=LEFT, y=below + 39)


def _legend(picture: Picture) -> tuple[list[Markup], int]:
    """What is what, above, and its lines; nothing for a single line without dots."""
    words = [
        (f"stroke: var(--c{i % 6})", "line", DASHES[i % 6], line.name)
        for i, line in enumerate(picture.lines)
        if line.points
    ]
    if len(picture.lines) == 1:
        if not picture.lines[0].raw:
            return [], 0
        words = [(words[0][0], "raw", "", "each step"), (words[0][0], "line", "", "smoothed")]
    parts, x, row = [], float(LEFT), 0
    for style, kind, dash, name in words:
        wide = 34 + LETTER * len(name)
        if x + wide > WIDTH - RIGHT and x > LEFT:
            x, row = float(LEFT), row + 1
        y = TOP + LEGEND * row + 4.0
        parts.append(tag("line", x1=x, x2=x + 22, y1=y, y2=y, class_=kind, style=style, stroke_dasharray=dash or None))
        parts.append(tag("text", name, x=x + 28, y=y + 4))
        x += wide + 14
    return parts, row + 1


def _raw(picture: Picture, scale: _Scale) -> Iterator[Markup]:
    for place, line in enumerate(picture.lines):
        if line.raw:
            bars = (f"M{scale.x(p.step):.1f} {scale.y(p.low):.1f}V{scale.y(p.high):.1f}h.1" for p in line.raw)
            yield tag("path", d="".join(bars), class_="raw", style=f"stroke: var(--c{place % 6})")


def _level(picture: Picture, scale: _Scale) -> Iterator[Markup]:
    if picture.level:
        height, name = picture.level
        y = scale.y(height)
        yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="level")
        yield tag("text", name, x=WIDTH - RIGHT, y=y - 5, text_anchor="end")


def _best(picture: Picture, scale: _Scale) -> Iterator[Markup]:
    if picture.best is None:
        return
    x = scale.x(picture.best)
    side = ("start", 5) if x < WIDTH / 2 else ("end", -5)
    yield tag("line", x1=x, x2=x, y1=scale.down, y2=scale.y(scale.values.low), class_="best")
    label = f"best: step {picture.best:,}"
    yield tag("text", label, x=x + side[1], y=scale.down + 10, text_anchor=side[0], class_="note")


def _line(line: Line, place: int, scale: _Scale, shares: bool) -> Iterator[Markup]:
    colour = f"var(--c{place % 6})"
    at = [(scale.x(p.step), scale.y(p.mean)) for p in line.points]
    if len(at) > 1:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        dash = DASHES[place % 6] or None
        yield tag("path", d=path, class_="line", style=f"stroke: {colour}", stroke_dasharray=dash)
    for (x, y), point in zip(at, line.points, strict=True) if line.marks or len(at) == 1 else ():
        if point.low < point.high:
            ends = {"y1": scale.y(point.low), "y2": scale.y(point.high)}
            yield tag("line", x1=x, x2=x, **ends, class_="interval", style=f"stroke: {colour}")
        value = f"{point.mean:.1%}" if shares else f"{point.mean:.4g}"
        told = tag("title", f"{line.name}, step {point.step:,}: {value}")
        yield tag("g", told, tag("circle", cx=x, cy=y, r=4, class_="mark", style=f"fill: {colour}"))
