"""Runs and commands that are killed at any moment, again and again, and end as if nothing had been.

On a machine with a GPU, `ZOLITE_KILLS=20 pytest -m gpu tests/faults/test_kill.py` does the same there.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite.config.recipe import Recipe, to_dict
from zolite.export.export import PLACE, _foreign
from zolite.sessions import leftovers, lock
from zolite.sessions import session as sessions
from zolite.sessions.checkpoint import steps as steps_in

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")

STEPS, SAVE_EVERY, BACK = 30, 3, 17  # to step BACK sessions are rewound, and there they are forked
LONG = bool(os.environ.get("ZOLITE_LONG"))
KILLS = int(os.environ.get("ZOLITE_KILLS", 60 if LONG else 3))  # of each; the same moments in every run of the test

# One of each family: without state, probes, curvature, activations; the others of FAMILIES with ZOLITE_LONG=1.
FAMILIES = ("mezo", "pgap", "hizoo", "agzo", *(("mezo-gv", "lozo-m", "fzoo") if LONG else ()))

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
PLACES = [("cpu", "float32"), *(pytest.param(("cuda", quant), marks=ON_GPU) for quant in ("int8", "nf4"))]
"""(device, weight format). On a GPU steps are captured graphs, and what they measure is copied while they go on."""
each_place = pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(place))


@dataclass(frozen=True)
class Ran:
    """What became of a process, and what it took."""

    killed: bool
    seconds: float  # from its first step on, or of a command as a whole
    call: int = 0  # calls that change the disk
    sql: int = 0  # instructions of SQLite's machine


class Server:
    """Processes that can be killed."""

    def __init__(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )

    def run(self, verb: str, *given: Any, kind: str = "none", at: float = 0) -> Ran:
        """One of VERBS in server.py, on this test's sessions."""
        assert self.child.stdin is not None and self.child.stdout is not None and self.child.stderr is not None
        env = {name: os.environ[name] for name in ("ZOLITE_HOME", "ZOLITE_CACHE")}
        order = {"verb": verb, "given": given, "kind": kind, "at": at, "env": env}
        print(json.dumps(order), file=self.child.stdin, flush=True)
        answer = self.child.stdout.readline()
        assert answer, self.child.stderr.read()
        return Ran(**json.loads(answer))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.child.communicate()


def changes_of(recipe: Recipe) -> dict[str, Any]:
    """What makes a recipe of the default one."""
    return {f"{part}.{key}": value for part, values in to_dict(recipe).items() for key, value in values.items()}


@pytest.fixture
def recipe_of(recipe: Callable[..., Recipe]) -> Callable[[str, tuple[str, str]], dict[str, Any]]:
    """recipe_of("mezo", ("cpu", "float32")), as a server takes it."""

    def make(method: str, place: tuple[str, str]) -> dict[str, Any]:
        device, quant = place
        made = recipe(
            model__device=device,
            model__quant=quant,
            method__name=method,
            method__every=7,
            train__steps=STEPS,
            train__save_every=SAVE_EVERY,
        )
        return changes_of(made)

    return make


@dataclass(frozen=True)
class Written:
    """What a session holds; its journal has no gap and is whole."""

    rows: list[tuple[bytes, bytes, float, int]]
    checkpoints: dict[int, str]  # digests by step, of whole ones; "" where one is not

    def upto(self, step: int) -> "Written":
        return Written(self.rows[:step], {at: digest for at, digest in self.checkpoints.items() if at <= step})


def written(name: str) -> Written:
    with sessions.open_(name) as session:
        session.journal.check()
        rows = [(r.coefs, r.losses, r.lr, r.flags) for r in session.journal.steps()]
        found = {step: session.at(step) for step in steps_in(session.path / "checkpoints")}
    return Written(rows, {step: one.digest if one else "" for step, one in found.items()})


