"""What is being done before a run's first step, and how far it is: told to whoever asked to be told.

with told(view.show):                             Working events, a line every BEAT seconds at the latest
    with phase("loading the model"):              at once, before its work begins
        …
    with phase("step-size search", 100) as done:  a phase that counts: done(40) where 40 of 100 are behind it
        …
    for row in counted(rows, "reading rows"):     the same of things that are iterated; of a `total` where it is known
        …

Of counts within another one the outermost is told: what a person waits for is one thing. A phase that cannot count, and
a step of one that takes long, is told again and again with its seconds, by a thread. Nothing here imports torch.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from zolite.common.events import Working

T = TypeVar("T")
SECONDS = 1.0  # between two events of a count
BEAT = 1.5  # seconds after which it is said once more what is being done
SURE = 1.0  # seconds of a count from which on it says how long the rest takes


class Stopped(KeyboardInterrupt):
    """Who counts was asked to end, between two things that are counted."""


def _never() -> bool:
    return False


@dataclass
class _Now:
    """What is being done."""

    phase: str
    total: int
    began: float
    counts: bool
    done: int = 0
    reached: float = 0.0  # when so much was done

    def left(self, when: float) -> float:
        """Seconds that the rest takes, if it goes on as it went; not a number where that is not known."""
        took = self.reached - self.began
        if not 0 < self.done < self.total or took < SURE:
            return math.nan
        left = took / self.done * (self.total - self.done) - (when - self.reached)
        return left if left > 0 else math.nan


@dataclass
class Listener:
    """Who is told. Its thread calls `beat`; everything else is called by the thread that works."""

    tell: Callable[[Working], None]
    clock: Callable[[], float]
    last: float
    stop: Callable[[], bool] = _never
    now: _Now | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def beat(self) -> None:
        """Says once more what is being done, where nothing was said for long."""
        with self.lock:
            if self.now is not None and self.clock() - self.last >= BEAT:
                self._say(self.clock())

    def enter(self, now: _Now, aloud: bool) -> _Now | None:
        """Something else is being done; what was before."""
        with self.lock:
            before, self.now = self.now, now
            if aloud:
                self._say(now.began)
            return before

    def leave(self, before: _Now | None) -> None:
        with self.lock:
            self.now = before

    def at(self, now: _Now, done: int) -> None:
        with self.lock:
            when = self.clock()
            now.done, now.reached = done, when
            if when - self.last >= SECONDS:
                self._say(when)
        if self.stop():
            raise Stopped

    def _say(self, when: float) -> None:
        assert self.now is not None
        self.last, now = when, self.now
        total = max(now.done, now.total) if now.total else 0  # it may be an estimate
        self.tell(Working(now.phase, now.done, total, when - now.began, now.left(when)))


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told(
    tell: Callable[[Working], None], stop: Callable[[], bool] = _never, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """What is done inside is told to `tell`, also from another thread. Where `stop` says so, counts raise Stopped."""
    listener, ended = Listener(tell, clock, clock(), stop), threading.Event()
    threading.Thread(target=_beats, args=(listener, ended), daemon=True).start()
    try:
        with listening(listener):
            yield
    finally:
        ended.set()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """The same without the thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def _beats(listener: Listener, ended: threading.Event) -> None:
    while not ended.wait(BEAT / 6):
        listener.beat()


@contextmanager
def phase(name: str, total: int = 0) -> Iterator[Callable[[int], None]]:
    """What is done inside, said before it begins. With a `total` it counts: what is yielded takes how much is done."""
    listener = _listener.get()
    if listener is None or (listener.now is not None and listener.now.counts):
        yield lambda done: None
        return
    now = _Now(name, total, listener.clock(), counts=total > 0)
    before = listener.enter(now, aloud=True)
    try:
        yield lambda done: listener.at(now, min(done, total))
    finally:
        listener.leave(before)


def counted(items: Iterable[T], phase: str, total: int = 0, size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """The items, each of so many things; 0 as `total` where their number is not known. It may be an estimate."""
    listener = _listener.get()
    if listener is None or (listener.now is not None and listener.now.counts):
        yield from items
        return
    now = _Now(phase, total, listener.clock(), counts=True)
    before, done = listener.enter(now, aloud=False), 0
    try:
        for item in items:
            yield item
            done += size(item)
            listener.at(now, done)
    finally:
        listener.leave(before)
