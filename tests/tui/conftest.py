"""An app that holds still: a card, a clock, sessions and the answers of other processes, all given."""

import asyncio
import os
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from textual._context import active_app
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import DataTable
from zolite.tui.app import ZoliteApp
from zolite.tui.screens.home import HomeScreen

from zolite.common import files
from zolite.common.errors import ZoliteError
from zolite.common.events import Evaluated, Event, Finished, Started
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.planner import hardware as machine
from zolite.planner.hardware import Hardware
from zolite.sessions import session as sessions
from zolite.sessions.session import MemoryRow, StepRow

SIZES = [(80, 24), (120, 40), (200, 60)]
# One size of each layout, narrow and wide; pictures are of all.
LAYOUTS = SIZES if os.environ.get("ZOLITE_LONG") else SIZES[:2]
NOW = 1_900_000_000.0
GIB = 2**30
Script = Callable[[Pilot[None]], Awaitable[None]]


@dataclass
class FakeClient:
    """Answers by a command's first word, or raises what is put there; remembers what was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def ask(self, *arguments: str, gone: Callable[[], bool] = lambda: False, heard: Any = None) -> Any:
        self.asked.append(arguments)
        answer = self.answers[arguments[0]]
        answer = answer(arguments) if callable(answer) else answer
        if isinstance(answer, ZoliteError):
            raise answer
        return answer

    def start(self, *arguments: str, gone: Any = None, left: Any = None, heard: Any = None) -> str:
        return str(self.ask(*arguments))

    def converse(self, *arguments: str) -> Any:
        return self.ask(*arguments)


@pytest.fixture
def card() -> Hardware:
    """A gaming card with a desktop on it."""
    return replace(machine.published("rtx-3060-12gb"), others_bytes=GIB)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def app(card: Hardware, client: FakeClient, tmp_path: Path) -> Callable[..., ZoliteApp]:
    """app(first) is the app on that card, at NOW, with preferences of its own."""

    def make(first: Any = None) -> ZoliteApp:
        return ZoliteApp(
            first, client=client, machine=lambda: card, clock=lambda: NOW, config=tmp_path / "config" / "app.toml"
        )  # type: ignore[arg-type]

    return make


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes on the disk, which depend on the file system, are one size."""
    monkeypatch.setattr(files, "size", lambda folder: 12 * 2**20)


@pytest.fixture
def made() -> Callable[..., str]:
    """made("first", steps=40, ending="done") writes a session: losses that fall, dev scores, an end."""
    return write_session


def write_session(
    name: str, steps: int = 40, ending: str = "done", of: int = 120, created: float = NOW - 3600, **settings: Any
) -> str:
    given = {"data.path": "rows", "train.steps": of} | {k.replace("__", "."): v for k, v in settings.items()}
    recipe = recipes.resolve(recipes.override(Recipe(), given))
    with sessions.create(name, recipe, {"device": "cuda"}) as session:
        journal = session.journal
        journal.event(Started(name, 1, of, "NVIDIA GeForce RTX 3060", 1_244_160, 11 * GIB))
        for step in range(1, steps + 1):
            journal.append([step_row(step, created)])
            if step % 20 == 0:
                journal.event(Evaluated(step, "dev", "accuracy", 0.3 + 0.004 * step, 60, 0.4))
        journal.memory(MemoryRow(created, steps, 300 * 2**20, 310 * 2**20))
        for event in ENDS.get(ending, lambda _: [])(steps):
            journal.event(event)
    settle(session.path, created)
    return name


ENDS: dict[str, Callable[[int], list[Event]]] = {
    "done": lambda step: [Finished(step, "done", 60.0, 0, 310 * 2**20)],
    "interrupted": lambda step: [Finished(step, "interrupted", 60.0, 0, 310 * 2**20)],
    "diverged": lambda step: [Finished(step, "diverged", 60.0, 10, 310 * 2**20)],
}


