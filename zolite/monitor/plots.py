"""Plots as characters of a terminal."""

from collections.abc import Sequence
from math import isfinite

HUGE = 1e30  # a loss beyond this has diverged: it counts as not finite, and differences stay below overflow
BLOCKS = "▁▂▃▄▅▆▇█"


def usable(loss: float) -> bool:
    return isfinite(loss) and abs(loss) < HUGE


def sparkline(values: Sequence[float]) -> str:
    """One block a value; a value that is not finite is a gap."""
    known = [v for v in values if usable(v)]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)

    def block(v: float) -> str:
        return BLOCKS[round((v - low) / span * 7) if span else 3] if usable(v) else " "

    return "".join(map(block, values))
