"""Claims about what a Run screen knows: the same however the news is cut up, and right whatever the journal holds."""

import itertools
import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.common.events import Continued, Evaluated, Event, Finished, Noted, Paused, Saved, Started
from zolite.monitor.run_state import REDRAWS, About, News, Pace, RunState, advance, histogram, signal
from zolite.monitor.series import FAN, Series
from zolite.sessions.journal import SKIPPED, MemoryRow, StepRow

ABOUT = About("run", steps=99)
STARTED = Started("run", 1, 50, "CPU, 2 threads", 7, 2**30)


def row(
    step: int, *losses: float, slope: float = 1.0, lr: float = 1e-3, flags: int = 0, seconds: float = 0.5
) -> StepRow:
    packed = struct.pack(f"<{len(losses)}f", *losses)
    return StepRow(step, struct.pack("<f", slope), packed, 1e-2, lr, flags, 1e9 + step, seconds, 100 + step)


# --- series

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=400)


def series_of(values: list[float], gap: int = 1) -> Series:
    found = Series()
    for i, value in enumerate(values):
        found.append(1 + i * gap, value)
    return found


@given(VALUES, st.integers(1, 60), st.floats(0, 500), st.floats(0, 500), st.integers(1, 3))
@settings(deadline=None)
def test_window_leaves_nothing_out(values: list[float], most: int, a: float, b: float, gap: int) -> None:
    """Its points are in order and span exactly the extremes of the steps inside, a group at either end apart."""
    first, last = sorted((a, b))
    steps = [1 + i * gap for i in range(len(values))]
    inside = [v for s, v in zip(steps, values, strict=True) if first <= s <= last]
    points = series_of(values, gap).window(first, last, most)
    assert [p.step for p in points] == sorted({p.step for p in points})
    assert all(p.low <= p.mean * (1 + 1e-9) + 1e-3 and p.mean <= p.high + 1e-3 + 1e-9 * abs(p.high) for p in points)
    if inside:
        assert min(p.low for p in points) <= min(inside) and max(p.high for p in points) >= max(inside)
        assert {v for p in points for v in (p.low, p.high)} <= set(values)
    else:
        assert len(points) <= 1


@given(VALUES)
def test_window_of_a_few_steps_is_exact(values: list[float]) -> None:
    """Where there is room for each step, each is there as it was."""
    points = series_of(values).window(1, len(values), len(values))
    assert [(p.step, p.low, p.high, p.mean) for p in points] == [(i, v, v, v) for i, v in enumerate(values, 1)]


@pytest.mark.parametrize("count", [1_000, 20_000])
@pytest.mark.parametrize("most", [50, 400])
def test_window_is_small(count: int, most: int) -> None:
    """Of a long run no more points than asked for, and what is not grouped yet, come back; not far fewer either."""
    points = series_of([float(i) for i in range(count)]).window(1, count, most)
    assert most / FAN / 2 <= len(points) <= most + FAN * 6
    assert points[-1].high == count - 1


# --- the reducer

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
@settings(deadline=None)
def test_pages_do_not_matter(drawn: list[Any], told: list[Event], cuts: list[int]) -> None:
    """Steps and then events, in one page or in many, leave the same state."""
    rows = [row(i, *losses, slope=slope, flags=flags) for i, (losses, slope, flags) in enumerate(drawn, 1)]
    memory = [MemoryRow(1e9, r.step, 5, 1000 + r.step) for r in rows]
    events = [(len(rows), event) for event in told]
    once = advance(RunState(ABOUT), News(rows, events, memory, True))
    state = RunState(ABOUT)
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for a, b in itertools.pairwise(ends):
        state = advance(state, News(rows[a:b], (), memory[a:b], True))
    for event in events:
        state = advance(state, News((), [event], (), True))
    assert shown(state) == shown(once)


def test_losses_that_are_no_numbers() -> None:
    """They count as skipped, and neither mean nor chart sees them."""
    rows = [row(1, 2.0, 4.0), row(2, math.nan, 1.0), row(3, math.inf), row(4, 1.0, flags=SKIPPED), row(5), row(6, 5.0)]
    state = advance(RunState(ABOUT), News(rows))
    assert (state.skipped, state.step, state.loss) == (4, 6, 5.0)
    assert [p.step for p in state.losses.window(0, 9, 9)] == [1, 6]
    assert 3.0 < state.moving.loss < 5.0


