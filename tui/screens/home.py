"""Home: the machine, the sessions, and what can be done with them."""

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, DataTable, Footer, Static
from textual.worker import get_current_worker

from zolite.common.errors import ZoliteError
from zolite.common.text import human_bytes, human_seconds, one_line, visible
from zolite.monitor.log import score_text
from zolite.monitor.states import ALIVE, RESUMABLE, STATES

from ..paint import cell
from ..widgets.course import Course
from ..widgets.stack import Part, Stack
from ..widgets.table import Table

if TYPE_CHECKING:
    from zolite.planner.hardware import Hardware

    from ..context import Context
    from ..session_actions import SessionAction
    from ..sessions import Listed, Sessions

REFRESH_SECONDS = 2.0
SHARE = 0.02  # of a processor that the list may take: of thousands of sessions it is read less often

ALL = tuple(state for state in STATES if state != "damaged")
ENDED = tuple(state for state in ALL if state not in ALIVE)

# What can be done with a session: action, its word, its key, and the states in which it can be done.
ACTIONS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("open", "Open", "enter", (*ALL, "damaged")),
    ("resume", "Resume", "r", RESUMABLE),
    ("pause", "Pause", "p", ("running",)),
    ("go_on", "Go on", "g", ("paused",)),
    ("stop", "Stop", "s", ALIVE),
    ("try_it", "Try", "t", ALL),
    ("export", "Export", "e", ALL),
    ("fork", "Fork", "f", ALL),
    ("rewind", "Rewind", "w", ENDED),
    ("rename", "Rename", "m", ENDED),
    ("delete", "Delete", "x", (*ENDED, "damaged")),
)
STATES_OF = {action: states for action, _, _, states in ACTIONS}
WIDE = 120  # columns from which what is known of a session stands beside the list
VAST = (160, 40)  # columns and rows from which there is room for curves
LETTERS = ((160, 20), (0, 12))  # of a name and of a model, by the columns that the window has
COLUMNS = ("", "state", "name", "step", "best", "model", "disk", "last sign")


