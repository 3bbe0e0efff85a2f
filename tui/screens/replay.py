"""Replay: a recorded run, played again."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Footer, Static

from zolite.common.errors import ZoliteError
from zolite.common.events import Evaluated, Started
from zolite.monitor.run_state import About, RunState, updated
from zolite.sessions import recording
from zolite.sessions.follow import News
from zolite.sessions.recording import Recording

from ..widgets.run_view import RunView
from ..widgets.scrubber import Scrubber

if TYPE_CHECKING:
    from ..context import Context

TICK_SECONDS = 0.1
WHOLE_SECONDS = 30.0  # that a run takes at the first speed
SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class Player:
    """A recording's state after any step. Forwards it takes in what is new; backwards it begins again."""

    def __init__(self, recorded: Recording) -> None:
        r = self.recorded = recorded
        self.about = About.of(r.session, r.recipe, r.device)
        self.state, self.step = RunState(self.about), -1

    @property
    def steps(self) -> int:
        return len(self.recorded.rows)

    def to(self, step: int) -> RunState:
        step = min(self.steps, max(0, step))
        if step < self.step:
            self.state, self.step = RunState(self.about), -1
        r, before = self.recorded, self.step
        events = [(at, event) for at, event in r.events if before < at - isinstance(event, Started) <= step]
        memory = [m for m in r.memory if before < m.step <= step]
        running = step < self.steps
        self.state = updated(self.state, News(r.rows[max(0, before) : step], events, memory, running))
        self.step = step
        return self.state


class ReplayScreen(Screen[None]):
    """A recorded run. Space plays it and stops, the line at the bottom goes to any step (click, arrows), comma and
    full stop go a step back and on, < and > change the speed.
    """

    DEFAULT_CSS = """
    ReplayScreen #player { height: 1; padding: 0 1; dock: bottom; margin-bottom: 1; }
    ReplayScreen #speed { width: auto; min-width: 24; text-align: right; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "play", "Play/stop", id="replay-play"),
        Binding("comma", "step(-1)", "Step back", id="replay-back", show=False),
        Binding("full_stop", "step(1)", "Step on", id="replay-on", show=False),
        Binding("less_than_sign", "speed(-1)", "Slower", id="replay-slower", show=False),
        Binding("greater_than_sign", "speed(1)", "Faster", id="replay-faster", show=False),
        Binding("d", "details", "Details", id="replay-details"),
        Binding("m", "larger", "Larger", id="replay-larger", show=False),
    ]
    app: "Context"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.title = path, path.name
        self.player: Player | None = None
        self.playing, self.speed, self.at = False, SPEEDS.index(1.0), 0.0

    def compose(self) -> ComposeResult:
        yield RunView(About(self.path.name), self.app.config.chart)
        with Horizontal(id="player"):
            yield Scrubber(self.app.config.chart)
            yield Static("", id="speed", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.read()
        self.set_interval(TICK_SECONDS, self.tick)

    @work(thread=True, exit_on_error=False)
    def read(self) -> None:
        try:
            recorded = recording.read(self.path)
        except ZoliteError as error:
            self.app.call_from_thread(partial(self.refuse, error))
        else:
            self.app.call_from_thread(partial(self.take, recorded))

    def refuse(self, error: ZoliteError) -> None:
        self.query_one(RunView).blame(error)

    def take(self, recorded: Recording) -> None:
        """The recording is here: its end is shown, which says what became of it."""
        self.player = Player(recorded)
        scrubber = self.query_one(Scrubber)
        scrubber.steps = self.player.steps
        scrubber.marks = tuple(step for step, event in recorded.events if isinstance(event, Evaluated))
        self.go(self.player.steps)

    def go(self, step: float) -> None:
        if self.player is None:
            return
        self.at = min(float(self.player.steps), max(0.0, step))
        state = self.player.to(int(self.at))
        self.query_one(Scrubber).show(int(self.at))
        self.query_one(RunView).show(state)
        sign = "▶ playing" if self.playing else "‖ stopped"
        self.query_one("#speed", Static).update(f"{sign} ×{SPEEDS[self.speed]:g}")

    def tick(self) -> None:
        if self.playing and self.player is not None:
            self.playing = self.at < self.player.steps
            self.go(self.at + SPEEDS[self.speed] * self.player.steps * TICK_SECONDS / WHOLE_SECONDS)

    def action_play(self) -> None:
        """From the start where it stands at the end."""
        if self.player is not None:
            self.playing = not self.playing
            self.go(0 if self.playing and self.at >= self.player.steps else self.at)

    def action_step(self, way: int) -> None:
        self.playing = False
        self.go(int(self.at) + way)

    def action_speed(self, way: int) -> None:
        self.speed = min(len(SPEEDS) - 1, max(0, self.speed + way))
        self.go(self.at)

    def action_larger(self) -> None:
        self.query_one(RunView).larger()

    def action_details(self) -> None:
        view = self.query_one(RunView)
        view.show_details(not view.details)

    @on(Scrubber.Moved)
    def moved(self, message: Scrubber.Moved) -> None:
        self.go(message.step)
