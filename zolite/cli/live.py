"""A run in the terminal: three readers of its events. Live panels, plain lines, or JSON.

A reader keeps nothing but a RunState, and never asks the run anything:

    with VIEWS[pick(plain=False, json=False)]() as view:
        for event in train(run):
            view.show(event)
"""

import io
import os
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from zolite.common.events import (
    Continued,
    Evaluated,
    Event,
    Exported,
    Finished,
    Noted,
    Paused,
    Saved,
    Started,
    StepDone,
    to_json,
)
from zolite.common.text import human_bytes, human_number, human_rate, human_seconds, one_line
from zolite.monitor.ema import Moving
from zolite.monitor.plots import sparkline, usable
from zolite.monitor.run_state import metric_text

KEPT = 512  # points of a curve that are remembered, however long the run


# --- what is known about the run -------------------------------------------------------------------------------------


@dataclass
class History:
    """One metric on one split. A row whose value is not finite is never the best."""

    last: Evaluated
    best: Evaluated
    values: list[float]

    def add(self, event: Evaluated) -> None:
        self.last = event
        self.values = [*self.values[1 - KEPT :], event.value]
        higher_wins = event.metric == "accuracy"
        better = event.value > self.best.value if higher_wins else event.value < self.best.value
        if better or isnan(self.best.value):
            self.best = event


@dataclass
class RunState:
    """Everything a view shows, changed by `advance` alone.

    The live view is drawn from another thread: lists are appended to or replaced, never shortened in place.
    """

    started: Started | None = None
    finished: Finished | None = None
    last: StepDone | None = None
    step: int = 0
    skipped: int = 0
    losses: list[tuple[int, float, float]] = field(default_factory=list)  # (step, loss, moving mean), thinned
    stride: int = 1  # one finite loss in this many is kept
    measured: int = 0  # finite losses seen
    moving: Moving = field(default_factory=Moving)
    evals: list[History] = field(default_factory=list)
    saved: int | None = None
    warning: str = ""

    @property
    def steps(self) -> int:
        return self.started.steps if self.started else 0

    @property
    def left(self) -> float:
        """Seconds until the last step."""
        return self.moving.left(self.steps - self.step)


def advance(state: RunState, event: Event) -> None:
    """Take in one event."""
    match event:
        case Started():
            state.started, state.step, state.finished = event, max(0, event.step - 1), None
        case StepDone():
            _advance_step(state, event)
        case Evaluated():
            _advance_evals(state, event)
        case Saved():
            state.saved = event.step
        case Noted(level="warning"):
            state.warning = one_line(event.message)
        case Finished():
            state.finished, state.skipped = event, event.skipped
        case _:
            pass


def _advance_step(state: RunState, event: StepDone) -> None:
    state.last, state.step = event, event.step
    state.moving.took(max(0.0, event.seconds))
    if event.skipped or not usable(event.loss):
        state.skipped += 1
        return
    state.moving.lost(event.loss)
    if state.measured % state.stride == 0:
        state.losses.append((event.step, event.loss, state.moving.loss))
    state.measured += 1
    if len(state.losses) > KEPT:
        state.losses, state.stride = state.losses[::2], state.stride * 2


def _advance_evals(state: RunState, event: Evaluated) -> None:
    for history in state.evals:
        if (history.last.split, history.last.metric) == (event.split, event.metric):
            history.add(event)
            return
    state.evals.append(History(event, event, [event.value]))


# --- one line of text an event ---------------------------------------------------------------------------------------

REASONS = {"done": ("✓", "green"), "interrupted": ("■", "yellow"), "diverged": ("✗", "red")}


def line(event: Event, state: RunState) -> str:
    """The event in words, `state` having taken it in."""
    match event:
        case Started():
            return _started_line(event)
        case StepDone():
            return _step_line(event, state)
        case Evaluated():
            return _evaluated_line(event)
        case Saved() | Exported():
            return f"step {event.step}  {type(event).__name__.lower()} {one_line(event.path)}"
        case Noted():
            return f"{'warning' if event.level == 'warning' else 'note'}: {one_line(event.message)}"
        case Paused():
            return f"step {event.step}  paused"
        case Continued():
            return f"step {event.step}  going on"
        case Finished():
            return f"{_ending(event)}, {event.skipped} skipped, peak {human_bytes(event.peak_bytes)}"


