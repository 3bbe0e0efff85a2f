"""Whether a run was worth it: before and after, a verdict in a sentence, what to do next. For every view and report.

    found = outcome_of(state, data)         None while a run goes on, or where it was broken off
    for pieces in card(found, samples): …   the same in lines
    for event in concluded(events, data):   a run's events, and at their end what came of it

`data` is the path of the rows, for commands. What was before training is the split "base" where the adapter began with
more than the model knew, and else the first score on the split itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import exp, isfinite, isnan, nan

from zolite.common.events import Concluded, Evaluated, Event, Sampled
from zolite.common.text import human_number, one_line
from zolite.monitor.classification import Interval, difference, wilson
from zolite.monitor.log import BASE, split_text
from zolite.monitor.plots import Piece
from zolite.monitor.run_state import RunState, advance, best_of

LESS = 0.01  # of a loss: what it falls by at the least where it is better
SHOWN = 3  # sample answers
COMMENT = "  # "  # between a command and what it does
MARKS = {
    "better": ("✓", "success"), "perhaps": ("~", "warning"), "same": ("▲", "warning"), "worse": ("▲", "error"),
    "unknown": ("·", "muted"),
}  # fmt: skip
"""Symbols and colours of verdicts."""


def concluded(events: Iterable[Event], data: str = "") -> Iterator[Event]:
    """The same events, and where they are those of a run that is done, what came of it."""
    state = RunState()
    for event in events:
        advance(state, event)
        yield event
    if (found := outcome_of(state, data)) is not None:
        yield found


def outcome_of(state: RunState, data: str = "") -> Concluded | None:
    """None where the run has not come to its end."""
    data = data or state.about.data
    if state.finished is None or state.finished.reason != "done" or state.running:
        return None
    name = state.started.session if state.started else state.about.name
    before, after = before_and_after(state.evaluations)
    step = state.step
    if before is None or after is None:
        text = "nothing was measured before and after, so nobody knows whether it is better"
        return Concluded(step, step, "unknown", text, commands=_commands(name, "unknown", data, state))
    verdict, text = judged(before, after)
    inside = wilson(round(after.value * after.rows), after.rows) if _share(after) else Interval(nan, nan)
    return Concluded(
        step, after.step, verdict, text, after.split, after.metric, after.rows, before.value, after.value,
        inside.low, inside.high, after.majority, "\n".join(advice(verdict, name, data, state)),
        _commands(name, verdict, data, state),
    )  # fmt: skip


def before_and_after(scores: Sequence[Evaluated]) -> tuple[Evaluated | None, Evaluated | None]:
    """On test where it was looked at before and after, else on dev; after is the best there of the steps taken."""
    for split in ("test", "dev"):
        here = [e for e in scores if e.split == split]
        start = [e for e in scores if split == "dev" and e.split == BASE] + [e for e in here if e.step == 0]
        later = best_of([e for e in here if e.step > 0])
        if start and later and start[0].metric == later.metric:
            return start[0], later
    return None, None


def _share(score: Evaluated) -> bool:
    return score.metric == "accuracy"


def judged(before: Evaluated, after: Evaluated) -> tuple[str, str]:
    """(verdict, sentence). An accuracy is sure where the 95 % interval of its change leaves no doubt."""
    verdict, text = (_accuracy if _share(after) else _loss)(before, after)
    if verdict in ("better", "perhaps") and after.value <= after.majority:
        text = f"better than before, but no better than always giving one answer, {after.majority:.1%}"
        return "same", text
    return verdict, text


def _accuracy(before: Evaluated, after: Evaluated) -> tuple[str, str]:
    change, rows = after.value - before.value, min(before.rows, after.rows)
    inside = difference(before.value, after.value, rows)
    points, span = (
        _points(abs(change)),
        f"{rows:,} rows leave anything from {_signed(inside.low)} to {_signed(inside.high)}",
    )
    if inside.low > 0:
        return "better", f"better than before by {points}, sure"
    if inside.high < 0:
        return "worse", f"worse than before by {points}, sure"
    if change > 0:
        return "perhaps", f"perhaps better than before, by {points}: {span}"
    return "same", f"not better than before: {_signed(change)} points; {span}"


def _points(share: float) -> str:
    count = f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.1f}"
    return f"{count} point{'' if count in ('1', '1.0') else 's'}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _loss(before: Evaluated, after: Evaluated) -> tuple[str, str]:
    """Nats a token; what a person can see of it is by how much likelier a token of the right answer is."""
    fall = before.value - after.value
    numbers = f"loss {human_number(before.value)} → {human_number(after.value)} nats a token"
    if not isfinite(fall):
        return "unknown", f"nobody knows whether it is better: {numbers}"
    if fall > LESS * abs(before.value):
        return "better", f"better than before: {numbers}, so the right text is {exp(fall):.2g} times as likely a token"
    if fall < -LESS * abs(before.value):
        return "worse", f"worse than before: {numbers}"
    return "same", f"not better than before: {numbers}"


def advice(verdict: str, name: str, data: str, state: RunState) -> Iterator[str]:
    """What to try where it is not better: the likeliest first."""
    if verdict in ("better", "unknown"):
        return
    if verdict != "worse":
        yield f"more steps: {_longer(name, state)}"
    yield f"rows with a wrong or an empty answer: zolite data check {data or 'PATH'}"
    yield f"a larger model, if one fits: zolite plan --data {data or 'PATH'}"
    yield "more rows: a few hundred of each label, or of each kind of answer"


def _longer(name: str, state: RunState) -> str:
    return f"zolite resume {name} --steps {2 * max(1, state.steps)} --force"


def _commands(name: str, verdict: str, data: str, state: RunState) -> str:
    """Three: what a person does next."""
    good = (
        (f"zolite chat {name} --step best", "try it"),
        (f"zolite export {name} --step best", "for other programs"),
        (f"zolite eval {name} --data {data or 'PATH'}", "score it on rows that it never saw"),
    )
    bad = (
        (f"zolite chat {name}", "look at its answers beside the model's own"),
        (f"zolite data check {data or 'PATH'}", "look at the rows"),
        (_longer(name, state), "go on for as long again"),
    )
    chosen = good if verdict in ("better", "perhaps", "unknown") else bad
    return "\n".join(f"{command}{COMMENT}{what}" for command, what in chosen)


# --- in lines --------------------------------------------------------------------------------------------------------


def card(found: Concluded, samples: Sequence[Sampled] = ()) -> list[list[Piece]]:
    """A line each: the verdict, the numbers behind it, what to try, three sample answers, three commands."""
    symbol, colour = MARKS.get(found.verdict, MARKS["unknown"])
    lines: list[list[Piece]] = [[(f"{symbol} {one_line(found.text)}", f"strong {colour}")]]
    lines += _numbers(found)
    if found.advice:
        lines += [[("what to try", "strong")], *([(f"  {one_line(line)}", "")] for line in found.advice.splitlines())]
    for sample in samples[:SHOWN]:
        lines += _answer(sample)
    commands = [tuple(map(one_line, line.partition(COMMENT)[::2])) for line in found.commands.splitlines()]
    width = max((len(command) for command, _ in commands), default=0)
    next_ = [[(f"  {command:<{width}}", "strong"), (f"{COMMENT}{what}", "muted")] for command, what in commands]
    return [*lines, [("next", "strong")], *next_]


def _numbers(found: Concluded) -> list[list[Piece]]:
    """validation accuracy 41.0% → 72.0% (95 % interval 62.5% to 79.9%; always one answer: 50.0%), at step 80 of 120"""
    if isnan(found.after):
        return []
    share = found.metric == "accuracy"
    values = [f"{value:.1%}" if share else human_number(value) for value in (found.before, found.after)]
    beside = [f"95 % interval {found.low:.1%} to {found.high:.1%}"] if isfinite(found.low) else []
    beside += [f"always one answer: {found.majority:.1%}"] if isfinite(found.majority) else []
    where = f"best step {found.best:,} of {found.step:,}, {found.rows:,} rows"
    return [
        [(f"  {split_text(found.split)} {one_line(found.metric)} ", "muted"), (" → ".join(values), "strong")],
        [(f"  {'; '.join([*beside, where])}", "muted")],
    ]


def _answer(sample: Sampled) -> list[list[Piece]]:
    parts = {"before": sample.before, "now": sample.now, "right": sample.reference}
    head: list[list[Piece]] = [[(f"  … {one_line(sample.prompt)[-60:]}", "muted")]]
    return head + [[(f"    {name:<7}", "muted"), (one_line(text), "")] for name, text in parts.items()]