def test_status() -> None:
    """Whether a process writes, and what was said last, make the word."""
    told: list[tuple[bool, Event | None, str]] = [
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
    for running, event, status in told:
        state = advance(state, News((), [(0, event)] if event else [], (), running))
        assert state.status == status, event


def test_taken_back() -> None:
    """Where steps were taken back, what was known of them is forgotten."""
    state = advance(RunState(ABOUT), News([row(i, 1.0) for i in range(1, 9)], [(8, Saved(8, "x"))]))
    state = advance(state, News([row(1, 2.0)], [(0, STARTED)], fresh=True))
    assert (state.step, state.loss, state.saved, state.about) == (1, 2.0, [], ABOUT)


@given(st.lists(st.floats(0.001, 10), min_size=2, max_size=40), st.integers(1, 5000))
def test_rate_and_time_left(seconds: list[float], steps: int) -> None:
    """The speed lies between the slowest and the fastest step's; what is left follows from it."""
    state = advance(
        RunState(replace(ABOUT, steps=steps)), News([row(i, 1.0, seconds=s) for i, s in enumerate(seconds, 1)])
    )
    assert 1 / max(seconds) * 0.999 <= state.moving.rate <= 1 / min(seconds) * 1.001
    assert state.left == pytest.approx(max(0, steps - len(seconds)) / state.moving.rate)


def test_step_sizes() -> None:
    """Learning rate and ε are known at every step, whether they change or stand still."""
    rates = [3e-3, 3e-3, 1e-3, 1e-3, 1e-3, 2e-3]
    state = advance(RunState(ABOUT), News([row(i, 1.0, lr=lr) for i, lr in enumerate(rates, 1)]))
    assert [state.rates.at(step) for step in range(1, 7)] == pytest.approx(rates)
    assert len(state.rates) == 3 and len(state.scales) == 1 and state.scales.newest == 1e-2


def test_best() -> None:
    """The highest accuracy or the lowest loss on dev, never on test, never not a number."""
    scores = [("dev", 0.5), ("test", 0.9), ("dev", math.nan), ("dev", 0.7), ("dev", 0.6)]
    for metric, sign, best in (("accuracy", 1, 0.7), ("loss", -1, -0.7)):
        told = [(i, Evaluated(i, split, metric, sign * value, 5, 1.0)) for i, (split, value) in enumerate(scores)]
        found = advance(RunState(ABOUT), News(told=told)).best()
        assert found is not None and found.value == best
    assert RunState(ABOUT).best() is None


# --- what is worked out


@given(st.lists(st.floats(-100, 100), min_size=12, max_size=120), st.floats(-1, 1))
def test_trend(noise: list[float], slope: float) -> None:
    """The trend is numpy's least-squares line, and its error the usual one."""
    losses = [float(np.float32(slope * i + e)) for i, e in enumerate(noise)]
    found = signal(advance(RunState(ABOUT), News([row(i, loss) for i, loss in enumerate(losses, 1)])))
    (fit, _), covariance = np.polyfit(np.arange(len(losses)), losses, 1, cov=True)
    assert found.trend == pytest.approx(100 * fit, rel=1e-6, abs=1e-6)
    assert found.trend_error == pytest.approx(100 * math.sqrt(covariance[0, 0]), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("drift", "verdict"), [(-0.05, "falling"), (0.05, "rising"), (0.0, "no trend beyond noise")])
def test_verdict(drift: float, verdict: str) -> None:
    """A trend is only called one beyond its noise; early on nothing is."""
    rng = np.random.default_rng(5)
    rows = [row(i, 3.0 + drift * i + 0.3 * rng.standard_normal()) for i in range(1, 121)]
    assert signal(advance(RunState(ABOUT), News(rows))).verdict == verdict
    assert signal(advance(RunState(ABOUT), News(rows[:5]))).verdict == "too early to say"


def test_signal_to_noise() -> None:
    """Mean over standard deviation of the slopes; slopes of either sign alike are within chance, one-sided are not."""
    rng = np.random.default_rng(7)
    for mean, beyond in ((0.0, False), (1.0, True)):
        slopes = (mean + rng.standard_normal(200)).astype(np.float32)
        found = signal(advance(RunState(ABOUT), News([row(i, 1.0, slope=s) for i, s in enumerate(slopes, 1)])))
        assert found.ratio == pytest.approx(slopes.mean() / slopes.std(), rel=1e-4)
        assert (abs(found.ratio) > 3 * found.error) is beyond


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=200), st.integers(1, 40))
def test_histogram(values: list[float], bins: int) -> None:
    """Every value counts once, in the bin where it lies, those beyond the ends at the ends; zero is in the middle."""
    found = histogram(values, bins)
    assert found is not None and len(found.counts) == bins and sum(found.counts) == len(values)
    inside = [v + 1e-7 * found.high for v in np.clip(values, -found.high, 0.9999 * found.high)]  # on an edge: above it
    assert found.counts == tuple(np.histogram(inside, bins, (-found.high, found.high))[0])
    assert histogram([], bins) is None


@given(st.lists(st.floats(0, 0.05), min_size=1, max_size=300))
def test_pace(gaps: list[float]) -> None:
    """However quickly news comes, there are no more redraws a second than REDRAWS, and the last news is drawn."""
    pace, now, due, drawn = Pace(), 0.0, None, []
    for gap in [*gaps, 10.0]:
        if due is not None and due <= now + gap:
            drawn.append(due)
            pace.drew(due, 0.0)
            due = None
        now += gap
        if due is None:
            due = now + pace.wait(now)
    for start in drawn:
        assert sum(start <= at < start + 0.999 for at in drawn) <= REDRAWS
    assert drawn
