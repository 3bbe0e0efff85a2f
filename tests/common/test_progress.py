"""Claims about what is told of work that takes a while: the counts are those of the items, the outermost ones alone."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from zolite.common.events import Working
from zolite.common.progress import SECONDS, counted, told


class Clock:
    def __init__(self, steps: Iterable[float]) -> None:
        self.now, self.steps = 0.0, iter(steps)

    def __call__(self) -> float:
        self.now += next(self.steps, 0.0)
        return self.now


@given(st.lists(st.integers(0, 8).map(lambda quarters: quarters / 4), max_size=30))
def test_it_is_told_once_a_second_what_is_done(steps: list[float]) -> None:
    """After every item that the clock has gone on by a second for; nothing where all was quick."""
    found: list[Working] = []
    clock = Clock([0.0, *steps])
    with told(found.append, clock):
        assert list(counted(range(len(steps)), "reading rows", len(steps))) == list(range(len(steps)))
    expected, last, now = [], 0.0, 0.0
    for i, step in enumerate(steps, 1):
        now += step
        if now - last >= SECONDS:
            expected.append(i)
            last = now
    assert [event.done for event in found] == expected
    assert {(event.phase, event.total) for event in found} <= {("reading rows", len(steps))}


def test_of_counts_within_another_the_outermost_is_told() -> None:
    found: list[Working] = []
    with told(found.append, Clock([0.0] + [SECONDS] * 9)):
        for _ in counted("ab", "outside", size=lambda letter: 10):
            assert list(counted("cde", "inside")) == list("cde")
        list(counted("f", "behind"))
    assert found == [Working("outside", 10, 0), Working("outside", 20, 0), Working("behind", 1, 0)]


def test_nothing_is_counted_where_nobody_listens() -> None:
    assert list(counted("ab", "reading rows")) == ["a", "b"]


def test_one_that_stops_early_lets_others_be_told() -> None:
    found: list[Working] = []
    with told(found.append, Clock([0.0] + [SECONDS] * 9)):
        stopped = counted("abc", "left")
        assert next(stopped) == "a"
        stopped.close()  # type: ignore[attr-defined]
        list(counted("d", "next"))
    assert found == [Working("next", 1, 0)]
