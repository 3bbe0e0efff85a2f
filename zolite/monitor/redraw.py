"""How often a run is drawn while it is followed: at most ten times a second, and never for more than its share of a
core.
"""

from dataclasses import dataclass

REDRAWS = 10  # a second, at most
SHARE = 0.022  # of a core that drawing a run may take; reading it and being there take as much again
SLOWEST = 1.5  # seconds between two redraws, whatever they take


@dataclass
class RedrawLimit:
    """When the next redraw may be: news that comes in between waits for it."""

    every: float = 1 / REDRAWS
    drawn: float = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds from now; 0 for at once."""
        return max(0.0, self.drawn + self.every - now)

    def drew(self, now: float, used: float) -> None:
        """A redraw is made; `used` is what the processor had to do since the last: a slow machine draws less often."""
        self.drawn = now
        self.every = min(SLOWEST, max(1 / REDRAWS, used / SHARE))
