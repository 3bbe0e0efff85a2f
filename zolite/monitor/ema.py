"""Moving means of a run as it is watched: its loss, and how fast its steps come."""

from dataclasses import dataclass
from math import exp, isfinite, nan

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
        seconds = max(0.0, seconds) if isfinite(seconds) else 0.0
        fade = exp(-seconds / RATE_SECONDS)
        self.steps, self.seconds = self.steps * fade + 1, self.seconds * fade + seconds

    def lost(self, loss: float) -> None:
        """A finite loss."""
        keep = 1 - 1 / MEAN_STEPS
        self.loss_sum, self.weight = self.loss_sum * keep + loss, self.weight * keep + 1

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
