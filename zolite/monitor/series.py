"""Numbers by step, with coarser copies of themselves: any stretch of a long run is drawn from a few hundred of them."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
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
        self._levels = [_Level()]
        self.newest: float | None = None

    def __len__(self) -> int:
        return len(self._levels[0].steps)

    def append(self, step: int, value: float) -> None:
        base, self.newest = self._levels[0], value
        base.steps.append(step)
        base.means.append(value)
        base.lows = base.highs = base.means  # of a single step they are the same
        if len(base.steps) % FAN == 0:
            self._group(1)

    def _group(self, number: int) -> None:
        """One more entry of a level, of the last FAN of the one below."""
        if number == len(self._levels):
            self._levels.append(_Level())
        level, below = self._levels[number], self._levels[number - 1]
        level.steps.append(below.steps[-FAN])
        level.lows.append(min(below.lows[-FAN:]))
        level.highs.append(max(below.highs[-FAN:]))
        level.means.append(sum(below.means[-FAN:]) / FAN)
        if len(level.steps) % FAN == 0:
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
