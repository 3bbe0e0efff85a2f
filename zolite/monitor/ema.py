"""Moving means of a run as it is watched: its loss, and how fast its steps come."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, inf, nan

MEAN_STEPS = 50  # that the loss is smoothed over
RATE_SECONDS = 20.0  # that the speed is


@dataclass
class Moving:
    """Sums over weights, which makes the first steps unbiased."""

    loss_sum: float = 0.0
    weight: float = 0.0
    steps: float = 0.0
    seconds: float = 0.0

    def took(self, seconds: float) -> None:
        """A step's wall time; what is no time counts as none."""
        self.took_all((seconds,))

    def took_all(self, times: Iterable[float]) -> list[float]:
        """Of steps one after the other; steps a second after each, 0 where that is not known."""
        steps, total, rates = self.steps, self.seconds, []
        for seconds in times:
            seconds = seconds if 0.0 < seconds < inf else 0.0
            fade = exp(-seconds / RATE_SECONDS)
            steps, total = steps * fade + 1, total * fade + seconds
            rates.append(steps / total if total else 0.0)
        self.steps, self.seconds = steps, total
        return rates

    def lost(self, loss: float) -> None:
        """A finite loss."""
        self.lost_all((loss,))

    def lost_all(self, losses: Iterable[float]) -> list[float]:
        """Finite losses one after the other; the smoothed loss after each."""
        keep, total, weight, means = 1 - 1 / MEAN_STEPS, self.loss_sum, self.weight, []
        for loss in losses:
            total, weight = total * keep + loss, weight * keep + 1
            means.append(total / weight)
        self.loss_sum, self.weight = total, weight
        return means

    def forget_losses(self) -> None:
        """Steps were rolled back: what they lost says nothing of those to come."""
        self.loss_sum = self.weight = 0.0

    @property
    def loss(self) -> float:
        return self.loss_sum / self.weight if self.weight else nan

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds if self.seconds > 0 else nan

    def left(self, steps: int) -> float:
        """Seconds that so many more steps take at that rate."""
        return max(0, steps) / self.rate if self.rate > 0 else nan
