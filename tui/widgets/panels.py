"""The panels of a run as text: each a function of its state and its size, and a widget that shows one."""

from collections.abc import Callable, Sequence
from math import isfinite

from textual.app import RenderResult
from textual.content import Content
from textual.widget import Widget

from zolite.common.text import UNKNOWN, human_bytes, human_number, human_rate, human_seconds, one_line
from zolite.monitor.plots import sparkline
from zolite.monitor.run_state import RunState, Signal, Told, histogram, metric_text, signal
from zolite.planner.memory import Ledger

from ..states import STATES
from .canvas import sampled

Draw = Callable[[int, int], Content]
"""A panel of that width and height."""

MUTED, FAINT = "$foreground 60%", "$foreground 30%"
STARTING = ("◐", "starting", "accent")
BAR = {"braille": ("━", "─"), "block": ("█", "░"), "ascii": ("#", "-")}
ASCII_LEVELS = " .:-=+*#"


class Panel(Widget):
    """Shows what `draw` makes for the room there is."""

    DEFAULT_CSS = """
    Panel { border: round $panel; border-title-color: $text-muted; padding: 0 1; height: auto; width: 1fr; }
    Panel:focus { border: round $primary; }
    """

    def __init__(self, title: str, draw: Draw, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.border_title, self.draw = title, draw
        self._shown = Content("")

    def redraw(self) -> None:
        """Only where it says something else now; a layout only where it takes more lines or fewer."""
        drawn = self.draw(*self.content_size)
        if (drawn.plain, drawn.spans) != (self._shown.plain, self._shown.spans):
            lines = drawn.plain.count("\n") != self._shown.plain.count("\n")
            self._shown = drawn
            self.refresh(layout=lines)

    def render(self) -> RenderResult:
        return self.draw(*self.content_size)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return self.draw(width, 0).plain.count("\n") + 1


def status_of(state: RunState) -> tuple[str, str, str]:
    """Symbol, word and colour."""
    symbol, word, colour = STARTING if state.status == "starting" else STATES.get(state.status, STATES["stopped"])
    return symbol, word, f"$text-{colour}"


def bar(share: float, width: int, mode: str, style: str = "$primary") -> Content:
    full, empty = BAR[mode]
    cells = min(width, max(0, round(share * width))) if isfinite(share) else 0
    return Content.assemble((full * cells, style), (empty * (width - cells), FAINT))


def spark(values: Sequence[float], mode: str) -> str:
    if mode != "ascii":
        return sparkline(values)
    levels = "▁▂▃▄▅▆▇█"
    return "".join(ASCII_LEVELS[levels.index(c)] if c in levels else " " for c in sparkline(values))


def _lines(lines: Sequence[Content], width: int) -> Content:
    """None wraps."""
    return Content("\n").join(line.truncate(max(1, width), ellipsis=True) for line in lines)


def _flow(parts: Sequence[Content], width: int) -> list[Content]:
    """Side by side, going on below where there is no more room."""
    lines: list[Content] = []
    for part in parts:
        if lines and lines[-1].cell_length + 3 + part.cell_length <= width:
            lines[-1] = Content.assemble(lines[-1], "   ", part)
        else:
            lines.append(part)
    return lines


# --- heading -----------------------------------------------------------------------------------------------------


def heading(state: RunState, width: int, mode: str, tokens_per_step: float = 0.0) -> Content:
    """What runs, how far it is, and its numbers."""
    a = state.about
    symbol, word, style = status_of(state)
    device = one_line(state.started.device if state.started else a.device)
    about = (a.model.rpartition("/")[2].removeprefix("builtin:"), a.quant, a.method, f"{a.space} rank {a.rank}", device)
    title = Content.assemble(
        (f"{symbol} {word}", f"{style} bold"), "  ", (one_line(a.name), "bold"), "  ",
        (" · ".join(filter(None, about)), MUTED),
    )  # fmt: skip
    return _lines([title, _progress(state, width, mode), *_numbers(state, width, tokens_per_step)], width)


def _progress(state: RunState, width: int, mode: str) -> Content:
    share = state.step / state.steps if state.steps else 0.0
    place = f" {state.step:,}/{state.steps:,}  {int(100 * min(1.0, share))}%"
    left = f"  {human_seconds(state.left)} left" if state.status == "running" and isfinite(state.left) else ""
    end = Content.assemble((place, "bold"), left)
    return Content.assemble(bar(share, width - end.cell_length, mode), end)


def _numbers(state: RunState, width: int, tokens_per_step: float) -> list[Content]:
    """One line, and a second where it has to be."""
    parts = [Content.assemble(("loss ", MUTED), (human_number(state.moving.loss), "bold"))]
    dev, best = state.dev(), state.best()
    if dev and best:
        at = "" if best is dev[-1] else f", best {metric_text(best)} at {best.step:,}"
        parts.append(Content.assemble((f"dev {dev[-1].metric} ", MUTED), (metric_text(dev[-1]), "bold"), at))
    parts.append(Content(human_rate(state.moving.rate)))
    if tokens_per_step and isfinite(state.moving.rate):
        parts.append(Content(f"~{_count(tokens_per_step * state.moving.rate)} tokens/s"))
    if state.skipped:
        parts.append(Content.from_markup("[$text-warning]▲ $n skipped[/]", n=f"{state.skipped:,}"))
    return _flow(parts, width)[:2]


def _count(n: float) -> str:
    return f"{n:.0f}" if n < 1e4 else f"{n / 1e3:.0f}k" if n < 1e6 else f"{n / 1e6:.1f}M"


# --- memory ------------------------------------------------------------------------------------------------------


def memory(state: RunState, planned: Ledger | None, others: int, width: int, mode: str, rows: int = 99) -> Content:
    """Planned, now, peak and others against the budget; then what was planned, line by line."""
    budget = state.started.budget_bytes if state.started else 0
    plan = sum(line.bytes for line in planned or () if line.where in _counted(state))
    now = state.last.memory_bytes if state.last else 0
    most = max(budget, plan, state.peak_bytes, 1)
    lines = []
    for label, size in (("planned", plan), ("now", now), ("peak", state.peak_bytes), ("others", others)):
        if size:
            lines.append(_amount(label, size, size / most, width, mode))
    if budget:
        word = "✓ fits" if state.peak_bytes <= 0.9 * budget else "▲ tight" if state.peak_bytes <= budget else "✗ over"
        style = {"✓": "$text-success", "▲": "$text-warning", "✗": "$text-error"}[word[0]]
        lines.append(Content.assemble((f"{'budget':<8}", MUTED), f"{human_bytes(budget):>8} ", (word, style)))
    if not lines:
        return Content.styled("nothing is known yet", MUTED)
    shown = sorted(
        (line for line in planned or () if line.bytes and line.where in _counted(state)), key=lambda x: -x.bytes
    )
    for line in shown[: max(0, rows - len(lines))]:
        label = line.what if line.what != "context" else "process"
        words = Content.styled(f"  {label:<16}{human_bytes(line.bytes):>9} ", MUTED)
        room = max(0, width - words.cell_length)
        lines.append(Content.assemble(words, bar(line.bytes / shown[0].bytes, room, mode, "$secondary")))
    return _lines(lines, width)


def _counted(state: RunState) -> tuple[str, ...]:
    """What a run calls its memory: torch's allocations on a GPU, all of its process elsewhere."""
    device = state.started.device if state.started else state.about.device
    return ("allocated", "process") if device.startswith("CPU") else ("allocated",)


def _amount(label: str, size: int, share: float, width: int, mode: str) -> Content:
    words = Content.assemble((f"{label:<8}", MUTED), f"{human_bytes(size):>8} ")
    return Content.assemble(words, bar(share, max(0, width - words.cell_length), mode))


# --- signal ------------------------------------------------------------------------------------------------------

VERDICTS = {"falling": ("✓", "$text-success"), "rising": ("▲", "$text-warning")}


def steps(state: RunState, width: int, mode: str) -> Content:
    """Does the loss fall beyond its noise, what do the slopes say, and how large are the steps?"""
    found = signal(state)
    symbol, style = VERDICTS.get(found.verdict, ("·", MUTED))
    room = max(4, width - 24)
    lines = [
        _named("trend", Content.assemble(_within(found.trend, found.trend_error), " nats/100 steps")),
        _named("", Content.assemble((f"{symbol} {found.verdict}", style))),
        _named("signal", _ratio(found)),
        _named("|slope|", Content(human_number(found.size))),
        _series(state, "ratios", "s/n", room, mode),
        _series(state, "rates", "lr", room, mode),
        _series(state, "scales", "ε", room, mode),
    ]
    return _lines([line for line in lines if line.plain], width)


def _named(name: str, what: Content) -> Content:
    return Content.assemble((f"{name:<8}", MUTED), what)


def _within(value: float, error: float) -> str:
    if not isfinite(value) or not isfinite(error):
        return UNKNOWN
    return f"{value:+.2g} ± {error:.1g}"


def _ratio(found: Signal) -> Content:
    if not isfinite(found.ratio):
        return Content(UNKNOWN)
    beyond = abs(found.ratio) > 2 * found.error
    return Content.assemble(f"{found.ratio:+.2f} ", (f"({'beyond' if beyond else 'within'} chance ±{found.error:.2f})",
                            MUTED))  # fmt: skip


def _series(state: RunState, name: str, label: str, room: int, mode: str) -> Content:
    """The last value and its course over the run."""
    series = getattr(state, name)
    last = series.newest
    if last is None:
        return Content("")
    course = sampled(series, state.step, room)
    shown = spark(course, mode) if len(set(course)) > 1 else "constant" if name != "ratios" else ""
    return _named(label, Content.assemble(f"{last:<9.3g} ", (shown, "$primary")))


# --- slopes ------------------------------------------------------------------------------------------------------


def slopes(state: RunState, width: int, height: int, mode: str) -> Content:
    """How the last projected gradients are spread: bars around zero."""
    rows = max(2, height - 1) if height else 5
    found = histogram(state.slopes, max(3, width | 1) - 2)
    if found is None:
        return Content.styled("no step yet", MUTED)
    top = max(found.counts) or 1
    body = [_bars(found.counts, top, row, rows, mode) for row in range(rows)]
    low, high = human_number(-found.high), human_number(found.high)
    gap = max(1, len(found.counts) - len(low) - len(high))
    axis = Content.styled(f"{low}{'0':^{gap}}{high}", MUTED)
    return _lines([*(Content.styled(text, "$primary") for text in body), axis], width)


def _bars(counts: Sequence[int], top: int, row: int, rows: int, mode: str) -> str:
    """One line of bars, the first on top."""
    if mode == "ascii":
        return "".join("#" if count / top * rows >= rows - row - 0.5 else " " for count in counts)
    levels = " ▁▂▃▄▅▆▇█"
    eighths = [count / top * rows * 8 - 8 * (rows - 1 - row) for count in counts]
    return "".join(levels[min(8, max(0, round(e)))] for e in eighths)


# --- events ------------------------------------------------------------------------------------------------------

LEVELS = {"warning": "$text-warning", "error": "$text-error"}


def events(state: RunState) -> Content:
    """The newest last."""
    lines = [_event(told) for told in state.told]
    return Content("\n").join(lines) if lines else Content.styled("nothing was said yet", MUTED)


def _event(told: Told) -> Content:
    style = LEVELS.get(told.level, "")
    return Content.assemble((f"{told.step:>7,} ", MUTED), (f"{told.symbol} {told.text}", style))