class HomeScreen(Screen[None]):
    """The machine's memory, your sessions, and what can be done with them. Runs are processes of their own: leaving
    the app, or closing the terminal, stops none of them.

    Space marks sessions, and Compare then draws their curves together.
    """

    TITLE = "zolite"
    DEFAULT_CSS = """
    HomeScreen {
        #machine { border: round $panel; }
        #machine-name { text-style: bold; width: 1fr; }
        #sessions { height: 1fr; layout: vertical; }
        #list { height: 1fr; }
        #beside { height: auto; width: 1fr; }
        #details { display: block; width: 1fr; max-height: 8; }
        #course { display: none; }
        #welcome { display: none; height: 1fr; padding: 1 2; }
        #welcome .buttons { margin-top: 1; }
        #actions { height: 1; }
        #actions Button { min-width: 0; padding: 0; margin: 0 1 0 0; }
        &.-empty #welcome { display: block; }
        &.-empty #list, &.-empty #beside { display: none; }
    }
    HomeScreen.-beside #sessions { layout: horizontal; }
    HomeScreen.-beside #list { width: 2fr; }
    HomeScreen.-beside #beside { width: 1fr; height: 100%; max-width: 60; }
    HomeScreen.-beside #details { height: auto; max-height: 100%; }
    HomeScreen.-vast #beside { max-width: 100%; }
    HomeScreen.-vast #list { width: 1fr; }
    HomeScreen.-vast #course { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New run", id="new"),
        Binding("d", "demo", "Demo", id="demo"),
        *(
            Binding(key, action, word, id=action.replace("_", "-"), show=False)
            for action, word, key, _ in ACTIONS
            if key != "enter"
        ),
        Binding("space", "mark", "Mark", id="mark", show=False),
        Binding("c", "compare", "Compare", id="compare"),
        Binding("o", "open_report", "Report", id="open-report"),
        Binding("1", "doctor", "Doctor", id="doctor"),
        Binding("2", "methods", "Methods", id="methods"),
        Binding("3", "settings", "Settings", id="settings"),
        Binding("q", "quit", "Quit", id="quit"),
    ]
    app: "Context"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.listed: list[Listed] = []
        self.marked: set[str] = set()
        self.selects = ""  # the session to select once it is in the list
        self.sessions: Sessions | None = None  # read by one worker at a time
        self.reading = threading.Lock()
        self.rests = 0.0  # monotonic seconds: until then the list is not read again by itself
        self.hardware: Hardware | None = None
        self.letters = LETTERS[-1][1]

    def compose(self) -> ComposeResult:
        with Vertical(id="machine", classes="panel"):
            yield Static("reading this machine …", id="machine-name", markup=False)
            yield Stack(id="machine-memory")
        with Horizontal(id="sessions"):
            yield Table(id="list", cursor_type="row", zebra_stripes=False)
            with VerticalScroll(id="welcome"):
                yield Static(WELCOME, id="welcome-text")
                with Horizontal(classes="buttons"):
                    yield Button("Try the demo  d", action="screen.demo", variant="primary", id="welcome-demo")
                    yield Button("New run  n", action="screen.new", id="welcome-new")
            with Vertical(id="beside"):
                yield Static("", id="details", classes="panel")
                yield Course(self.app.config.chart, id="course")
        with Horizontal(id="actions"):
            for action, word, key, _ in ACTIONS:
                shown = "⏎" if key == "enter" else key
                yield Button(f"{word} {shown}", action=f"screen.{action}", id=f"do-{action}", compact=True)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        for button in self.query("#actions Button").results(Button):
            button.can_focus = False  # each has a key
        table = self.table
        for name in COLUMNS:
            table.add_column(name, key=name)
        table.focus()
        self.show_details()
        self.set_interval(REFRESH_SECONDS, self.refresh_while_shown)

    def on_resize(self, event: events.Resize) -> None:
        """Where there is room, the curves of the chosen session; names and models as long as their columns may be."""
        self.set_class(event.size.width >= WIDE, "-beside")
        self.set_class(event.size.width >= VAST[0] and event.size.height >= VAST[1], "-vast")
        letters = next(letters for width, letters in LETTERS if event.size.width >= width)
        if letters != self.letters:
            self.letters = letters
            self.update_rows(self.listed)
        self.call_after_refresh(self.show_course)

    def show_course(self) -> None:
        self.query_one(Course).show(self.current)

    def refresh_while_shown(self) -> None:
        """Not while another screen is open: it would cost more than showing a run does. Nor while the list is still
        being read, which a busy disk would never end if every two seconds began anew.
        """
        reading = any(worker.group == "look" and not worker.is_finished for worker in self.workers)
        if self.app.screen is self and not reading and time.monotonic() >= self.rests:
            self.refresh_all()

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.refresh_all)

    @property
    def table(self) -> "DataTable[Text | str]":
        return self.query_one("#list", DataTable)

    @property
    def current(self) -> "Listed | None":
        """The session under the cursor."""
        at = self.table.cursor_row
        return self.listed[at] if 0 <= at < len(self.listed) else None

    def named(self, name: str | None) -> "Listed | None":
        return next((each for each in self.listed if each.name == name), None)

    # --- what is there ---------------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="look")
    def refresh_all(self) -> None:
        from ..sessions import Sessions

        began = time.thread_time()
        self.sessions = self.sessions or Sessions()
        try:
            with self.reading:
                listed, hardware = self.sessions.read(), self.app.machine()
        except ZoliteError as error:  # the folder of all of them
            self.app.call_from_thread(self.show_unread, error)
            return
        used = time.thread_time() - began
        if not get_current_worker().is_cancelled:
            used += self.app.call_from_thread(self.show, listed, hardware)
        self.rests = time.monotonic() + used / SHARE

    def show(self, listed: Sequence["Listed"], hardware: "Hardware") -> float:
        """The cursor stays on its session wherever that is in the new list; CPU seconds that it took."""
        began = time.thread_time()
        names = [each.name for each in listed]
        changed = names != [each.name for each in self.listed]
        wanted = [self.selects, self.current.name if self.current else ""]
        row = next((names.index(name) for name in wanted if name in names), self.table.cursor_row)
        others = [new for old, new in zip(self.listed, listed, strict=False) if new is not old]
        self.listed, self.hardware = list(listed), hardware
        self.marked &= set(names)
        self.show_machine()
        if changed:
            self.fill()
        else:
            self.update_rows([*others, *self.in_view()])
        if changed or self.selects in names:
            self.table.move_cursor(row=row)
        self.selects = "" if self.selects in names else self.selects
        self.set_class(not listed, "-empty")
        self.query_one("#welcome-text", Static).update(WELCOME)
        self.show_details()
        return time.thread_time() - began

    def show_unread(self, error: ZoliteError) -> None:
        """In the place of what is said where there is no session yet."""
        self.set_class(True, "-empty")
        text = Content.assemble((f"✗ {error.message}", "$text-error"), f"\n→ {error.hint}")
        self.query_one("#welcome-text", Static).update(text)

    def show_machine(self) -> None:
        h = self.hardware
        assert h is not None
        origin = "measured" if h.origin == "measured" else "not measured yet: Doctor does"
        self.query_one("#machine-name", Static).update(f"{h.name} · {human_bytes(h.total_bytes)} · {origin}")
        ours = min(sum(each.memory_bytes for each in self.listed), h.others_bytes)
        others, free = h.others_bytes - ours, max(0, h.total_bytes - h.others_bytes)
        parts = (
            Part("zolite", ours, "█", "$primary"),
            Part("others", others, "▒", "$warning"),
            Part("free", free, "░", "$text-muted"),
        )
        self.query_one("#machine-memory", Stack).show(parts, h.total_bytes)

    def fill(self) -> None:
        self.table.clear()
        for each in self.listed:
            self.table.add_row(*self.cells(each), key=each.name)

    def in_view(self) -> Sequence["Listed"]:
        """Those that can be seen: they say how long ago something was, which changes by itself."""
        first = int(self.table.scroll_offset.y)
        return self.listed[first : first + self.table.size.height]

    def update_rows(self, rows: Sequence["Listed"]) -> None:
        for each in rows:
            for column, value in zip(COLUMNS, self.cells(each), strict=True):
                if self.table.get_cell(each.name, column) != value:
                    self.table.update_cell(each.name, column, value, update_width=True)

    def cells(self, each: "Listed") -> tuple[Text | str, ...]:
        s = each.summary
        symbol, word, style = STATES[each.state]
        best = (
            f"{s.best.value:.1%}"
            if s.best and s.best.metric == "accuracy"
            else f"{s.best.value:.3f}"
            if s.best
            else "–"
        )
        return (
            "◆" if each.name in self.marked else " ",
            cell(self.app, (f"{symbol} {word}", style)),
            cell(self.app, cut(visible(s.name), self.letters)),
            f"{s.step:,}/{s.steps:,}" if s.steps else "–",
            best,
            cell(self.app, cut(one_line(s.model).rpartition("/")[2].removeprefix("builtin:"), self.letters)),
            human_bytes(s.bytes),
            f"{human_seconds(max(0.0, self.app.clock() - each.active))} ago",
        )

    @on(DataTable.RowHighlighted)
    def show_details(self) -> None:
        """What is known of the session under the cursor, and what can be done with it."""
        self.query_one("#details", Static).update(described(self.current) if self.current else "")
        state = self.current.state if self.current else ""
        for action, _, _, states in ACTIONS:
            self.query_one(f"#do-{action}").display = state in states
        self.refresh_bindings()
        self.show_course()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "compare":
            return len(self.marked) > 1 or None
        if action == "open_report":
            return self.current is not None or None
        if action not in STATES_OF:
            return True
        return self.current is not None and self.current.state in STATES_OF[action]

    # --- what is done ----------------------------------------------------------------------------------------------

    # An action takes the session when its key is pressed, and keeps it: what happens next happens later, and the list
    # may be another one by then.

    @on(DataTable.RowSelected)
    def open_row(self, event: DataTable.RowSelected) -> None:
        self.open(self.named(event.row_key.value))

    def action_open(self) -> None:
        self.open(self.current)

    def open(self, session: "Listed | None") -> None:
        if session and session.state == "damaged":
            self.ask("damaged", session)
        elif session:
            from .run import RunScreen

            self.app.push_screen(RunScreen(session.name))

    def action_new(self) -> None:
        from .new import NewScreen

        self.app.push_screen(NewScreen())

    def action_demo(self) -> None:
        self.app.begin("demo")

    def action_resume(self) -> None:
        if self.current:
            self.app.begin("resume", self.current.name)

    def action_pause(self) -> None:
        self.control("pause")

    def action_go_on(self) -> None:
        self.control("continue")

    def action_stop(self) -> None:
        self.control("stop")

    def control(self, command: str) -> None:
        from ..session_actions import control

        if self.current:
            self.do(control(self.current.name, command))

    def action_mark(self) -> None:
        if self.current:
            self.marked ^= {self.current.name}
            self.update_rows([self.current])
            self.refresh_bindings()

    def action_compare(self) -> None:
        from .compare import CompareScreen

        self.app.push_screen(CompareScreen(tuple(sorted(self.marked))))

    def action_try_it(self) -> None:
        if self.current:
            from .try_it import TryScreen

            self.app.push_screen(TryScreen(self.current.name))

    def action_export(self) -> None:
        if self.current:
            from .export import ExportScreen

            self.app.push_screen(ExportScreen(self.current.name))

    def action_open_report(self) -> None:
        """A page in the browser; of the marked ones together, where some are."""
        if names := sorted(self.marked) or [each.name for each in (self.current,) if each]:
            self.app.open_report(*names)

    def action_rename(self) -> None:
        self.ask("rename", self.current)

    def action_fork(self) -> None:
        self.ask("fork", self.current)

    def action_rewind(self) -> None:
        self.ask("rewind", self.current)

    def action_delete(self) -> None:
        self.ask("delete", self.current)

    @work
    async def ask(self, question: str, session: "Listed | None") -> None:
        """One of the actions that begin with a question."""
        from ..session_actions import QUESTIONS

        if session is None:
            return
        try:
            action = await QUESTIONS[question](self.app, session.summary)
        except ZoliteError as error:  # it was removed or damaged since
            self.app.report(error)
        else:
            if action:
                self.do(action)

    @work(thread=True, group="do")
    def do(self, action: "SessionAction") -> None:
        try:
            action.change()
        except ZoliteError as error:
            self.app.call_from_thread(self.app.report, error)
        else:
            self.app.call_from_thread(self.did, action)
        self.app.call_from_thread(self.refresh_all)

    def did(self, action: "SessionAction") -> None:
        self.selects = action.selects
        self.notify(action.done, markup=False)

    def action_doctor(self) -> None:
        from .doctor import DoctorScreen

        self.app.push_screen(DoctorScreen())

    def action_methods(self) -> None:
        from .methods import MethodsScreen

        self.app.push_screen(MethodsScreen())

    def action_settings(self) -> None:
        from .settings import SettingsScreen

        self.app.push_screen(SettingsScreen())

    @work
    async def action_quit(self) -> None:
        """Says so where something runs; otherwise it just leaves."""
        from ..session_actions import leave

        running = [each.name for each in self.listed if each.state in ALIVE]
        if not running or await leave(self.app, running):
            self.app.exit()


def cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


WELCOME = Content.from_markup(
    "[bold]Fine-tune a language model on this machine, with forward passes alone.[/bold]\n\n"
    "The [bold]demo[/bold] teaches a small model to sort support messages into five topics; the model comes with "
    "zolite, and it takes about three minutes on two CPU cores, seconds on a GPU.\n\n"
    "[bold]New run[/bold] takes a model and your own rows, and proposes what fits this machine."
)


def described(each: "Listed") -> Content:
    """A few lines about a session."""
    s = each.summary
    symbol, word, style = STATES[each.state]
    lines = [Content.assemble((visible(s.name), "bold"), "  ", (f"{symbol} {word}", f"$text-{style}"))]
    if each.trouble is not None:
        lines.append(Content.assemble((f"✗ {each.trouble.message}", "$text-error")))
        lines += [Content(f"→ {each.trouble.hint}")] if each.trouble.hint else []
    if each.state == "ready":
        lines.append(Content(f"ready to go on from step {s.step:,}: r resumes it"))
    if s.model:
        lines.append(Content(f"{one_line(s.model)} · {s.method}"))
    for label, score in (("best", s.best), ("last", s.last)):
        if score is not None:
            lines.append(Content(f"{label} {score_text(score)} at step {score.step:,}"))
    return Content("\n").join(lines)
