"""A run as its events, read from its journal by another process. Without torch: the app looks on this way too."""

import time
from collections.abc import Callable, Iterator
from heapq import merge

from zolite.common.events import Event, Started, StepDone
from zolite.sessions.journal import SKIPPED, MemoryRow, StepRow
from zolite.sessions.session import Session

POLL_SECONDS = 0.2


def follow(session: Session, stop: Callable[[], bool]) -> Iterator[Event]:
    """Everything in the journal, then what is added to it, until `stop` says so or nobody writes any more."""
    step = seen = 0
    while not stop():
        written = session.running()  # asked before reading: what a writer left behind last is read too
        rows, told = session.journal.news(step, seen)
        if rows or told:
            peaks = session.journal.memories(rows[0].time - 1 if rows else 0.0)
            yield from in_order(rows, [event for _, event in told], peaks)
            step, seen = rows[-1].step if rows else step, told[-1][0] if told else seen
        elif not written:
            return
        else:
            time.sleep(POLL_SECONDS)


def in_order(rows: list[StepRow], told: list[tuple[int, Event]], memory: list[MemoryRow]) -> Iterator[Event]:
    """Steps and other events as they were said. By step, since clocks may go backwards."""
    peaks = {m.step: m.peak_bytes for m in memory}
    peak, done = 0, []
    for row in reversed(rows):  # the memory of a batch of steps stands at its last
        peak = peaks.get(row.step, peak)
        done.append((2 * row.step, done_of(row, peak)))
    others = [(2 * (step - isinstance(event, Started)) + 1, event) for step, event in told]
    yield from (event for _, event in merge(reversed(done), others, key=lambda item: item[0]))


def done_of(row: StepRow, peak_bytes: int) -> StepDone:
    """A journal's row as the event that it stands for."""
    skipped = bool(row.flags & SKIPPED)
    return StepDone(row.step, row.loss, row.lr, row.seconds, row.memory_bytes, peak_bytes, skipped=skipped)
