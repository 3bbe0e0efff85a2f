"""Claims about Doctor, Methods, Settings, Help, and what the whole app does: preferences, keys, palette."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Select
from zolite.tui import config as configs
from zolite.tui.app import ZoliteApp
from zolite.tui.screens import settings
from zolite.tui.screens.help import HelpScreen
from zolite.tui.screens.home import HomeScreen
from zolite.tui.screens.new import NewScreen

from zolite.common.errors import ZoliteError
from zolite.tools.doctor import Check

from .conftest import LAYOUTS, FakeClient, drive, settled, shown, until

Make = Callable[..., Any]
CHECKS = [
    Check("Python", "ok", "3.12.4"),
    Check("NVIDIA driver", "warn", "550.1 serves CUDA 12.4", "install a driver of version 580 or later"),
    Check("torch", "fail", "2.15.0 is a CPU build", "install the CUDA build of torch"),
]
METHODS = [
    {"name": "mezo", "paper": "Malladi et al. 2023", "summary": "two-sided differences", "sampler": "normal",
     "estimator": "two-sided", "rule": [], "forwards_per_step": 2, "state_bytes": "0", "spaces": ["lora", "lora-b"],
     "deterministic": True},
    {"name": "agzo", "paper": "arXiv 2601.17261", "summary": "along activations", "sampler": "activation",
     "estimator": "one-sided", "rule": ["clip"], "forwards_per_step": 2, "state_bytes": "4 n", "spaces": ["lora-b"],
     "deterministic": False},
]  # fmt: skip
WHERE = {"data": Path("/home/me/.local/share/zolite"), "config": Path("/home/me/.config/zolite")}


@pytest.fixture
def pages(app: Make, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The app with answers for its pages."""
    client.answers |= {
        "doctor": [asdict(check) for check in CHECKS],
        "methods": METHODS,
        "profile": {"rates": {"copy": 3e9}},
    }
    monkeypatch.setattr(settings, "paths", lambda: WHERE)
    return app


@pytest.mark.parametrize("size", LAYOUTS)
def test_doctor(pages: Make, size: tuple[int, int]) -> None:
    """The worst comes first, each with its word and its remedy; p measures the machine."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("1")
        await settled(pilot)
        text = shown(pilot.app)
        assert text.index("✗ fix") < text.index("▲ check") < text.index("✓ ok")
        assert "→ install the CUDA build" in text and "something must be fixed first" in text
        await pilot.press("p")
        await settled(pilot)
        assert "✓ measured" in shown(pilot.app) and "copy: 3e+09" in shown(pilot.app)

    drive(pages(), size, script)


def test_doctor_that_fails(pages: Make, client: FakeClient) -> None:
    """A checkup that cannot be made says why."""
    client.answers["doctor"] = ZoliteError("it was killed by signal 9", "close something")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("1")
        await settled(pilot)
        assert "signal 9" in shown(pilot.app) and "→ close something" in shown(pilot.app)

    drive(pages(), (80, 24), script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_methods(pages: Make, size: tuple[int, int]) -> None:
    """A row a method, and of the one under the cursor its paper and what it trains."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await settled(pilot)
        assert "Malladi et al. 2023" in shown(pilot.app)
        await pilot.press("down")
        await settled(pilot)
        assert "2601.17261" in shown(pilot.app) and "goes back only to checkpoints" in shown(pilot.app)

    drive(pages(), size, script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_settings_are_kept(pages: Make, size: tuple[int, int]) -> None:
    """Colours and curves hold at once, and in the next app too."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await settled(pilot)
        assert "/home/me/.config/zolite" in shown(pilot.app)
        pilot.app.screen.query_one("#theme", Select).value = "zolite-light"
        pilot.app.screen.query_one("#chart", Select).value = "ascii"
        await settled(pilot)
        assert pilot.app.theme == "zolite-light"

    drive(pages(), size, script)
    again = pages()
    assert (again.config.theme, again.config.chart) == ("zolite-light", "ascii")


@pytest.mark.parametrize("size", LAYOUTS)
def test_help(pages: Make, size: tuple[int, int]) -> None:
    """? tells what the screen is for, its keys and their ids; the same key closes it."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HelpScreen)
        text = " ".join(shown(pilot.app).split())
        assert "The machine's memory" in text and "New run new" in text
        await pilot.press("question_mark")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HomeScreen)

    drive(pages(), size, script)


def test_keymap(pages: Make, tmp_path: Path) -> None:
    """A key of one's own takes the place of the app's."""
    configs.save(configs.Config(keymap={"new": "ctrl+n"}), tmp_path / "config" / "app.toml")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("n")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HomeScreen)
        await pilot.press("ctrl+n")
        await settled(pilot)
        assert isinstance(pilot.app.screen, NewScreen)

    drive(pages(), (80, 24), script)


def test_palette(pages: Make) -> None:
    """Ctrl+P finds what the app can do."""

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
        await pilot.press(*"help")
        await until(pilot, lambda: "Keys of this screen" in shown(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))

    drive(pages(), (80, 24), script)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", 0),
        ('theme = "zolite-light"\n[keymap]\nnew = "ctrl+n"\n', 0),
        ("theme = 3\nchart = 'crayon'\nmore = 1\n[keymap]\nnew = 5\n", 4),
        ("not toml", 1),
    ],
)
def test_a_config_is_read_as_far_as_it_goes(text: str, problems: int, tmp_path: Path) -> None:
    """What is wrong with it is said, all of it, and what is right holds."""
    file = tmp_path / "app.toml"
    file.write_text(text)
    assert len(configs.load(file).problems) == problems


def test_a_config_comes_back(tmp_path: Path) -> None:
    """What is saved is what is read; a missing file is the defaults."""
    file = tmp_path / "new" / "app.toml"
    assert configs.load(file) == configs.Config()
    wanted = configs.Config("nord", "block", {"help": "f1"})
    configs.save(wanted, file)
    assert configs.load(file) == wanted


def test_a_theme_that_is_gone(pages: Make, tmp_path: Path) -> None:
    """A theme that is not there is said once, and the app's own is taken."""
    configs.save(configs.Config(theme="gone"), tmp_path / "config" / "app.toml")

    async def script(pilot: Pilot[None]) -> None:
        assert pilot.app.theme == "zolite-dark"
        assert any("gone" in str(note.message) for note in pilot.app._notifications)

    drive(pages(), (80, 24), script)


def test_no_colour(pages: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under NO_COLOR nothing that is drawn has a hue."""
    monkeypatch.setenv("NO_COLOR", "1")
    made: ZoliteApp = pages()

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("1")
        await settled(pilot)
        assert pilot.app.no_color
        assert "✗ fix" in shown(pilot.app)

    drive(made, (80, 24), script)
