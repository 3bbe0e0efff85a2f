"""What is worked out of a run's last steps: where its loss goes, and what its projected gradients say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, nan, sqrt
from statistics import fmean

RECENT = 200  # steps, or projected gradients, that these statistics cover


@dataclass(frozen=True)
class Trend:
    """The least-squares line through the last losses."""

    change: float  # nats a hundred steps
    error: float  # its standard error

    @property
    def verdict(self) -> str:
        """falling or rising where it is beyond twice its error."""
        if not isfinite(self.error):
            return "too early to say"
        if abs(self.change) < 2 * self.error:
            return "no trend beyond noise"
        return "falling" if self.change < 0 else "rising"


def trend(steps: Sequence[int], losses: Sequence[float]) -> Trend:
    n = len(steps)
    if n < 10:
        return Trend(nan, nan)
    x0, y0 = fmean(steps), fmean(losses)
    sxx = sum((x - x0) ** 2 for x in steps)
    slope = sum((x - x0) * (y - y0) for x, y in zip(steps, losses, strict=True)) / sxx
    rest = sum((y - y0 - slope * (x - x0)) ** 2 for x, y in zip(steps, losses, strict=True))
    return Trend(100 * slope, 100 * sqrt(rest / (n - 2) / sxx))


@dataclass(frozen=True)
class GradientStats:
    """Of the last projected gradients.

    A direction is drawn with either sign alike, so that where directions are not guided by earlier ones the
    signal-to-noise ratio is chance, ± `error`; the trend of the loss is what says that a run learns.
    """

    ratio: float  # signal-to-noise: their mean over their standard deviation
    error: float  # what chance alone makes of it
    size: float  # mean absolute value


def gradient_stats(gradients: Sequence[float]) -> GradientStats:
    if not gradients:
        return GradientStats(nan, nan, nan)
    return GradientStats(signal_to_noise(gradients), 1 / sqrt(len(gradients)), fmean(map(abs, gradients)))


def signal_to_noise(values: Sequence[float]) -> float:
    if len(values) < 2:
        return nan
    mean = fsum(values) / len(values)
    spread = sqrt(fsum((value - mean) ** 2 for value in values) / len(values))  # statistics.pstdev, fifty times quicker
    return mean / spread if spread > 0 else nan


@dataclass(frozen=True)
class Histogram:
    """Its ends are as far from zero; what lies beyond them counts there, so that outliers do not stretch it."""

    high: float
    counts: tuple[int, ...]


def histogram(values: Iterable[float], bins: int) -> Histogram | None:
    """Wide enough for 99 of a hundred; None without values."""
    sizes = sorted(map(abs, values := list(values)))
    if not sizes:
        return None
    high = sizes[min(len(sizes) - 1, int(0.99 * len(sizes)))] or 1.0
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int((value + high) / (2 * high) * bins)))] += 1
    return Histogram(high, tuple(counts))
