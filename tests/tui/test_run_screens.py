"""Claims about the screens of a run, at three sizes: what they show, what they ask of it, and where they lead on."""

import asyncio
import json
import math
import random
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from textual.pilot import Pilot
from textual.widgets import Input, Select
from zolite.tui import config as configs
from zolite.tui.app import Opened, ZoliteApp
from zolite.tui.client import Client
from zolite.tui.screens.compare import CompareScreen
from zolite.tui.screens.dialogs import Ask, Choose, Confirm, Trouble
from zolite.tui.screens.export import ExportScreen
from zolite.tui.screens.replay import ReplayScreen
from zolite.tui.screens.run import RunScreen
from zolite.tui.screens.try_it import Exchange, TryScreen
from zolite.tui.widgets.chart import Chart
from zolite.tui.widgets.panels import Panel
from zolite.tui.widgets.run_view import RunView
from zolite.tui.widgets.scrubber import Scrubber

from zolite.common.events import Evaluated, Finished, Noted, Paused, Sampled, Saved, Started, Working
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.export.registry import FORMATS, Format
from zolite.planner import hardware as machine
from zolite.sessions import session as sessions
from zolite.sessions import working
from zolite.sessions.session import MemoryRow, Session, StepRow

from .conftest import LAYOUTS, SIZES

RECORDED = Path(__file__).parent.parent / "data" / "run.jsonl"
DEVICE = "NVIDIA GeForce RTX 3060"
FACTS = {"model": "m", "base": "b", "data": "d", "labels": ["a", "b"], "device": DEVICE, "versions": {}}
GIB = 2**30
POLLS = 10_000  # of a condition before a test gives up

# A stand-in for `python -m zolite`: notes what it was asked, and answers as zolite does.
STAND_IN = """
import json, sys
words = sys.argv[2:]
with open(sys.argv[1], "a") as log:
    log.write(json.dumps(words) + "\\n")
def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)
if words[0] == "chat" and "refused" in words:
    sys.exit("error: no room for the model\\nhint: pause the run")
elif words[0] == "chat":
    about = {"columns": ["text"], "chat": False, "system": "", "labels": ["billing", "returns"], "note": ""}
    about |= {"talk": {"columns": ["prompt"], "chat": True, "system": "Be brief.", "labels": []},
              "pairs": {"columns": ["premise", "hypothesis"]}}.get(words[1], {})
    say("ready", session=words[1], step=60, **about)
    for line in sys.stdin:
        with open(sys.argv[1] + ".lines", "a") as log:
            log.write(line)
        asked = json.loads(line)
        if "step" in asked:
            say("ready", session=words[1], step=int(asked["step"]), **about)
        elif asked.get("prompt") == "bad":
            say("error", message="a prompt of 300 tokens", hint="say less")
        elif asked.keys() & {"prompt", "columns"}:
            if asked.get("system", about["system"]) != about["system"]:
                about["system"] = asked["system"]
                say("ready", session=words[1], step=60, **about)
            say("piece", side="base", text="It is a ")
            say("piece", side="tuned", text="billing")
            shares = {"base": {"returns": 0.6, "billing": 0.4}, "tuned": {"billing": 0.9, "returns": 0.1}}
            say("answer", base="It is a letter", tuned="billing", tokens=4, seconds=0.5,
                finish={"base": "length", "tuned": "stop"}, label={"base": "", "tuned": "billing"},
                notes={"base": "not one of the 2 labels, " * bool(about["labels"]) + "cut at 64 tokens", "tuned": ""},
                shares=shares if about["labels"] else {})
elif words[0] == "export" and "refused" in words:
    sys.exit("error: out exists and is not empty\\nhint: choose another folder with --to")
elif words[0] == "export":
    check = {"reader": "peft 0.21", "rows": 32, "split": "test", "apart": 3e-5, "allowed": 1e-3, "same_texts": 3,
             "texts": [{}, {}, {}], "loss_base": 1.93, "loss_export": 0.51, "effect": 1.4, "prompts": 32,
             "said_session": {"label": 32, "right": 25}, "said_export": {"label": 32, "right": 24}}
    print(json.dumps({"path": words[3], "steps": [60], "format": "peft", "dtype": "f32", "base": "base",
                      "checks": [check], "notes": ["a note"]}))
elif words[0] == "resume":
    print(json.dumps({"session": words[1]}))
"""


