"""Claims about numbers by step: whatever stretch is drawn, nothing in it is lost, and what is rolled back is gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.monitor.series import FAN, Series

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=400)


def series_of(values: list[float], gap: int = 1) -> Series:
    found = Series()
    for i, value in enumerate(values):
        found.append(1 + i * gap, value)
    return found


@given(VALUES, st.integers(1, 60), st.floats(0, 500), st.floats(0, 500), st.integers(1, 3))
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


@pytest.mark.parametrize("place", [0, 1, 7, 8, 63, 511, 700, 4095])
@pytest.mark.parametrize("spike", [-1e3, 1e3])
def test_one_spike_of_a_long_run_is_drawn(place: int, spike: float) -> None:
    """Wherever it is within the groups that a point stands for."""
    values = [0.0] * 4096
    values[place] = spike
    points = series_of(values).window(1, 4096, 20)
    assert spike in {p.low for p in points} | {p.high for p in points}


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


@given(VALUES, st.integers(0, 400), VALUES)
def test_truncated_is_as_if_never_there(values: list[float], kept: int, after: list[float]) -> None:
    """Steps that are taken back and made anew leave the same series as if only the new ones had been."""
    found, expected = series_of(values), series_of([*values[:kept], *after])
    found.truncate(kept)
    for i, value in enumerate(after, len(values[:kept]) + 1):
        found.append(i, value)
    for most in (1, 20, 10**6):
        assert found.window(0, 1e9, most) == expected.window(0, 1e9, most)
    assert found.newest == expected.newest
