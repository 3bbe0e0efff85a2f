"""Many runs over the cards of a machine: each when its turn comes and a process is free, and none twice."""

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import torch

Row = dict[str, Any]
J = TypeVar("J")  # what says which run it is: hashable, and sent to another process


def process(card: str) -> ProcessPoolExecutor:
    """One that sees this card alone."""
    os.environ["CUDA_VISIBLE_DEVICES"] = card  # as it is when a process starts, before anything looks for cards
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    pool.submit(os.getpid)  # starts it
    return pool


def cards() -> list[str]:
    """What to call each card of the machine; "" where there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return chosen.split(",") if chosen else [str(i) for i in range(torch.cuda.device_count())] or [""]


def spread(
    turn: Callable[[dict[J, Row], list[J]], Iterable[J]],
    take: Callable[[J], Row],
    of: Callable[[Row], J],
    file: Path,
    processes: int,
    until: float,
) -> list[Row]:
    """Every row of `file`, after those were added whose turn it is, in `turn`'s order, until nothing is left to do.

    `turn` sees the rows that are there and the runs that are under way. A row is written when it is done, so that the
    next call goes on from there. `until`: no run starts after that moment (time.monotonic).
    """
    known = {of(row): row for row in read(file)}
    found = cards()  # once: a process is told its card by the variable that names them
    idle = [(card, process(card)) for card in found * processes]
    running = dict[Future[Row], tuple[J, str, ProcessPoolExecutor]]()
    asked = set[J]()
    while True:
        late = time.monotonic() > until
        under_way = [job for job, _, _ in running.values()]
        todo = [job for job in turn(known, under_way) if not (late or job in asked or job in known)]
        for job in todo[: len(idle)]:
            card, pool = idle.pop(0)
            running[pool.submit(take, job)] = job, card, pool
            asked.add(job)
        if not running:
            return read(file)
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            job, card, pool = running.pop(done)
            if error := done.exception():
                print(f"{job} failed:", *traceback.format_exception(error), flush=True)
                pool.shutdown(wait=False)
                pool = process(card)  # what is left of a card's state after an error is not to be trusted
            else:
                known[job] = done.result()
                with file.open("a", encoding="utf-8") as rows:
                    rows.write(json.dumps(known[job], ensure_ascii=False) + "\n")
                print(json.dumps(known[job]), flush=True)
            idle.append((card, pool))


def read(file: Path) -> list[Row]:
    """Every row that is there."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
