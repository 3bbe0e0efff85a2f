"""The course of a run: its curves as every chart of it draws them, and a chart of a session that is chosen."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from textual import work
from textual.app import ComposeResult
from textual.containers import Container
from textual.worker import get_current_worker

from zolite.common.errors import ZoliteError
from zolite.monitor.log import split_text
from zolite.monitor.plots import Curve
from zolite.monitor.series import Point, ascending

from .chart import Chart

if TYPE_CHECKING:
    from zolite.monitor.run_state import RunState

    from ..sessions import Listed


def extent(state: "RunState") -> tuple[float, float]:
    """The steps that it has."""
    return 0.0, float(max(2, state.step))


def curves(state: "RunState", first: float, last: float, most: int) -> Sequence[Curve]:
    """Each step as a dot, smoothed as a line, and validation scores: a loss on the losses' scale, an accuracy on its
    own.
    """
    found = [
        Curve("loss", state.losses.window(first, last, 2 * most), "raw", "cloud"),
        Curve("smoothed", state.means.window(first, last, most), "mean"),
    ]
    return [curve for curve in (*found, *_scores(state)) if curve.points]


def _scores(state: "RunState") -> list[Curve]:
    scores = [e for e in state.dev() if isfinite(e.value)]
    if not scores:
        return []
    metric, values = scores[-1].metric, [e.value for e in scores]
    points = ascending(Point(e.step, e.value, e.value, e.value) for e in scores if e.metric == metric)
    span = (min(values), max(max(values), min(values) + 0.01)) if metric == "accuracy" else None
    return [Curve(f"{split_text('dev')} {metric}", points, "dev", "marks", span=span)]


class Course(Container):
    """The curves of one session, read anew when it is another or has changed."""

    DEFAULT_CSS = """
    Course { height: 1fr; min-height: 8; border: round $panel; border-title-color: $text-muted; padding: 0 1; }
    """

    def __init__(self, mode: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.mode = mode
        self.state: RunState | None = None
        self.shown: tuple[str, int, float] | None = None  # whose, and of when
        self.border_title = "loss"

    def compose(self) -> ComposeResult:
        drawn = lambda *window: curves(self.state, *window) if self.state else ()  # noqa: E731
        chart = Chart(drawn, lambda: extent(self.state) if self.state else (0.0, 2.0), self.mode)
        chart.can_focus = False
        yield chart

    def show(self, each: "Listed | None") -> None:
        """Nothing is read while nobody can see it."""
        wanted = (each.name, each.summary.step, each.active) if each and self.display else None
        if wanted != self.shown:
            self.shown = wanted
            self.take(None)
            if each and wanted and each.state != "damaged":
                self.read(each.name)

    @work(thread=True, exclusive=True, group="course", exit_on_error=False)
    def read(self, name: str) -> None:
        from zolite.monitor.run_state import RunState, updated  # which Home's first picture does not wait for
        from zolite.sessions.follow import Reader
        from zolite.sessions.session import open_

        worker, state = get_current_worker(), RunState()
        try:
            with open_(name) as session:
                reader = Reader(session)
                while (news := reader.read()) and not worker.is_cancelled:
                    state = updated(state, news)
        except ZoliteError:  # it was removed or damaged since; the list says so when it is read next
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self.take, state)

    def take(self, state: "RunState | None") -> None:
        self.state = state
        self.query_one(Chart).update()
