"""A run in words, the same in the terminal and in the app: what a person needs, first.

Each function makes pieces of text with the names of their styles: "strong", "muted", "" or a colour of states.STATES.
"""

from collections.abc import Sequence
from math import isfinite, isnan

from zolite.common.events import Evaluated, Sampled
from zolite.common.text import UNKNOWN, human_bytes, human_number, human_rate, human_seconds, one_line
from zolite.monitor.log import BASE, SHOWN, caution, metric_text, split_text, working_text
from zolite.monitor.plots import Piece
from zolite.monitor.run_state import RunState, best_of
from zolite.monitor.states import STATES
from zolite.monitor.statistics import GradientStats, Trend

VERDICTS = {"falling": ("✓", "success"), "rising": ("▲", "warning")}
FITS = ((0.9, "✓ fits", "success"), (1.0, "▲ tight", "warning"), (float("inf"), "✗ over", "error"))


def status(state: RunState) -> Piece:
    symbol, word, colour = STATES.get(state.status, STATES["stopped"])
    return f"{symbol} {word}", colour


def title(state: RunState) -> list[Piece]:
    """What runs, of which model and by which method as far as that is known, on which device."""
    a = state.about
    name, device = (state.started.session, state.started.device) if state.started else (a.name, a.device)
    model = a.model.rpartition("/")[2].removeprefix("builtin:")
    space = f"{a.space} rank {a.rank}" if a.space else ""
    trained = f"{state.started.trainable:,} trained parameters" if state.started and not a.model else ""
    about = " · ".join(filter(None, (model, a.quant, a.method, space, one_line(device), trained)))
    return [*_strong(status(state)), ("  ", ""), (one_line(a.name or name), "strong"), (f"  {about}", "muted")]


def _strong(piece: Piece) -> list[Piece]:
    text, style = piece
    return [(text, f"strong {style}")]


def progress(state: RunState) -> list[Piece]:
    """step 120 of 2,000 · 6% · 4m10s left"""
    share = min(1.0, state.step / state.steps) if state.steps else 0.0
    parts = [f"{int(100 * share)}%"]
    if state.status == "running" and isfinite(state.left):
        parts.append(f"{human_seconds(state.left)} left")
    elif state.status == "ready":
        parts.append("ready to go on")
    elif state.finished and not state.running:
        parts.append(f"took {human_seconds(state.finished.seconds)}")
        parts += ["early stop"] if state.finished.reason == "done" and state.step < state.steps else []
    return [(f"step {state.step:,} of {state.steps:,}", "strong"), (" · " + " · ".join(parts), "")]


def working(state: RunState) -> list[Piece]:
    """Preparing: quantizing weights: 120 of 300 (40%), about 20s left"""
    if state.working is None:
        return [("Preparing …", "muted")]
    return [("Preparing: " if state.step == 0 else "", "muted"), (working_text(state.working), "strong")]


def loss(state: RunState) -> list[Piece]:
    """The smoothed one, and whether it falls."""
    found = [("loss ", "muted"), (human_number(state.moving.loss), "strong")]
    verdict = state.trend.verdict
    if verdict == "falling" and behind(state.dev()):
        found.append((" falling, but not the validation error", "warning"))
    elif verdict in VERDICTS:
        symbol, style = VERDICTS[verdict]
        found.append((f" {symbol} {verdict}", style))
    return found


def behind(scores: Sequence[Evaluated]) -> bool:
    """Is the last score worse than the first or the best?"""
    best = best_of(scores)
    return best is not None and len(scores) > 1 and scores[-1].value != best.value


def speed(state: RunState) -> list[Piece]:
    return [(human_rate(state.moving.rate), "")]


def histories(state: RunState) -> list[list[Evaluated]]:
    """The evaluations of each metric on each split that is looked at while a run goes on."""
    found: dict[tuple[str, str], list[Evaluated]] = {}
    for event in state.evaluations:
        if event.split == BASE:  # of the model as it was: the end compares with it
            continue
        found.setdefault((event.split, event.metric), []).append(event)
    return list(found.values())


def evaluation(scores: Sequence[Evaluated]) -> list[Piece]:
    """The last of a metric on a split, and which is best so far where that decides something."""
    last = scores[-1]
    head = [
        (f"{split_text(last.split)} {one_line(last.metric)} ", "muted"),
        (metric_text(last), "strong"),
    ]
    best = best_of(scores) if last.split == "dev" else None
    if best is None:
        return head
    is_last = best.value == last.value
    note = f"best so far, at step {best.step:,}" if is_last else f"best {metric_text(best)} at step {best.step:,}"
    return [*head, (f" ({note})", "")]


def said(last: Evaluated) -> list[list[Piece]]:
    """Of an accuracy: what the model writes by itself, and a caution where one label for all does as well."""
    parts: list[list[Piece]] = []
    if not isnan(last.says):
        share, right = (f"{value:.1%}" for value in (last.says, last.said_right))
        parts.append([("says a label ", "muted"), (share, "strong"), (", the right one ", "muted"), (right, "strong")])
    if words := caution(last):
        parts.append([(f"▲ {words}", "warning")])
    return parts


def samples(state: RunState) -> list[list[Piece]]:
    """Each row that is answered: the end of its prompt, what was written before training and now, what is right."""
    return [_sample(state.samples[row]) for row in sorted(state.samples)]


def _sample(found: Sampled) -> list[Piece]:
    parts = {"now": found.now, "before": found.before, "right": found.reference}
    told = [piece for name, text in parts.items() for piece in ((f"\n  {name:<7}", "muted"), (one_line(text), ""))]
    return [(f"… {one_line(found.prompt)[-SHOWN:]}", "muted"), *told]


def memory(state: RunState) -> list[Piece]:
    """In use, of what was free for the run when it began; judged by its peak."""
    budget = state.started.budget_bytes if state.started else 0
    head = [("memory ", "muted"), (human_bytes(state.memory_bytes), "strong")]
    if budget <= 0:
        return head
    return [*head, (f" of {human_bytes(budget)} free  ", ""), fits(state.peak_bytes, budget)]


def fits(peak: int, budget: int) -> Piece:
    word, style = next((word, style) for most, word, style in FITS if peak <= most * budget)
    return word, style


# --- details ---------------------------------------------------------------------------------------------------------


def details(state: RunState) -> list[list[Piece]]:
    """Of the last step and of those before it, what an expert asks for; each a part of its own."""
    found = state.gradient_stats
    parts = {
        "last loss": human_number(state.last_loss),
        "trend": trend(state.trend),
        "lr": _newest(state.rates.newest),
        "ε": _newest(state.scales.newest),
        "signal-to-noise": to_noise(found) if isfinite(found.ratio) else "",
        "peak": human_bytes(state.peak_bytes),
        "skipped": f"{state.skipped:,}",
    }
    return [[(f"{name} ", "muted"), (text, "")] for name, text in parts.items() if text]


def _newest(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def trend(found: Trend) -> str:
    """Of the loss, with its standard error."""
    known = isfinite(found.change) and isfinite(found.error)
    return f"{found.change:+.2g} ± {found.error:.1g} nats/100 steps" if known else UNKNOWN


def to_noise(found: GradientStats) -> str:
    """Signal-to-noise ratio of the projected gradients, beside what chance makes of it."""
    if not isfinite(found.ratio):
        return UNKNOWN
    beyond = "beyond" if abs(found.ratio) > 2 * found.error else "within"
    return f"{found.ratio:+.2f} ({beyond} chance ±{found.error:.2f})"
