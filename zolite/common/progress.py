"""How far work has come that takes a while before a run's first step: told to whoever asked to be told.

with told(view.show):                             Working events, one a second at most
    for row in counted(rows, "reading rows"):     of a `total` where that is known
        …

Of counts within another one the outermost is told: what a person waits for is one thing.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from zolite.common.events import Working

T = TypeVar("T")
SECONDS = 1.0  # between two events


@dataclass
class _Listener:
    tell: Callable[[Working], None]
    clock: Callable[[], float]
    last: float
    counting: bool = False


_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told(tell: Callable[[Working], None], clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """What is counted inside is told to `tell`."""
    token = _listener.set(_Listener(tell, clock, clock()))
    try:
        yield
    finally:
        _listener.reset(token)


def counted(items: Iterable[T], phase: str, total: int = 0, size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """The items, each of so many things; 0 as `total` where their number is not known. It may be an estimate."""
    listener = _listener.get()
    if listener is None or listener.counting:
        yield from items
        return
    listener.counting, done = True, 0
    try:
        for item in items:
            yield item
            done += size(item)
            if (now := listener.clock()) - listener.last >= SECONDS:
                listener.last = now
                listener.tell(Working(phase, done, max(done, total) if total else 0))
    finally:
        listener.counting = False