def step_row(step: int, created: float) -> StepRow:
    loss = 1.6 * 0.98**step + 0.1 * ((step * 7) % 5)
    points = struct.pack("<2f", loss + 0.01 * ((step % 3) - 1), loss)
    return StepRow(step, struct.pack("<f", 0.5), points, 1e-2, 3e-3, 0, created + step, 0.5, 300 * 2**20)


def settle(path: Path, created: float) -> None:
    """As if it had been written then."""
    text = (path / "session.toml").read_text()
    first, rest = text.split("\n", 1)
    assert first.startswith("created")
    (path / "session.toml").write_text("created = 2030-03-17T16:46:40+00:00\n" + rest)
    for file in path.glob("journal.db*"):
        os.utime(file, (created, created))


def drive(app: App[None], size: tuple[int, int], script: Script) -> None:
    """Runs an app without a terminal and lets the script press its keys."""
    app.animation_level = "none"

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await settled(pilot)
            await script(pilot)

    asyncio.run(run())


# On a busy machine Textual's own pause proves little: it takes a process that gets no processor time for an idle one.
# So nothing here waits for time. What is waited for is either a condition or that nothing is left to do.


async def until(pilot: Pilot[Any], holds: Callable[[], object]) -> None:
    """Until it holds, and what that has caused is drawn."""
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, shown(pilot.app)
        await pilot.pause(0.01)
    await drawn(pilot)


async def settled(pilot: Pilot[Any]) -> None:
    """Until the work that ends by itself is done and all is drawn."""
    await until(pilot, lambda: not waiting(pilot.app))
    while waiting(pilot.app):  # what has come to an end has begun something
        await until(pilot, lambda: not waiting(pilot.app))


def waiting(app: App[Any]) -> bool:
    """Whether a worker or a delayed call is still to come, or Home has still to begin reading its list."""
    screen = app.screen
    unread = isinstance(screen, HomeScreen) and screen.hardware is None
    delayed = any(timer._repeat == 0 and timer._task is not None and not timer._task.done() for timer in screen._timers)
    return unread or delayed or unmeasured(app) or any(not w.is_finished for w in app.workers if w.group in GROUPS)


def unmeasured(app: App[Any]) -> bool:
    """Whether a table has still to find its columns' widths: it does when it has nothing else to do."""
    return any(table._require_update_dimensions or table._updated_cells for table in app.screen.query(DataTable))


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual's own sleeps until the process is idle, 20 ms to a second, twice a key, would be most of the time."""
    for name in ("textual.app.wait_for_idle", "textual.pilot.wait_for_idle"):
        monkeypatch.setattr(name, handled)


async def handled(min_sleep: float = 0, max_sleep: float = 1) -> None:
    """Until every message is handled and drawn, several times in a row; no longer than Textual would sleep."""
    app, ends, calm = active_app.get(), time.monotonic() + max_sleep, 0
    while calm < 3 and time.monotonic() < ends:
        await asyncio.sleep(0)
        calm = 0 if unhandled(app) else calm + 1
        if app.screen_stack:
            app.screen._on_timer_update()


async def drawn(pilot: Pilot[Any]) -> None:
    """Until every message is handled and drawn, several times in a row: a message may send another."""
    calm = 0
    while calm < 3:
        await pilot.pause()
        calm = 0 if unhandled(pilot.app) else calm + 1


def unhandled(app: App[Any]) -> bool:
    if not app.screen_stack:
        return False
    screen = app.screen
    pumps = (app, screen, *screen.walk_children())
    return bool(
        any(pump.message_queue_size or pump._next_callbacks for pump in pumps)
        or unmeasured(app)
        or screen._callbacks
        or screen._dirty_widgets
        or screen._layout_required
    )


PATIENCE = 240.0  # seconds that a busy machine may take before a test gives up
GROUPS = ("look", "machine", "data", "plan", "do", "pages", "course")  # of work that ends by itself


def shown(app: App[Any]) -> str:
    """What is on the screen, as text."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip)[:width] for strip in lines[:height])
