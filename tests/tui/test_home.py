"""Claims about Home: it shows what there is, and every key does what it says."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, DataTable, Input, Static
from zolite.tui import reports
from zolite.tui.paint import cell
from zolite.tui.screens.dialogs import Ask, Choose, Confirm, Preparing, Trouble
from zolite.tui.screens.home import ACTIONS, HomeScreen
from zolite.tui.screens.run import RunScreen
from zolite.tui.sessions import Listed
from zolite.tui.widgets.course import Course

from zolite.common.errors import DoesNotFit
from zolite.common.events import Working, to_json
from zolite.common.paths import paths
from zolite.sessions import manage
from zolite.sessions import session as sessions
from zolite.sessions.journal import Journal

from .conftest import LAYOUTS, NOW, SIZES, FakeClient, drive, settled, shown, until

pytestmark = pytest.mark.usefixtures("still")
Make = Callable[..., Any]


@pytest.mark.parametrize("size", LAYOUTS)
def test_empty(app: Make, size: tuple[int, int]) -> None:
    """Without sessions it says what to do, with a button for each way."""

    async def script(pilot: Pilot[None]) -> None:
        text = shown(pilot.app)
        assert "RTX 3060" in text and "others 1.0 GiB" in text and "free 11.0 GiB" in text
        assert "Try the demo" in text and "New run" in text

    drive(app(), size, script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_list(app: Make, made: Make, size: tuple[int, int]) -> None:
    """Each session has its state in a word, its steps, its best score and its last sign of life."""
    for name, ending in (("a", "done"), ("b", "interrupted"), ("c", "broke"), ("d", "diverged")):
        made(name, ending=ending)

    async def script(pilot: Pilot[None]) -> None:
        wanted = ("✓ done", "■ stopped", "✗ crashed", "▲ diverged", "40/120", "46.0%", "1h00m ago")
        await until(pilot, lambda: all(words in shown(pilot.app) for words in wanted))

    drive(app(), size, script)


@pytest.mark.parametrize("size", SIZES)
def test_columns_stay_whatever_a_names_length(app: Make, made: Make, size: tuple[int, int]) -> None:
    """The last column is on the screen beside a name of 64 letters, which is whole in the panel below."""
    name = "a" * 63 + "z"
    made(name, model__name="/models/" + "m" * 60)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "1h00m ago" in shown(pilot.app) and "12 MiB" in shown(pilot.app))
        assert "aaa…" in shown(pilot.app) and "mmm…" in shown(pilot.app)
        assert name in str(pilot.app.screen.query_one("#details", Static).render())

    drive(app(), size, script)


def test_the_chosen_sessions_curve(app: Make, made: Make) -> None:
    """Where there is room, and of the session under the cursor, wherever it goes."""
    made("older", steps=20, created=NOW - 7200)
    made("newer", steps=40)

    async def script(pilot: Pilot[None]) -> None:
        at(pilot, "newer")
        await until(pilot, lambda: home(pilot).query_one(Course).state.step == 40)
        assert "validation accuracy" in shown(pilot.app) and "smoothed" in shown(pilot.app)
        at(pilot, "older")
        await until(pilot, lambda: home(pilot).query_one(Course).state.step == 20)
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "smoothed" not in shown(pilot.app))

    drive(app(), (200, 60), script)


@pytest.mark.parametrize("screen", [False, True])
def test_a_report_opens(app: Make, made: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, screen: bool) -> None:
    """By o, in Home and in a run: written here, and opened where there is a browser with a window; else its path is
    said. Of marked sessions it is one together.
    """
    made("first")
    made("second")
    opened: list[str] = []
    monkeypatch.setattr(reports.webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setattr(reports, "has_browser", lambda: screen)
    monkeypatch.chdir(tmp_path)
    pages = [tmp_path / f"{name}-report.html" for name in ("second", "compared")]

    async def script(pilot: Pilot[None]) -> None:
        at(pilot, "second")
        await pilot.press("o")
        await until(pilot, pages[0].exists)
        await pilot.press("space", "up" if home(pilot).listed[0].name == "first" else "down", "space", "o")
        await until(pilot, pages[1].exists)
        await until(pilot, lambda: len(pilot.app._notifications) == 2)
        told = [each.message for each in pilot.app._notifications]
        assert all(any(str(page) in text for text in told) for page in pages)
        assert opened == [page.as_uri() for page in pages if screen]

    drive(app(), (120, 40), script)


def test_what_can_be_done(app: Make, made: Make) -> None:
    """The actions under the list are those of the session's state, and all of them fit 80 columns."""
    for name, ending in (("a", "done"), ("b", "broke")):
        made(name, ending=ending)

    async def script(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, HomeScreen)
        for _ in range(2):
            current = screen.current
            assert current is not None
            visible = [b for b in screen.query("#actions Button").results(Button) if b.display]
            assert {b.id for b in visible} == {
                f"do-{name}" for name, _, _, states in ACTIONS if current.state in states
            }
            assert all(b.region.width > 0 and b.region.right <= 80 for b in visible)
            await pilot.press("down")

    drive(app(), (80, 24), script)


