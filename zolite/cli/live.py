"""A run in the terminal: three readers of its events. Live panels, plain lines, or JSON.

A reader keeps nothing but a RunState, and never asks the run anything:

    with VIEWS[pick(plain=False, json=False)](verbose=False) as view:
        for event in train(run):
            view.show(event)
"""

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from zolite.cli.terminal import Terminal, say
from zolite.common.events import (
    Concluded,
    Continued,
    Evaluated,
    Event,
    Exported,
    Noted,
    Paused,
    Sampled,
    Started,
    StepDone,
    Working,
    to_json,
)
from zolite.common.text import human_bytes, human_number, human_rate, human_seconds, one_line
from zolite.monitor import summary
from zolite.monitor.log import log_line, sample_text, score_text, working_text
from zolite.monitor.outcome import card
from zolite.monitor.plots import Curve, Piece, bar, chart, flowing, sparkline
from zolite.monitor.run_state import RunState, advance

# --- one line of text an event ---------------------------------------------------------------------------------------


def line(event: Event, state: RunState, verbose: bool = False) -> str:
    """The event in words, `state` having taken it in."""
    match event:
        case StepDone():
            return _step_line(event, state, verbose)
        case Started():
            return _started_line(event)
        case Working():
            return working_text(event)
        case Evaluated():
            return f"step {event.step}  {score_text(event)} ({event.rows:,} rows, {event.seconds:.1f} s)"
        case Concluded():
            samples = [] if verbose else [state.samples[row] for row in sorted(state.samples)]
            return "\n".join(map(_plain, card(event, samples)))
        case Noted():
            return f"{'warning' if event.level == 'warning' else 'note'}: {one_line(event.message)}"
        case _:
            return f"step {event.step}  {log_line(event.step, event).text}"


def _started_line(event: Started) -> str:
    verb = "started" if event.step <= 1 else "resumed"
    place = f"{one_line(event.session)} {verb} at step {event.step} of {event.steps} on {one_line(event.device)}"
    return f"{place}: {event.trainable:,} trained parameters, {human_bytes(event.budget_bytes)} of memory free"


def _step_line(event: StepDone, state: RunState, verbose: bool) -> str:
    budget = f" of {human_bytes(state.started.budget_bytes)} free" if state.started else ""
    parts = [
        f"step {event.step} of {state.steps}",
        f"loss {human_number(state.moving.loss)}",
        human_rate(state.moving.rate),
        f"{human_seconds(state.left)} left",
        f"memory {human_bytes(event.memory_bytes)}{budget}",
    ]
    if event.skipped:
        parts.append("skipped, its loss is not finite")
    if verbose:
        parts += map(_plain, summary.details(state))
    return "  ".join(parts)


def _plain(pieces: Sequence[Piece]) -> str:
    return "".join(text for text, _ in pieces)


# --- the live view's rows: each makes lines for a terminal of this width and height ----------------------------------

STYLES = {
    "": "", "strong": "bold", "muted": "dim", "success": "green", "warning": "yellow", "error": "red", "accent": "cyan",
    "axis": "dim", "raw": "dim", "mean": "bold cyan", "full": "cyan", "empty": "dim", "mark": "bold",
}  # fmt: skip
"""What the names of styles in monitor/ are in a terminal."""
TREND_WIDTH = 30  # columns of a sparkline or a bar, at most


def text(pieces: Iterable[Piece]) -> Text:
    return Text.assemble(*((part, " ".join(STYLES[word] for word in style.split(" "))) for part, style in pieces))


