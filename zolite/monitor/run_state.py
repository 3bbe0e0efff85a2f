"""What is known of a run, for every view of it: from its events, or from what its journal says. No clock, no file.

state = RunState(about)
advance(state, event)           in the terminal, each event as it comes
state = updated(state, news)    where a journal is read, a page at a time; however it is cut up, the state is the same
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, nan

from zolite.common.events import (
    Concluded,
    Continued,
    Evaluated,
    Event,
    Finished,
    Noted,
    Paused,
    Sampled,
    Saved,
    Started,
    StepDone,
    Working,
)
from zolite.common.text import one_line
from zolite.config.recipe import ResolvedRecipe
from zolite.monitor.ema import Moving
from zolite.monitor.log import LogLine, log_line
from zolite.monitor.series import HUGE, Series, usable
from zolite.monitor.statistics import RECENT, GradientStats, Trend, gradient_stats, signal_to_noise, trend
from zolite.sessions.follow import News
from zolite.sessions.journal import SKIPPED, MemoryRow, StepRow, floats

GRADIENTS = 1000  # projected gradients that are kept for their histogram
LOGGED = 500  # lines of the log that are kept


@dataclass(frozen=True)
class About:
    """What is known of a run before its first step."""

    name: str = ""
    model: str = ""
    quant: str = ""
    method: str = ""
    space: str = ""
    rank: int = 0
    batch: int = 0
    steps: int = 0
    device: str = ""
    data: str = ""  # path of the rows

    @classmethod
    def of(cls, name: str, recipe: ResolvedRecipe, device: str) -> "About":
        r = recipe
        return cls(
            name, r.model.name, r.model.quant, r.method.name, r.adapter.space, r.adapter.rank, r.train.batch,
            r.train.steps, device, r.data.path,
        )  # fmt: skip


@dataclass
class RunState:
    """Changed by `advance` alone. Steps that come once more were rolled back: what was known of them is forgotten."""

    about: About = field(default_factory=About)
    running: bool = False
    working: Working | None = None  # on what, before the first step and between two
    started: Started | None = None
    finished: Finished | None = None
    concluded: Concluded | None = None  # what came of it, where somebody said so
    paused: bool = False
    step: int = 0
    last_loss: float = nan  # of the last step; not a number where it was skipped
    memory_bytes: int = 0
    peak_bytes: int = 0
    skipped: int = 0
    losses: Series = field(default_factory=Series)
    means: Series = field(default_factory=Series)  # the smoothed loss
    speeds: Series = field(default_factory=Series)  # steps a second, smoothed
    memories: Series = field(default_factory=Series)  # bytes in use
    rates: Series = field(default_factory=Series)  # learning rate
    scales: Series = field(default_factory=Series)  # ε; from a journal only, as all of what follows on gradients
    noise_ratios: Series = field(default_factory=Series)  # signal-to-noise of each RECENT / 4 projected gradients
    gradients: deque[float] = field(default_factory=lambda: deque(maxlen=GRADIENTS))  # projected
    gathered: list[float] = field(default_factory=list)  # of them, those that the next ratio is of
    evaluations: list[Evaluated] = field(default_factory=list)
    samples: dict[int, Sampled] = field(default_factory=dict)  # by row, the newest
    saved: list[int] = field(default_factory=list)
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOGGED))
    logged: int = 0  # lines ever logged, so that a view knows which are new
    warning: str = ""
    moving: Moving = field(default_factory=Moving)

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
    def left(self) -> float:
        """Seconds until the last step."""
        return self.moving.left(self.steps - self.step)

    @property
    def trend(self) -> Trend:
        return trend(*self.losses.tail(RECENT))

    @property
    def gradient_stats(self) -> GradientStats:
        return gradient_stats(list(self.gradients)[-RECENT:])

    def dev(self) -> list[Evaluated]:
        """The evaluations that say which step is best."""
        return [e for e in self.evaluations if e.split == "dev"]

    def best(self) -> Evaluated | None:
        return best_of(self.dev())


def best_of(scores: Sequence[Evaluated]) -> Evaluated | None:
    """The highest accuracy or the lowest loss, the first of equal ones; never one that is not a number."""
    known = [e for e in scores if isfinite(e.value)]
    return max(known, key=lambda e: e.value if e.metric == "accuracy" else -e.value, default=None)


def updated(state: RunState, news: News) -> RunState:
    """With what is new in the journal. The same state, or another one where the news begins anew."""
    state = RunState(state.about) if news.fresh else state
    _steps(state, news.rows)
    for point in news.memory:
        advance(state, point)
    for step, event in news.events:
        advance(state, event, step)
    state.running, state.working = news.running, news.working
    return state


def advance(state: RunState, what: Event | StepRow | MemoryRow, at: int | None = None) -> None:
    """Take in one event, at a step, or what a journal has in its place: a row of a step, a point of memory."""
    state.working = what if isinstance(what, Working) else None
    match what:
        case StepRow():
            _steps(state, (what,))
        case StepDone():
            _step(state, what)
            state.peak_bytes = max(state.peak_bytes, what.peak_bytes)
        case MemoryRow():
            state.peak_bytes = max(state.peak_bytes, what.peak_bytes)
        case Working():  # nothing has happened
            pass
        case Concluded():  # made of what happened
            state.concluded = what
        case Sampled():  # shown by themselves, and not among what happened
            state.samples[what.row] = what
        case _:
            _event(state, what)
            state.log.append(log_line(getattr(what, "step", state.step) if at is None else at, what))
            state.logged += 1


def _steps(state: RunState, rows: Sequence[StepRow]) -> None:
    """A page of a journal, whose steps ascend. All at once, since a long run has millions."""
    if not rows:
        return
    if rows[0].step <= state.step:
        _roll_back(state, rows[0].step - 1)
    losses = [row.loss for row in rows]
    taken = [(row, loss) for row, loss in zip(rows, losses, strict=True) if _counts(row, loss)]
    steps, known, last = [row.step for row, _ in taken], [loss for _, loss in taken], rows[-1]
    state.step, state.finished, state.memory_bytes = last.step, None, last.memory_bytes
    state.peak_bytes = max(state.peak_bytes, max(row.memory_bytes for row in rows))
    state.skipped += len(rows) - len(taken)
    state.last_loss = losses[-1] if _counts(last, losses[-1]) else nan
    state.speeds.extend([row.step for row in rows], state.moving.took_all(row.seconds for row in rows))
    state.losses.extend(steps, known)
    state.means.extend(steps, state.moving.lost_all(known))
    for series, values in (
        (state.rates, [row.lr for row in rows]),
        (state.scales, [row.eps for row in rows]),
        (state.memories, [float(row.memory_bytes) for row in rows]),
    ):
        if {*values} != {series.newest}:
            for row, value in zip(rows, values, strict=True):
                _changed(series, row.step, value)
    _measured(state, [row for row, _ in taken])


def _counts(row: StepRow, loss: float) -> bool:
    return not row.flags & SKIPPED and -HUGE < loss < HUGE  # `usable`, in place


def _step(state: RunState, row: StepDone) -> None:
    if row.step <= state.step:
        _roll_back(state, row.step - 1)
    state.step, state.finished, state.memory_bytes = row.step, None, row.memory_bytes
    state.peak_bytes = max(state.peak_bytes, row.memory_bytes)
    state.moving.took(row.seconds)
    state.speeds.append(row.step, state.moving.rate if isfinite(state.moving.rate) else 0.0)
    _changed(state.rates, row.step, row.lr)
    _changed(state.memories, row.step, row.memory_bytes)
    loss = row.loss
    if row.skipped or not usable(loss):
        state.skipped, state.last_loss = state.skipped + 1, nan
        return
    state.moving.lost(loss)
    state.last_loss = loss
    state.losses.append(row.step, loss)
    state.means.append(row.step, state.moving.loss)


def _changed(series: Series, step: int, value: float) -> None:
    """A value that stands still is kept once."""
    if isfinite(value) and value != series.newest:
        series.append(step, value)


def _measured(state: RunState, rows: Sequence[StepRow]) -> None:
    """What only a journal knows of steps: their projected gradients."""
    for row in rows:
        found = [c for c in floats(row.coefs) if -HUGE < c < HUGE]
        state.gradients.extend(found)
        state.gathered += found
        if len(state.gathered) >= RECENT // 4:
            ratio = signal_to_noise(state.gathered)
            if isfinite(ratio):
                state.noise_ratios.append(row.step, ratio)
            state.gathered = []


def _roll_back(state: RunState, step: int) -> None:
    """Forget what comes after a step; what gradients say of those before is gathered anew."""
    kept = (state.losses, state.means, state.speeds, state.memories, state.rates, state.scales, state.noise_ratios)
    for series in kept:
        series.truncate(step)
    state.moving.forget_losses()
    state.gradients.clear()
    state.gathered = []
    state.evaluations = [e for e in state.evaluations if e.step <= step]
    state.samples = {row: sampled for row, sampled in state.samples.items() if sampled.step <= step}
    state.saved = [saved for saved in state.saved if saved <= step]


def _event(state: RunState, event: Event) -> None:
    match event:
        case Started():
            state.started, state.finished, state.paused, state.running = event, None, False, True
            state.concluded = None
            state.step = max(state.step, event.step - 1)
        case Evaluated():
            state.evaluations.append(event)
        case Saved():
            state.saved.append(event.step)
        case Paused() | Continued():
            state.paused = isinstance(event, Paused)
        case Noted(level="warning"):
            state.warning = one_line(event.message)
        case Finished():
            state.finished, state.paused, state.running = event, False, False
        case _:
            pass
