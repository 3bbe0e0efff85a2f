"""Axes with ticks at round numbers, 1, 2 or 5 times a power of ten: one rule for terminal, app and report.

axis(0.051, 0.802, 6)        from 0 to 1 by 0.2, as texts of one precision
inside(0, 240, 5)            0, 50, 100, 150, 200: an axis that ends where its numbers do
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from math import ceil, floor, isfinite, log10

LEAST = 3  # ticks that every axis may have: one that holds zero and numbers on both sides of it needs them
SLACK = 1e-6  # of a unit, by which a number may be beyond its tick for rounding
LARGE, SMALL = 1e6, 1e-4  # numbers and units beyond these are written with powers of ten


@dataclass(frozen=True)
class Axis:
    """Ticks, the first and the last of which are its ends."""

    ticks: tuple[float, ...]
    log: bool = False

    @property
    def low(self) -> float:
        return self.ticks[0]

    @property
    def high(self) -> float:
        return self.ticks[-1]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(f"{tick:g}" for tick in self.ticks) if self.log else texts(self.ticks)


def axis(low: float, high: float, most: int, log: bool = False) -> Axis:
    """Over all from `low` to `high`, with about `most` ticks at most. Needs high > low, and low > 0 where it is log."""
    fits = max(most, LEAST)
    found = (tuple(ticks) for ticks in (_decades(low, high) if log else _multiples(low, high, fits)))
    return Axis(next(ticks for ticks in found if len(ticks) <= fits), log)


def _multiples(low: float, high: float, most: int) -> Iterator[Sequence[float]]:
    """Of larger and larger units."""
    unit = round_up((high - low) / (most - 1))
    while True:
        first, last = floor(low / unit + SLACK), ceil(high / unit - SLACK)
        yield [_times(k, unit) for k in range(first, max(last, first + 1) + 1)]
        unit = round_up(unit * 1.5)


def _decades(low: float, high: float) -> Iterator[Sequence[float]]:
    """By fewer and fewer numbers of each decade, then by fewer and fewer decades."""
    first, last = floor(log10(low)), floor(log10(high)) + 1
    for digits in ((1, 2, 5), (1, 3)):
        yield _around([d * 10.0**p for p in range(first, last + 1) for d in digits], low, high)
    for by in count(1):
        yield [10.0**p for p in range(first, last + by, by)]


def _around(ticks: list[float], low: float, high: float) -> list[float]:
    """The largest at or below `low`, the smallest at or above `high`, and what is between them."""
    start = max(i for i, tick in enumerate(ticks) if tick <= low * (1 + SLACK))
    end = min((i for i, tick in enumerate(ticks) if tick >= high * (1 - SLACK)), default=len(ticks) - 1)
    return ticks[start : max(end, start + 1) + 1]


def inside(low: float, high: float, most: int, least: float = 0.0) -> list[float]:
    """Multiples of one round unit, not below `least`, from one number to another."""
    unit = round_up(max(least, (high - low) / max(1, most)))
    return [_times(k, unit) for k in range(ceil(low / unit - SLACK), floor(high / unit + SLACK) + 1)]


def round_up(x: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, … and of tenths of these."""
    power = floor(log10(x))
    return next(_scaled(k, power) for k in (1, 2, 5, 10) if _scaled(k, power) >= x * (1 - 1e-9))


def _scaled(k: int, power: int) -> float:
    return float(k * 10**power) if power >= 0 else k / 10**-power


def _times(k: int, unit: float) -> float:
    """Without what binary fractions add: 3 · 0.1 is 0.3."""
    return float(f"{k * unit:.12g}")


def texts(ticks: Sequence[float]) -> tuple[str, ...]:
    """With as many decimals as tell them apart, all the same."""
    unit = min((b - a for a, b in pairwise(ticks)), default=0.0) or abs(ticks[0]) or 1.0
    largest = max(map(abs, ticks))
    if largest >= LARGE or (unit < SMALL and largest > 0):
        digits = min(15, max(1, floor(log10(largest)) - floor(log10(unit)) + 1))
        return tuple(f"{tick:.{digits}g}" for tick in ticks)
    decimals = max(0, -floor(log10(unit) + SLACK))
    return tuple(f"{tick:,.{decimals}f}" for tick in ticks)


def percents(ticks: Sequence[float]) -> tuple[str, ...]:
    """Of shares from 0 to 1."""
    return tuple(f"{text}%" for text in texts([100 * tick for tick in ticks]))


def widened(low: float, high: float) -> tuple[float, float]:
    """The two where they differ; else with room around them."""
    assert isfinite(low) and isfinite(high)
    return (low, high) if high > low else (low - (0.05 * abs(low) or 0.05), high + (0.05 * abs(high) or 0.05))
