"""Numbers by step, with coarser copies of themselves: any stretch of a long run is drawn from a few hundred of them."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

FAN = 8  # entries of a level that one of the next stands for
HUGE = 1e30  # a loss beyond this has diverged: it counts as not finite, and differences stay below overflow


def usable(value: float) -> bool:
    """Can it be drawn and averaged?"""
    return isfinite(value) and abs(value) < HUGE


class Point(NamedTuple):
    """One or several neighbouring steps; `step` is the first of them."""

    step: int
    low: float
    high: float
    mean: float


def ascending(points: Iterable[Point]) -> list[Point]:
    """One a step, the last of each, in order of steps: a line through them never runs back."""
    return [point for _, point in sorted({point.step: point for point in points}.items())]


@dataclass
class _Level:
    steps: "array[int]" = field(default_factory=lambda: array("I"))
    lows: "array[float]" = field(default_factory=lambda: array("f"))
    highs: "array[float]" = field(default_factory=lambda: array("f"))
    means: "array[float]" = field(default_factory=lambda: array("f"))

    def points(self, first: int, last: int) -> Iterator[Point]:
        parts = (self.steps, self.lows, self.highs, self.means)
        return map(Point, *(part[first:last] for part in parts))

    def truncate(self, count: int) -> None:
        for part in (self.steps, self.lows, self.highs, self.means):  # of single steps the last three are one
            del part[count:]


class Series:
    """Finite values at ascending steps, as float32: a million steps take 8 MB."""

    def __init__(self) -> None:
        single = _Level()
        single.lows = single.highs = single.means  # of a single step they are the same
        self._levels = [single]
        self.newest: float | None = None

    def __len__(self) -> int:
        return len(self._levels[0].steps)

    def append(self, step: int, value: float) -> None:
        self.extend((step,), (value,))

    def extend(self, steps: Sequence[int], values: Sequence[float]) -> None:
        """Several steps, ascending, each after those that are there."""
        if not steps:
            return
        base, self.newest = self._levels[0], values[-1]
        base.steps.extend(steps)
        base.means.extend(values)
        self._group(1)

    def _group(self, number: int) -> None:
        """An entry of a level for each FAN of the one below that have none yet."""
        below, known = self._levels[number - 1], len(self._levels) > number
        done = len(self._levels[number].steps) if known else 0
        if len(below.steps) < FAN * (done + 1):
            return
        if not known:
            self._levels.append(_Level())
        level = self._levels[number]
        for first in range(FAN * done, len(below.steps) - FAN + 1, FAN):
            part = slice(first, first + FAN)
            level.steps.append(below.steps[first])
            level.lows.append(min(below.lows[part]))
            level.highs.append(max(below.highs[part]))
            level.means.append(sum(below.means[part]) / FAN)
        self._group(number + 1)

    def truncate(self, step: int) -> None:
        """Forgets what comes after a step."""
        count = bisect_right(self._levels[0].steps, step)
        for level in self._levels:
            level.truncate(count)
            count //= FAN
        self.newest = self._levels[0].means[-1] if len(self) else None

    def window(self, first: float, last: float, most: int) -> list[Point]:
        """What lies from one step to another, in about `most` points or fewer, in order; none is left out."""
        finest = self._levels[0].steps
        count = bisect_right(finest, last) - bisect_left(finest, first)
        number = 0
        while count > max(1, most) and number < len(self._levels) - 1:
            number, count = number + 1, count // FAN
        found: list[Point] = []
        done = 0  # of this level's entries, those that a coarser one stands for
        for level in reversed(self._levels[: number + 1]):
            start = max(done, bisect_right(level.steps, first) - 1 if level is not self._levels[0] else
                        bisect_left(level.steps, first))  # fmt: skip
            found += level.points(start, bisect_right(level.steps, last))
            done = FAN * len(level.steps)
        return found

    def at(self, step: float) -> float | None:
        """The value at a step, or at the last one before it."""
        base = self._levels[0]
        place = bisect_right(base.steps, step)
        return base.means[place - 1] if place else None

    def tail(self, count: int) -> tuple[Sequence[int], Sequence[float]]:
        """The last steps and their values."""
        base = self._levels[0]
        return base.steps[-count:], base.means[-count:]
