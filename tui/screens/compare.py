"""Compare: the curves of several sessions in one chart."""

import time
from collections.abc import Callable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Static
from textual.worker import get_current_worker

from zolite.common.errors import ZoliteError
from zolite.common.text import human_number
from zolite.config.recipe import ResolvedRecipe
from zolite.monitor import summary
from zolite.monitor.log import metric_text
from zolite.monitor.plots import Curve
from zolite.monitor.run_state import About, RunState, updated
from zolite.monitor.series import Point
from zolite.sessions.follow import News, Reader
from zolite.sessions.session import open_

from ..paint import MUTED, content
from ..widgets.chart import Chart
from ..widgets.panels import Panel

if TYPE_CHECKING:
    from ..context import Context

POLL_SECONDS = 0.25
LETTERS = "ABCDEF"
COLUMNS = ("", "session", "state", "step", "loss", "best validation", "lr", "ε", "method", "batch")
DETAILS = ("lr", "ε")  # columns for experts


class CompareScreen(Screen[None]):
    """Smoothed losses of several sessions by step, each with a letter on its curve; v shows their validation
    scores instead. Those that still run are followed; d shows their step sizes too.
    """

    DEFAULT_CSS = """
    CompareScreen #chart-box { height: 1fr; min-height: 8; padding: 0 1; }
    CompareScreen #table { height: auto; border: none; }
    CompareScreen #trouble { height: auto; padding: 0 1; display: none; color: $text-error; }
    CompareScreen #trouble.-shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "view", "Loss/validation", id="compare-view"),
        Binding("l", "log", "Log scale", id="compare-log"),
        Binding("d", "details", "Details", id="compare-details"),
    ]
    app: "Context"

    class Arrived(Message):
        """One of the sessions has more; at first, its recipe."""

        def __init__(self, place: int, news: News, recipe: ResolvedRecipe) -> None:
            super().__init__()
            self.place, self.news, self.recipe = place, news, recipe

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.title = "compare"
        self.names = tuple(names)[: len(LETTERS)]
        self.left_out = tuple(names)[len(LETTERS) :]
        self.states: dict[int, RunState] = {}
        self.recipes: dict[int, ResolvedRecipe] = {}
        self.details = False
        self.scores = False  # of validation instead of the loss

    def compose(self) -> ComposeResult:
        yield Static("", id="trouble", markup=False)
        with Vertical(id="chart-box"):
            yield Chart(self.curves, self.extent, self.app.config.chart)
        yield Panel("", lambda width, height: self.table(width), id="table")
        yield Footer()

    def on_mount(self) -> None:
        if self.left_out:
            self.warn(f"{len(LETTERS)} at a time: {', '.join(self.left_out)} left out")
        self.query_one(Chart).focus()
        self.follow()

    def warn(self, text: str) -> None:
        widget = self.query_one("#trouble", Static)
        widget.update(f"▲ {text}")
        widget.add_class("-shown")

    @work(thread=True, exclusive=True, exit_on_error=False)
    def follow(self) -> None:
        worker = get_current_worker()
        readers = {place: found for place, name in enumerate(self.names) if (found := self._opened(name))}
        try:
            while not worker.is_cancelled:
                news = [self._read(place, reader) for place, reader in readers.items()]
                if not any(news):
                    time.sleep(POLL_SECONDS)
        except ZoliteError as error:
            self.app.call_from_thread(self.warn, error.message)
        finally:
            for reader in readers.values():
                reader.session.close()

    def _opened(self, name: str) -> Reader | None:
        try:
            return Reader(open_(name))
        except ZoliteError as error:
            self.app.call_from_thread(self.warn, error.message)
            return None

    def _read(self, place: int, reader: Reader) -> bool:
        news = reader.read()
        if place not in self.states:
            session = reader.session
            self.states[place] = RunState(About.of(session.name, session.recipe, ""))
        elif not (news or news.running != self.states[place].running):
            return False
        self.post_message(self.Arrived(place, news, reader.session.recipe))
        return True

    @on(Arrived)
    def arrived(self, message: Arrived) -> None:
        self.states[message.place] = updated(self.states[message.place], message.news)
        self.recipes[message.place] = message.recipe
        self.draw()

    def draw(self) -> None:
        self.query_one(Chart).update()
        self.query_one("#table").refresh(layout=True)

    def table(self, width: int) -> Content:
        """A line a session, columns as wide as they have to be."""
        rows = [tuple(map(Content, COLUMNS))]
        rows += [self.cells(self.states[place], self.recipes[place], place) for place in sorted(self.recipes)]
        shown = [i for i, name in enumerate(COLUMNS) if self.details or name not in DETAILS]
        rows = [tuple(row[i] for i in shown) for row in rows]
        widths = [max(cell.cell_length for cell in column) for column in zip(*rows, strict=True)]
        lines = [
            Content("  ").join(cell.pad_right(size - cell.cell_length) for cell, size in zip(row, widths, strict=True))
            for row in rows
        ]
        lines[0] = lines[0].stylize(MUTED)
        return Content("\n").join(line.truncate(max(1, width), ellipsis=True) for line in lines)

    def cells(self, state: RunState, recipe: ResolvedRecipe, place: int) -> tuple[Content, ...]:
        best, t = state.best(), recipe.train
        return (
            Content.styled(LETTERS[place], "bold"),
            Content(state.about.name),
            content([summary.status(state)]),
            Content(f"{state.step:,} of {state.steps:,}"),
            Content(human_number(state.moving.loss)),
            Content(f"{metric_text(best)} at {best.step:,}" if best else "–"),
            Content(f"{t.lr:.3g}"),
            Content(f"{t.eps:.3g}"),
            Content(recipe.method.name),
            Content(str(t.batch)),
        )

    # the chart

    def extent(self) -> tuple[float, float]:
        return 0.0, float(max([2, *(state.step for state in self.states.values())]))

    def curves(self, first: float, last: float, most: int) -> list[Curve]:
        points: Callable[[RunState], list[Point]] = (
            _dev if self.scores else lambda state: state.means.window(first, last, most)
        )
        return [
            Curve(self.names[place], points(state), LETTERS[place].lower(), letter=LETTERS[place])
            for place, state in sorted(self.states.items())
            if points(state)
        ]

    def action_view(self) -> None:
        self.scores = not self.scores
        self.draw()

    def action_details(self) -> None:
        self.details = not self.details
        self.draw()

    def action_log(self) -> None:
        self.query_one(Chart).action_log()


def _dev(state: RunState) -> list[Point]:
    """Validation scores; accuracies in per cent."""
    by = {"accuracy": 100.0}
    scores = [(e.step, by.get(e.metric, 1.0) * e.value) for e in state.dev() if isfinite(e.value)]
    return [Point(step, value, value, value) for step, value in scores]