def _evaluated_line(event: Evaluated) -> str:
    what = one_line(f"{event.split} {event.metric}")
    return f"step {event.step}  {what} {metric_text(event)} ({event.rows} rows, {event.seconds:.1f} s)"


def _started_line(event: Started) -> str:
    verb = "started" if event.step <= 1 else "resumed"
    return (
        f"{verb} {one_line(event.session)} at step {event.step} of {event.steps} on {one_line(event.device)},"
        f" training {event.trainable:,} numbers, {human_bytes(event.budget_bytes)} free for it"
    )


def _step_line(event: StepDone, state: RunState) -> str:
    loss = "skipped, loss not finite" if event.skipped else f"loss {human_number(event.loss)}"
    budget = f" of {human_bytes(state.started.budget_bytes)}" if state.started else ""
    parts = (
        f"step {event.step}/{state.steps}",
        loss + ("" if isnan(state.moving.loss) else f" (mean {human_number(state.moving.loss)})"),
        human_rate(state.moving.rate),
        f"{human_seconds(state.left)} left",
        f"memory {human_bytes(event.memory_bytes)}, peak {human_bytes(event.peak_bytes)}{budget}",
    )
    return "  ".join(parts)


def _ending(event: Finished) -> str:
    return f"{one_line(event.reason)} at step {event.step} after {human_seconds(event.seconds)}"


# --- drawing ---------------------------------------------------------------------------------------------------------

BRAILLE = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # the bit of each dot: [column][row]
Dots = set[tuple[int, int]]  # (column, row) on the braille grid, row 0 on top


def bar(fraction: float, width: int, mark: float | None = None) -> Text:
    """A heavy line over a light one, told apart without colour; `mark` is a second place on it."""
    width = max(0, width)
    place = [min(width, max(0, round(f * width))) if isfinite(f) else 0 for f in (fraction, mark or 0.0)]
    text = Text("━" * place[0], style="cyan") + Text("─" * (width - place[0]), style="dim")
    if mark is None or not width:
        return text
    at = min(width - 1, max(0, place[1] - 1))
    return text[:at] + Text("┃", style="bold") + text[at + 1 :]


