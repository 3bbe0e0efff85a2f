"""The panels of a run as text: each a function of its state and its size, and a widget that shows one."""

from collections.abc import Callable, Sequence

from textual.app import RenderResult
from textual.content import Content
from textual.widget import Widget

from zolite.common.text import human_bytes, human_number
from zolite.monitor import summary
from zolite.monitor.log import LogLine
from zolite.monitor.plots import bar, columns, sampled, sparkline
from zolite.monitor.run_state import RunState
from zolite.monitor.series import Series
from zolite.monitor.statistics import histogram
from zolite.planner.memory import Ledger, counted

from ..paint import MUTED, content, flow

ROOMY = 100  # columns of a heading that has room for the course of the speed
COURSE = 16  # columns of that
MOVED = 1.01  # times the least memory in use, from which its course is worth a line
Draw = Callable[[int, int], Content]
"""A panel of that width and height."""


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
        if not self.display or not self.content_size.width:  # not seen, or not laid out yet
            return
        drawn = self.draw(*self.content_size)
        if (drawn.plain, drawn.spans) != (self._shown.plain, self._shown.spans):
            lines = drawn.plain.count("\n") != self._shown.plain.count("\n")
            self._shown = drawn
            self.refresh(layout=lines)

    def render(self) -> RenderResult:
        return self.draw(*self.content_size)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return self.draw(width, 0).plain.count("\n") + 1


def _lines(lines: Sequence[Content], width: int) -> Content:
    """None wraps."""
    return Content("\n").join(line.truncate(max(1, width), ellipsis=True) for line in lines)


# --- heading -----------------------------------------------------------------------------------------------------


def heading(state: RunState, width: int, mode: str, tokens_per_step: float = 0.0, details: bool = False) -> Content:
    """What runs, how far it is, and its numbers."""
    words, share = content(summary.progress(state)), state.step / state.steps if state.steps else 0.0
    if (doing := state.working) is not None:
        words, share = content(summary.working(state)), doing.done / doing.total if doing.total else 0.0
    progress = Content.assemble(content(bar(share, width - words.cell_length - 1, mode)), " ", words)
    return _lines(
        [content(summary.title(state)), progress, *_numbers(state, width, mode, tokens_per_step, details)], width
    )


def _numbers(state: RunState, width: int, mode: str, tokens_per_step: float, details: bool) -> list[Content]:
    """One line, and a second where it has to be."""
    speed = summary.speed(state)
    rate = tokens_per_step * state.moving.rate
    if rate > 0:
        speed.append((f", about {_count(rate)} tokens/s", ""))
    if width >= ROOMY and len(state.speeds) > 1:
        speed.append((f" {sparkline(sampled(state.speeds, state.step, COURSE), mode, floor=0.0)}", "full"))
    dev = state.dev()
    score, said = ([summary.evaluation(dev)], summary.said(dev[-1])) if dev else ([], [])
    parts = [summary.loss(state), *score, speed, *said]
    if details and state.skipped:
        parts.append([(f"▲ {state.skipped:,} skipped", "warning")])
    return flow([content(part) for part in parts], width)[:2]


def _count(n: float) -> str:
    return f"{n:.0f}" if n < 1e4 else f"{n / 1e3:.0f}k" if n < 1e6 else f"{n / 1e6:.1f}M"


# --- memory ------------------------------------------------------------------------------------------------------


def memory(state: RunState, planned: Ledger | None, others: int, width: int, mode: str, rows: int = 99) -> Content:
    """In use, the most so far, planned and others' against what was free; then what was planned, line by line."""
    budget = state.started.budget_bytes if state.started else 0
    counts = counted(planned or (), state.started.device if state.started else state.about.device)
    plan = sum(line.bytes for line in counts)
    most = max(budget, plan, state.peak_bytes, others, 1)  # one scale for all bars, the plan's parts too
    sizes = {"in use": state.memory_bytes, "peak": state.peak_bytes, "planned": plan, "others": others}
    lines = [_amount(label, size, size / most, width, mode) for label, size in sizes.items() if size]
    if budget:
        lines.insert(0, Content.assemble(_label("free", budget), content([summary.fits(state.peak_bytes, budget)])))
    if not lines:
        return Content.styled("nothing is known yet", MUTED)
    course = sampled(state.memories, state.step, max(4, width - 17))
    if course and max(course) > MOVED * min(course):
        lines.append(Content.assemble(("so far           ", MUTED), (sparkline(course, mode, floor=0.0), "$primary")))
    parts = sorted(counts, key=lambda line: -line.bytes)
    lines += [_part(line.what, line.bytes, most, width, mode) for line in parts[: max(0, rows - len(lines))]]
    return _lines(lines, width)


