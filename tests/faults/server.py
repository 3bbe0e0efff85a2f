"""Runs that die on request. One process imports torch, which takes seconds, and forks another for each run.

Reads a JSON object a line: {"name": …, "recipe": {part.key: …} or null to resume, "kind": …, "at": …}. Of the kinds,
"here" is a run without a fork, which loads what the others need; "none" lets a run end; "time" kills it so many seconds
after it started, "call" at so manyeth call that changes the disk, "sql" after so many instructions of SQLite's machine.
Answers with {"killed": …, "seconds": …}.
"""

import json
import os
import select
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zolite.common.events import Started
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.sessions import journal
from zolite.training import journal_writer
from zolite.training.resume import begin, resume

CALLS = ("fsync", "rename", "replace", "mkdir", "write", "unlink")


def never() -> bool:
    return False


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int) -> None:
    """Die before the call of that number that changes the disk."""
    made = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                die()
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def at_instruction(number: int) -> None:
    """Die after so many instructions of SQLite's machine, in the middle of a statement or of a commit."""
    real, left = journal._connect, number

    def tick() -> int:
        nonlocal left
        left -= 1
        if left == 0:
            die()
        return 0

    def connect(path: Path, write: bool) -> sqlite3.Connection:
        db = real(path, write)
        db.set_progress_handler(tick, 1)
        return db

    journal._connect = connect


ARM: dict[str, Callable[[int], None]] = {"call": at_call, "sql": at_instruction}


def run(order: dict[str, Any], started: int) -> None:
    """A run, in a process of its own."""
    journal_writer.FLUSH_SECONDS["cpu"] = 0.0  # what is written, and when, is what is tried here
    if order["kind"] in ARM:
        ARM[order["kind"]](order["at"])
    if order["recipe"] is None:
        events = resume(order["name"], {}, False, never)
    else:
        events = begin(recipes.override(Recipe(), order["recipe"]), order["name"], never)
    for event in events:
        if isinstance(event, Started):
            os.write(started, b"s")


def serve(order: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, kill."""
    if order["kind"] == "here":
        run(order, os.open(os.devnull, os.O_WRONLY))
        return {"killed": False, "seconds": 0.0}
    reader, started = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            run(order, started)
            code = 0
        except Exception:  # noqa: BLE001 - it is told, and the process ends
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(started)
    select.select([reader], [], [])  # it has started, or it is dead
    began = time.monotonic()
    if order["kind"] == "time":
        time.sleep(order["at"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a run failed: {order}")
    return {"killed": os.WIFSIGNALED(status), "seconds": time.monotonic() - began}


if __name__ == "__main__":
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
