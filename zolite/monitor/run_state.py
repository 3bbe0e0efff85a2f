"""What a Run screen shows, from what a journal says: no clock, no file, no widget.

state = RunState(about)
advance(state, news)      as often as there is news; however it is cut up, the state is the same
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan, sqrt
from statistics import fmean, pstdev
from struct import unpack
from typing import NamedTuple

from zolite.common.events import Continued, Evaluated, Event, Exported, Finished, Noted, Paused, Saved, Started
from zolite.common.text import human_bytes, human_number, human_seconds, one_line
from zolite.monitor.ema import Moving
from zolite.monitor.plots import HUGE
from zolite.monitor.series import Series
from zolite.sessions.journal import SKIPPED, MemoryRow, StepRow

RECENT = 200  # steps that the signal is measured over
SLOPES = 1000  # projected gradients in the histogram
TOLD = 500  # events that are remembered
REDRAWS = 10  # a second, at most
SHARE = 0.022  # of a core that drawing a run may take; reading it and being there take as much again
SLOWEST = 1.5  # seconds between two redraws, whatever they take


def metric_text(event: Evaluated) -> str:
    """46.0% for an accuracy, 1.312 for a loss."""
    return f"{event.value:.1%}" if event.metric == "accuracy" else f"{human_number(event.value)}"


@dataclass(frozen=True)
class About:
    """What is known of a run before its first step."""

    name: str
    model: str = ""
    quant: str = ""
    method: str = ""
    space: str = ""
    rank: int = 0
    batch: int = 0
    steps: int = 0
    device: str = ""


@dataclass(frozen=True)
class News:
    """What a journal has got since the last look."""

    rows: Sequence[StepRow] = ()
    told: Sequence[tuple[int, Event]] = ()  # with the step that they belong to
    memory: Sequence[MemoryRow] = ()
    running: bool = False  # does a process write it?
    fresh: bool = False  # all there is: steps were taken back


class Told(NamedTuple):
    """A line of the event log."""

    step: int
    symbol: str
    text: str
    level: str = ""  # "warning" and "error" stand out


@dataclass
class RunState:
    """Changed by `advance` alone."""

    about: About
    running: bool = False
    looked: bool = False  # there was news at least once
    started: Started | None = None
    finished: Finished | None = None
    paused: bool = False
    last: StepRow | None = None
    peak_bytes: int = 0
    skipped: int = 0
    losses: Series = field(default_factory=Series)
    means: Series = field(default_factory=Series)  # the smoothed loss
    rates: Series = field(default_factory=Series)  # learning rate
    scales: Series = field(default_factory=Series)  # ε
    ratios: Series = field(default_factory=Series)  # signal to noise of each RECENT / 4 steps
    slopes: deque[float] = field(default_factory=lambda: deque(maxlen=SLOPES))
    scores: list[Evaluated] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    told: deque[Told] = field(default_factory=lambda: deque(maxlen=TOLD))
    count: int = 0  # events ever told, so that a log knows which are new
    moving: Moving = field(default_factory=Moving)
    block: list[float] = field(default_factory=list)  # slopes of the ratio that is being gathered

    @property
    def step(self) -> int:
        return self.last.step if self.last else 0

    @property
    def steps(self) -> int:
        return self.started.steps if self.started else self.about.steps

    @property
    def status(self) -> str:
        """starting, running, paused; or how it ended: done, interrupted, diverged, stopped."""
        if self.running:
            begun = self.started is not None and self.finished is None
            return "starting" if not begun else "paused" if self.paused else "running"
        return self.finished.reason if self.finished else "stopped"

    @property
    def loss(self) -> float:
        """The last finite one."""
        return nan if self.losses.newest is None else self.losses.newest

    @property
    def left(self) -> float:
        """Seconds until the last step."""
        return self.moving.left(self.steps - self.step)

    def dev(self) -> list[Evaluated]:
        """The evaluations that say which step is best."""
        return [e for e in self.scores if e.split == "dev"]

    def best(self) -> Evaluated | None:
        known = [e for e in self.dev() if isfinite(e.value)]
        return max(known, key=lambda e: e.value if e.metric == "accuracy" else -e.value, default=None)


def advance(state: RunState, news: News) -> RunState:
    """Take in what is new. The same state, or another one where the news begins anew."""
    state = RunState(state.about) if news.fresh else state
    state.running, state.looked = news.running, True
    for row in news.rows:
        _step(state, row)
    state.peak_bytes = max([state.peak_bytes, *(point.peak_bytes for point in news.memory)])
    for step, event in news.told:
        _event(state, step, event)
    return state


def _step(state: RunState, row: StepRow) -> None:
    state.last, state.finished = row, None
    state.peak_bytes = max(state.peak_bytes, row.memory_bytes)
    state.moving.took(max(0.0, row.seconds) if isfinite(row.seconds) else 0.0)
    for series, value in ((state.rates, row.lr), (state.scales, row.eps)):
        if isfinite(value) and value != series.newest:
            series.append(row.step, value)
    losses = _floats(row.losses)
    loss = fmean(losses) if losses else nan
    if row.flags & SKIPPED or not isfinite(loss) or abs(loss) >= HUGE:
        state.skipped += 1
        return
    state.moving.lost(loss)
    state.losses.append(row.step, loss)
    state.means.append(row.step, state.moving.loss)
    _slopes(state, row)


def _slopes(state: RunState, row: StepRow) -> None:
    found = [c for c in _floats(row.coefs) if isfinite(c) and abs(c) < HUGE]
    state.slopes.extend(found)
    state.block += found
    if len(state.block) >= RECENT // 4:
        state.ratios.append(row.step, _ratio(state.block))
        state.block = []


def _floats(blob: bytes) -> tuple[float, ...]:
    return unpack(f"<{len(blob) // 4}f", blob[: len(blob) // 4 * 4])


def _event(state: RunState, step: int, event: Event) -> None:
    match event:
        case Started():
            state.started, state.finished, state.paused = event, None, False
        case Evaluated():
            state.scores.append(event)
        case Saved():
            state.saved.append(event.step)
        case Paused() | Continued():
            state.paused = isinstance(event, Paused)
        case Finished():
            state.finished, state.paused = event, False
        case _:
            pass
    state.told.append(_told(step, event))
    state.count += 1


SYMBOLS = {
    Started: "▶", Evaluated: "◆", Saved: "↓", Paused: "‖", Continued: "▶", Exported: "→", Noted: "·", Finished: "■",
}  # fmt: skip
ENDS = {"done": "✓", "interrupted": "■", "diverged": "✗", "stopped": "✗"}


def _told(step: int, event: Event) -> Told:
    symbol, level = SYMBOLS.get(type(event), "·"), ""
    match event:
        case Started():
            text = f"{'started' if event.step <= 1 else 'resumed'} on {one_line(event.device)}"
        case Evaluated():
            text = f"{one_line(event.split)} {event.metric} {metric_text(event)} on {event.rows} rows"
        case Saved():
            text = "checkpoint saved"
        case Paused():
            text = "paused"
        case Continued():
            text = "going on"
        case Exported():
            text = f"exported to {one_line(event.path)}"
        case Noted():
            text, level = one_line(event.message), "warning" if event.level == "warning" else ""
            symbol = "▲" if level else symbol
        case Finished():
            symbol, level = ENDS.get(event.reason, symbol), "error" if event.reason == "diverged" else ""
            peak = human_bytes(event.peak_bytes)
            text = f"{one_line(event.reason)} after {human_seconds(event.seconds)}, peak {peak}"
        case _:
            text = type(event).__name__.lower()
    return Told(step, symbol, text, level)


# --- what is worked out of it ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """Do the last steps say anything?

    A slope is a projected gradient. Its direction is drawn with either sign alike, so that where directions are not
    guided by earlier ones the ratio is chance, ± `error`; the trend of the loss is what says that a run learns.
    """

    ratio: float  # mean of the slopes over their standard deviation
    error: float  # what chance alone makes of it
    size: float  # mean absolute slope
    trend: float  # of the loss, nats a hundred steps
    trend_error: float

    @property
    def verdict(self) -> str:
        if not isfinite(self.trend_error):
            return "too early to say"
        if abs(self.trend) < 2 * self.trend_error:
            return "no trend beyond noise"
        return "falling" if self.trend < 0 else "rising"


def signal(state: RunState) -> Signal:
    slopes = list(state.slopes)[-RECENT:]
    error = 1 / sqrt(len(slopes)) if slopes else nan
    size = fmean(map(abs, slopes)) if slopes else nan
    return Signal(_ratio(slopes), error, size, *_trend(*state.losses.tail(RECENT)))


def _ratio(values: Sequence[float]) -> float:
    spread = pstdev(values) if len(values) > 1 else 0.0
    return fmean(values) / spread if spread > 0 else nan


def _trend(steps: Sequence[int], losses: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line and its standard error, of a hundred steps."""
    n = len(steps)
    if n < 10:
        return nan, nan
    x0, y0 = fmean(steps), fmean(losses)
    sxx = sum((x - x0) ** 2 for x in steps)
    slope = sum((x - x0) * (y - y0) for x, y in zip(steps, losses, strict=True)) / sxx
    rest = sum((y - y0 - slope * (x - x0)) ** 2 for x, y in zip(steps, losses, strict=True))
    return 100 * slope, 100 * sqrt(rest / (n - 2) / sxx)


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


@dataclass
class Pace:
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
