"""A number by arrow keys or the mouse."""

from typing import ClassVar

from textual import events
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from zolite.common.text import human_bytes


class Slider(Widget, can_focus=True):
    """Bytes between two ends, in steps."""

    DEFAULT_CSS = """
    Slider { height: 1; width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Less", id="slider-less", show=False),
        Binding("right", "move(1)", "More", id="slider-more", show=False),
        Binding("home", "end(0)", "Least", id="slider-least", show=False),
        Binding("end", "end(1)", "Most", id="slider-most", show=False),
    ]
    value: reactive[int] = reactive(0)

    class Changed(Message):
        """It was moved by a person."""

        def __init__(self, slider: "Slider", value: int) -> None:
            super().__init__()
            self.slider, self.value = slider, value

        @property
        def control(self) -> "Slider":
            return self.slider

    def __init__(self, label: str, low: int, high: int, step: int, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.label, self.low, self.high, self.step = label, low, high, step
        self.set_reactive(Slider.value, high)

    def range(self, low: int, high: int) -> None:
        """New ends. At the upper one it stays there, since that means all there is."""
        at_end = self.value >= self.high
        self.low, self.high = low, high
        self.value = high if at_end else min(high, max(low, self.value))
        self.refresh()

    def render(self) -> RenderResult:
        tail = f" {human_bytes(self.value)} of {human_bytes(self.high)}"
        width = max(4, self.content_size.width - len(self.label) - len(tail) - 1)
        at = round((width - 1) * self.share)
        knob = "$accent bold" if self.has_focus else "$primary bold"
        line = Content.assemble(("━" * at, "$primary"), ("●", knob), ("─" * (width - 1 - at), "$text-muted"))
        return Content.assemble(f"{self.label} ", line, tail)

    @property
    def share(self) -> float:
        return (self.value - self.low) / (self.high - self.low) if self.high > self.low else 1.0

    def take(self, value: int) -> None:
        value = min(self.high, max(self.low, value))
        if value != self.value:
            self.value = value
            self.post_message(self.Changed(self, value))

    def action_move(self, direction: int) -> None:
        """By a step of the scale; from the upper end to the last step below it."""
        steps = self.value / self.step + direction
        self.take(int((steps // 1 if direction > 0 else -(-steps // 1)) * self.step))

    def action_end(self, high: int) -> None:
        self.take(self.high if high else self.low)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self.focus()
        self.capture_mouse()
        self.point(event.x)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self.app.mouse_captured is self:
            self.point(event.x)

    def on_mouse_up(self) -> None:
        self.release_mouse()

    def point(self, x: int) -> None:
        tail = f" {human_bytes(self.value)} of {human_bytes(self.high)}"
        start = len(self.label) + 1
        width = max(4, self.content_size.width - len(self.label) - len(tail) - 1)
        share = min(1.0, max(0.0, (x - start) / max(1, width - 1)))
        value = self.low + share * (self.high - self.low)
        self.take(self.high if share >= 1 else round(value / self.step) * self.step)