def ended(name: str) -> tuple[list[tuple[bytes, bytes, float, int]], str]:
    """A session's steps, and the digest of its last checkpoint."""
    found = written(name)
    return found.rows, found.checkpoints[STEPS]


def done(name: str) -> bool:
    """Has it said that it is finished? A kill may still have come after that."""
    if not sessions.exists(name):
        return False
    with sessions.open_(name) as session:
        return session.ending() == "done"


def moment(dice: random.Random, most: Ran) -> dict[str, Any]:
    """When to kill: at a time, at a call that changes the disk, or inside a statement of SQLite."""
    kind = dice.choice([kind for kind, count in (("time", 1), ("call", most.call), ("sql", most.sql)) if count])
    return {"kind": kind, "at": dice.uniform(0, most.seconds) if kind == "time" else dice.randint(1, vars(most)[kind])}


@each_place
@pytest.mark.parametrize("method", FAMILIES)
def test_a_run_killed_again_and_again_ends_as_it_would_have(
    server: Server, recipe_of: Callable[..., dict[str, Any]], method: str, place: tuple[str, str]
) -> None:
    """SIGKILL in steps, checkpoints and commits of runs and of resumes: every session resumes, and ends with the bits
    of a straight run.
    """
    chosen = recipe_of(method, place)
    server.run("begin", "straight", chosen)
    most = server.run("begin", "again", chosen)  # the first one compiles kernels
    wanted, dice, kills, number = ended("straight"), random.Random(method), 0, 0
    while kills < KILLS:
        name, number = f"killed-{number}", number + 1
        while not done(name):
            given = ("resume", name) if sessions.exists(name) else ("begin", name, chosen)
            kills += server.run(*given, **(moment(dice, most) if kills < KILLS else {})).killed
        assert ended(name) == wanted
    assert ended("again") == wanted and kills == KILLS


# Commands


@dataclass(frozen=True)
class Case:
    """A command on a copy of a session that is done."""

    name: str  # of the session
    beside: Path  # a folder for exports
    whole: Written  # what that session has, and what `rows` and `checkpoints` are compared with
    kept: frozenset[int]  # steps whose checkpoints nothing but a rewind takes

    @property
    def fork(self) -> str:
        return f"{self.name}-fork"

    @property
    def export(self) -> Path:
        return self.beside / self.name

    @property
    def root(self) -> Path:
        return sessions.paths()["sessions"]


def unchanged(case: Case) -> bool:
    return written(case.name) == case.whole


def rewound(case: Case) -> bool:
    return written(case.name) == case.whole.upto(BACK)


def partly_rewound(case: Case) -> bool:
    """Checkpoints from the newest on, then the steps: never one ahead of them."""
    found, back = written(case.name), case.whole.upto(BACK)
    ends = found.rows in (case.whole.rows, back.rows) and found.checkpoints.items() <= case.whole.checkpoints.items()
    return ends and found.checkpoints.keys() >= back.checkpoints.keys() and max(found.checkpoints) <= len(found.rows)


def pruned(case: Case) -> bool:
    found = written(case.name)
    return found == Written(case.whole.rows, {step: case.whole.checkpoints[step] for step in case.kept})


def partly_pruned(case: Case) -> bool:
    found = written(case.name)
    some = found.checkpoints.items() <= case.whole.checkpoints.items() and found.checkpoints.keys() >= case.kept
    return found.rows == case.whole.rows and some


def forked(case: Case) -> bool:
    return unchanged(case) and sessions.exists(case.fork) and written(case.fork) == case.whole.upto(BACK)


def partly_forked(case: Case) -> bool:
    return unchanged(case) and (not sessions.exists(case.fork) or forked(case))


def removed(case: Case) -> bool:
    return not sessions.exists(case.name) and not [*case.root.glob(".gone-*")]


def partly_removed(case: Case) -> bool:
    return not sessions.exists(case.name) or unchanged(case)