def test_broken_off(app: Make, made: Make) -> None:
    """Of a run whose process ended in an error its words are shown, with the way on."""
    made("a", ending="broke")
    (paths()["sessions"] / "a" / "trainer.log").write_text(
        "error: out of memory, 12 of 11 GiB\nhint: a smaller batch\n"
    )

    async def script(pilot: Pilot[None]) -> None:
        text = " ".join(shown(pilot.app).split())
        assert "✗ out of memory, 12 of 11 GiB" in text and "→ a smaller batch" in text and "Resume r" in text

    drive(app(), (120, 40), script)


def test_killed(app: Make, made: Make) -> None:
    """Of a run that was killed it is said that nothing saved is lost."""
    made("a", ending="broke")

    async def script(pilot: Pilot[None]) -> None:
        assert "without a word" in shown(pilot.app)

    drive(app(), (120, 40), script)


def test_damaged(app: Make, made: Make) -> None:
    """A session that cannot be read is in the list with the reason, and takes nothing else with it."""
    made("a")
    made("b")
    (paths()["sessions"] / "b" / "journal.db").write_bytes(b"nonsense")

    async def script(pilot: Pilot[None]) -> None:
        text = shown(pilot.app)
        assert "✗ damaged" in text and "✓ done" in text
        at(pilot, "b")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Choose))
        assert "b is damaged" in shown(pilot.app) and "Delete it" in shown(pilot.app)
        await pilot.click("#delete")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: not (paths()["sessions"] / "b").exists())

    drive(app(), (80, 24), script)


def test_a_home_that_cannot_be_read_is_said(app: Make, home: Path) -> None:
    """It is not the same as one without sessions."""
    home.mkdir(parents=True)
    (home / "sessions").write_text("no folder")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "cannot be read" in " ".join(shown(pilot.app).split()))
        assert "Try it" not in shown(pilot.app)

    drive(app(), (120, 40), script)


@pytest.mark.parametrize("size", LAYOUTS)
def test_rename(app: Make, made: Make, size: tuple[int, int]) -> None:
    """A name that is taken or impossible is refused in the window; a good one is taken."""
    made("first")
    made("other")

    async def script(pilot: Pilot[None]) -> None:
        at(pilot, "first")
        await pilot.press("m")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Ask) and "A new name for first" in shown(pilot.app)
        for wrong, why in (("other", "there already"), ("No!", "cannot be")):
            pilot.app.screen.query_one(Input).value = wrong
            await pilot.press("enter")
            await settled(pilot)
            assert why in shown(pilot.app)
        pilot.app.screen.query_one(Input).value = "second"
        await pilot.press("enter")
        await settled(pilot)
        assert sessions.exists("second") and not sessions.exists("first")
        assert named(pilot) == "second"

    drive(app(), size, script)


