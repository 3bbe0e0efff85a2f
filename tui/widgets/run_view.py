"""A run on the screen: its heading, its curves and its panels, side by side or, where there is no room, in turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from zolite.common.errors import ZoliteError
from zolite.common.events import Concluded
from zolite.monitor.outcome import card, outcome_of
from zolite.monitor.plots import Curve
from zolite.monitor.run_state import About, RunState
from zolite.planner.memory import Ledger

from ..paint import content
from . import course, panels
from .chart import Chart
from .panels import Panel

PANELS = {
    "memory": "memory",
    "events": "events",
    "steps": "loss and step size",
    "gradients": "projected gradients",
    "samples": "sample answers",
    "result": "result",
}
DETAILS = ("steps", "gradients")  # those that are for experts


@dataclass
class Beside:
    """What is known of a run but not from its journal."""

    planned: Ledger | None = None
    others: int = 0  # bytes
    tokens_per_step: float = 0.0


class Tabs(Static):
    """Names of the panels, for the mouse."""

    def action_panel(self, name: str) -> None:
        self.query_ancestor(RunView).action_panel(name)


class RunView(Container):
    """Draws a RunState; `show` is called when there is another, or it has changed."""

    DEFAULT_CSS = """
    RunView { height: 1fr; layout: vertical; }
    RunView #heading { height: auto; padding: 0 1; }
    RunView #trouble { display: none; height: auto; padding: 0 1; color: $text-error; }
    RunView #trouble.-shown { display: block; }
    RunView #body { height: 1fr; layout: vertical; }
    RunView #chart-box { height: 1fr; min-height: 6; padding: 0 1; }
    RunView #tabs { height: 1; padding: 0 1; width: 1fr; }
    RunView #side { height: 7; padding: 0 1; }
    RunView #side > * { display: none; height: 7; border: none; padding: 0; }
    RunView.-memory #memory, RunView.-steps #steps, RunView.-gradients #gradients, RunView.-events #events,
    RunView.-samples #samples, RunView.-result #result { display: block;
    }
    RunView #events-text, RunView #result-text { height: auto; width: 1fr; }
    RunView.-roomy #tabs { display: none; }
    RunView.-roomy #body { layout: grid; grid-size: 2 1; grid-columns: 1fr 46; }
    RunView.-roomy #chart-box { border: round $panel; height: 100%; padding: 0; }
    RunView.-roomy #chart-box:focus-within { border: round $primary; }
    RunView.-roomy #side { height: 100%; padding: 0; }
    RunView.-roomy #side > * { display: block; height: auto; border: round $panel; padding: 0 1; }
    RunView.-roomy #events, RunView.-roomy #result { border-title-color: $text-muted; }
    RunView.-roomy #result { display: none; height: auto; max-height: 60%; }
    RunView.-roomy.-done #result { display: block; }
    RunView.-roomy #side > *:focus { border: round $primary; }
    RunView.-roomy #gradients { height: 8; }
    RunView.-roomy #steps, RunView.-roomy #gradients, RunView.-roomy #samples { display: none; }
    RunView.-roomy.-details #steps, RunView.-roomy.-details #gradients, RunView.-roomy.-sampled #samples {
        display: block;
    }
    RunView.-roomy.-done #samples { display: none; }
    RunView.-roomy #memory { height: 1fr; min-height: 7; }
    RunView.-roomy #events { height: 1fr; min-height: 5; }
    RunView.-vast #body { grid-columns: 1fr 64; }
    RunView.-vast #gradients { height: 12; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(i), f"panel('{name}')", title.capitalize(), id=f"panel-{name}", show=False)
            for i, (name, title) in enumerate(PANELS.items(), 1)
        ),
    ]

    def __init__(self, about: About, mode: str) -> None:
        super().__init__(classes="-memory")
        self.state, self.mode, self.beside = RunState(about), mode, Beside()
        self.panel = "memory"  # that is seen in a small window
        self.details = False
        self._logged = -1
        self._outcome: Concluded | None = None
        self._curves: tuple[int, int, int] | None = None  # what of them is drawn

    def compose(self) -> ComposeResult:
        yield Panel("", self._heading, id="heading")
        yield Static("", id="trouble", markup=False)
        with Container(id="body"):
            with Vertical(id="chart-box"):
                yield Chart(self.curves, self.extent, self.mode)
            yield Tabs("", id="tabs")
            with Vertical(id="side"):
                with VerticalScroll(id="result"):
                    yield Static("", id="result-text")
                yield Panel(PANELS["memory"], self._memory, id="memory")
                yield Panel(PANELS["steps"], lambda w, h: panels.steps(self.state, w, self.mode), id="steps")
                yield Panel(PANELS["gradients"], self._gradients, id="gradients")
                yield Panel(PANELS["samples"], lambda w, h: panels.samples(self.state, w), id="samples")
                with VerticalScroll(id="events"):
                    yield Static("", id="events-text")

    def on_mount(self) -> None:
        heading = self.query_one("#heading")
        heading.styles.border = ("none", "transparent")
        for name in ("events", "result"):
            self.query_one(f"#{name}", VerticalScroll).border_title = PANELS[name]
        self.query_one("#chart-box").border_title = "loss"
        self.action_panel("memory")
        self.query_one(Chart).focus()
        self.draw()

    def on_resize(self, event: events.Resize) -> None:
        """By the room there is: panels in turn, beside the curves, or wide ones."""
        width, height = event.size
        self.set_class(width >= 100 and height >= 28, "-roomy")
        self.set_class(width >= 160 and height >= 40, "-vast")

    def show(self, state: RunState) -> None:
        self.state = state
        self.draw()

    def draw(self) -> None:
        curves = (id(self.state), self.state.step, self.state.logged)
        if curves != self._curves:
            self._curves = curves
            self.query_one(Chart).update()
        self.set_class(bool(self.state.samples), "-sampled")
        for panel in self.query(Panel):
            panel.redraw()
        if self._logged != self.state.logged:
            self._logged = self.state.logged
            self.query_one("#events-text", Static).update(panels.events(self.state, self.details))
            self.query_one("#events", VerticalScroll).scroll_end(animate=False, immediate=False)
        self.conclude()

    def conclude(self) -> None:
        """At its end whether the run worked, in front of all else."""
        found = outcome_of(self.state)
        if found == self._outcome:
            return
        self._outcome = found
        self.set_class(found is not None, "-done")
        samples = [self.state.samples[row] for row in sorted(self.state.samples)]
        lines = card(found, samples) if found else []
        self.query_one("#result-text", Static).update(Content("\n").join(map(content, lines)))
        self.action_panel("result" if found else "memory")

    def blame(self, trouble: ZoliteError | None) -> None:
        """Says what went wrong, and what to do; None hides it."""
        widget = self.query_one("#trouble", Static)
        widget.set_class(trouble is not None, "-shown")
        widget.update(Content(f"✗ {trouble.message}\n→ {trouble.hint}" if trouble else ""))

    def action_panel(self, name: str) -> None:
        """In a small window one panel is seen at a time."""
        self.panel = name
        for other in PANELS:
            self.set_class(other == name, f"-{other}")
        self.show_details(self.details or name in DETAILS)

    def show_details(self, wanted: bool) -> None:
        """What experts ask for, beside the rest."""
        if self.panel in DETAILS and not wanted:
            self.action_panel("memory")
        if wanted != self.details:
            self.details, self._logged = wanted, -1
            self.set_class(wanted, "-details")
        self._draw_tabs()
        self.draw()

    def _draw_tabs(self) -> None:
        words = [
            Content.from_markup(f"[{style}][@click=panel('{each}')]{i} {each}[/][/]")
            for i, each in enumerate(PANELS, 1)
            if (self.details or each not in DETAILS) and (self._outcome or each != "result")
            for style in ["bold reverse" if each == self.panel else "$text-muted"]
        ]
        self.query_one("#tabs", Static).update(Content("  ").join(words))

    def larger(self) -> None:
        """The chart over the whole screen, and back."""
        if self.screen.maximized:
            self.screen.minimize()
        else:
            self.screen.maximize(self.query_one(Chart))

    def _heading(self, width: int, height: int) -> Content:
        return panels.heading(self.state, width, self.mode, self.beside.tokens_per_step, self.details)

    def _gradients(self, width: int, height: int) -> Content:
        return panels.gradients(self.state, width, height, self.mode)

    def _memory(self, width: int, height: int) -> Content:
        beside = self.beside
        return panels.memory(self.state, beside.planned, beside.others, width, self.mode, height or 16)

    # what the chart asks for

    def extent(self) -> tuple[float, float]:
        return course.extent(self.state)

    def curves(self, first: float, last: float, most: int) -> Sequence[Curve]:
        return course.curves(self.state, first, last, most)
