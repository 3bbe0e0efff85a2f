"""Each screen looks as it did when it was last looked at."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from zolite.tui.app import ZoliteApp
from zolite.tui.screens import settings
from zolite.tui.screens.new import NewScreen

from zolite.common.errors import ZoliteError
from zolite.data.preview import report

from .conftest import FakeClient, settled
from .test_pages import CHECKS, METHODS, WHERE

SMALL, MIDDLE, LARGE = (80, 24), (120, 40), (200, 60)
NEW = ("n", "S", "down", "down", "down")
DATA = (*NEW, "enter", "S", "demo", "S")
ODD = "Category (final),Body\n" + "".join(
    f"{('Billing', 'Returns')[i % 2]},message {i} about a parcel that never came\n" for i in range(20)
)
PICTURED = {
    "home": ((), (SMALL, MIDDLE, LARGE)),
    "new-model": (NEW, (SMALL, MIDDLE)),
    "new-data": (DATA, (SMALL,)),
    "new-columns": ((*NEW, "enter", "S", "odd", "S"), (SMALL, MIDDLE)),
    "new-plan": ((*DATA, "3", "S"), (SMALL, MIDDLE, LARGE)),
    "doctor": (("1",), (SMALL,)),
    "methods": (("2",), (SMALL,)),
    "settings": (("3",), (SMALL,)),
    "help": (("question_mark",), (MIDDLE,)),
    "delete": (("x",), (SMALL,)),
}


@pytest.fixture
def pictured(
    app: Callable[..., ZoliteApp], client: FakeClient, made: Callable[..., str], still: None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> ZoliteApp:  # fmt: skip
    """The app with sessions of each kind, and answers that do not change."""
    for name, ending in (
        ("first-try", "done"),
        ("longer", "interrupted"),
        ("too-fast", "diverged"),
        ("other", "broke"),
    ):
        made(name, ending=ending)
    client.answers |= {"doctor": [asdict(check) for check in CHECKS], "methods": METHODS}
    client.answers["data"] = lambda asked: (
        ZoliteError("offline") if "--model" in asked else {**asdict(report(Path(asked[2]), asked[4])), "path": "rows"}
    )
    monkeypatch.setattr(settings, "paths", lambda: WHERE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    made_app = app()
    made_app.animation_level = "none"
    made_app.config_path = Path("app.toml")
    return made_app


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, (_, sizes) in PICTURED.items() for size in sizes])
def test_picture(pictured: ZoliteApp, snap_compare: Any, name: str, size: tuple[int, int]) -> None:
    """Nothing on it has moved; a picture that differs is to be looked at, then kept with --snapshot-update."""

    async def ready(pilot: Pilot[None]) -> None:
        await settled(pilot)
        for key in PICTURED[name][0]:
            if key == "demo":
                await pilot.click("#demo-rows")
            elif key == "odd":
                Path("odd.csv").write_text(ODD)
                assert isinstance(pilot.app.screen, NewScreen)
                pilot.app.screen.take(Path("odd.csv"))
            elif key != "S":
                await pilot.press(key)
            await settled(pilot)
        for field in pilot.app.screen.query(Input):
            field.cursor_blink = False
        for field in pilot.app.screen.query("#path, #command"):
            field.visible = False  # it names a folder of this machine
        pilot.app.clear_notifications()
        await settled(pilot)

    assert snap_compare(pictured, terminal_size=size, run_before=ready)
