"""A chart that is moved with keys and mouse: wheel and + − zoom, arrows and dragging pan, 0 shows all, l is log.

Own, because the textual widgets there are take a quarter of a core at five redraws a second, or have no ASCII.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from zolite.monitor.plots import Curve, chart

Source = Callable[[float, float, int], Sequence[Curve]]
"""Curves of the steps from one to another, in about so many points each."""

ZOOM, PAN = 0.7, 0.2
LEAST = 4.0  # steps that are seen, at least


class Chart(Widget, can_focus=True):
    """Draws what its source has; `update` says that there is more."""

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
        self._move_to(around - (around - first) * by, around + (last - around) * by)

    def action_pan(self, way: int) -> None:
        first, last = self.seen()
        by = way * PAN * (last - first)
        self._move_to(first + by, last + by)

    def action_whole(self) -> None:
        self.view = None
        self.update()
        self.post_message(self.Moved())

    def action_log(self) -> None:
        self.log_scale = not self.log_scale
        self.update()

    def _move_to(self, first: float, last: float) -> None:
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
            self._move_to(first + by, last + by)

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
        notes = ["zoomed, 0 shows all"] if self.view else []
        curves = self.source(first, last, 4 * width)
        rows = chart(curves, (first, last), (width, height), self.mode, self.log_scale, notes)
        styles = {"": self.rich_style} | {name: self._style(name) for name in {c.style for c in curves} | {"axis"}}
        styles |= {f"strong {name}": style + Style(bold=True) for name, style in styles.items()}
        return [
            Strip([Segment(text, styles[style]) for text, style in row]).adjust_cell_length(width, self.rich_style)
            for row in rows
        ]

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"chart--{name}")
