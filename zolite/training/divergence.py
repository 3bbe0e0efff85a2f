"""Has a run's loss left the band that it was in? From the losses that steps measure anyway. Without torch."""

import math

SPAN = 20  # steps that the loss is smoothed over, and that a band is made of first
WIDE = 4.0  # spreads of a single loss above the best smoothed one
RISE = 0.25  # and that share of it
BAD = 5  # losses in a row that are no numbers


class Band:
    """Fed with every step's loss; `left` is the step to go back to, once one is needed."""

    def __init__(self, step: int) -> None:
        self.smooth = self.square = 0.0
        self.best = math.inf  # of the smoothed losses
        self.steps = self.bad = 0
        self.good = step  # the last one inside
        self.left: int | None = None

    @property
    def limit(self) -> float:
        return self.best + max(WIDE * math.sqrt(self.square), RISE * abs(self.best))

    def add(self, step: int, loss: float) -> None:
        """A step's loss; what comes after the band was left says no more."""
        if self.left is not None:
            return
        self.bad = 0 if math.isfinite(loss) else self.bad + 1
        if self.bad == 0:
            self._take(step, loss)
        if self.steps >= SPAN and (self.smooth > self.limit or self.bad >= BAD):
            self.left = self.good

    def _take(self, step: int, loss: float) -> None:
        self.steps += 1
        weight = 1 / min(self.steps, SPAN)
        apart = loss - self.smooth if self.steps > 1 else 0.0
        self.smooth += weight * (loss - self.smooth)
        if self.steps >= SPAN:
            self.best = min(self.best, self.smooth)
        if self.smooth <= self.best + math.sqrt(self.square) / 2:  # what is on its way out does not widen it
            most = 4 * self.square if self.steps > SPAN else math.inf  # nor does one step
            self.square += weight * (min(apart**2, most) - self.square)
            self.good = step if self.steps >= SPAN else self.good
