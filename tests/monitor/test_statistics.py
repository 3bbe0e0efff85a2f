"""Claims about what is worked out of a run's last steps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.monitor.statistics import gradient_stats, histogram, trend


@given(st.lists(st.floats(-100, 100), min_size=12, max_size=120), st.floats(-1, 1))
def test_trend(noise: list[float], slope: float) -> None:
    """The trend is numpy's least-squares line, and its error the usual one."""
    steps, losses = range(len(noise)), [slope * i + e for i, e in enumerate(noise)]
    found = trend(steps, losses)
    (fit, _), covariance = np.polyfit(np.arange(len(losses)), losses, 1, cov=True)
    assert found.change == pytest.approx(100 * fit, rel=1e-6, abs=1e-6)
    assert found.error == pytest.approx(100 * math.sqrt(covariance[0, 0]), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("drift", "verdict"), [(-0.05, "falling"), (0.05, "rising"), (0.0, "no trend beyond noise")])
def test_verdict(drift: float, verdict: str) -> None:
    """A trend is only called one beyond its noise; early on nothing is."""
    rng = np.random.default_rng(5)
    losses = [3.0 + drift * i + 0.3 * rng.standard_normal() for i in range(120)]
    assert trend(range(120), losses).verdict == verdict
    assert trend(range(5), losses[:5]).verdict == "too early to say"


def test_signal_to_noise() -> None:
    """Mean over standard deviation; gradients of either sign alike are within chance, one-sided ones are not."""
    rng = np.random.default_rng(7)
    for mean, beyond in ((0.0, False), (1.0, True)):
        gradients = mean + rng.standard_normal(200)
        found = gradient_stats(gradients.tolist())
        assert found.ratio == pytest.approx(gradients.mean() / gradients.std(), rel=1e-6)
        assert (abs(found.ratio) > 3 * found.error) is beyond
        assert found.size == pytest.approx(np.abs(gradients).mean())
    assert math.isnan(gradient_stats([]).ratio) and math.isnan(gradient_stats([1.0]).ratio)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=200), st.integers(1, 40))
def test_histogram(values: list[float], bins: int) -> None:
    """Every value counts once, in the bin where it lies, those beyond the ends at the ends; zero is in the middle."""
    found = histogram(values, bins)
    assert found is not None and len(found.counts) == bins and sum(found.counts) == len(values)
    inside = [v + 1e-7 * found.high for v in np.clip(values, -found.high, 0.9999 * found.high)]  # on an edge: above it
    assert found.counts == tuple(np.histogram(inside, bins, (-found.high, found.high))[0])
    assert histogram([], bins) is None
