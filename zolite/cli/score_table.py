"""What `zolite eval` found, as people read it: the score, what must be known of it, and every label's part in it."""

import json
from collections.abc import Callable, Iterator, Sequence
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zolite.common.events import to_json
from zolite.common.text import UNKNOWN, one_line
from zolite.monitor.classification import Report, cautions
from zolite.monitor.log import metric_text, said_text, split_text

if TYPE_CHECKING:
    from zolite.training.score import Scored, Scores

MOST_CONFUSED = 20  # labels whose confusion is shown
LABEL_WIDTH = 20  # columns of their names there


def render(found: "Scores") -> Group:
    return Group(*_parts(found))


def _parts(found: "Scores") -> Iterator[RenderableType]:
    yield Text(headline(found))
    report, event = found.tuned.report, found.tuned.event
    if report is None:
        return
    for text in cautions(report, event.says, event.said_right):
        yield Text(f"▲ {text}", "yellow")
    yield from (Text(), compared(found), Text(), by_label(report))
    if len(report.labels) <= MOST_CONFUSED:
        yield from (Text(), confusion(report))


def headline(found: "Scores") -> str:
    """test: accuracy 85.0% among 2 labels (always 'no': 50.0%), says a label 100.0%, the right one 85.0%; 100 rows"""
    event, report = found.tuned.event, found.tuned.report
    score = f"{split_text(event.split)}: {event.metric} {metric_text(event)}"
    if report:
        always = f"always {one_line(report.majority)!r}: {_percent(report.baseline)}"
        return f"{score} among {len(report.labels)} labels ({always}), {said_text(event)}; {event.rows:,} rows"
    base = f" (base model {metric_text(found.base.event)})" if found.base else ""
    return f"{score} nats a token{base}; {event.rows:,} rows"


# --- tables -----------------------------------------------------------------------------------------------------------

FIGURES: dict[str, Callable[["Scored", Report], str]] = {
    "accuracy, ranked": lambda _, r: _percent(r.accuracy),
    "  95 % interval": lambda _, r: f"{_percent(r.interval.low)} to {_percent(r.interval.high)}",
    "majority baseline": lambda _, r: _percent(r.baseline),
    "says a label": lambda s, _: _percent(s.event.says),
    "says the right one": lambda s, _: _percent(s.event.said_right),
    "macro-F1": lambda _, r: _number(r.macro_f1),
    "Matthews": lambda _, r: _number(r.matthews),
}


def compared(found: "Scores") -> Table:
    """The base model and the session, figure by figure."""
    base, tuned = found.base, found.tuned
    columns = {"base model": base, f"at step {tuned.event.step:,}": tuned} if base else {"the model": tuned}
    table = _table("", *columns)
    for name, figure in FIGURES.items():
        table.add_row(name, *(figure(each, each.report) for each in columns.values() if each.report))
    return table


def by_label(report: Report) -> Table:
    table = _table("label", "rows", "chosen", "right", "precision", "recall", "F1")
    for s in report.labels:
        numbers = (str(s.rows), str(s.chosen), str(s.right))
        table.add_row(one_line(s.label), *numbers, _percent(s.precision), _percent(s.recall), _number(s.f1))
    return table


def confusion(report: Report) -> Table:
    """Columns are numbered as the rows are, so that many labels have room."""
    table = _table("label ↓, chosen →", *(str(i) for i in range(1, len(report.labels) + 1)), gap=1)
    for i, line in enumerate(report.confusion):
        name = Text(f"{i + 1} {one_line(report.labels[i].label)}")
        name.truncate(LABEL_WIDTH, overflow="ellipsis")
        table.add_row(name, *(str(n) if n else "·" for n in line))
    return table


def _table(first: str, *others: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.add_column(first)  # the one that wraps where there is little room
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _percent(share: float) -> str:
    return UNKNOWN if isnan(share) else f"{share:.1%}"


def _number(value: float) -> str:
    return UNKNOWN if isnan(value) else f"{value:.3f}"


# --- documents --------------------------------------------------------------------------------------------------------


def document(found: "Scores") -> dict[str, Any]:
    """The event of the evaluation, with its report, cautions and the base model's; numbers that are none are null."""
    report, event = found.tuned.report, found.tuned.event
    about = {"cautions": list(cautions(report, event.says, event.said_right))} if report else {}
    return _document(found.tuned) | about | ({"base": _document(found.base)} if found.base else {})


def _document(scored: "Scored") -> dict[str, Any]:
    event: dict[str, Any] = json.loads(to_json(scored.event))
    return event | ({"report": _plain(scored.report)} if scored.report else {})


def _plain(value: Any) -> Any:
    """A dataclass as JSON has it."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