def exported(case: Case) -> bool:
    """A place that was killed before it had a lock is empty, and stays for a day."""
    return unchanged(case) and not list(_foreign(case.export)) and not [*case.beside.glob(f"{PLACE}*/*")]


def partly_exported(case: Case) -> bool:
    """Under its name what was there, or the new one; or it waits beside for the next export, which puts it back."""
    while any(map(lock.is_held, case.beside.glob(f"{PLACE}*"))):  # by a template that is tried in a process of its own
        time.sleep(0.05)
    aside = [*case.beside.glob(f"{PLACE}*/old/{case.name}")]
    return unchanged(case) and not list(_foreign(case.export if case.export.exists() else aside[0]))


@dataclass(frozen=True)
class Command:
    given: Callable[[Case], tuple[Any, ...]]
    after: Callable[[Case], bool]  # what holds where it was killed
    done: Callable[[Case], bool]  # and where it has ended


COMMANDS = {
    "export": Command(lambda c: (c.name, str(c.export)), partly_exported, exported),
    "rewind": Command(lambda c: (c.name, BACK), partly_rewound, rewound),
    "fork": Command(lambda c: (c.name, c.fork, BACK), partly_forked, forked),
    "prune": Command(lambda c: (c.name,), partly_pruned, pruned),
    "rm": Command(lambda c: (c.name,), partly_removed, removed),
}


@each_place
@pytest.mark.parametrize("verb", COMMANDS)
def test_a_command_killed_at_any_moment_loses_nothing_and_is_done_by_the_next(
    server: Server, recipe_of: Callable[..., dict[str, Any]], tmp_path: Path, verb: str, place: tuple[str, str]
) -> None:
    """What it was to remove is there whole or not at all, what it was to make too, everything else is as it was, and
    the same command again ends as if nothing had been. What is left can be resumed to the bits of a straight run.
    """
    server.run("begin", "straight", recipe_of("mezo", place))
    dice, kills, number, command = random.Random(verb), 0, 0, COMMANDS[verb]
    case = case_of("dry", tmp_path, server)
    most = server.run(verb, *command.given(case))
    assert command.done(case)
    while kills < KILLS:
        case, number = case_of(f"copy-{number}", tmp_path, server), number + 1
        kills += server.run(verb, *command.given(case), **moment(dice, most)).killed
        assert command.after(case)
        leftovers.sweep(case.root)
        if verb in ("export", "rewind", "prune") or not command.done(case):
            server.run(verb, *command.given(case))
        assert command.done(case) and not left(case)
    assert kills == KILLS
    goes_on(server, verb, case)


def case_of(name: str, tmp_path: Path, server: Server) -> Case:
    """A copy of the straight run, and an export of it."""
    root = sessions.paths()["sessions"]
    shutil.copytree(root / "straight", root / name)
    whole = written("straight")
    with sessions.open_(name) as session:
        best = sessions.best_of([e for e in session.journal.evaluations() if e.split == "dev"])
    case = Case(name, tmp_path / "exports", whole, frozenset({0, STEPS} | ({best.step} if best else set())))
    if not case.beside.exists():
        server.run("export", "straight", str(case.beside / "straight"))
    shutil.copytree(case.beside / "straight", case.export)
    return case


def left(case: Case) -> list[Path]:
    """What a killed command left among the sessions; one that was being made stays for an hour."""
    hidden = [path for path in case.root.rglob(".*") if not path.relative_to(case.root).parts[0].startswith(".new-")]
    return [*hidden, *case.root.glob(f"[!.]*/{lock.OWNER}")]


def goes_on(server: Server, verb: str, case: Case) -> None:
    """To the bits of a straight run, from where the command has put it."""
    name = case.fork if verb == "fork" else case.name
    if verb in ("export", "prune"):
        server.run("rewind", name, BACK)
    if verb != "rm":
        server.run("resume", name)
        assert ended(name) == ended("straight")