def chart(losses: Sequence[tuple[int, float, float]], width: int, rows: int) -> list[Text]:
    """The losses as dots and their moving mean as a line, with labels left and below."""
    low, high = _span(losses)
    heights = {row: high - (high - low) * row / (rows - 1) for row in (0, rows // 2, rows - 1)}
    labels = {row: human_number(value) for row, value in heights.items()}
    margin = max(map(len, labels.values()))
    columns = width - margin - 2
    if columns < 8:
        return []
    grid = _Grid(losses[0][0], losses[-1][0], low, high, 2 * columns, 4 * rows)
    dots = _braille({grid.at(step, loss) for step, loss, _ in losses})
    curve = _braille(grid.curve([(step, mean) for step, _, mean in losses]))
    body = [Text(f"{labels.get(r, ''):>{margin}} ┤", "dim") + _cells(dots, curve, columns, r) for r in range(rows)]
    first, last = f"step {losses[0][0]}", f"step {losses[-1][0]}"
    room = columns - len(first) - len(last)
    legend = "·  loss   ⠒ its mean"
    axis = f"{first}{legend if room > len(legend) + 1 else '':^{max(1, room)}}{last}"
    return [*body, Text(" " * (margin + 2) + axis, "dim")]


def _span(losses: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    """The values the chart covers: all but the outermost hundredths, so that one bad batch does not flatten it."""
    ordered = sorted(loss for _, loss, _ in losses)
    cut = len(ordered) // 100
    means = [mean for _, _, mean in losses]
    low, high = min(ordered[cut], *means), max(ordered[-1 - cut], *means)
    room = 0.0 if high > low else max(0.05, abs(high) * 0.05)
    return low - room, high + room


@dataclass(frozen=True)
class _Grid:
    """Steps and losses to dots."""

    first: int
    last: int
    low: float
    high: float
    columns: int
    rows: int

    def at(self, step: float, loss: float) -> tuple[int, int]:
        across = (step - self.first) / max(1, self.last - self.first)
        down = (self.high - min(self.high, max(self.low, loss))) / (self.high - self.low)
        return round(across * (self.columns - 1)), round(down * (self.rows - 1))

    def curve(self, points: Sequence[tuple[int, float]]) -> Dots:
        """A connected line through the points, drawn column by column."""
        steps = [step for step, _ in points]
        dots: Dots = set()
        before = self.at(*points[0])[1]
        for column in range(self.columns if len(points) > 1 else 1):
            step = self.first + column * (self.last - self.first) / (self.columns - 1)
            row = self.at(step, _between(steps, points, step))[1]
            nearer = before + (row > before) - (row < before)
            dots |= {(column, r) for r in range(min(nearer, row), max(nearer, row) + 1)}
            before = row
        return dots


def _between(steps: Sequence[int], points: Sequence[tuple[int, float]], step: float) -> float:
    """The value at `step` on the straight line between its neighbours."""
    right = min(max(1, bisect_right(steps, step)), len(points) - 1)
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    return y1 if x1 <= x0 else y0 + (y1 - y0) * (step - x0) / (x1 - x0)


def _braille(dots: Dots) -> dict[tuple[int, int], str]:
    """The characters that show the dots, by (column, row) of the terminal."""
    bits: dict[tuple[int, int], int] = {}
    for x, y in dots:
        cell = x // 2, y // 4
        bits[cell] = bits.get(cell, 0x2800) | BRAILLE[x % 2][y % 4]
    return {cell: chr(code) for cell, code in bits.items()}


def _cells(dots: dict[tuple[int, int], str], curve: dict[tuple[int, int], str], columns: int, row: int) -> Text:
    """One row of the chart. Where the mean passes the losses give way: it reads as a line without colour."""
    text = Text()
    for cell in ((column, row) for column in range(columns)):
        text.append(curve.get(cell) or dots.get(cell) or " ", "bold cyan" if cell in curve else "dim")
    return text


# --- the live view's rows: each makes lines for a terminal of this width and height ----------------------------------


def _title(state: RunState, width: int, height: int) -> Iterable[Text]:
    if state.started is None:
        return [Text("waiting for the run to start …", "dim")]
    s = state.started
    about = f"  {one_line(s.device)} · {s.trainable:,} numbers trained"
    session = Text(one_line(s.session), "bold")
    session.truncate(max(12, width - len(about)), overflow="ellipsis")
    return [session + Text(about, "dim")]


def _progress(state: RunState, width: int, height: int) -> Iterable[Text]:
    share = min(1.0, state.step / state.steps) if state.steps else 0.0
    place = f" {state.step:,}/{state.steps:,}  {int(share * 100)}%"
    if state.finished:
        symbol, style = REASONS.get(state.finished.reason, ("■", "yellow"))
        done = f"{one_line(state.finished.reason)} in {human_seconds(state.finished.seconds)}"
        end = Text(place) + Text(f"  {symbol} {done}", style)
    else:
        end = Text(f"{place}  {human_seconds(state.left)} left")
    return [bar(share, width - end.cell_len) + end]


def _losses(state: RunState, width: int, height: int) -> Iterable[Text]:
    losses = state.losses
    if not losses:
        return [Text("no loss yet", "dim")]
    return chart(losses, width, min(12, max(3, height // 3)))


def _numbers(state: RunState, width: int, height: int) -> Iterable[Text]:
    if state.last is None:
        return []
    loss = "skipped" if state.last.skipped else human_number(state.last.loss)
    mean = human_number(state.moving.loss)
    skipped = Text(f"▲ {state.skipped:,} skipped" if state.skipped else "0 skipped", "yellow" if state.skipped else "")
    words = (f"loss {loss}", f"mean {mean}", human_rate(state.moving.rate), f"lr {state.last.lr:.3g}")
    return _flow([*map(Text, words), skipped], width)


def _flow(parts: Iterable[Text], width: int) -> list[Text]:
    """The parts side by side, going on below where the terminal is too narrow."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= width:
            lines[-1] = lines[-1] + Text("   ") + part
        else:
            lines.append(part)
    return lines


def _evals(state: RunState, width: int, height: int) -> Iterable[Text]:
    for history in state.evals[-3:]:
        last, best = history.last, history.best
        head = Text(f"{one_line(f'{last.split} {last.metric}')} {metric_text(last)}", "bold")
        tail = Text(f"best {metric_text(best)} at step {best.step}").append(f", {last.rows} rows", "dim")
        room = min(30, max(10, width - head.cell_len - tail.cell_len - 6))
        course = [Text(sparkline(history.values[-room:]), "cyan")] if len(history.values) > 1 else []
        yield from _flow([head, *course, tail], width)


FILLED = ((0.9, "✓ fits", "green"), (1.0, "▲ tight", "yellow"), (float("inf"), "✗ over", "red"))


def _memory(state: RunState, width: int, height: int) -> Iterable[Text]:
    if state.last is None:
        return []
    now, peak = state.last.memory_bytes, state.last.peak_bytes
    words = Text(f"memory {human_bytes(now)} now, {human_bytes(peak)} peak")
    budget = state.started.budget_bytes if state.started else 0
    if budget <= 0:
        return [words]
    words.append(f" of {human_bytes(budget)}")
    word, style = next((word, style) for limit, word, style in FILLED if peak / budget <= limit)
    room = min(30, max(10, width - words.cell_len - len(word) - 6))
    return _flow([words, Text(word, style), bar(now / budget, room, peak / budget)], width)


def _tail(state: RunState, width: int, height: int) -> Iterable[Text]:
    if state.saved is not None:
        yield Text(f"saved step {state.saved:,}", "dim")
    if state.warning:
        yield Text(f"▲ warning: {state.warning}", "yellow")


ROWS = (_title, _progress, _losses, _numbers, _evals, _memory, _tail)


def draw(state: RunState, width: int, height: int) -> RenderableType:
    """The whole live display; every line is cut to the width, so none wraps."""
    lines = [text for row in ROWS for text in row(state, width, height)]
    for text in lines:
        text.no_wrap = True
        text.truncate(max(1, width), overflow="ellipsis")
    return Group(*lines)


# --- the views -------------------------------------------------------------------------------------------------------


class View(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def show(self, event: Event) -> None: ...


class LiveView:
    """Panels redrawn in place five times a second; evaluations, notes and exports scroll above them."""

    SCROLLED = (Evaluated, Noted, Paused, Continued, Exported)

    def __init__(self, console: Console | None = None) -> None:
        self.state = RunState()
        self.console = console or Console()
        self.live = Live(console=self.console, refresh_per_second=5, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self.live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()  # draws the final state, then shows the cursor, whatever happened

    def show(self, event: Event) -> None:
        advance(self.state, event)
        if isinstance(event, self.SCROLLED):
            self.console.print(Text(line(event, self.state)))

    def _draw(self) -> RenderableType:
        return draw(self.state, *self.console.size)


class PlainView:
    """A line an event; of the steps the first, each tenth of the run, and otherwise one every two seconds."""

    EVERY = 2.0

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = RunState()
        self.stream, self.clock = stream or sys.stdout, clock
        self.shown = -float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.flush()

    def show(self, event: Event) -> None:
        advance(self.state, event)
        if isinstance(event, StepDone):
            now, tenth = self.clock(), max(1, self.state.steps // 10)
            if now - self.shown < self.EVERY and event.step % tenth:
                return
            self.shown = now
        _write(self.stream, line(event, self.state))


class JsonView:
    """A JSON object an event, nothing held back."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout

    def __enter__(self) -> Self:
        if isinstance(self.stream, io.TextIOWrapper):  # JSON is UTF-8 even where the terminal is not
            self.stream.reconfigure(encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.flush()

    def show(self, event: Event) -> None:
        _write(self.stream, to_json(event))


def _write(stream: TextIO, text: str) -> None:
    """Flushed, so that whoever reads the other end of a pipe sees it now."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


VIEWS: dict[str, Callable[[], View]] = {"live": LiveView, "plain": PlainView, "json": JsonView}


def pick(plain: bool, json: bool) -> str:
    """Which of VIEWS: JSON where asked for, live on a terminal that can draw it, else plain."""
    if json:
        return "json"
    moves = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    draws = (sys.stdout.encoding or "").lower().startswith("utf")  # the chart is braille
    return "live" if moves and draws and not plain else "plain"
