"""Claims about axes: they hold what is drawn, and their ticks are numbers that people count in."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zolite.monitor.axis import LEAST, axis, inside, percents, round_up, widened

NUMBERS = st.floats(-1e9, 1e9)
POSITIVE = st.floats(1e-12, 1e30)


def digit(x: float) -> float:
    """The first digit of a number that has one."""
    return round(x / 10.0 ** math.floor(math.log10(x) + 1e-9), 6)


@given(NUMBERS, NUMBERS, st.integers(2, 20))
def test_an_axis_holds_all_by_round_steps(a: float, b: float, most: int) -> None:
    """From a tick at or below the least to one at or above the greatest, by 1, 2 or 5 times a power of ten."""
    low, high = sorted((a, b))
    assume(high - low > 1e-6 * max(1.0, abs(low), abs(high)))
    found = axis(low, high, most)
    unit = (found.high - found.low) / (len(found.ticks) - 1)
    near = 1e-5 * unit
    assert found.low <= low + near and high - near <= found.high
    assert 2 <= len(found.ticks) <= max(most, LEAST)
    assert digit(unit) in (1, 2, 5, 10) and all(abs(t / unit - round(t / unit)) < 1e-3 for t in found.ticks)
    assert all(abs(y - x - unit) < near for x, y in itertools.pairwise(found.ticks))


@given(POSITIVE, POSITIVE, st.integers(2, 20))
def test_an_axis_of_powers(a: float, b: float, most: int) -> None:
    """Ascending, over all, and each tick a round number."""
    low, high = sorted((a, b))
    assume(high > low)
    found = axis(low, high, most, log=True)
    assert found.low <= low * 1.00001 and high * 0.99999 <= found.high and len(found.ticks) <= max(most, LEAST)
    assert list(found.ticks) == sorted(set(found.ticks)) and {digit(t) for t in found.ticks} <= {1, 2, 3, 5, 10}


@given(NUMBERS, NUMBERS, st.integers(2, 12), st.booleans())
def test_texts_tell_ticks_apart(a: float, b: float, most: int, log: bool) -> None:
    """Each tick has its own text, which is the number."""
    low, high = sorted((abs(a), abs(b))) if log else sorted((a, b))
    assume(high - low > 1e-6 * max(1.0, abs(low), abs(high)) and (low > 0 or not log))
    found = axis(low, high, most, log)
    assert len({*found.texts}) == len(found.ticks)
    for tick, text in zip(found.ticks, found.texts, strict=True):
        assert math.isclose(float(text.replace(",", "")), tick, rel_tol=1e-5, abs_tol=1e-9 * (found.high - found.low))


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.integers(1, 20), st.sampled_from([0.0, 1.0]))
def test_ticks_inside(low: float, size: float, most: int, least: float) -> None:
    """None lies outside, there are about as many as asked for, and none is nearer to the next than `least`."""
    found = inside(low, low + size, most, least)
    slack = 1e-5 * max(size, least)
    assert all(low - slack <= tick <= low + size + slack for tick in found) and len(found) <= most + 1
    assert all(b - a >= least for a, b in itertools.pairwise(found))


def test_examples() -> None:
    """As they stand beside a chart."""
    assert axis(0.051, 0.802, 6).texts == ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")
    assert axis(1e9, 1e9 + 10, 4).texts == ("1000000000", "1000000005", "1000000010")
    assert percents(axis(0.5, 0.75, 5).ticks) == ("50%", "60%", "70%", "80%")
    assert inside(0, 240, 5) == [0, 50, 100, 150, 200]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e9])
def test_widened(value: float) -> None:
    """One value gets an axis too, and two keep theirs."""
    low, high = widened(value, value)
    assert low < value < high and widened(value, value + 1) == (value, value + 1)


@given(st.floats(1e-30, 1e30))
def test_round_up(x: float) -> None:
    """The next round number is no smaller, and less than two and a half times as large."""
    assert x * (1 - 1e-8) <= round_up(x) < 2.5001 * x and digit(round_up(x)) in (1, 2, 5, 10)
