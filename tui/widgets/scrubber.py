"""A line to move along a recorded run with: arrows, or a click."""

from typing import ClassVar

from textual import events
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ..paint import FAINT

SIGNS = {"braille": ("━", "●", "─", "◆"), "block": ("█", "█", "░", "◆"), "ascii": ("=", "O", "-", "o")}


class Scrubber(Widget, can_focus=True):
    """Where in a run of `steps` steps one is; evaluations are marked."""

    DEFAULT_CSS = """
    Scrubber { height: 1; width: 1fr; }
    Scrubber:focus { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Back", id="scrub-back", show=False),
        Binding("right", "move(1)", "On", id="scrub-on", show=False),
        Binding("home", "jump(0)", "Start", id="scrub-start", show=False),
        Binding("end", "jump(1)", "End", id="scrub-end", show=False),
    ]

    class Moved(Message):
        """To another step."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode, self.steps, self.step = mode, 0, 0
        self.marks: tuple[int, ...] = ()

    def show(self, step: int) -> None:
        self.step = step
        self.refresh()

    def action_move(self, way: int) -> None:
        """A hundredth of the run."""
        self._go(self.step + way * max(1, self.steps // 100))

    def action_jump(self, share: float) -> None:
        self._go(round(share * self.steps))

    def on_click(self, event: events.Click) -> None:
        self.action_jump(event.x / max(1, self.size.width - 1))

    def _go(self, step: int) -> None:
        self.post_message(self.Moved(min(self.steps, max(0, step))))

    def render(self) -> RenderResult:
        full, here, empty, mark = SIGNS[self.mode]
        width = self.size.width
        at = self._column(self.step, width)
        cells = [full] * at + [here] + [empty] * (width - at - 1)
        for step in self.marks:
            if (column := self._column(step, width)) > at:
                cells[column] = mark
        text = "".join(cells[:width])
        return Content.assemble((text[: at + 1], "$primary bold"), (text[at + 1 :], FAINT))

    def _column(self, step: int, width: int) -> int:
        return min(width - 1, round(step / max(1, self.steps) * (width - 1)))