def test_the_cursor_stays_on_its_session(app: Make, made: Make) -> None:
    """However the list is ordered when it is read again; of a session that is gone the one in its place is next."""
    for name in ("a", "b", "c"):
        made(name)

    async def script(pilot: Pilot[None]) -> None:
        screen, rows = home(pilot), list(home(pilot).listed)
        assert [row.name for row in rows] == ["c", "b", "a"]
        at(pilot, "b")
        for order in itertools.permutations(rows):
            shows(screen, order)
            assert named(pilot) == "b"
            await settled(pilot)
            assert named(pilot) == "b" and "b" in text_of(screen, "#details")
        shows(screen, [rows[0], rows[2]])
        assert named(pilot) == "a"

    drive(app(), (120, 40), script)


@pytest.mark.parametrize("action", ["rename", "fork", "rewind", "delete"])
def test_a_question_is_about_the_session_of_its_key(app: Make, made: Make, action: str) -> None:
    """A list that arrives between the key and the question, without the session, does not turn it to another one."""
    made("first")
    made("beside")

    async def script(pilot: Pilot[None]) -> None:
        screen = home(pilot)
        at(pilot, "first")
        getattr(screen, f"action_{action}")()
        shows(screen, [each for each in screen.listed if each.name == "beside"])
        assert named(pilot) == "beside"
        await settled(pilot)
        asked = pilot.app.screen
        assert isinstance(asked, Ask | Confirm)
        assert "beside" not in asked.question + asked.detail and "first" in asked.question + asked.detail

    drive(app(), (120, 40), script)


def test_enter_opens_the_session_that_it_was_pressed_on(app: Make, made: Make) -> None:
    """Also when the cursor has moved on before the event arrives."""
    made("first")
    made("other")

    async def script(pilot: Pilot[None]) -> None:
        table = home(pilot).query_one("#list", DataTable)
        at(pilot, "first")
        table.action_select_cursor()  # the event is in flight now
        at(pilot, "other")
        await settled(pilot)
        assert isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.session == "first"

    drive(app(), (120, 40), script)


def test_rewind_takes_only_steps_of_the_session(app: Make, made: Make) -> None:
    """The number is checked, and the last step takes nothing back."""
    made("first", steps=40)

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await settled(pilot)
        pilot.app.screen.query_one(Input).value = "41"
        await pilot.press("enter")
        await settled(pilot)
        assert "from 0 to 40" in shown(pilot.app)
        pilot.app.screen.query_one(Input).value = "40"
        await pilot.press("enter")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HomeScreen) and sessions.open_("first").journal.last_step() == 40

    drive(app(), (80, 24), script)


async def asked_to_rewind(pilot: Pilot[None]) -> None:
    """To step 10, up to the question whether that is meant."""
    await pilot.press("w")
    await settled(pilot)
    pilot.app.screen.query_one(Input).value = "10"
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, Choose))


@pytest.mark.parametrize(
    ("keys", "steps"),
    [(["enter"], {"first": 40}), (["escape"], {"first": 40}), (["tab", "tab", "enter"], {"first": 10})],
)
def test_rewind_says_what_will_be_gone(
    app: Make, made: Make, monkeypatch: pytest.MonkeyPatch, keys: list[str], steps: dict[str, int]
) -> None:
    """It names the steps and the best among them; the first answer and Escape keep all, the third takes them back."""
    made("first", steps=40)
    monkeypatch.setattr(manage, "reach", lambda found, step: None)  # it has no checkpoint to be rebuilt from

    async def script(pilot: Pilot[None]) -> None:
        await asked_to_rewind(pilot)
        said = " ".join(shown(pilot.app).split())
        assert "30 of 40 steps (11 to 40), 2 evaluations" in said and "step 40) among them" in said
        await pilot.press(*keys)
        await settled(pilot)
        assert {row.name: row.step for row in sessions.list_()} == steps

    drive(app(), (200, 60), script)


