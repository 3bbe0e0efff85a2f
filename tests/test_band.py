"""Claims about bands: what leaves one, what does not, and where a run goes back to."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.band import BAD, SPAN, Band


def noisy(mean: float, spread: float, count: int, seed: int) -> list[float]:
    make = random.Random(seed)
    return [max(0.0, make.gauss(mean, spread)) for _ in range(count)]


def fed(losses: list[float], start: int = 0) -> Band:
    band = Band(start)
    for step, loss in enumerate(losses, start + 1):
        band.add(step, loss)
    return band


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 5), st.integers(0, 1000))
def test_noise_does_not_leave(mean: float, seed: int) -> None:
    """A loss that scatters by a third around one value, or falls to half of it, stays in its band."""
    assert fed(noisy(mean, mean / 3, 600, seed)).left is None
    assert fed([loss * (1 - i / 1200) for i, loss in enumerate(noisy(mean, mean / 3, 600, seed))]).left is None


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 2), st.integers(0, 1000))
def test_a_rise_leaves_and_goes_back_before_it(mean: float, seed: int) -> None:
    """After 200 good steps a loss of three times as much leaves the band within 40, and the way back ends before it."""
    band = fed(noisy(mean, mean / 5, 200, seed) + noisy(3 * mean, mean / 5, 40, seed + 1))
    assert band.left is not None and 0 < band.left <= 205


def test_what_is_no_number_leaves_soon() -> None:
    """A few losses in a row that are none are enough; one is not."""
    good = noisy(1.0, 0.1, 100, 0)
    assert fed([*good, math.nan, *good]).left is None
    assert fed([*good, *[math.nan] * BAD]).left is not None


def test_a_young_band_waits() -> None:
    """Nothing leaves before there is a band, and then the way back is at most to where the run began."""
    assert fed([math.inf] * (SPAN - 1)).left is None
    band = fed([*noisy(1.0, 0.1, SPAN, 3), *[50.0] * 20], start=400)
    assert band.left is not None and band.left >= 400


@pytest.mark.parametrize("more", [1, 50])
def test_after_it_was_left_nothing_changes(more: int) -> None:
    """What comes behind does not move the step to go back to."""
    losses = noisy(1.0, 0.1, 100, 5) + [9.0] * 30
    assert fed(losses).left == fed(losses + [0.5] * more).left is not None
