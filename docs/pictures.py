"""The pictures of the app in docs/pictures, made from the app itself.

python docs/pictures.py [WORD …]     all of them, or those whose names contain a word

The machine is a card of the catalogue, the sessions are a recorded run (tests/data/run.jsonl), the rows are the demo's.
What commands of zolite are asked for is asked. To be talked to, the demo is trained for a few steps.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURES = REPOSITORY / "docs" / "pictures"
RECORDED = REPOSITORY / "tests" / "data" / "run.jsonl"
GIB = 2**30
CARD: dict[str, Any] = {"device": "NVIDIA GeForce RTX 3060", "budget_bytes": 11 * GIB}


@dataclass(frozen=True)
class Picture:
    """Keys to press, words that are there when all is drawn, and the size."""

    keys: tuple[str, ...]
    words: str
    size: tuple[int, int] = (120, 40)
    recorded: bool = False  # opened on the recorded run
    trained: bool = False  # with a session that was, newest of all: the demo, for a few steps


NEW = ("n", *["down"] * 5)
ASKED = ["space" if letter == " " else letter for letter in "my parcel was left with a neighbour who is away"]
PLAN = (*NEW, "enter", "wait", "demo", "wait", "3", "wait")
SHOTS = {
    "home": Picture((), "✓ done"),
    "home-80x24": Picture((), "✓ done", (80, 24)),
    "new-model": Picture(NEW, "fit ·"),
    "new-data": Picture(PLAN[:-3], "⟦"),
    "new-plan": Picture(PLAN, "✓ fits"),
    "new-plan-80x24": Picture(PLAN, "✓ fits", (80, 24)),
    "new-plan-200x60": Picture(PLAN, "✓ fits", (200, 60)),
    "run": Picture(("enter",), "planned"),
    "run-80x24": Picture(("enter",), "loss", (80, 24)),
    "compare": Picture(("space", "down", "space", "c"), "B "),
    "try": Picture(("t", "wait", "type", "enter"), "%", trained=True),
    "replay": Picture(("end",), "240/240", recorded=True),
    "export": Picture(("e",), "folder"),
    "doctor": Picture(("1",), "✓ ok"),
    "methods": Picture(("2",), "Malladi"),
    "settings": Picture(("3",), "curves"),
    "help": Picture(("question_mark",), "Rewind"),
}


def main() -> None:
    words = sys.argv[1:]
    PICTURES.mkdir(exist_ok=True)
    for name, picture in SHOTS.items():
        if not words or any(word in name for word in words):
            with home():
                if picture.trained:
                    demo = [sys.executable, "-m", "zolite", "demo", "--steps", "4", "--plain"]
                    subprocess.run(demo, stdout=subprocess.DEVNULL, check=True)
                svg = plain(asyncio.run(taken(picture)))
            (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")
            print(name)


@contextmanager
def home() -> Iterator[None]:
    """A home of its own, with two sessions that were recorded."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZOLITE_HOME"] = os.environ["XDG_CONFIG_HOME"] = folder
        os.chdir(REPOSITORY / "zolite" / "demo")
        restored("first-try", 0.6)
        restored("second-try", 1.0)
        yield


def restored(name: str, share: float) -> None:
    """The first steps of the recorded run, as a session."""
    from zolite.common.events import Started
    from zolite.sessions import recording
    from zolite.sessions import session as sessions

    recorded = recording.read(RECORDED)
    last = int(share * len(recorded.rows))
    recipe = replace(recorded.recipe, model=replace(recorded.recipe.model, name="Qwen/Qwen3-1.7B", quant="int8"))
    with sessions.create(name, recipe, CARD) as session:
        session.journal.append(recorded.rows[:last])
        for row in recorded.memory:
            session.journal.memory(row)
        for step, event in recorded.events:
            if step <= last:
                session.journal.event(replace(event, **CARD) if isinstance(event, Started) else event)


async def taken(picture: Picture) -> str:
    from zolite.tui.app import ZoliteApp
    from zolite.tui.client import Client
    from zolite.tui.screens.replay import ReplayScreen

    from zolite.planner import hardware as machine
    from zolite.tools import doctor

    card = replace(machine.published("rtx-3060-12gb"), others_bytes=int(0.9 * GIB))

    class Told(Client):
        """The checkup is of the card that the pictures pretend."""

        def ask(self, *arguments: str, **how: Any) -> Any:
            if arguments[0] == "doctor":
                gpu = machine.Gpu("NVIDIA GeForce RTX 3060", 12 * GIB, 11 * GIB, GIB, (8, 6), programs=2)
                torch = doctor.Torch("2.15.0", "13.2", True, ("sm_75", "sm_86"), "AVX2")
                checks = doctor.checkup(doctor.Machine(doctor.Driver("590.44", (13, 2), (gpu,)), torch))
                loaded = doctor.Check("bitsandbytes", "ok", "native library for the GPU loaded")  # not where this runs
                return [asdict(loaded if check.name == loaded.name else check) for check in checks]
            return super().ask(*arguments, **how)

    first = (lambda: ReplayScreen(RECORDED)) if picture.recorded else None
    app = ZoliteApp(first, client=Told(), machine=lambda: card, config=Path("app.toml"))
    app.animation_level = "none"
    async with app.run_test(size=picture.size) as pilot:
        await until(pilot, "Play" if picture.recorded else "RTX 3060")
        for key in picture.keys:
            await step(pilot, key)
        await until(pilot, picture.words)
        await pilot.pause(0.5)
        return app.export_screenshot(title="zolite")


async def step(pilot: Pilot[None], key: str) -> None:
    if key == "wait":
        await pilot.pause(3)
    elif key == "type":
        await pilot.press(*ASKED)
    elif key == "demo":
        await pilot.click("#demo-rows")
    else:
        await pilot.press(key)
        await pilot.pause(0.3)


async def until(pilot: Pilot[None], words: str) -> None:
    """Waits for words on the screen."""
    ends = time.monotonic() + 60
    while words not in shown(pilot):
        if time.monotonic() > ends:
            raise SystemExit(f"{words!r} did not appear:\n{shown(pilot)}")
        await pilot.pause(0.1)


def shown(pilot: Pilot[None]) -> str:
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


def plain(svg: str) -> str:
    """Without fonts from elsewhere and folders of the machine that drew it."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "Menlo, Consolas, DejaVu Sans Mono")
    own = os.environ["ZOLITE_HOME"]
    for folder, name in ((own, "~/.local/share/zolite"), (str(REPOSITORY), "~/zolite"), (str(Path.home()), "~")):
        svg = svg.replace(folder, name)
    return svg


if __name__ == "__main__":
    main()
