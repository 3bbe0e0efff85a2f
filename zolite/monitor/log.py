"""A run's events as lines of text, the same in every view."""

from math import isfinite, isnan
from typing import TYPE_CHECKING, NamedTuple

from zolite.common.events import (
    Continued,
    Evaluated,
    Event,
    Exported,
    Finished,
    Noted,
    Paused,
    Sampled,
    Saved,
    Started,
    Working,
)
from zolite.common.text import human_bytes, human_number, human_seconds, one_line
from zolite.monitor.states import STATES

if TYPE_CHECKING:
    from zolite.sessions.steps import Later

BASE = "base"  # the split of a score on dev without what an adapter begins with
SPLITS = {"dev": "validation", BASE: "before training, validation"}
"""What a split is called on a screen, where its own name is not it."""
SYMBOLS = {
    Started: "▶", Evaluated: "◆", Sampled: "“", Saved: "↓", Paused: "‖", Continued: "▶", Exported: "→", Noted: "·",
    Finished: "■",
}  # fmt: skip
SHOWN = 60  # letters of a prompt in a line of the log
NOTED = {"warning": "▲"}  # symbols of levels that have one of their own


class LogLine(NamedTuple):
    """`level` is "", "warning" or "error", which stand out, or "detail", which is for experts."""

    step: int
    symbol: str
    text: str
    level: str = ""


def split_text(split: str) -> str:
    return SPLITS.get(split, one_line(split))


def metric_text(event: Evaluated) -> str:
    """46.0% for an accuracy, 1.312 for a loss."""
    return f"{event.value:.1%}" if event.metric == "accuracy" else f"{human_number(event.value)}"


def score_text(event: Evaluated) -> str:
    """validation accuracy 46.0% ranked, says a label 98.0%, the right one 45.0%; what was not measured left out"""
    head = f"{split_text(event.split)} {one_line(event.metric)} {metric_text(event)}"
    return ", ".join(filter(None, (head + (" ranked" if said_text(event) else ""), said_text(event), caution(event))))


def later_text(gone: "Later") -> str:
    """40 of 120 steps (81 to 120), 2 checkpoints (100, 120), 3 evaluations, the best of all at step 100 among them"""
    first, steps = gone.step + 1, ", ".join(f"{step:,}" for step in gone.checkpoints)
    which = f"{first:,} to {gone.last:,}" if first < gone.last else f"{first:,}"
    parts = [f"{gone.last - gone.step:,} of {gone.last:,} steps ({which})"]
    parts += [f"{counted(len(gone.checkpoints), 'checkpoint')} ({steps})"] if gone.checkpoints else []
    parts += [counted(gone.evaluations, "evaluation")] if gone.evaluations else []
    best = gone.best
    return ", ".join(parts) + (f", the best of all ({score_text(best)}, step {best.step:,}) among them" if best else "")


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def said_text(event: Evaluated) -> str:
    """What the model writes by itself; nothing where that was not measured."""
    return "" if isnan(event.says) else f"says a label {event.says:.1%}, the right one {event.said_right:.1%}"


def caution(event: Evaluated) -> str:
    """Where an accuracy is none."""
    return f"no better than one label for all, {event.majority:.1%}" if event.value <= event.majority else ""


def sample_text(event: Sampled) -> str:
    """… Where is my parcel? → A delivery. (right: A delivery.; before: I am a …)"""
    reference, before = one_line(event.reference), one_line(event.before)
    return f"… {one_line(event.prompt)[-SHOWN:]} → {one_line(event.now)} (right: {reference}; before: {before})"


def log_line(step: int, event: Event) -> LogLine:
    """An event at a step. Steps themselves are no events here: curves show them."""
    symbol = SYMBOLS.get(type(event), "·")
    match event:
        case Noted():
            level = event.level if event.level in ("warning", "detail") else ""
            return LogLine(step, NOTED.get(level, symbol), one_line(event.message), level)
        case Sampled():
            return LogLine(step, symbol, sample_text(event), "detail")
        case Finished(reason="ready"):
            return LogLine(step, STATES["ready"][0], f"ready to go on from step {event.step:,}")
        case Finished():
            end, word, _ = STATES.get(event.reason, (symbol, one_line(event.reason), ""))
            text = f"{word} after {human_seconds(event.seconds)}, peak memory {human_bytes(event.peak_bytes)}"
            return LogLine(step, end, text, "error" if event.reason == "diverged" else "")
        case _:
            return LogLine(step, symbol, _text(event))


def working_text(event: Working) -> str:
    """quantizing weights: 120 of 300 (40%), about 20s left; loading the model: 12s"""
    name, left = one_line(event.phase), f", {human_seconds(event.seconds)} so far" if event.seconds >= 1 else ""
    left = f", about {human_seconds(event.left)} left" if isfinite(event.left) else left
    if event.total:
        return f"{name}: {event.done:,} of {event.total:,} ({event.done / event.total:.0%}){left}"
    if event.done:
        return f"{name}: {event.done:,}"
    return f"{name}: {human_seconds(event.seconds)}" if event.seconds >= 1 else f"{name} …"


def _text(event: Event) -> str:
    match event:
        case Working():
            return working_text(event)
        case Started():
            return f"{'started' if event.step <= 1 else 'resumed'} on {one_line(event.device)}"
        case Evaluated():
            return score_text(event)
        case Saved():
            return "checkpoint saved"
        case Exported():
            return f"exported to {one_line(event.path)}"
        case Continued():
            return "continued"
        case _:
            return type(event).__name__.lower()
