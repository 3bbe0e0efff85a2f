"""Claim: every command of every screen leaves an app that draws inside its window and goes on.

At every size with ZOLITE_LONG=1, else at the smallest: it takes minutes.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen
from zolite.tui import screens
from zolite.tui.screens.compare import CompareScreen
from zolite.tui.screens.doctor import DoctorScreen
from zolite.tui.screens.export import ExportScreen
from zolite.tui.screens.home import HomeScreen
from zolite.tui.screens.methods import MethodsScreen
from zolite.tui.screens.new import NewScreen
from zolite.tui.screens.replay import ReplayScreen
from zolite.tui.screens.run import RunScreen
from zolite.tui.screens.settings import SettingsScreen
from zolite.tui.screens.try_it import TryScreen

from zolite.common.errors import ZoliteError

from .conftest import SIZES, FakeClient, drive, settled

RECORDED = Path(__file__).parents[1] / "data" / "run.jsonl"
SCREENS: dict[str, Callable[[], Screen[Any]]] = {
    "run": lambda: RunScreen("first"),
    "replay": lambda: ReplayScreen(RECORDED),
    "compare": lambda: CompareScreen(("first", "second")),
    "try": lambda: TryScreen("first"),
    "export": lambda: ExportScreen("first"),
    "new": NewScreen,
    "doctor": DoctorScreen,
    "methods": MethodsScreen,
    "settings": SettingsScreen,
}
LEAVES = {"ctrl+q", "ctrl+c"}  # the app


@pytest.mark.parametrize("size", SIZES if os.environ.get("ZOLITE_LONG") else SIZES[:1])
@pytest.mark.parametrize("name", ["home", *SCREENS])
def test_every_command(
    app: Callable[..., App[Any]], client: FakeClient, made: Callable[..., str], name: str, size: tuple[int, int]
) -> None:
    """Whatever other processes refuse; a screen that a command leaves is opened again for the next."""
    client.answers = defaultdict(lambda: ZoliteError("refused", "ask again"))
    made("first")
    made("second", ending="interrupted")

    async def script(pilot: Pilot[Any]) -> None:
        there = await back_to(pilot, name)
        keys = [key for key in pilot.app.screen.active_bindings if key not in LEAVES]
        for key in keys:
            await pilot.press(key)
            await settled(pilot)
            whole = pilot.app.screen.region
            assert all(w.region.right <= whole.right for w in pilot.app.screen.children if w.display), key
            if pilot.app.screen is not there:
                there = await back_to(pilot, name)

    drive(app(), size, script)


async def back_to(pilot: Pilot[Any], name: str) -> Screen[Any]:
    """That screen over Home, and nothing over it."""
    while not isinstance(pilot.app.screen, HomeScreen):
        pilot.app.pop_screen()
        await pilot.pause()
    if name != "home":
        pilot.app.push_screen(SCREENS[name]())
    await settled(pilot)
    return pilot.app.screen


def test_no_screen_is_left_out() -> None:
    """Of those that there are."""
    files = {file.stem for file in Path(screens.__path__[0]).glob("*.py")} - {
        "__init__",
        "dialogs",
        "columns",
    }  # the last is one too
    assert files == {"home", "help", "try_it", *SCREENS} - {"try"}  # `?` opens help on each