def _label(label: str, size: int) -> Content:
    return Content.assemble((f"{label:<8}", MUTED), f"{human_bytes(size):>8} ")


def _amount(label: str, size: int, share: float, width: int, mode: str) -> Content:
    words = _label(label, size)
    return Content.assemble(words, content(bar(share, width - words.cell_length, mode)))


def _part(label: str, size: int, most: int, width: int, mode: str) -> Content:
    words = Content.styled(f"  {label if label != 'context' else 'process':<16}{human_bytes(size):>9} ", MUTED)
    drawn = bar(size / most, width - words.cell_length, mode)
    return Content.assemble(words, content(drawn, full="$secondary"))


# --- details: the loss's trend, step sizes, projected gradients ---------------------------------------------------


def steps(state: RunState, width: int, mode: str) -> Content:
    """Does the loss fall beyond its noise, what do the projected gradients say, and how large are the steps?"""
    gradients = state.gradient_stats
    room = max(4, width - 24)
    lines = [
        _named("trend", summary.trend(state.trend)),
        _named("", state.trend.verdict),
        _named("|grad|", human_number(gradients.size)),
        _named("s/n", summary.to_noise(gradients)),
        _course(state.noise_ratios, state.step, "", room, mode),
        _course(state.rates, state.step, "lr", room, mode),
        _course(state.scales, state.step, "ε", room, mode),
        _named("skipped", f"{state.skipped:,} steps"),
    ]
    return _lines([line for line in lines if line.plain], width)


def _named(name: str, text: str) -> Content:
    return Content.assemble((f"{name:<8}", MUTED), text)


def _course(series: Series, step: int, label: str, room: int, mode: str) -> Content:
    """The last value and its course over the run."""
    if series.newest is None:
        return Content("")
    values = sampled(series, step, room)
    shown = sparkline(values, mode) if len(set(values)) > 1 else "constant" if label else ""
    return Content.assemble((f"{label:<8}", MUTED), f"{series.newest:<9.3g} ", (shown, "$primary"))


def gradients(state: RunState, width: int, height: int, mode: str) -> Content:
    """How the last projected gradients are spread: columns around zero."""
    rows = max(2, height - 1) if height else 5
    found = histogram(state.gradients, max(3, width | 1) - 2)
    if found is None:
        return Content.styled("no step yet", MUTED)
    body = [Content.styled(text, "$primary") for text in columns(found.counts, rows, mode)]
    low, high = human_number(-found.high), human_number(found.high)
    gap = max(1, len(found.counts) - len(low) - len(high))
    return _lines([*body, Content.styled(f"{low}{'0':^{gap}}{high}", MUTED)], width)


# --- sample answers ----------------------------------------------------------------------------------------------


def samples(state: RunState, width: int) -> Content:
    """Of each row the end of its prompt, what is written now and was before training, and what is right."""
    found = [line for part in summary.samples(state) for line in content(part).split("\n")]
    return _lines(found, width) if found else Content.styled("no sample answers yet", MUTED)


# --- events ------------------------------------------------------------------------------------------------------

LEVELS = {"warning": "$text-warning", "error": "$text-error", "detail": MUTED}


def events(state: RunState, details: bool = False) -> Content:
    """The newest last."""
    lines = [_event(line) for line in state.log if details or line.level != "detail"]
    return Content("\n").join(lines) if lines else Content.styled("no events yet", MUTED)


def _event(line: LogLine) -> Content:
    style = LEVELS.get(line.level, "")
    return Content.assemble((f"{line.step:>7,} ", MUTED), (f"{line.symbol} {line.text}", style))
