"""Claims about what is known of a run: the same however it comes, and right whatever the journal holds."""

import itertools
import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.events import Continued, Evaluated, Event, Finished, Noted, Paused, Saved, Started
from zolite.monitor.run_state import About, RunState, advance, best_of, updated
from zolite.monitor.series import Series
from zolite.sessions.follow import News, done_of, in_order
from zolite.sessions.journal import SKIPPED, MemoryRow, StepRow

ABOUT = About("run", steps=99)
STARTED = Started("run", 1, 50, "CPU, 2 threads", 7, 2**30)


def row(
    step: int, *losses: float, slope: float = 1.0, lr: float = 1e-3, flags: int = 0, seconds: float = 0.5
) -> StepRow:
    packed = struct.pack(f"<{len(losses)}f", *losses)
    return StepRow(step, struct.pack("<f", slope), packed, 1e-2, lr, flags, 1e9 + step, seconds, 100 + step)


NUMBERS = st.floats(width=32)
ROWS = st.lists(
    st.tuples(st.lists(NUMBERS, min_size=0, max_size=3), NUMBERS, st.sampled_from([0, SKIPPED])), max_size=30
)
EVENTS = st.sampled_from(
    [
        STARTED,
        Evaluated(3, "dev", "accuracy", 0.5, 10, 1.0),
        Evaluated(6, "dev", "accuracy", 0.75, 10, 1.0),
        Evaluated(9, "dev", "accuracy", math.nan, 10, 1.0),
        Saved(4, "x"),
        Noted("warning", "a\nb"),
        Paused(5),
        Continued(5),
        Finished(6, "done", 1.0, 0, 9),
    ]
)


def shown(state: RunState) -> str:
    """All that can be seen of a state."""
    return repr({k: v.window(0, 1e9, 10**6) if isinstance(v, Series) else v for k, v in vars(state).items()})


@given(ROWS, st.lists(EVENTS, max_size=8), st.lists(st.integers(0, 30), max_size=4))
def test_pages_do_not_matter(drawn: list[Any], said: list[Event], cuts: list[int]) -> None:
    """Steps and then events, in one page or in many, leave the same state."""
    rows = [row(i, *losses, slope=slope, flags=flags) for i, (losses, slope, flags) in enumerate(drawn, 1)]
    memory = [MemoryRow(1e9, r.step, 5, 1000 + r.step) for r in rows]
    events = [(len(rows), event) for event in said]
    once = updated(RunState(ABOUT), News(rows, events, memory, True))
    state = RunState(ABOUT)
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for a, b in itertools.pairwise(ends):
        state = updated(state, News(rows[a:b], (), memory[a:b], True))
    for event in events:
        state = updated(state, News((), [event], (), True))
    assert shown(state) == shown(once)


def test_losses_that_are_no_numbers() -> None:
    """They count as skipped, and neither mean nor chart sees them."""
    rows = [row(1, 2.0, 4.0), row(2, math.nan, 1.0), row(3, math.inf), row(4, 1.0, flags=SKIPPED), row(5), row(6, 5.0)]
    state = updated(RunState(ABOUT), News(rows))
    assert (state.skipped, state.step, state.last_loss) == (4, 6, 5.0)
    assert [p.step for p in state.losses.window(0, 9, 9)] == [1, 6]
    assert 3.0 < state.moving.loss < 5.0


def test_status() -> None:
    """Whether a process writes, and what was written last, make the word."""
    story: list[tuple[bool, Event | None, str]] = [
        (True, None, "starting"),
        (True, STARTED, "running"),
        (True, Paused(1), "paused"),
        (True, Continued(1), "running"),
        (False, None, "stopped"),  # killed
        (True, None, "running"),
        (True, Finished(9, "diverged", 1.0, 0, 1), "starting"),  # it closes its session, or the next one opens it
        (False, None, "diverged"),
        (True, replace(STARTED, step=10), "running"),
        (False, Finished(9, "done", 1.0, 0, 1), "done"),
    ]
    state = RunState(ABOUT)
    for running, event, status in story:
        state = updated(state, News((), [(0, event)] if event else [], (), running))
        assert state.status == status, event


def test_taken_back() -> None:
    """Where steps were taken back, what was known of them is forgotten."""
    state = updated(RunState(ABOUT), News([row(i, 1.0) for i in range(1, 9)], [(8, Saved(8, "x"))]))
    state = updated(state, News([row(1, 2.0)], [(0, STARTED)], fresh=True))
    assert (state.step, state.last_loss, state.saved, state.about) == (1, 2.0, [], ABOUT)


@given(st.lists(st.floats(0.001, 10), min_size=2, max_size=40), st.integers(1, 5000))
def test_rate_and_time_left(seconds: list[float], steps: int) -> None:
    """The speed lies between the slowest and the fastest step's; what is left follows from it."""
    state = updated(
        RunState(replace(ABOUT, steps=steps)), News([row(i, 1.0, seconds=s) for i, s in enumerate(seconds, 1)])
    )
    assert 1 / max(seconds) * 0.999 <= state.moving.rate <= 1 / min(seconds) * 1.001
    assert state.left == pytest.approx(max(0, steps - len(seconds)) / state.moving.rate)


