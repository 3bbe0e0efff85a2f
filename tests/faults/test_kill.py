"""Runs that are killed at any moment, again and again, and end as if nothing had been."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")

STEPS, SAVE_EVERY = 30, 3
KILLS = 30 if os.environ.get("ZOLITE_LONG") else 3  # of each method; the moments are the same in every run of the test

# One of each family: without state, probes, curvature, activations; the others of FAMILIES with ZOLITE_LONG=1.
FAMILIES = ("mezo", "pgap", "hizoo", "agzo", *(("mezo-gv", "lozo-m", "fzoo") if os.environ.get("ZOLITE_LONG") else ()))


class Server:
    """Runs in processes that can be killed."""

    def __init__(self) -> None:
        quiet = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        self.child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=quiet,
        )

    def run(self, name: str, recipe: dict[str, Any] | None, kind: str = "none", at: float = 0) -> tuple[bool, float]:
        """Was it killed, and how long did it train?"""
        assert self.child.stdin is not None and self.child.stdout is not None and self.child.stderr is not None
        print(json.dumps({"name": name, "recipe": recipe, "kind": kind, "at": at}), file=self.child.stdin, flush=True)
        answer = self.child.stdout.readline()
        assert answer, self.child.stderr.read()
        found = json.loads(answer)
        return found["killed"], found["seconds"]


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    """Of this test's sessions."""
    made = Server()
    yield made
    made.child.communicate()


def changes_of(recipe: Recipe) -> dict[str, Any]:
    """What makes a recipe of the default one."""
    from zolite.config.recipe import to_dict

    return {f"{part}.{key}": value for part, values in to_dict(recipe).items() for key, value in values.items()}


def written(name: str) -> tuple[list[tuple[bytes, bytes, float, int]], str]:
    """A session's steps, and the digest of its last checkpoint; its journal has no gap and is whole."""
    with sessions.open_(name) as session:
        session.journal.check()
        last = session.at(STEPS)
        assert last is not None
        return [(r.coefs, r.losses, r.lr, r.flags) for r in session.journal.steps()], last.digest


def done(name: str) -> bool:
    """Has it said that it is finished? A kill may still have come after that."""
    if not sessions.exists(name):
        return False
    with sessions.open_(name) as session:
        return session.ending() == "done"


def moment(dice: random.Random, seconds: float) -> tuple[str, float]:
    """When to kill: at a time, at a call that changes the disk, or inside a statement of SQLite."""
    kind = dice.choice(("time", "call", "sql"))
    most = {"time": seconds, "call": 120, "sql": 6000}[kind]
    return kind, dice.uniform(0, most) if kind == "time" else dice.randint(1, int(most))


@pytest.mark.parametrize("method", FAMILIES)
def test_a_run_killed_again_and_again_ends_as_it_would_have(
    server: Server, recipe: Callable[..., Recipe], method: str
) -> None:
    """SIGKILL in steps, checkpoints and commits: every session resumes, and ends with the bits of a straight run."""
    chosen = changes_of(recipe(method__name=method, method__every=7, train__steps=STEPS, train__save_every=SAVE_EVERY))
    server.run("straight", chosen, "here")
    _, seconds = server.run("forked", chosen)
    wanted, dice, kills, number = written("straight"), random.Random(method), 0, 0
    while kills < KILLS:
        name, number = f"killed-{number}", number + 1
        while not done(name):
            kind, at = moment(dice, seconds) if kills < KILLS else ("none", 0)
            killed, _ = server.run(name, None if sessions.exists(name) else chosen, kind, at)
            kills += killed
        assert written(name) == wanted
    assert written("forked") == wanted and kills == KILLS
