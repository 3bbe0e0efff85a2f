"""Escape sequences in rows, labels, names and models: on no surface does a terminal get them."""

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from zolite.tui.app import ZoliteApp
from zolite.tui.screens.home import HomeScreen

from zolite.cli import live, main
from zolite.cli.terminal import Terminal, say, say_json
from zolite.common.events import (
    Evaluated,
    Event,
    Exported,
    Finished,
    Noted,
    Sampled,
    Saved,
    Started,
    from_json,
)
from zolite.common.text import json_text, unobeyed, visible
from zolite.planner.hardware import published
from zolite.sessions import session as sessions

EVIL = "a\x1b[2J\x1b]0;mine\x07b\x9b31mc\u202ed\x7f"
KEPT = "\n\t\u200c\u200d"


def harmless(text: str) -> bool:
    return all(c.isprintable() or c in KEPT or (c.isspace() and c > "\x9f") for c in text)


EVENTS: tuple[Event, ...] = (
    Started(EVIL, 1, 9, EVIL, 1, 1),
    Evaluated(1, EVIL, EVIL, 0.5, 9, 1.0),
    Sampled(1, 1, EVIL, EVIL, EVIL, EVIL),
    Saved(1, EVIL, EVIL),
    Noted("warning", EVIL),
    Noted(EVIL, EVIL),
    Exported(1, EVIL),
    Finished(9, EVIL, 1.0, 0, 1),
)


@pytest.mark.parametrize("view", live.VIEWS)
def test_views_of_a_run(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an event says."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with live.VIEWS[view](verbose=True) as shown:
        for event in EVENTS:
            shown.show(event)
    assert "mine" in out.getvalue() and harmless(out.getvalue())
    if view == "json":
        assert [from_json(line) for line in out.getvalue().splitlines()] == list(EVENTS)


@given(text=st.text())
def test_json_says_the_same(text: str) -> None:
    """Its escapes are JSON's, so that a program reads what was there."""
    shown = json_text({text: [text]})
    assert harmless(shown) and "\n" not in shown
    assert json.loads(shown) == {text: [text]}


@given(text=st.text())
def test_what_is_left_out_leaves_no_gap(text: str) -> None:
    """On a screen whose places are counted, what takes none is left out, and the rest stays."""
    assert harmless(unobeyed(text)) and unobeyed(unobeyed(text)) == unobeyed(text)
    assert [c for c in text if harmless(c)] == list(unobeyed(text))


@pytest.mark.parametrize("put", [str, Text, lambda text: Text.assemble((text, "red")), lambda text: _table(text)])
def test_a_console_cleans_what_it_draws(put: Callable[[str], Any]) -> None:
    """Rich's own colours go through, what stands in texts does not."""
    plain, coloured = io.StringIO(), io.StringIO()
    Terminal(file=plain, width=80).print(put(EVIL), markup=False)
    Terminal(file=coloured, width=80, force_terminal=True, color_system="standard").print(put(EVIL), markup=False)
    assert r"\x1b" in plain.getvalue() and harmless(plain.getvalue())
    assert "\x1b[2J" not in coloured.getvalue() and "\x07" not in coloured.getvalue()


def _table(text: str) -> Table:
    table = Table(text)
    table.add_row(Text(text))
    return table


def test_lines_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout and on stderr."""
    say(EVIL)
    say(EVIL, sys.stderr)
    say_json({EVIL: EVIL})
    told = capsys.readouterr()
    assert "mine" in told.out and harmless(told.out) and harmless(told.err) and visible(EVIL) in told.err


@pytest.fixture
def evil(made: Callable[..., Path]) -> str:
    """The name of a session whose folder, model and scores are full of them."""
    folder = made("run")
    with sessions.open_("run", write=True) as session:
        session.journal.event(Evaluated(6, "dev", EVIL, 0.5, 9, 0.1))
        session.journal.event(Noted("warning", EVIL))
    path = folder / "session.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('name = "', f'name = "[/abc]{json.dumps(EVIL)[1:-1]}', 1), encoding="utf-8")
    folder.rename(folder.with_name(EVIL.replace("/", "")))
    return EVIL.replace("/", "")


COMMANDS = (
    ["sessions", "list"], ["sessions", "list", "--json"], ["sessions", "show"], ["sessions", "show", "--json"],
    ["sessions", "verify"], ["sessions", "prune"], ["sessions", "rewind", "--to", "2", "--yes"], ["watch", "--plain"],
    ["resume"], ["sessions", "rm", "--yes"],
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("renamed", [False, True])
def test_commands_on_a_session_full_of_them(
    command: list[str], renamed: bool, evil: str, home: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The list, a report, an error: by its own name, or with a name that is one."""
    if renamed:
        (home / "sessions" / evil).rename(home / "sessions" / "fine")
    name = "fine" if renamed else visible(evil)
    monkeypatch.setattr(sys, "argv", ["zolite", *command, *([] if "list" in command else ["--", name])])
    monkeypatch.setenv("COLUMNS", "200")
    with contextlib.suppress(SystemExit):
        main.main()
    told = capsys.readouterr()
    assert told.out + told.err and harmless(told.out) and harmless(told.err)
    if "rm" in command:
        assert list((home / "sessions").iterdir()) == []


def test_the_app(evil: str, home: Path, tmp_path: Path) -> None:
    """Every line that Home and the dialogs draw."""
    (home / "sessions" / evil).rename(home / "sessions" / "fine")
    (home / "sessions" / evil).mkdir()
    asyncio.run(_looked_at(ZoliteApp(machine=lambda: published("rtx-3060-12gb"), config=tmp_path / "app.toml")))


async def _looked_at(app: ZoliteApp) -> None:
    def drawn() -> str:
        return "\n".join(strip.text for strip in app.screen._compositor.render_strips())

    async with app.run_test(size=(200, 40)) as pilot:
        home = app.screen
        assert isinstance(home, HomeScreen)
        while len(home.listed) < 2:
            await pilot.pause(0.01)
        for keys in ((), ("down",), ("x",), ("escape",), ("enter",), ("escape",)):
            await pilot.press(*keys)
            await pilot.pause()
            assert harmless(drawn()), keys
        app.notify(EVIL, markup=False)
        await pilot.pause()
        assert "mine" in drawn() and harmless(drawn())