def _flow(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts side by side, going on below where the terminal is too narrow."""
    lines = flowing([part.cell_len for part in parts], width)
    return [Text("   ").join(parts[i] for i in places) for places in lines]


def _title(state: RunState, width: int, height: int) -> Iterable[Text]:
    if state.started is None:
        return []
    return [text(summary.title(state))]


def _progress(state: RunState, width: int, height: int) -> Iterable[Text]:
    if state.working or not state.started:
        return _working(state, width)
    words = text(summary.progress(state))
    share = state.step / state.steps if state.steps else 0.0
    return [text([*bar(share, width - words.cell_len - 1), (" ", "")]) + words]


def _working(state: RunState, width: int) -> Iterable[Text]:
    """What is being done before the first step, or between two, with a bar where it can be counted."""
    found = state.working
    words = text(summary.working(state))
    room = min(TREND_WIDTH, width - words.cell_len - 3)
    drawn = bar(found.done / found.total, room) if found and found.total and room >= 10 else []
    return _flow([words, *([text(drawn)] if drawn else [])], width)


def _losses(state: RunState, width: int, height: int) -> Iterable[Text]:
    first, last = 1.0, float(max(2, state.step))
    curves = (
        Curve("loss", state.losses.window(first, last, 8 * width), "raw", "cloud"),
        Curve("smoothed", state.means.window(first, last, 4 * width), "mean"),
    )
    size = width, min(12, max(3, height // 3)) + 2
    return map(text, chart([curve for curve in curves if curve.points], (first, last), size, "braille"))


def _numbers(state: RunState, width: int, height: int) -> Iterable[Text]:
    return _flow([text(summary.loss(state)), text(summary.speed(state))], width) if state.step else []


def _evaluations(state: RunState, width: int, height: int) -> Iterable[Text]:
    for scores in summary.histories(state)[-3:]:
        words = text(summary.evaluation(scores))
        room = min(TREND_WIDTH, max(10, width - words.cell_len - 3))
        course = sparkline([e.value for e in scores[-room:]])
        said = [text(part) for part in summary.said(scores[-1])]
        yield from _flow([words, *([Text(course, "cyan")] if len(scores) > 1 else []), *said], width)


def _memory(state: RunState, width: int, height: int) -> Iterable[Text]:
    budget = state.started.budget_bytes if state.started else 0
    if not state.step or budget <= 0:
        return [text(summary.memory(state))] if state.step else []
    words = text(summary.memory(state))
    room = min(TREND_WIDTH, max(10, width - words.cell_len - 3))
    drawn = bar(state.memory_bytes / budget, room, mark=state.peak_bytes / budget)
    return _flow([words, text(drawn)], width)


def _details(state: RunState, width: int, height: int) -> Iterable[Text]:
    return _flow([text(part) for part in summary.details(state)], width) if state.step else []


def _samples(state: RunState, width: int, height: int) -> Iterable[Text]:
    """What is written now, a line a row; in full with --verbose and at the end."""
    for sampled in state.samples.values() if state.concluded is None else ():
        yield Text(sample_text(sampled), "dim")


def _tail(state: RunState, width: int, height: int) -> Iterable[Text]:
    if state.saved:
        yield Text(f"checkpoint saved at step {state.saved[-1]:,}", "dim")
    if state.warning:
        yield Text(f"▲ {state.warning}", "yellow")


def _outcome(state: RunState, width: int, height: int) -> Iterable[Text]:
    """At the end: whether it worked, with sample answers, and what comes next."""
    samples = [state.samples[row] for row in sorted(state.samples)]
    lines = card(state.concluded, samples) if state.concluded else []
    return [Text(), *map(text, lines)] if lines else []


ROWS = (_title, _progress, _losses, _numbers, _evaluations, _memory, _samples, _outcome, _tail)


def draw(state: RunState, width: int, height: int, verbose: bool = False) -> RenderableType:
    """The whole live display; every line is cut to the width, so none wraps."""
    rows = (*ROWS[:-1], _details, _tail) if verbose else ROWS
    lines = [drawn for row in rows for drawn in row(state, width, height)]
    for drawn in lines:
        drawn.no_wrap = True
        drawn.truncate(max(1, width), overflow="ellipsis")
    return Group(*lines)


# --- the views -------------------------------------------------------------------------------------------------------


class View(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def show(self, event: Event) -> None: ...


class LiveView:
    """Panels redrawn in place five times a second; evaluations, notes and exports scroll above them."""

    SCROLLED = (Evaluated, Noted, Paused, Continued, Exported)

    def __init__(self, console: Console | None = None, verbose: bool = False) -> None:
        self.state, self.verbose = RunState(), verbose
        self.console = console or Terminal()
        self._lock = threading.Lock()  # the state is drawn from another thread
        self.live = Live(console=self.console, refresh_per_second=5, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self.live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()  # draws the final state, then shows the cursor, whatever happened

    def show(self, event: Event) -> None:
        with self._lock:
            advance(self.state, event)
        if isinstance(event, self.SCROLLED) and _wanted(event, self.verbose):
            self.console.print(Text(line(event, self.state)))

    def _draw(self) -> RenderableType:
        with self._lock:
            return draw(self.state, *self.console.size, self.verbose)


class PlainView:
    """A line an event; of the steps the first, each tenth of the run, and otherwise one every two seconds."""

    EVERY = 2.0

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, verbose: bool = False
    ) -> None:
        self.state, self.verbose = RunState(), verbose
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
        if _wanted(event, self.verbose):
            say(line(event, self.state, self.verbose), self.stream)


def _wanted(event: Event, verbose: bool) -> bool:
    """Details are for who asked for them."""
    return verbose or not (isinstance(event, Sampled) or (isinstance(event, Noted) and event.level == "detail"))


class JsonView:
    """A JSON object an event, nothing held back."""

    def __init__(self, stream: TextIO | None = None, verbose: bool = False) -> None:
        self.stream = stream or sys.stdout

    def __enter__(self) -> Self:
        if isinstance(self.stream, io.TextIOWrapper):  # JSON is UTF-8 even where the terminal is not
            self.stream.reconfigure(encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.flush()

    def show(self, event: Event) -> None:
        say(to_json(event), self.stream)


class _Maker(Protocol):
    def __call__(self, *, verbose: bool = False) -> View: ...


VIEWS: dict[str, _Maker] = {"live": LiveView, "plain": PlainView, "json": JsonView}


def pick(plain: bool, json: bool) -> str:
    """Which of VIEWS: JSON where asked for, live on a terminal that can draw it, else plain."""
    if json:
        return "json"
    moves = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    draws = (sys.stdout.encoding or "").lower().startswith("utf")  # the chart is braille
    return "live" if moves and draws and not plain else "plain"
