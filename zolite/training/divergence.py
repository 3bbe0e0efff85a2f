"""Has a run's loss diverged? Judged by the losses that steps measure anyway. Loads no torch."""

import math

SPAN = 20  # steps that the loss is averaged over, and that are seen before anything is judged
SPREADS = 4.0  # standard deviations of a single loss that the mean may rise above its best
RISE = 0.25  # or this share of the best mean, whichever is more
BAD = 5  # losses in a row that are not finite


class Divergence:
    """Is given every step's loss. `found`, once the mean has risen above `limit`; `last_good` is the step to return to.

    Losses are in nats. After divergence is found, further losses change nothing.
    """

    def __init__(self, step: int) -> None:
        self.mean = self.variance = 0.0  # of the loss: a moving mean over about SPAN steps, and of single losses
        self.best = math.inf  # least of the means
        self.steps = self.bad = 0
        self.last_good = step
        self.found = False

    @property
    def limit(self) -> float:
        return self.best + max(SPREADS * math.sqrt(self.variance), RISE * abs(self.best))

    def add(self, step: int, loss: float) -> None:
        """A step's loss."""
        if self.found:
            return
        self.bad = 0 if math.isfinite(loss) else self.bad + 1
        if self.bad == 0:
            self._average(step, loss)
        self.found = self.steps >= SPAN and (self.mean > self.limit or self.bad >= BAD)

    def _average(self, step: int, loss: float) -> None:
        self.steps += 1
        weight = 1 / min(self.steps, SPAN)
        difference = loss - self.mean if self.steps > 1 else 0.0
        self.mean += weight * (loss - self.mean)
        if self.steps >= SPAN:
            self.best = min(self.best, self.mean)
        if self.mean <= self.best + math.sqrt(self.variance) / 2:  # a loss on its way out does not widen the limit
            most = 4 * self.variance if self.steps > SPAN else math.inf  # nor does a single step
            self.variance += weight * (min(difference**2, most) - self.variance)
            self.last_good = step if self.steps >= SPAN else self.last_good
