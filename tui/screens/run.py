"""Run: a session as it runs, and what can be asked of it."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer
from textual.worker import get_current_worker

from zolite.common.errors import ZoliteError
from zolite.monitor.redraw import RedrawLimit
from zolite.monitor.run_state import About, RunState, updated
from zolite.monitor.states import RESUMABLE
from zolite.planner.estimates import planned, tokens_per_step
from zolite.sessions import manage
from zolite.sessions.follow import News, Reader
from zolite.sessions.session import open_, summarised

from ..sessions import trouble_of
from ..widgets.run_view import Beside, RunView
from .dialogs import Confirm

if TYPE_CHECKING:
    from ..context import Context

POLL_SECONDS = {True: 0.25, False: 1.0}  # between two reads of the journal, by whether a process writes it
OTHERS_SECONDS = 5.0  # between two measurements of what others hold of the device
UNDER_WAY = ("running", "paused")
NOTHING = Beside()  # known yet

# What can be asked of a run, and in which states.
COMMANDS: dict[str, tuple[str, ...]] = {
    "pause": UNDER_WAY,
    "checkpoint": UNDER_WAY,
    "stop": UNDER_WAY,
    "resume": RESUMABLE,
    "rewind": (*RESUMABLE, "done"),
}


class RunScreen(Screen[None]):
    """A run: its loss (each step as a dot, smoothed as a line), its validation scores (◆), its memory and its events.
    Leaving the screen, or the app, leaves it running.

    d shows details: the trend of the loss, step sizes, projected gradients, sample answers. In the chart + and − or the
    wheel zoom, arrows or dragging move, 0 shows the whole run, l is a log scale. In a small window 1 to 5 choose the
    panel below.
    Stop saves and ends the run; the step with the best validation score is kept, and Resume continues.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space,p", "pause", "Pause", id="run-pause"),
        Binding("k", "checkpoint", "Save", id="run-checkpoint"),
        Binding("s", "stop", "Stop", id="run-stop"),
        Binding("r", "resume", "Resume", id="run-resume"),
        Binding("w", "rewind", "Rewind", id="run-rewind"),
        Binding("t", "try_it", "Try", id="run-try"),
        Binding("e", "export", "Export", id="run-export"),
        Binding("o", "open_report", "Report", id="run-report"),
        Binding("d", "details", "Details", id="run-details"),
        Binding("m", "larger", "Larger", id="run-larger", show=False),
    ]
    app: "Context"

    class Arrived(Message):
        """The journal has more."""

        def __init__(self, news: News) -> None:
            super().__init__()
            self.news = news

    class Known(Message):
        """What is beside the journal."""

        def __init__(self, beside: Beside, trouble: ZoliteError | None) -> None:
            super().__init__()
            self.beside, self.trouble = beside, trouble

    def __init__(self, session: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.title = self.session = session
        self.clock = clock
        self.state = RunState(About(session))
        self.limit = RedrawLimit()
        self.waiting = False  # a redraw is due
        self.redraws = 0
        self.used = 0.0  # of the processor, by this thread, when it was last drawn
        self.can: tuple[str, bool] = ("", False)  # what decides which keys there are
        self.trouble = ""

    def compose(self) -> ComposeResult:
        yield RunView(self.state.about, self.app.config.chart)
        yield Footer(show_command_palette=False)  # the keys of a run take a narrow terminal's whole line

    def on_mount(self) -> None:
        self.follow()

    @property
    def view(self) -> RunView:
        return self.query_one(RunView)

    # --- what comes in ---------------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="follow", exit_on_error=False)
    def follow(self) -> None:
        """Reads the journal until the screen closes. What it finds is handed over as messages."""
        worker = get_current_worker()
        try:
            with open_(self.session) as session:
                self._follow(Reader(session), lambda: worker.is_cancelled)
        except ZoliteError as error:  # no such session, the folder went away, or the disk failed
            self.post_message(self.Known(Beside(), error))

    def _follow(self, reader: Reader, gone: Callable[[], bool]) -> None:
        session = reader.session
        self.state.about = About.of(session.name, session.recipe, str(session.facts.get("device", "")))
        asked, running, beside, doing = float("-inf"), None, NOTHING, None
        while not gone():
            news = reader.read()
            ended = news.running != running
            if news or ended or news.working != doing:
                running, doing = news.running, news.working
                self.post_message(self.Arrived(news))
            if ended or time.monotonic() - asked >= OTHERS_SECONDS:
                asked, beside = time.monotonic(), self._beside(reader, beside)
                self.post_message(self.Known(beside, None if news.running else trouble_of(session)))
            if not news.rows:
                time.sleep(POLL_SECONDS[news.running])

    def _beside(self, reader: Reader, before: Beside) -> Beside:
        """What others hold of the device now; the rest is worked out once."""
        recipe = reader.session.recipe
        lines, tokens = before.planned, before.tokens_per_step
        if before is NOTHING:
            lines = planned(recipe, self.app.machine)
        rows = next(reader.session.journal.steps(upto=1), None)
        if not tokens and rows is not None:
            tokens = tokens_per_step(recipe, len(rows.losses) // 4)
        mine = reader.memory.now_bytes if reader.memory and reader.session.running() else 0
        others = self.app.machine().others_bytes - mine
        return Beside(lines, max(0, others), tokens)

    @on(Arrived)
    def arrived(self, message: Arrived) -> None:
        self.state = updated(self.state, message.news)
        self.due()

    @on(Known)
    def known(self, message: Known) -> None:
        if message.beside != self.view.beside:
            self.view.beside = message.beside
            self.due()
        trouble = str(message.trouble or "")
        if trouble != self.trouble:
            self.trouble = trouble
            self.view.blame(message.trouble)

    def due(self) -> None:
        """A redraw, at once or as soon as the limit allows."""
        if not self.waiting:
            self.waiting = True
            self.set_timer(max(1e-3, self.limit.wait(self.clock())), self.redraw)

    def redraw(self) -> None:
        self.waiting, before, self.used = False, self.used, time.thread_time()
        self.limit.drew(self.clock(), self.used - before)
        self.redraws += 1
        self.view.show(self.state)
        can = (self.state.status, bool(self.state.saved))
        if can != self.can:  # it costs as much as all the rest
            self.can = can
            self.refresh_bindings()

    # --- what is asked for -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("try_it", "export"):
            return bool(self.state.saved)
        if action == "open_report":  # of a run that goes on, from Home: here its keys take all the room
            return self.state.status not in UNDER_WAY
        return action not in COMMANDS or self.state.status in COMMANDS[action]

    def action_pause(self) -> None:
        if self.state.status == "paused":
            self.command("continue", "continuing")
        else:
            self.command("pause", "pausing after this step, with a checkpoint")

    def action_checkpoint(self) -> None:
        self.command("checkpoint", "saving after this step")

    @work
    async def action_stop(self) -> None:
        best = self.state.best()
        kept = f" The best by validation so far, step {best.step:,}, is kept too." if best else ""
        detail = f"It saves and ends; Resume continues from there, bit for bit.{kept}"
        if await self.app.push_screen_wait(Confirm(f"Stop {self.session}?", detail, yes="Stop", no="Let it run")):
            self.command("stop", "stopping after this step")

    def action_resume(self) -> None:
        self.app.begin("resume", self.session, over=self)

    @work
    async def action_rewind(self) -> None:
        """Removes steps, after a question that says which."""
        from ..session_actions import rewind

        try:
            with open_(self.session) as session:
                summary = summarised(session)
            action = await rewind(self.app, summary)
        except ZoliteError as error:
            self.app.report(error)
        else:
            if action:
                self.do(action.change, action.done)

    def action_try_it(self) -> None:
        from .try_it import TryScreen

        self.app.push_screen(TryScreen(self.session))

    def action_export(self) -> None:
        from .export import ExportScreen

        self.app.push_screen(ExportScreen(self.session))

    def action_open_report(self) -> None:
        """A page in the browser."""
        self.app.open_report(self.session)

    def action_larger(self) -> None:
        self.view.larger()

    def action_details(self) -> None:
        self.view.show_details(not self.view.details)

    def command(self, verb: str, answer: str) -> None:
        self.do(partial(manage.send, self.session, verb), answer)

    @work(thread=True, group="do")
    def do(self, change: Callable[[], object], done: str) -> None:
        try:
            change()
        except ZoliteError as error:
            self.app.call_from_thread(self.app.report, error)
        else:
            self.app.call_from_thread(partial(self.notify, done, markup=False))
