"""Claims about what is told of work that takes a while: before it begins, with its counts, and never silence."""

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.events import Working
from zolite.common.progress import BEAT, SECONDS, Listener, Stopped, counted, listening, phase, told


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Heard:
    """What is told, without the thread: `beat` does what it would do at that time."""

    def __init__(self) -> None:
        self.clock, self.events = Clock(), list[Working]()
        self.times = [0.0]
        self.listener = Listener(self.tell, self.clock, 0.0)

    def tell(self, event: Working) -> None:
        self.events.append(event)
        self.times.append(self.clock.now)

    def passes(self, seconds: float) -> None:
        """Time, with a look of the thread every quarter of a second."""
        for _ in range(round(4 * seconds)):
            self.clock.now += 0.25
            self.listener.beat()

    @property
    def counts(self) -> list[tuple[str, int, int]]:
        return [(event.phase, event.done, event.total) for event in self.events]


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    with listening(made.listener):
        yield made


@given(st.lists(st.integers(0, 8).map(lambda quarters: quarters / 4), max_size=30))
def test_a_count_is_told_once_a_second(steps: list[float]) -> None:
    """After every item that the clock has gone on by a second for; nothing where all was quick."""
    heard, expected, last, now = Heard(), [], 0.0, 0.0
    with listening(heard.listener):
        for i in counted(range(len(steps)), "reading rows", len(steps)):
            heard.clock.now += steps[i]
    for i, step in enumerate(steps, 1):
        now += step
        if now - last >= SECONDS:
            expected.append(("reading rows", i, len(steps)))
            last = now
    assert heard.counts == expected


WORK = st.recursive(
    st.integers(0, 20).map(lambda quarters: quarters / 4),
    lambda inner: st.tuples(st.sampled_from(["phase", "counting phase", "count"]), st.lists(inner, max_size=3)),
    max_leaves=12,
)


@given(WORK)
def test_nobody_waits_two_seconds_for_a_line(work: object) -> None:
    """However phases and counts lie in each other and however long each takes, from the first on."""
    heard = Heard()

    def do(what: object) -> None:
        if isinstance(what, float):
            heard.passes(what)
            return
        assert isinstance(what, tuple)
        kind, parts = what
        if kind == "count":
            for part in counted(parts, "a count", len(parts)):
                do(part)
            return
        with phase("a phase", len(parts) if kind == "counting phase" else 0) as done:
            for i, part in enumerate(parts, 1):
                do(part)
                done(i)

    with listening(heard.listener), phase("everything"):
        do(work)
    times = [*heard.times, heard.clock.now]
    assert max(b - a for a, b in pairwise(times)) < 2.0


def test_a_phase_is_told_before_its_work_begins(heard: Heard) -> None:
    with phase("loading"):
        assert heard.counts == [("loading", 0, 0)]
        with phase("proving"):
            assert heard.counts[1:] == [("proving", 0, 0)]
        heard.passes(BEAT)  # the outer one goes on
    assert heard.counts[2:] == [("loading", 0, 0)] and heard.events[-1].seconds == BEAT


def test_a_phase_that_counts_says_how_long_the_rest_takes(heard: Heard) -> None:
    """As long as it was on time: what takes longer than it did until now is not promised again."""
    with phase("searching", 10) as done:
        assert isnan(heard.events[-1].left)
        heard.clock.now = 4.0
        done(4)
        assert heard.counts[-1] == ("searching", 4, 10) and heard.events[-1].left == pytest.approx(6.0)
        heard.passes(1.5)
        assert heard.events[-1].left == pytest.approx(4.5)
        heard.passes(6.0)
        assert isnan(heard.events[-1].left)
        heard.clock.now += SECONDS
        done(30)
    assert heard.counts[-1] == ("searching", 10, 10) and isnan(heard.events[-1].left)


def test_of_counts_within_another_the_outermost_is_told(heard: Heard) -> None:
    for _ in counted("ab", "outside", size=lambda letter: 10):
        heard.clock.now += SECONDS
        assert list(counted("cde", "inside")) == list("cde")
        with phase("inside too"):
            pass
    for _ in counted("f", "behind"):
        heard.clock.now += SECONDS
    assert heard.counts == [("outside", 10, 0), ("outside", 20, 0), ("behind", 1, 0)]


def test_who_is_asked_to_end_does_so_between_two_things_that_are_counted() -> None:
    """A count that would take minutes is not waited for; what it leaves is as after any other end."""
    done: list[int] = []
    listener = Listener(lambda event: None, lambda: 0.0, 0.0, stop=lambda: len(done) == 2)
    with listening(listener), pytest.raises(Stopped):
        done.extend(counted(range(1000), "evaluating rows", 1000))
    assert done == [0, 1] and listener.now is None


def test_after_the_last_phase_nothing_is_said(heard: Heard) -> None:
    with phase("loading"):
        pass
    heard.passes(10)
    assert heard.counts == [("loading", 0, 0)]


def test_nothing_is_counted_where_nobody_listens() -> None:
    assert list(counted("ab", "reading rows")) == ["a", "b"]
    with phase("loading", 3) as done:
        done(2)


def test_one_that_stops_early_lets_others_be_told(heard: Heard) -> None:
    stopped = counted("abc", "left")
    assert next(stopped) == "a"
    stopped.close()  # type: ignore[attr-defined]
    for _ in counted("d", "next"):
        heard.clock.now += SECONDS
    assert heard.counts == [("next", 1, 0)]


def test_the_thread_tells_what_the_worker_cannot() -> None:
    """While the thread that works does not come back, another one says what it does; and no longer than that."""
    clock, again = Clock(), threading.Event()
    found: list[Working] = []

    def tell(event: Working) -> None:
        found.append(event)
        if len(found) == 2:
            again.set()

    before = threading.active_count()
    with told(tell, clock=clock), phase("loading"):
        clock.now = BEAT
        assert again.wait(240)
    assert [(event.phase, event.seconds) for event in found] == [("loading", 0.0), ("loading", BEAT)]
    await_end: Callable[[], bool] = lambda: threading.active_count() == before  # noqa: E731
    ends = threading.Event()
    while not await_end():
        ends.wait(0.02)
