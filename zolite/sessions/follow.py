"""A session read while another process writes it: a page of news at a time, or the same as events.

Without torch: the app follows runs this way too.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge

from zolite.common.events import Event, Started, StepDone, Working
from zolite.sessions import working
from zolite.sessions.journal import SKIPPED, MemoryRow, StepRow
from zolite.sessions.session import Session

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class News:
    """What a journal has got since it was last read."""

    rows: Sequence[StepRow] = ()
    events: Sequence[tuple[int, Event]] = ()  # with the step that they belong to
    memory: Sequence[MemoryRow] = ()
    running: bool = False  # does a process write it?
    working: Working | None = None  # what it does when it takes no steps
    fresh: bool = False  # all there is, once more: steps were rolled back

    def __bool__(self) -> bool:
        return bool(self.rows or self.events or self.fresh)


class Reader:
    """One session's journal, a page at a time. For one thread at a time."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._begin()

    def _begin(self) -> None:
        self.last: StepRow | None = None
        self.seen = 0  # number of the last event
        self.memory: MemoryRow | None = None  # the last point
        self.noted = 0  # its number

    def read(self) -> News:
        """What is new since the last call; all of it once more where steps were rolled back meanwhile."""
        running = self.session.running()  # asked before reading: what a writer left behind last is read too
        if fresh := self._rolled_back():
            self._begin()
        rows, events = self.session.journal.news(self.last.step if self.last else 0, self.seen)
        memory = self._memory(rows[-1].step) if rows else []
        self.last = rows[-1] if rows else self.last
        self.seen = events[-1][0] if events else self.seen
        self.memory = memory[-1] if memory else self.memory
        doing = working.read(self.session.path) if running else None
        return News(rows, [event for _, event in events], memory, running, doing, fresh)

    def _rolled_back(self) -> bool:
        """Is the last step that was read not there any more, or another one by now?"""
        last = self.last
        if last is None:
            return False
        return next(self.session.journal.steps(last.step - 1, last.step), None) != last

    def _memory(self, upto: int) -> list[MemoryRow]:
        """Of the steps of this page; a later one has its own."""
        points = self.session.journal.memory_news(self.noted, upto)
        self.noted = points[-1][0] if points else self.noted
        return [point for _, point in points]


def follow(session: Session, stop: Callable[[], bool]) -> Iterator[Event]:
    """Everything in the journal, then what is added to it, until `stop` says so or nobody writes any more.

    After a rollback it comes once more from the first step.
    """
    reader, doing = Reader(session), None
    while not stop():
        news = reader.read()
        if news.working != doing and (doing := news.working):
            yield doing
        if news:
            yield from in_order(news)
        elif not news.running:
            return
        else:
            time.sleep(POLL_SECONDS)


def in_order(news: News) -> Iterator[Event]:
    """Steps and other events in the order in which they happened. By step, since clocks may go backwards."""
    peaks = {m.step: m.peak_bytes for m in news.memory}
    peak, done = 0, []
    for row in reversed(news.rows):  # the memory of a batch of steps stands at its last
        peak = peaks.get(row.step, peak)
        done.append((2 * row.step, done_of(row, peak)))
    others = [(2 * (step - isinstance(event, Started)) + 1, event) for step, event in news.events]
    yield from (event for _, event in merge(reversed(done), others, key=lambda item: item[0]))


def done_of(row: StepRow, peak_bytes: int) -> StepDone:
    """A journal's row as the event that it stands for."""
    skipped = bool(row.flags & SKIPPED)
    return StepDone(row.step, row.loss, row.lr, row.seconds, row.memory_bytes, peak_bytes, skipped=skipped)