def test_step_sizes() -> None:
    """Learning rate and ε are known at every step, whether they change or stand still."""
    rates = [3e-3, 3e-3, 1e-3, 1e-3, 1e-3, 2e-3]
    state = updated(RunState(ABOUT), News([row(i, 1.0, lr=lr) for i, lr in enumerate(rates, 1)]))
    assert [state.rates.at(step) for step in range(1, 7)] == pytest.approx(rates)
    assert len(state.rates) == 3 and len(state.scales) == 1 and state.scales.newest == 1e-2


def test_best() -> None:
    """The highest accuracy or the lowest loss on dev, never on test, never not a number."""
    found = [("dev", 0.5), ("test", 0.9), ("dev", math.nan), ("dev", 0.7), ("dev", 0.6)]
    for metric, sign, best in (("accuracy", 1, 0.7), ("loss", -1, -0.7)):
        scores = [(i, Evaluated(i, split, metric, sign * value, 5, 1.0)) for i, (split, value) in enumerate(found)]
        state = updated(RunState(ABOUT), News(events=scores))
        assert [e.value for e in (state.best(), best_of(state.dev())) if e] == [best, best]
    assert RunState(ABOUT).best() is None


@given(ROWS, st.lists(st.tuples(st.integers(0, 30), EVENTS), max_size=8))
def test_events_and_journal_agree(drawn: list[Any], said: list[tuple[int, Event]]) -> None:
    """A terminal that is handed the events knows what an app that reads the journal does, but for ε and gradients."""
    rows = [row(i, *losses, flags=flags) for i, (losses, _, flags) in enumerate(drawn, 1)]
    news = News(rows, sorted(said, key=lambda pair: pair[0]), [MemoryRow(1e9, r.step, 5, 1000 + r.step) for r in rows])
    journal, stream = updated(RunState(ABOUT), news), RunState(ABOUT)
    for event in in_order(news):
        advance(stream, event)
    for name in ("losses", "means", "rates"):
        ours, theirs = getattr(stream, name), getattr(journal, name)
        assert ours.window(0, 1e9, 10**6) == theirs.window(0, 1e9, 10**6)
    same = ("skipped", "peak_bytes", "memory_bytes", "evaluations", "saved", "paused", "warning", "logged")
    assert repr([getattr(stream, name) for name in same]) == repr([getattr(journal, name) for name in same])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20))
def test_rolled_back(done: int, back: int, more: int) -> None:
    """Steps that come once more take the place of the old ones; scores and checkpoints after them are gone."""
    back = min(back, done)
    old, new = [row(i, 5.0) for i in range(1, done + 1)], [row(i, 1.0) for i in range(back, back + more + 1)]
    state = RunState(ABOUT)
    for each in old:
        advance(state, done_of(each, 7))
        advance(state, Saved(each.step, "x"))
        advance(state, Evaluated(each.step, "dev", "loss", 5.0, 1, 1.0))
    for each in new:
        advance(state, done_of(each, 7))
    expected = [(i, 5.0) for i in range(1, back)] + [(r.step, 1.0) for r in new]
    assert [(p.step, p.mean) for p in state.losses.window(0, 1e9, 10**6)] == expected
    assert state.saved == [e.step for e in state.evaluations] == list(range(1, back))
    assert state.step == back + more and state.moving.loss == pytest.approx(1.0)


def test_speed_forgets_the_past() -> None:
    """After a minute at a new speed the rate and the time left are the new ones."""
    slow = [row(n, 1.0, seconds=2.0) for n in range(1, 50)]
    fast = [row(n, 1.0, seconds=0.1) for n in range(50, 1000)]
    state = updated(RunState(replace(ABOUT, steps=1099)), News([*slow, *fast]))
    assert state.moving.rate == pytest.approx(10, rel=0.05)
    assert state.left == pytest.approx(10, rel=0.05)


def test_the_mean_is_unbiased_and_ignores_skipped_steps() -> None:
    """A constant loss has that mean from its first step on, whatever is skipped between."""
    state = updated(RunState(ABOUT), News([row(1, 2.0), row(2, math.nan), row(3, math.inf), row(4, 2.0)]))
    assert state.moving.loss == pytest.approx(2.0) and state.skipped == 2


def test_a_long_run_is_drawn_from_little() -> None:
    """Of 20,000 steps a chart's curve is a few hundred points from the first to the last."""
    state = updated(RunState(ABOUT), News([row(n, math.sin(n)) for n in range(1, 20_001)]))
    points = state.losses.window(1, 20_000, 400)
    assert len(points) < 500 and points[0].step == 1 and points[-1].step > 19_000
