"""The app: screens over sessions, and what all of them share."""

import asyncio
import contextlib
import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.screen import Screen
from textual.worker import get_current_worker

from zolite.common.errors import ZoliteError

from . import config as configs
from .client import Client
from .context import Context
from .paint import Unobeyed
from .themes import DARK, LIGHT

# What is only used later is imported later, so that the first picture does not wait for it.
if TYPE_CHECKING:
    from zolite.planner.hardware import Hardware

    from .screens.dialogs import Preparing

UNOBEYED = Unobeyed()
Opened = Callable[[], Screen[Any]]


LOADING = "Once it takes steps the run goes on by itself. Cancel ends it, and nothing stays."


class ZoliteApp(Context):
    """`first` makes a screen that opens over Home. What tests need to hold still is given as an argument."""

    TITLE = "zolite"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "back", "Back", id="back"),
        Binding("question_mark,f1", "help", "Help", id="help", key_display="?"),
        Binding("ctrl+q", "quit", "Quit", id="quit-now", show=False, priority=True),
    ]

    def __init__(
        self,
        first: Opened | None = None,
        *,
        client: Client | None = None,
        machine: Callable[[], "Hardware"] | None = None,
        clock: Callable[[], float] = time.time,
        config: Path | None = None,
    ) -> None:
        super().__init__()
        self.client = client or Client()
        self.machine = machine or here  # asks the driver: call it in a thread
        self.clock = clock
        self.config_path = config or configs.path()
        self.config = configs.load(self.config_path)
        self._first = first
        for theme in (DARK, LIGHT):
            self.register_theme(theme)

    def on_mount(self) -> None:
        known = self.config.theme in self.available_themes
        self.theme = self.config.theme if known else DARK.name
        self.set_keymap(self.config.keymap)
        self.theme_changed_signal.subscribe(self, lambda theme: self.prefer(theme=theme.name))
        for problem in (*self.config.problems, *([] if known else [f"there is no theme {self.config.theme!r}"])):
            self.notify(problem, title="settings", severity="warning", markup=False)
        self.heed_signals()
        if self._first is not None:
            self.push_screen(self._first())

    def heed_signals(self) -> None:
        """Ends as by Quit where the system or the terminal ends it: the terminal is as it was then."""
        for name in ("SIGTERM", "SIGHUP"):
            if not self.is_headless and hasattr(signal, name):
                with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not the main thread
                    asyncio.get_running_loop().add_signal_handler(getattr(signal, name), self.exit)

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), UNOBEYED]

    def get_default_screen(self) -> Screen[Any]:
        from .screens.home import HomeScreen

        return HomeScreen(id="_default")

    def prefer(self, **changes: Any) -> None:
        changed = dataclasses.replace(self.config, **changes)
        if changed == self.config:
            return
        self.config = changed
        try:
            configs.save(changed, self.config_path)
        except ZoliteError as error:
            self.report(error)

    def report(self, error: ZoliteError, title: str = "") -> None:
        from .screens.dialogs import Trouble

        self.push_screen(Trouble(error.message, error.hint, title))

    def open_report(self, *names: str) -> None:
        self._write_report(names)

    @work(thread=True, group="do")
    def _write_report(self, names: tuple[str, ...]) -> None:
        from .reports import show_report

        try:
            told = show_report(self, names)
        except ZoliteError as error:
            self.call_from_thread(self.report, error)
        else:
            self.call_from_thread(partial(self.notify, told, markup=False))

    def begin(self, *command: str, over: Screen[Any] | None = None) -> None:
        self.run_worker(self._begin(command, over))

    async def _begin(self, command: tuple[str, ...], over: Screen[Any] | None) -> None:
        from .screens.dialogs import Preparing

        given_up = threading.Event()
        waiting = Preparing(f"Starting: {' '.join(command[:2])}", LOADING)
        self._started(command, waiting, given_up)
        name = await self.push_screen_wait(waiting)
        if name is None:
            given_up.set()
            return
        from .screens.run import RunScreen

        if over is self.screen:
            self.switch_screen(RunScreen(name))
        else:
            self.push_screen(RunScreen(name))

    @work(thread=True, group="begin")
    def _started(self, command: tuple[str, ...], waiting: "Preparing", given_up: threading.Event) -> None:
        """Giving up ends it; leaving the app, which cancels this worker, does not."""
        worker = get_current_worker()
        try:
            name = self.client.start(
                *command, gone=given_up.is_set, left=lambda: worker.is_cancelled, heard=waiting.hear
            )
        except ZoliteError as error:
            if not given_up.is_set():
                self.call_from_thread(waiting.dismiss, None)
                self.call_from_thread(self.report, error, "It did not start")
        else:
            if name and not given_up.is_set():
                self.call_from_thread(waiting.dismiss, name)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "back" or len(self.screen_stack) > 1

    async def action_back(self) -> None:
        if len(self.screen_stack) > 1:
            await self.pop_screen()

    def action_help(self) -> None:
        from .screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        """The palette: what the app can do anywhere; screens' own keys are in it too."""
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)
        yield SystemCommand("Help", "Keys of this screen", self.action_help)
        yield SystemCommand("Quit", "Leave; runs go on", self.action_quit)


def here() -> "Hardware":
    """This machine, as it is now."""
    from zolite.planner import hardware as machine

    return machine.here()


def open_app(first: Opened | None = None) -> None:
    """Runs the app in this terminal."""
    app = ZoliteApp(first)
    app.run()
    if app.return_code:
        sys.exit(app.return_code)
