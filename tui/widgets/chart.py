"""A chart that is moved with keys and mouse: wheel and + − zoom, arrows and dragging pan, 0 shows all, l is log.

Own, because the textual widgets there are take a quarter of a core at five redraws a second, or have no ASCII.
"""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .canvas import MARKS, Cells, Curve, Window, draw, span, step_ticks, ticks

Source = Callable[[float, float, int], Sequence[Curve]]
"""Curves of the steps from one to another, in about so many points each."""

ZOOM, PAN = 0.7, 0.2
LEAST = 4.0  # steps that are seen, at least
SAMPLES = {"cloud": "·", "line": "━", "marks": ""}
ASCII_SAMPLES = {"cloud": ".", "line": "*", "marks": ""}


class Chart(Widget, can_focus=True):
    """Draws what its source has; it is told when there is more."""

    DEFAULT_CSS = """
    Chart { height: 1fr; min-height: 4; }
    Chart:focus { background-tint: $foreground 3%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--axis", "chart--raw", "chart--mean", "chart--dev",
        "chart--a", "chart--b", "chart--c", "chart--d", "chart--e", "chart--f",
    }  # fmt: skip
    DEFAULT_CSS += """
    Chart > .chart--axis { color: $text-muted; }
    Chart > .chart--raw { color: $text-muted; text-style: dim; }
    Chart > .chart--mean { color: $primary; text-style: bold; }
    Chart > .chart--dev { color: $accent; text-style: bold; }
    Chart > .chart--a { color: $primary; }
    Chart > .chart--b { color: $accent; }
    Chart > .chart--c { color: $success; }
    Chart > .chart--d { color: $secondary; }
    Chart > .chart--e { color: $error; }
    Chart > .chart--f { color: $warning; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "zoom(1)", "Zoom in", id="chart-in", show=False),
        Binding("minus", "zoom(-1)", "Zoom out", id="chart-out", show=False),
        Binding("left,shift+left", "pan(-1)", "Earlier", id="chart-left", show=False),
        Binding("right,shift+right", "pan(1)", "Later", id="chart-right", show=False),
        Binding("0,home", "whole", "Whole run", id="chart-whole", show=False),
        Binding("l", "log", "Log scale", id="chart-log", show=False),
    ]

    class Moved(Message):
        """Other steps are seen."""

    def __init__(self, source: Source, extent: Callable[[], tuple[float, float]], mode: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.source, self.extent, self.mode = source, extent, mode
        self.view: tuple[float, float] | None = None  # None for all there is
        self.log_scale = False
        self._strips: list[Strip] = []
        self._grabbed: tuple[int, tuple[float, float]] | None = None

    # what is seen

    def seen(self) -> tuple[float, float]:
        """The steps from the left end to the right. A view of the end follows the run."""
        first, last = self.extent()
        return self.view or (first, max(first + 1, last))

    def action_zoom(self, way: int) -> None:
        first, last = self.seen()
        # at the end of a run, where things happen, the right end stays
        self.zoom(way, last if last >= self.extent()[1] else (first + last) / 2)

    def zoom(self, way: int, around: float) -> None:
        first, last = self.seen()
        by = ZOOM**way
        self._look(around - (around - first) * by, around + (last - around) * by)

    def action_pan(self, way: int) -> None:
        first, last = self.seen()
        by = way * PAN * (last - first)
        self._look(first + by, last + by)

    def action_whole(self) -> None:
        self.view = None
        self.update()
        self.post_message(self.Moved())

    def action_log(self) -> None:
        self.log_scale = not self.log_scale
        self.update()

    def _look(self, first: float, last: float) -> None:
        low, high = self.extent()
        size = min(max(LEAST, last - first), high - low)
        first = min(max(low, first if last - first >= LEAST else (first + last - size) / 2), high - size)
        whole = size >= high - low
        self.view = None if whole else (first, first + size)
        self.update()
        self.post_message(self.Moved())

    # the mouse

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, -1)

    def _wheel(self, event: events.MouseEvent, way: int) -> None:
        event.stop()
        first, last = self.seen()
        self.zoom(way, first + (last - first) * min(1.0, max(0.0, event.x / max(1, self.size.width))))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._grabbed = event.screen_x, self.seen()
        self.capture_mouse()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self._grabbed = None
        self.release_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._grabbed is None:
            return
        at, (first, last) = self._grabbed
        by = (at - event.screen_x) * (last - first) / max(1, self.size.width)
        if by:
            self._look(first + by, last + by)

    # drawing

    def on_resize(self) -> None:
        self.update()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.update()

    def update(self) -> None:
        """Draw again what the source has now."""
        width, height = self.size
        self._strips = self._drawn(width, height) if width > 0 and height > 0 else []
        self.refresh()

    def render_line(self, y: int) -> Strip:
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def _drawn(self, width: int, height: int) -> list[Strip]:
        first, last = self.seen()
        curves = self.source(first, last, 4 * width)
        found = span(curves)
        if found is None:
            text = "no loss yet"[:width]
            return [Strip([Segment(text, self._style("axis"))]).adjust_cell_length(width, self.rich_style)]
        log = self.log_scale and found[0] > 0
        rows = max(1, height - 2)
        window = Window(first, last, *found, log)
        labels, right = ticks(window, rows), _right(curves, rows)
        margin = max(map(len, labels.values())) + 2
        beside = max(map(len, right.values()), default=0) + (1 if right else 0)
        columns = width - margin - beside
        if columns < 8:
            return []
        cells = draw(curves, window, columns, rows, self.mode)
        axis, blank, base = self._style("axis"), self.rich_style, {c.style: self._style(c.style) for c in curves}
        styles = base | {f"bold {name}": style + Style(bold=True) for name, style in base.items()}
        tick = "+" if self.mode == "ascii" else "┤"
        bar = "|" if self.mode == "ascii" else "│"
        strips = []
        for y, runs in enumerate(_runs(cells, columns, rows)):
            segments = [Segment(f"{labels.get(y, ''):>{margin - 2}} {tick if y in labels else bar}", axis)]
            segments += [Segment(text, styles.get(style, blank)) for text, style in runs]
            if beside:
                segments.append(Segment(f" {right.get(y, ''):<{beside - 1}}", self._style("dev")))
            strips.append(Strip(segments).adjust_cell_length(width, blank))
        steps = " " * margin + step_ticks(first, last, columns)
        strips.append(Strip([Segment(steps, axis)]).adjust_cell_length(width, blank))
        legend = [Segment(" " * margin, blank), *self._legend(curves, log, columns + beside, styles)]
        strips.append(Strip(legend).adjust_cell_length(width, blank))
        return strips[:height]

    def _legend(self, curves: Sequence[Curve], log: bool, room: int, styles: dict[str, Style]) -> list[Segment]:
        """What is what, as far as there is room."""
        samples = ASCII_SAMPLES if self.mode == "ascii" else SAMPLES
        parts = [(c.letter or samples[c.kind] or MARKS[self.mode], c.name, styles[c.style]) for c in curves]
        segments: list[Segment] = []
        for sign, name, style in parts:
            if (room := room - len(sign) - len(name) - 4) < 0:
                break
            segments += [Segment(f"{sign} ", style), Segment(f"{name}   ", self._style("axis"))]
        notes = [*(["log scale"] if log else []), *(["zoomed, 0 shows all"] if self.view else [])]
        if notes and room >= len(text := ", ".join(notes)):
            segments.append(Segment(text, self._style("axis")))
        return segments

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"chart--{name}")


def _runs(cells: Cells, columns: int, rows: int) -> list[list[tuple[str, str]]]:
    """Each row as pieces of one style."""
    table: list[list[tuple[str, str]]] = [[] for _ in range(rows)]
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


def _right(curves: Sequence[Curve], rows: int) -> dict[int, str]:
    """The scale of marks that have one of their own, at both ends."""
    own = next((c for c in curves if c.kind == "marks" and c.span and c.points), None)
    if own is None or own.span is None or not all(map(isfinite, own.span)) or rows < 2:
        return {}
    return {0: f"{own.span[1]:.0%}", rows - 1: f"{own.span[0]:.0%}"}
