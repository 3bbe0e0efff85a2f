"""Processes that die on request. One process imports torch, which takes seconds, and forks another for each order.

Reads a JSON object a line, {"verb": …, "given": [its arguments], "kind": …, "at": …, "env": {…}}, where `verb` is one
of VERBS. Of the kinds, "none" lets it end; "time" kills it so many seconds after it began to work, "call" at so manyeth
call that changes the disk, "sql" after so many instructions of SQLite's machine. Answers with {"killed": …, "seconds":
…, "call": …, "sql": …}: how long it worked, and where it was not killed, how many calls and instructions that took.

The process that forks never touches a GPU, since CUDA does not survive a fork; each child loads what it needs itself.
"""

import json
import os
import select
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # to ask whether there is a GPU initializes CUDA otherwise

import torch
import torch._dynamo  # children load bitsandbytes, which needs it: it takes seconds

if not torch.cuda.is_available():  # or bitsandbytes initializes CUDA as it is imported
    import peft  # noqa: F401

from zolite.common.events import Event, Started
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.export.export import export
from zolite.sessions import journal, manage
from zolite.sessions.session import open_
from zolite.training import journal_writer
from zolite.training.resume import begin, resume

CALLS = ("fsync", "rename", "replace", "mkdir", "write", "unlink", "rmdir", "link")

# What is written, and when, is what is tried here. On a GPU a few steps are on their way at any moment.
FLUSH_SECONDS = {"cpu": 0.0, "cuda": 0.002}


class Fuse:
    """Counts what a process does to the disk, and ends it at the moment that was asked for."""

    def __init__(self, kind: str, at: float) -> None:
        self.kind, self.at = kind, at
        self.counts = {"call": 0, "sql": 0}

    def tick(self, kind: str) -> None:
        self.counts[kind] += 1
        if kind == self.kind and self.counts[kind] == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def burn(self) -> None:
        """Counts from here on: before each call that changes the disk, and after each instruction of SQLite's."""
        for name in CALLS:
            setattr(os, name, self._counted(getattr(os, name)))
        connect = journal._connect

        def connected(path: Path, write: bool, alone: bool = False) -> sqlite3.Connection:
            db = connect(path, write, alone)
            db.set_progress_handler(lambda: self.tick("sql"), 1)
            return db

        journal._connect = connected

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.tick("call")
            return real(*args, **kwargs)

        return call


def never() -> bool:
    return False


def begun(name: str, recipe: dict[str, Any]) -> Iterator[Event]:
    return begin(recipes.override(Recipe(), recipe), name, never)


def exported(name: str, folder: str) -> None:
    with open_(name) as session:
        export(session, Path(folder), force=True, verify=False)


VERBS: dict[str, Callable[..., Any]] = {
    "begin": begun,
    "resume": lambda name: resume(name, {}, False, never),
    "export": exported,
    "rewind": manage.rewind,
    "fork": manage.fork,
    "prune": manage.prune,
    "rm": manage.remove,
}


def run(order: dict[str, Any], say: Callable[[bytes], Any]) -> None:
    """Does what was ordered, and says when it began: a run with its first step, everything else at once."""
    os.environ.update(order["env"])
    journal_writer.FLUSH_SECONDS.update(FLUSH_SECONDS)
    fuse = Fuse(order["kind"], order["at"])
    fuse.burn()
    if order["verb"] not in ("begin", "resume"):
        say(b"s")
        VERBS[order["verb"]](*order["given"])
    else:
        for event in VERBS[order["verb"]](*order["given"]):
            if isinstance(event, Started):
                say(b"s")
    say(json.dumps(fuse.counts).encode())


def child(order: dict[str, Any], pipe: int) -> None:
    """Never returns. Its traceback is told on the standard error."""
    code, write = 1, os.write
    try:
        run(order, lambda text: write(pipe, text))
        code = 0
    except Exception:  # noqa: BLE001 - it is told, and the process ends
        traceback.print_exc()
    finally:
        os._exit(code)


def serve(order: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, kill."""
    assert not torch.cuda.is_initialized()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        child(order, writer)
    os.close(writer)
    os.read(reader, 1)  # it has begun, or it is dead
    began = time.monotonic()
    if order["kind"] == "time":
        select.select([reader], [], [], order["at"])
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as rest:
        counts = rest.read()
    seconds = time.monotonic() - began
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"it failed: {order}")
    killed = os.WIFSIGNALED(status)
    return {"killed": killed, "seconds": seconds} | ({} if killed else json.loads(counts))


if __name__ == "__main__":
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