def packed(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def recipe(steps: int) -> Recipe:
    return recipes.resolve(
        recipes.override(
            Recipe(),
            {"adapter.space": "lora-b", "train.steps": steps, "train.batch": 8, "data.path": "/nowhere"},
        )
    )


def rows(first: int, last: int, steps: int) -> list[StepRow]:
    """Steps of a run that learns; the same ones every time."""
    found = []
    for i in range(first, last + 1):
        rng = random.Random(i)
        base = 1.2 + 3 * math.exp(-4 * i / steps)
        losses = [base + rng.gauss(0, 0.4), base + rng.gauss(0, 0.4)]
        slope = (losses[0] - losses[1]) / 0.02
        found.append(StepRow(i, packed(slope), packed(*losses), 1e-2, 3e-3, 0, 1.7e9 + i, 0.5, 3 * GIB // 2))
    return found


@pytest.fixture
def made() -> Callable[..., Session]:
    """made("first") is a session open for writing, as a trainer has it, after some steps."""

    def make(name: str, steps: int = 100, done: int = 60) -> Session:
        session = sessions.create(name, recipe(steps), FACTS)
        journal = session.journal
        journal.event(Started(name, 1, steps, DEVICE, 1_244_160, 11 * GIB))
        journal.event(Noted("warning", "3 rows were cut"))
        for step in range(0, done + 1, 20):
            journal.append(rows(max(1, step - 19), step, steps))
            journal.event(Evaluated(step, "dev", "accuracy", 0.25 + step / 200, 200, 1.0, 0.98, 0.24 + step / 200, 0.4))
            journal.event(Saved(step, f"{step:06d}"))
            journal.memory(MemoryRow(1.7e9 + step, max(1, step), GIB, 5 * GIB // 3))
        journal.commit()
        return session

    return make


Make = Callable[..., Session]
Scenario = Callable[[Pilot[None]], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """The commands that the app has given."""
    log = tmp_path / "asked"
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def heard(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """What `zolite chat` was asked."""
    log = tmp_path / "asked.lines"
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., ZoliteApp]:
    """app(lambda: RunScreen("first")) is the app with that screen over Home, on a machine and at a time that stay."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)

    def make(first: Opened, chart: str = "braille") -> ZoliteApp:
        configs.save(configs.Config(chart=chart), tmp_path / "app.toml")
        return ZoliteApp(
            first,
            client=Client((sys.executable, str(tmp_path / "stand_in.py"), str(tmp_path / "asked"))),
            machine=lambda: machine.published("rtx-3060-12gb"),
            clock=lambda: 1.7e9 + 100,
            config=tmp_path / "app.toml",
        )

    return make


@pytest.fixture
def play(app: Callable[..., ZoliteApp]) -> Play:
    """play(lambda: RunScreen("first"), scenario, size) runs the app with that screen."""

    def run(first: Opened, scenario: Scenario, size: tuple[int, int] = (80, 24), chart: str = "braille") -> None:
        async def main() -> None:
            async with app(first, chart).run_test(size=size) as pilot:
                await scenario(pilot)

        asyncio.run(main())

    return run


async def until(pilot: Pilot[None], holds: Callable[[], object]) -> None:
    """Wait for something that other threads do, however slow the machine is."""
    for _ in range(POLLS):
        if holds():
            await pilot.pause()
            return
        await pilot.pause(0.02)
    raise AssertionError(shown(pilot))


async def still(pilot: Pilot[None]) -> None:
    """Wait until nothing changes on the screen any more for some rounds of its messages."""
    before, same = "", 0
    for _ in range(POLLS):
        before, same = shown(pilot), same + 1 if shown(pilot) == before else 0
        if same == 10:
            return
        await pilot.pause(0.02)
    raise AssertionError(before)


def shown(pilot: Pilot[None]) -> str:
    """The screen as text."""
    width, height = pilot.app.size
    lines = [[" "] * width for _ in range(height)]
    for y, strip in enumerate(pilot.app.screen._compositor.render_strips()):
        lines[y] = list(strip.text)
    return "\n".join("".join(line).rstrip() for line in lines)


def cut(pilot: Pilot[None]) -> list[str]:
    """Widgets that are seen and stick out of the screen."""
    whole = pilot.app.screen.region
    widgets = [w for w in pilot.app.screen.walk_children() if w.display and w.region and w.id not in ("events-text",)]
    return [repr(w) for w in widgets if w.region.width > whole.width or w.region.right > whole.right]


PICTURES: dict[str, tuple[Opened, tuple[str, ...]]] = {
    "run": (lambda: RunScreen("first"), ("fits", "planned")),
    "replay": (lambda: ReplayScreen(RECORDED), ("step 240 of 240", "stopped ×1")),
    "compare": (lambda: CompareScreen(("first", "done")), ("A  first", "B  done")),
    "try": (lambda: TryScreen("first"), ("ready", "2 labels")),
    "try-columns": (lambda: TryScreen("pairs"), ("ready", "hypothesis")),
    "try-talk": (lambda: TryScreen("talk"), ("ready", "system message")),
    "export": (lambda: ExportScreen("first"), ("best on validation",)),
}
PICTURED = {
    **{"run": SIZES, "replay": SIZES[:2], "compare": SIZES[:2], "try": SIZES[:1], "export": SIZES[:1]},
    **{"try-columns": SIZES[:2], "try-talk": SIZES[1:]},
}


# --- Run


@pytest.mark.parametrize("size", LAYOUTS)
def test_run_shows(made: Make, play: Play, size: tuple[int, int]) -> None:
    """State, place, scores, speed and budget are on the screen at every size, and nothing sticks out of it."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "fits" in shown(pilot) and "planned" in shown(pilot))
        text = shown(pilot)
        for part in (
            *("▶ running", "first", "step 60 of 100", "60%", "left", "steps/s", "11.0 GiB", "◆", "d Details"),
            *("validation accuracy 55.0% (best so far, at step 60)", "✓ falling", "memory", "events"),
            "says a label 98.0%, the right one 54.0%",
        ):
            assert part in text, part
        assert ("checkpoint saved" in text) is (size != (80, 24))
        for expert in ("lr", "ε", "s/n", "gradients", "skipped"):
            assert expert not in text, expert
        assert cut(pilot) == []
        await pilot.press("d")
        await until(pilot, lambda: "gradients" in shown(pilot))
        if size != (80, 24):
            for expert in ("lr ", "ε ", "s/n ", "projected gradients", "skipped", "nats/100 steps"):
                assert expert in shown(pilot), expert
        assert cut(pilot) == []
        await pilot.press("d")
        await until(pilot, lambda: "gradients" not in shown(pilot))

    with made("first"):
        play(lambda: RunScreen("first"), scenario, size)


def test_panels_in_turn(made: Make, play: Play) -> None:
    """In a small window the keys 1 to 5, or a click, choose the panel that is seen."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "fits" in shown(pilot))
        words = (("2", "checkpoint saved"), ("3", "nats/100 steps"), ("4", "█"), ("1", "planned"), ("2", "checkpoint"))
        for key, word in words:
            await pilot.press(key)
            await until(pilot, lambda word=word: word in shown(pilot))
        await pilot.click("#tabs", offset=(23, 0))
        await until(pilot, lambda: "nats/100 steps" in shown(pilot))
        await pilot.press("d")
        await until(pilot, lambda: "nats/100 steps" not in shown(pilot) and "planned" in shown(pilot))

    with made("first"):
        play(lambda: RunScreen("first"), scenario)


@pytest.mark.parametrize("size", LAYOUTS)
def test_sample_answers_are_a_panel(made: Make, play: Play, size: tuple[int, int]) -> None:
    """The newest of each row beside what was written before training; in a small window behind 5."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step 60" in shown(pilot))
        assert ("a parcel" in shown(pilot)) is (size != (80, 24))
        if size == (80, 24):
            await pilot.press("5")
        for part in ("Where is it?", "now    a parcel", "before it is", "right  a letter"):
            await until(pilot, lambda part=part: part in shown(pilot))
        assert "an old answer" not in shown(pilot) and cut(pilot) == []

    with made("first") as session:
        for step, now in ((0, "an old answer"), (60, "a\nparcel")):
            session.journal.event(Sampled(step, 1, "Where is it?", "it is …", now, "a letter"))
        session.journal.commit()
        play(lambda: RunScreen("first"), scenario, size)


@pytest.mark.parametrize("size", SIZES[1:])
def test_speed_and_memory_have_their_course(made: Make, play: Play, size: tuple[int, int]) -> None:
    """Beside their numbers, from zero; and bars of memory have one scale, on which no part is longer than the sum."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "planned" in shown(pilot) and "so far" in shown(pilot))
        lines = shown(pilot).splitlines()
        (speed,) = [line for line in lines if "steps/s" in line]
        assert "█" in speed.partition("steps/s")[2]
        bars = {name: line.count("━") for line in lines for name in ("planned", "linear layers") if name in line}
        assert bars.get("linear layers", 0) <= bars["planned"]

    with made("first") as session:
        more = [row._replace(memory_bytes=row.memory_bytes * 2) for row in rows(61, 64, 100)]
        session.journal.append(more)
        session.journal.commit()
        play(lambda: RunScreen("first"), scenario, size)


def test_run_follows(made: Make, play: Play) -> None:
    """Steps that are journalled appear; once they are taken back, they are gone."""

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.state.step == 60)
        session.journal.append(rows(61, 80, 100))
        session.journal.event(Paused(80))
        session.journal.commit()
        await until(pilot, lambda: "‖ paused" in shown(pilot) and "step 80 of 100" in shown(pilot))
        session.journal.truncate(40)
        await until(pilot, lambda: "step 40 of 100" in shown(pilot))
        assert screen.state.best().step == 40  # type: ignore[union-attr]

    with made("first") as session:
        play(lambda: RunScreen("first"), scenario)


def test_what_can_be_asked(made: Make, play: Play) -> None:
    """Keys leave their commands for the run; stopping asks first, and says what stays."""

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.state.step == 60)
        for key, verb in (("space", "pause"), ("k", "checkpoint")):
            await pilot.press(key)
            await until(pilot, lambda verb=verb: session.journal.take() == [verb])
        session.journal.event(Paused(60))
        session.journal.commit()
        await until(pilot, lambda: screen.state.status == "paused")
        await pilot.press("p")
        await until(pilot, lambda: session.journal.take() == ["continue"])
        await pilot.press("s")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        assert "step 60" in shown(pilot)
        await pilot.press("n")
        await pilot.press("s")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: session.journal.take() == ["stop"])
        assert not screen.check_action("resume", ()) and not screen.check_action("rewind", ())

    with made("before") as before, made("first") as session, made("second") as second:
        play(lambda: RunScreen("first"), scenario)
        assert before.journal.take() == second.journal.take() == []  # each screen has its own session


@pytest.mark.parametrize("said", ["error: out of memory after step 60\nhint: a shorter --context\n", ""])
def test_a_trainer_that_crashed(made: Make, play: Play, said: str, asked: Callable[[], Any]) -> None:
    """What it left on stderr is shown with its hint, or that it ended without a word; resume is at hand."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "crashed" in shown(pilot) and "→" in shown(pilot))
        text = shown(pilot)
        assert ("out of memory after step 60" in text and "shorter --context" in text) if said else "without" in text
        await pilot.press("r")
        await until(pilot, lambda: ["resume", "first"] in [words[:2] for words in asked()])

    with made("first") as session:
        (session.path / "trainer.log").write_text(said)
    play(lambda: RunScreen("first"), scenario)


def test_a_trainer_that_is_killed(made: Make, play: Play) -> None:
    """While it is shown: the screen stays, and says so."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "▶ running" in shown(pilot))
        session.close()
        await until(pilot, lambda: "✗ crashed" in shown(pilot) and "resume" in shown(pilot))

    session = made("first")
    play(lambda: RunScreen("first"), scenario)


def test_rewind(made: Make, play: Play) -> None:
    """A number that is no step of the run is refused in words; a step is asked about, and then taken back to."""

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: "■ stopped" in shown(pilot))
        await pilot.press("w")
        await until(pilot, lambda: isinstance(pilot.app.screen, Ask))
        for wrong in ("99", "x"):
            pilot.app.screen.query_one(Input).value = wrong
            await pilot.press("enter")
            await pilot.pause()
            assert isinstance(pilot.app.screen, Ask) and "✗" in shown(pilot)
        pilot.app.screen.query_one(Input).value = "40"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Choose))
        assert "20 of 60" in shown(pilot)
        await pilot.press("tab", "tab", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Trouble))  # of this session nothing was saved really
        assert "has saved nothing" in shown(pilot)

    with made("first") as session:
        session.journal.event(Finished(60, "interrupted", 30.0, 0, GIB))
    play(lambda: RunScreen("first"), scenario)


def test_chart_is_moved(made: Make, play: Play) -> None:
    """Keys and wheel zoom and pan; 0 shows all again; l is a logarithmic scale, m a larger chart."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "fits" in shown(pilot))
        chart = pilot.app.screen.query_one(Chart)
        await pilot.press("plus")
        first, last = chart.seen()
        assert last == 60 and 15 < first < 25  # at the end of a run the end stays
        await pilot.press("left")
        assert chart.seen()[1] < 60 and chart.seen()[1] - chart.seen()[0] == pytest.approx(last - first)
        assert "zoomed" in shown(pilot)
        await pilot.press("right", "right", "right")
        assert chart.seen()[1] == 60
        await pilot.press(*["plus"] * 20)
        assert chart.seen()[1] - chart.seen()[0] >= 4
        await pilot.press("0")
        assert chart.seen() == (0, 60)
        chart._wheel(_at(chart, 20), 1)
        assert chart.seen()[0] > 0 and chart.seen()[1] < 60
        await pilot.press("minus", "minus", "l")
        await pilot.pause()
        assert chart.seen() == (0, 60) and "log scale" in shown(pilot)
        await pilot.press("m")
        await pilot.pause()
        assert chart.size.height > 20 and "planned" not in shown(pilot)
        await pilot.press("m")
        await pilot.pause()
        assert "planned" in shown(pilot)

    def _at(chart: Chart, x: int) -> Any:
        from textual.events import MouseScrollUp

        return MouseScrollUp(chart, x, 2, 0, 0, 0, False, False, False)

    with made("first"):
        play(lambda: RunScreen("first"), scenario)


def test_what_is_done_between_steps_is_said_with_a_bar(made: Make, play: Play) -> None:
    """In the place of the progress, for as long as it takes; then the steps are there again."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step 60 of 100" in shown(pilot))
        working.put(session.path, Working("evaluating rows", 12, 48, 5.0, 15.0))
        await until(pilot, lambda: "evaluating rows: 12 of 48 (25%), about 15s left" in shown(pilot))
        working.clear(session.path)
        await until(pilot, lambda: "step 60 of 100" in shown(pilot))

    with made("first") as session:
        play(lambda: RunScreen("first"), scenario)


@pytest.mark.parametrize("size", SIZES)
def test_the_end_says_whether_it_worked(made: Make, play: Play, size: tuple[int, int]) -> None:
    """A run that is done says so in front of all else, with its numbers and the next commands."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "better than before by 30 points, sure" in shown(pilot))
        assert "25.0% → 55.0%" in shown(pilot) and not cut(pilot)
        assert "zolite chat first --step best" in "".join(
            segment.text
            for strip in pilot.app.screen.query_one("#result-text").render_lines(
                pilot.app.screen.query_one("#result-text").size.region
            )
            for segment in strip
        )

    with made("first", 60) as session:
        session.journal.event(Finished(60, "done", 30.0, 0, GIB))
    play(lambda: RunScreen("first"), scenario, size)


def test_ascii(made: Make, play: Play) -> None:
    """With chart = "ascii" curves, bars and histogram are of ASCII."""

    async def scenario(pilot: Pilot[None]) -> None:
        await pilot.press("d")
        await until(pilot, lambda: "fits" in shown(pilot) and "falling" in shown(pilot))
        chart = pilot.app.screen.query_one(Chart)
        assert all(strip.text.isascii() for strip in chart._strips)
        drawn = [panel.draw(*panel.content_size).plain for panel in pilot.app.screen.query(Panel)]
        assert not set("".join(drawn)) & set("━─░█▁▂▃▄▅▆▇") and sum("##" in text for text in drawn) == 3

    with made("first"):
        play(lambda: RunScreen("first"), scenario, (120, 40), "ascii")


def test_a_thousand_steps_a_second(made: Make, play: Play) -> None:
    """All of them are taken in, and the screen is drawn no more than ten times a second."""

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.state.step == 60)
        drawn, began = screen.redraws, time.monotonic()
        writer = threading.Thread(target=write)
        writer.start()
        await until(pilot, lambda: screen.state.step == 2060)
        assert screen.redraws - drawn <= 10 * (time.monotonic() - began) + 1  # the longer it takes, the more may be
        writer.join()

    def write() -> None:
        with sessions.open_("first", write=True) as session:
            for first in range(61, 2061, 20):
                session.journal.append(rows(first, first + 19, 3000))
                session.journal.commit()
                time.sleep(0.02)

    made("first", 3000).close()
    play(lambda: RunScreen("first"), scenario)


def test_no_such_session(play: Play) -> None:
    """The screen says so, with what to do, and can be left."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "no session nowhere" in shown(pilot))
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(pilot.app.screen, RunScreen))

    play(lambda: RunScreen("nowhere"), scenario)


# --- Replay


@pytest.mark.parametrize("size", LAYOUTS)
def test_replay(play: Play, size: tuple[int, int]) -> None:
    """A recorded run is shown at its end; the line goes anywhere in it, and playing goes on from there."""

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, ReplayScreen)
        await until(pilot, lambda: "step 240 of 240" in shown(pilot))
        assert "✓ done" in shown(pilot) and cut(pilot) == []
        end = screen.player and screen.player.state.moving.loss
        scrubber = screen.query_one(Scrubber)
        scrubber.focus()
        await pilot.press("home")
        await until(pilot, lambda: "step 0 of 240" in shown(pilot) and "‖ stopped" in shown(pilot))
        await pilot.press("full_stop", "full_stop", "comma")
        await until(pilot, lambda: "step 1 of 240" in shown(pilot) and "▶ running" in shown(pilot))
        await pilot.click(Scrubber, offset=(scrubber.size.width // 2, 0))
        await until(pilot, lambda: abs(scrubber.step - 120) < 5)
        await pilot.press("right")
        await pilot.press("greater_than_sign", "greater_than_sign", "greater_than_sign", "space")
        await until(pilot, lambda: "×8" in shown(pilot) and scrubber.step > 140)
        await pilot.press("end")
        await until(pilot, lambda: "step 240 of 240" in shown(pilot))
        assert screen.player and screen.player.state.moving.loss == end

    play(lambda: ReplayScreen(RECORDED), scenario, size)


def test_replay_of_nothing(play: Play, tmp_path: Path) -> None:
    """What is no recording is said, not raised."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "no recording" in " ".join(shown(pilot).split()))
        await pilot.press("space", "comma", "less_than_sign")

    (tmp_path / "x").write_text("hello")
    play(lambda: ReplayScreen(tmp_path / "x"), scenario)


# --- Compare


@pytest.mark.parametrize("size", LAYOUTS)
def test_compare(made: Make, play: Play, size: tuple[int, int]) -> None:
    """A letter, a curve and a line of numbers for each session; one that is gone is said, the others are shown."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "B  second" in shown(pilot) and "A  first" in shown(pilot))
        text = shown(pilot)
        assert "no session gone" in text and "40 of 100" in text and "55.0% at 60" in text and cut(pilot) == []
        chart = pilot.app.screen.query_one(Chart)
        assert {"A", "B"} <= set("".join(strip.text for strip in chart._strips[:-2]))
        loss = chart._strips[0].text
        await pilot.press("v", "l")
        await pilot.pause()
        assert chart._strips[0].text != loss and "log scale" in shown(pilot)
        assert "0.003" not in shown(pilot)
        await pilot.press("d")
        await until(pilot, lambda: size == (80, 24) or ("ε" in shown(pilot) and "0.003" in shown(pilot)))

    made("first").close()
    with made("second", done=40):
        play(lambda: CompareScreen(("first", "second", "gone")), scenario, size)


# --- Try it


@pytest.mark.parametrize("size", LAYOUTS)
def test_try_it(made: Make, play: Play, size: tuple[int, int], asked: Callable[[], Any]) -> None:
    """A prompt gets both answers beside each other; another step is turned to; what is refused is said."""

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        assert isinstance(screen, TryScreen)
        await until(pilot, lambda: "ready" in shown(pilot))
        await pilot.press(*"hello", "enter")
        await until(pilot, lambda: "It is a letter" in shown(pilot) and not screen.busy)
        line = next(line for line in shown(pilot).splitlines() if "It is a letter" in line)
        assert "billing" in line and cut(pilot) == []
        screen.query_one("#step", Select).value = "20"
        await until(pilot, lambda: "step 20, ready" in shown(pilot))
        await pilot.press(*"bad", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Trouble))
        assert "say less" in shown(pilot)
        await pilot.press("escape")
        assert [exchange.prompt for exchange in screen.query(Exchange)] == ["hello"]
        assert "not one of the 2 labels, cut at 64" in " ".join(shown(pilot).split()) and "90%" not in shown(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: "billing 90%" in shown(pilot))
        assert cut(pilot) == []
        await pilot.press("f2")
        await until(pilot, lambda: "90%" not in shown(pilot))
        await pilot.press("ctrl+l")
        await pilot.pause()
        assert not screen.query(Exchange)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(pilot.app.screen, TryScreen))
        assert asked() == [["chat", "first", "--step", "best", "--json"]]

    with made("first") as session:
        for step in (20, 60):
            session.save(step, {"x": torch.zeros(1)}, {})
    play(lambda: TryScreen("first"), scenario, size)


@pytest.mark.parametrize("size", LAYOUTS)
def test_try_it_with_columns(made: Make, play: Play, size: tuple[int, int], heard: Callable[[], Any]) -> None:
    """Each column has a line; Enter goes to the next one that is blank, and asks once there is none."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "hypothesis" in shown(pilot))
        await pilot.press(*"ox", "enter", *" b ", "enter")
        await until(pilot, lambda: "It is a letter" in shown(pilot))
        assert "premise: ox" in shown(pilot) and cut(pilot) == []
        assert heard() == [{"columns": {"premise": "ox", "hypothesis": " b "}, "shares": True}]
        assert not any(entry.value for entry in pilot.app.screen.query(".column").results(Input))

    made("pairs").close()
    play(lambda: TryScreen("pairs"), scenario, size)


@pytest.mark.parametrize("name", ["first", "pairs"])
def test_try_it_early(made: Make, play: Play, heard: Callable[[], Any], tmp_path: Path, name: str) -> None:
    """What is asked before the model is there is answered by it, once every column is given."""
    loaded = tmp_path / "loaded"
    wait = f"    import pathlib, time\n    while not pathlib.Path({str(loaded)!r}).exists(): time.sleep(0.01)\n"
    (tmp_path / "stand_in.py").write_text(STAND_IN.replace('    say("ready"', wait + '    say("ready"', 1))

    async def scenario(pilot: Pilot[None]) -> None:
        await pilot.press(*"ox", "enter")
        assert "ox" in shown(pilot) and not heard()
        loaded.touch()
        await until(pilot, lambda: "ready" in shown(pilot))
        await pilot.press(*([] if name == "first" else ["b", "enter"]))
        await until(pilot, lambda: "It is a letter" in shown(pilot))
        asked = {"prompt": "ox"} if name == "first" else {"columns": {"premise": "ox", "hypothesis": "b"}}
        assert heard() == [asked | {"shares": True}]

    made(name).close()
    play(lambda: TryScreen(name), scenario)


def test_try_a_conversation(made: Make, play: Play, heard: Callable[[], Any]) -> None:
    """Its system message is there to be changed, and then a new conversation begins, as when it is cleared."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Be brief." in shown(pilot) and "ready" in shown(pilot))
        for text in "ab":
            await pilot.press(text, "enter")
            await until(pilot, lambda text=text: f"› {text}" in shown(pilot) and "ready" in shown(pilot))
        pilot.app.screen.query_one("Input.system", Input).value = ""
        assert "another conversation" not in shown(pilot)
        await pilot.press("c", "enter")
        await until(pilot, lambda: "another conversation" in shown(pilot) and "ready" in shown(pilot))
        assert cut(pilot) == []
        await pilot.press("ctrl+l")
        await until(pilot, lambda: len(heard()) == 4 and "another" not in shown(pilot))
        asked = zip("abc", ("Be brief.", "Be brief.", ""), strict=True)
        assert heard() == [*({"prompt": text, "shares": True, "system": s} for text, s in asked), {"new": True}]

    made("talk").close()
    play(lambda: TryScreen("talk"), scenario)


def test_nothing_to_try(made: Make, play: Play) -> None:
    """A process that ends at once leaves its message and hint, and a screen that can be left."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, Trouble))
        assert "no room for the model" in shown(pilot) and "pause the run" in shown(pilot)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not isinstance(pilot.app.screen, TryScreen))

    made("refused").close()
    play(lambda: TryScreen("refused", 60), scenario)


# --- Export


@pytest.mark.parametrize("size", LAYOUTS)
def test_export(made: Make, play: Play, size: tuple[int, int], asked: Callable[[], Any], tmp_path: Path) -> None:
    """What is chosen is what the command is given; the round trip's result is shown."""

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        screen.query_one("#format", Select).value = "gguf"
        await pilot.pause()
        screen.query_one("#dtype", Select).value = "f32"
        screen.query_one("#step", Select).value = "last"
        screen.query_one("#replace", Select).value = "yes"
        screen.query_one("#check", Select).value = "no"
        assert screen.query_one("#target", Input).value.endswith("first-gguf")
        screen.query_one("#target", Input).value = str(tmp_path / "out")
        await pilot.press("f5")
        await until(pilot, lambda: "read back" in shown(pilot))
        assert "right one on 24" in " ".join(shown(pilot).split()) and cut(pilot) == []
        words = ["export", "first", "--to", str(tmp_path / "out"), "--format", "gguf", "--step", "last"]
        assert asked() == [[*words, "--dtype", "f32", "--force", "--no-verify", "--json"]]

    made("first").close()
    play(lambda: ExportScreen("first"), scenario, size)


def test_export_that_fails(made: Make, play: Play) -> None:
    """Message and hint are shown, and the form is there to try again."""

    async def scenario(pilot: Pilot[None]) -> None:
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(pilot.app.screen, Trouble))
        assert "not empty" in shown(pilot) and "another folder" in shown(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportScreen))
        assert not pilot.app.screen.query_one("#go").disabled

    made("refused").close()
    play(lambda: ExportScreen("refused"), scenario)


# --- pictures


@pytest.mark.parametrize(("screen", "size"), [(name, size) for name in PICTURED for size in PICTURED[name]])
def test_picture(made: Make, app: Callable[..., ZoliteApp], snap_compare: Any, screen: str, size: Any) -> None:
    """Each screen is as it was when its picture was kept."""
    first, ready = PICTURES[screen]

    async def settled(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: all(part in shown(pilot) for part in ready))
        for entry in pilot.app.screen.query(Input):
            entry.cursor_blink = False
        for entry in pilot.app.screen.query("#target").results(Input):
            entry.value = "/home/me/first-peft"
        if screen.startswith("try"):
            for entry in pilot.app.screen.query(".column").results(Input):
                entry.value = "hello"
            await pilot.press("f2", "enter")
            await until(pilot, lambda: "cut at 64" in shown(pilot))
        await still(pilot)

    for other in ("done", "pairs", "talk"):
        made(other).close()
    with made("first") as session:
        session.save(60, {"x": torch.zeros(1)}, {})
        made_app = app(first)
        made_app.animation_level = "none"
        assert snap_compare(made_app, terminal_size=size, run_before=settled)


def test_formats_are_those_of_the_registry(made: Make, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form offers every row of the registry, with its number types."""
    monkeypatch.setitem(FORMATS, "mine", Format("mine", "a picture", "painters", ("x",), ("oil", "ink"), "nowhere"))

    async def scenario(pilot: Pilot[None]) -> None:
        screen = pilot.app.screen
        screen.query_one("#format", Select).value = "mine"
        await pilot.pause()
        assert screen.query_one("#dtype", Select).value == "oil"
        assert screen.query_one("#target", Input).value.endswith("first-mine")

    made("first").close()
    play(lambda: ExportScreen("first"), scenario)


def test_every_binding_has_an_id() -> None:
    """So that a keymap can name it; and none is a key that terminals keep for themselves."""
    kept = {f"ctrl+{letter}" for letter in "cmjihsb"} | {"enter"}
    for kind in (RunScreen, ReplayScreen, CompareScreen, TryScreen, ExportScreen, RunView, Chart, Scrubber):
        for binding in kind.BINDINGS:
            assert binding.id, (kind, binding)  # type: ignore[union-attr]
            assert not set(binding.key.split(",")) & kept, binding  # type: ignore[union-attr]