def test_rewind_offers_a_fork(app: Make, made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer leaves the session as it is, and makes another of its first steps."""
    made("first", steps=40)
    forked: list[tuple[str, str | None, int]] = []
    monkeypatch.setattr(manage, "fork", lambda *given: forked.append(given))

    async def script(pilot: Pilot[None]) -> None:
        await asked_to_rewind(pilot)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: forked)
        assert forked == [("first", None, 10)] and sessions.open_("first").journal.last_step() == 40

    drive(app(), (120, 40), script)


def test_delete(app: Make, made: Make) -> None:
    """Delete asks with the number of steps; Enter on the first answer keeps it, y removes it."""
    made("first")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("x")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Confirm) and "40 steps" in shown(pilot.app)
        await pilot.press("enter")
        await settled(pilot)
        assert sessions.exists("first")
        await pilot.press("x")
        await settled(pilot)
        await pilot.press("y")
        await settled(pilot)
        assert not sessions.exists("first")

    drive(app(), (80, 24), script)


def test_what_fails_is_said(app: Make, made: Make) -> None:
    """A fork that cannot be made says why, and Home is there again after OK."""
    made("first")  # it saved no checkpoint

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("f")
        await settled(pilot)
        await pilot.press("enter")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Trouble) and "saved nothing yet" in shown(pilot.app)
        await pilot.press("enter")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HomeScreen)

    drive(app(), (80, 24), script)


@pytest.mark.parametrize(
    ("key", "verb", "paused"), [("p", "pause", False), ("s", "stop", False), ("g", "continue", True)]
)
def test_orders(app: Make, made: Make, key: str, verb: str, paused: bool) -> None:
    """Keys of a run that goes on leave their command in its journal."""
    from zolite.common.events import Paused

    made("first", ending="broke")

    async def script(pilot: Pilot[None]) -> None:
        with sessions.open_("first", write=True) as writer:
            if paused:
                writer.journal.event(Paused(40))
                writer.journal.commit()
            home(pilot).refresh_all()
            await settled(pilot)
            assert ("‖ paused" if paused else "▶ running") in shown(pilot.app)
            await pilot.press(key)
            await settled(pilot)
            assert Journal.take(writer.journal) == [verb]

    drive(app(), (80, 24), script)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(("key", "verb"), [("p", "pause"), ("s", "stop")])
def test_orders_are_for_the_session_under_the_cursor(app: Make, made: Make, key: str, verb: str, place: int) -> None:
    """Of three that run, wherever in the list it is; the others hear nothing."""
    for name in ("first", "second", "third"):
        made(name, ending="broke")

    async def script(pilot: Pilot[None]) -> None:
        with contextlib.ExitStack() as held:
            running = {row.name: held.enter_context(sessions.open_(row.name, write=True)) for row in sessions.list_()}
            home(pilot).refresh_all()
            await settled(pilot)
            home(pilot).table.move_cursor(row=place)
            await settled(pilot)
            name = [row.name for row in home(pilot).listed][place]
            assert home(pilot).table.get_row_at(place)[2] == cell(pilot.app, name)
            assert name in text_of(home(pilot), "#details")
            await pilot.press(key)
            await settled(pilot)
            heard = {each: Journal.take(session.journal) for each, session in running.items()}
            assert heard == {each: [verb] * (each == name) for each in running}

    drive(app(), (120, 40), script)


def test_leaving_says_that_runs_go_on(app: Make, made: Make) -> None:
    """q with a run going on says so and asks; without one it leaves."""
    made("first", ending="broke")

    async def script(pilot: Pilot[None]) -> None:
        with sessions.open_("first", write=True):
            home(pilot).refresh_all()
            await settled(pilot)
            await pilot.press("q")
            await settled(pilot)
            assert isinstance(pilot.app.screen, Confirm)
            assert "Runs go on without the app" in " ".join(shown(pilot.app).split())
            await pilot.press("escape")
            await settled(pilot)
        home(pilot).refresh_all()
        await settled(pilot)
        await pilot.press("q")
        while pilot.app.is_running and not pilot.app._exit:
            await asyncio.sleep(0.01)

    drive(app(), (80, 24), script)


def test_demo_starts(app: Make, client: FakeClient, made: Make) -> None:
    """d starts the demo in a process of its own and opens its Run screen."""
    client.answers["demo"] = made("first")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("d")
        await until(pilot, lambda: type(pilot.app.screen).__name__ == "RunScreen")
        assert client.asked == [("demo",)]

    drive(app(), (80, 24), script)


def test_what_does_not_start(app: Make, client: FakeClient) -> None:
    """A trainer that refuses is a message with its hint, and Home again."""
    client.answers["demo"] = DoesNotFit("it needs 14 GiB of 12", "take a smaller batch")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Trouble))
        assert isinstance(pilot.app.screen, Trouble)
        text = shown(pilot.app)
        assert "it needs 14 GiB of 12" in text and "take a smaller batch" in text
        await pilot.press("escape")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HomeScreen)

    drive(app(), (80, 24), script)


def test_a_start_can_be_given_up(app: Make, client: FakeClient) -> None:
    """What is prepared is said with its count, a bar and the time left; Escape tells the process that nobody waits."""
    import threading

    given_up = threading.Event()
    doing = Working("quantizing tensors", 12, 30, 12.0, 18.0)

    class Slow(FakeClient):
        def start(self, *arguments: str, gone: Any = None, left: Any = None, heard: Any = None) -> str:
            heard(json.loads(to_json(doing)))
            while not gone():
                threading.Event().wait(0.01)
            given_up.set()
            return "first"

    made_app = app()
    made_app.client = Slow()

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("d")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Preparing)
        await until(pilot, lambda: "quantizing" in shown(pilot.app))
        said = shown(pilot.app)
        assert "Preparing: quantizing tensors: 12 of 30 (40%), about 18s left" in said and "━━━" in said
        await pilot.press("escape")
        await until(pilot, lambda: given_up.is_set() and isinstance(pilot.app.screen, HomeScreen))

    drive(made_app, (80, 24), script)


def test_marks_and_compare(app: Make, made: Make) -> None:
    """Space marks; with two marked c compares them."""
    made("a")
    made("b")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press("space", "c")
        await settled(pilot)
        assert isinstance(pilot.app.screen, HomeScreen)
        await pilot.press("down", "space", "c")
        await settled(pilot)
        assert type(pilot.app.screen).__name__ == "CompareScreen"

    drive(app(), (120, 40), script)


@pytest.mark.parametrize(("key", "screen"), [("enter", "RunScreen"), ("t", "TryScreen"), ("e", "ExportScreen"),
                                             ("n", "NewScreen"), ("3", "SettingsScreen")])  # fmt: skip
def test_opens(app: Make, made: Make, client: FakeClient, key: str, screen: str) -> None:
    """A key opens its screen, and q or Escape closes it again."""
    made("a")
    client.answers["chat"] = DoesNotFit("no model here", "")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await settled(pilot)
        assert screen in [type(each).__name__ for each in pilot.app.screen_stack]
        for _ in range(3):
            await pilot.press("escape")
            await settled(pilot)
        assert isinstance(pilot.app.screen, HomeScreen)

    drive(app(), (120, 40), script)


def test_mouse(app: Make, made: Make) -> None:
    """A click on an action does it."""
    made("a")

    async def script(pilot: Pilot[None]) -> None:
        await pilot.click("#do-rename")
        await settled(pilot)
        assert isinstance(pilot.app.screen, Ask)

    drive(app(), (80, 24), script)


def home(pilot: Pilot[None]) -> HomeScreen:
    screen = pilot.app.screen
    assert isinstance(screen, HomeScreen)
    return screen


def at(pilot: Pilot[None], name: str) -> None:
    """The cursor on a session."""
    names = [each.name for each in home(pilot).listed]
    home(pilot).query_one("#list", DataTable).move_cursor(row=names.index(name))


def named(pilot: Pilot[None]) -> str:
    """The session under the cursor."""
    current = home(pilot).current
    return current.name if current else ""


def shows(screen: HomeScreen, sessions: Sequence[Listed]) -> None:
    """What the thread that reads the sessions does in the end."""
    assert screen.hardware is not None
    screen.show(list(sessions), screen.hardware)


def text_of(screen: HomeScreen, name: str) -> str:
    return str(screen.query_one(name, Static).render())


def test_actions_are_whole() -> None:
    """Every action of the list has a method and a key of its own."""
    keys = [key for _, _, key, _ in ACTIONS]
    assert len(set(keys)) == len(keys)
    assert all(hasattr(HomeScreen, f"action_{name}") for name, *_ in ACTIONS)
