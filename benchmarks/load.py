"""Claims: many sessions and long journals cost little to look at. In CPU seconds, as a busy machine has them too.

python benchmarks/load.py [list] [home] [follow] [verify]     all of them where none is named
"""

import asyncio
import json
import os
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from zolite.common.events import Evaluated, Finished, Started
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions
from zolite.sessions.session import StepRow

SESSIONS, STEPS, FOLDERS, HOME_SECONDS = 2_000, 2_000_000, 3_000, 60


def session(name: str, steps: int = 20) -> Path:
    """As a run leaves it, without checkpoints."""
    recipe = recipes.resolve(recipes.override(Recipe(), {"data.path": "rows", "train.steps": steps}))
    with sessions.create(name, recipe, {"device": "cpu"}) as made:
        made.journal.event(Started(name, 1, steps, "CPU", 9, 9))
        made.journal.append([StepRow(i, b"\0" * 4, b"\0" * 8, 1e-2, 1e-3, 0, 1e9 + i, 0.1, 7) for i in range(1, 21)])
        made.journal.event(Evaluated(20, "dev", "accuracy", 0.7, 60, 0.4))
        made.journal.event(Finished(20, "done", 60.0, 0, 7))
    return made.path


def many() -> None:
    first = session("run-0")
    for i in range(1, SESSIONS):
        shutil.copytree(first, first.with_name(f"run-{i}"))


def of_child(*command: str) -> dict[str, float]:
    """CPU seconds, and the most memory, of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(seconds, 2), "peak_mb": round(after.ru_maxrss / 1024)}


def listed() -> dict[str, Any]:
    many()
    command = ("-m", "zolite", "sessions", "list")
    nothing = of_child("-m", "zolite", "--version")["cpu_s"]
    return {"first": of_child(*command), "again": of_child(*command), "json": of_child(*command, "--json"),
            "of which a start": nothing}  # fmt: skip


def home() -> dict[str, Any]:
    """The app on Home, once it has been drawn."""
    many()

    async def run() -> dict[str, Any]:
        from zolite.tui.app import ZoliteApp

        app = ZoliteApp(config=Path(os.environ["ZOLITE_HOME"]) / "app.toml")
        async with app.run_test(size=(120, 40)):
            while not getattr(app.screen, "listed", ()):
                await asyncio.sleep(0.1)
            await asyncio.sleep(HOME_SECONDS / 4)
            cpu, wall = time.process_time(), time.monotonic()
            await asyncio.sleep(HOME_SECONDS)
            return {"share_of_a_core": round((time.process_time() - cpu) / (time.monotonic() - wall), 4)}

    return asyncio.run(run())


def long_journal() -> None:
    path = session("long", STEPS) / "journal.db"
    points = struct.pack("<f", 0.1), struct.pack("<2f", 1.1, 1.2)
    with closing(sqlite3.connect(path)) as db:
        db.executemany(
            "INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((i, *points, 1e-2, 3e-3, 0, 1e9 + i, 0.1, 7) for i in range(21, STEPS + 1)),
        )
        db.executemany("INSERT INTO memory VALUES (?, ?, ?, ?)", ((1e9 + i, i, 3, 4) for i in range(20, STEPS, 40)))
        db.commit()


FOLLOW = """
from zolite.monitor.run_state import About, RunState, updated
from zolite.sessions.follow import Reader
from zolite.sessions.session import open_
with open_("long") as session:
    reader, state = Reader(session), RunState(About("long"))
    while news := reader.read():
        state = updated(state, news)
assert state.step == %d, state.step
"""


def follow() -> dict[str, Any]:
    """What the Run screen reads and keeps of 2 million steps."""
    long_journal()
    return of_child("-c", FOLLOW % STEPS)


def verify() -> dict[str, Any]:
    """A session with thousands of folders among its checkpoints."""
    import torch

    session("wide", 20)
    with sessions.open_("wide", write=True) as made:
        for step in (0, 20):
            made.save(step, {"theta": torch.zeros(4)}, {}, keep=(0, 20))
        for i in range(FOLDERS):
            shutil.copytree(made.path / "checkpoints" / "000020", made.path / "checkpoints" / f"{100 + i:06d}")
    command = ("-m", "zolite", "sessions")
    return {"list": of_child(*command, "list")} | {verb: of_child(*command, verb, "wide") for verb in ("show", "prune")}


MEASURED: dict[str, Callable[[], dict[str, Any]]] = {"list": listed, "home": home, "follow": follow, "verify": verify}


def main(names: list[str]) -> None:
    for name in names or MEASURED:
        with tempfile.TemporaryDirectory(prefix="load-") as folder:
            os.environ |= {"ZOLITE_HOME": f"{folder}/home", "ZOLITE_CACHE": f"{folder}/cache", "COLUMNS": "120"}
            print(json.dumps({"what": name, **MEASURED[name]()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
