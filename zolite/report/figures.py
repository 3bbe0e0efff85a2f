"""Which curves a report has: loss and validation scores of one run or of several, and memory over a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from zolite.common.events import Evaluated
from zolite.monitor.classification import wilson
from zolite.monitor.run_state import RunState
from zolite.monitor.series import Point, ascending
from zolite.report import curves
from zolite.report.curves import Line
from zolite.sessions.session import MemoryRow

POINTS = 360  # of a curve, about: one for two pixels of its line
MIB = 2**20


@dataclass(frozen=True)
class Picture(curves.Picture):
    metric: str = ""  # of validation rows: accuracy or loss; else each step, or memory


def of(states: Sequence[RunState]) -> list[Picture]:
    """The loss, then a picture for each metric of validation rows. One without values has lines without points."""
    steps = (0.0, float(max(2, *(state.step for state in states), 0)))
    one = states[0] if len(states) == 1 else None
    losses = [
        Line(s.about.name, s.means.window(0, s.step, POINTS), s.losses.window(0, s.step, POINTS) if one else ())
        for s in states
    ]
    metrics = dict.fromkeys(e.metric for s in states for e in s.dev())
    pictures = [Picture("loss", "nats a token", losses, steps, metric="each step", best=_best(one))]
    return pictures + [_scores(metric, states, steps) for metric in metrics]


def _best(state: RunState | None) -> int | None:
    best = state.best() if state else None
    return best.step if best else None


def _scores(metric: str, states: Sequence[RunState], steps: tuple[float, float]) -> Picture:
    accuracy = metric == "accuracy"
    lines = [Line(s.about.name, ascending(map(_point, _known(s, metric))), marks=True) for s in states]
    one = states[0] if len(states) == 1 else None
    unit = "share of the validation rows" if accuracy else "nats a token"
    title, level = f"{metric} on validation rows", _majority(states) if accuracy else None
    return Picture(title, unit, lines, steps, accuracy, _best(one), level, metric=metric)


def _known(state: RunState, metric: str) -> list[Evaluated]:
    return [e for e in state.dev() if e.metric == metric and isfinite(e.value)]


def _point(event: Evaluated) -> Point:
    """With its 95 % interval, where it is a share."""
    if event.metric != "accuracy" or not 0 <= event.value <= 1 or event.rows < 1:
        return Point(event.step, event.value, event.value, event.value)
    found = wilson(round(event.value * event.rows), event.rows)
    return Point(event.step, found.low, found.high, event.value)


def _majority(states: Sequence[RunState]) -> tuple[float, str] | None:
    """Where all have the same rows' commonest label."""
    found = {e.majority for s in states for e in s.dev() if isfinite(e.majority)}
    return (found.pop(), "one label for all") if len(found) == 1 else None


def memory(rows: Sequence[MemoryRow]) -> Picture:
    """In MiB by step."""
    every = max(1, len(rows) // POINTS)
    now, peak = (
        ascending(Point(row.step, size, size, size) for row in rows[::every] for size in [getattr(row, name) / MIB])
        for name in ("now_bytes", "peak_bytes")
    )
    steps = (0.0, float(max(2, rows[-1].step)))
    return Picture("memory", "MiB", (Line("in use", now), Line("peak", peak)), steps, metric="memory", zero=True)
