"""What `zolite eval` found, as people read it: the score, what must be known of it, and every label's part in it."""

import json
from collections.abc import Callable, Iterator, Sequence
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zolite.common.events import to_json
from zolite.common.text import UNKNOWN, human_number, one_line
from zolite.monitor.classification import Report, cautions
from zolite.monitor.log import metric_text, said_text, split_text

if TYPE_CHECKING:
    from zolite.monitor.text_scores import TextReport
    from zolite.tools.harness import Figure
    from zolite.training.score import FewShot, Scored, Scores

MOST_CONFUSED = 20  # labels whose confusion is shown
LABEL_WIDTH = 20  # columns of their names there


def render(found: "Scores") -> Group:
    return Group(*_parts(found))


def _parts(found: "Scores") -> Iterator[RenderableType]:
    yield Text(headline(found))
    for text in _cautions(found):
        yield Text(f"▲ {text}", "yellow")
    table = compared(found)
    yield from (Text(), table) if table.row_count else ()
    if found.few_shot:
        yield Text(examples_text(found.few_shot), "dim")
    report = found.tuned.report
    if report is None:
        return
    yield from (Text(), by_label(report))
    if len(report.labels) <= MOST_CONFUSED:
        yield from (Text(), confusion(report))


def headline(found: "Scores") -> str:
    """test: accuracy 85.0% among 2 labels (always 'no': 50.0%), says a label 100.0%, the right one 85.0%; 100 rows"""
    event, report, texts = found.tuned.event, found.tuned.report, found.tuned.texts
    score = f"{split_text(event.split)}: {event.metric} {metric_text(event)}"
    if report:
        always = f"always {one_line(report.majority)!r}: {_percent(report.baseline)}"
        return f"{score} among {len(report.labels)} labels ({always}), {said_text(event)}; {event.rows:,} rows"
    base = f" (base model {metric_text(found.base.event)})" if found.base else ""
    if found.tuned.choices:
        return f"{score}{base}, by chance {_percent(found.tuned.choices.chance)}; {event.rows:,} rows"
    answered = f", {texts.rows:,} of them answered" if texts else ""
    return f"{score} nats a token{base}; {event.rows:,} rows{answered}"


def _cautions(found: "Scores") -> Iterator[str]:
    tuned = found.tuned
    if tuned.report:
        yield from cautions(tuned.report, tuned.event.says, tuned.event.said_right)
    if tuned.texts:
        yield from tuned.texts.cautions


def examples_text(few: "FewShot") -> str:
    least, most = min(few.fitted), max(few.fitted)
    room = "" if least == few.count else f"; the rows had room for {least if least == most else f'{least} to {most}'}"
    return f"{few.count}-shot: the base model with {few.count} examples from train before each row{room}"


# --- tables -----------------------------------------------------------------------------------------------------------

Shown = Callable[["Scored"], str]


def _of_labels(figure: Callable[[Report], str]) -> Shown:
    return lambda scored: figure(scored.report) if scored.report else ""


def _of_texts(figure: Callable[["TextReport"], str]) -> Shown:
    return lambda scored: figure(scored.texts) if scored.texts else ""


def _measured(name: str, show: Callable[[float], str]) -> Shown:
    """With its interval."""

    def shown(scored: "Scored") -> str:
        found = scored.figures.get(name)
        if found is None:
            return ""
        return f"{show(found.value)} ({show(found.interval.low)} to {show(found.interval.high)})"

    return shown


def _percent(share: float) -> str:
    return UNKNOWN if isnan(share) else f"{share:.1%}"


def _number(value: float) -> str:
    return UNKNOWN if isnan(value) else f"{value:.3f}"


def _points(value: float) -> str:
    return f"{value:.1f}"


FIGURES: dict[str, Shown] = {
    "accuracy, ranked": _of_labels(lambda r: _percent(r.accuracy)),
    "  95 % interval": _of_labels(lambda r: f"{_percent(r.interval.low)} to {_percent(r.interval.high)}"),
    "majority baseline": _of_labels(lambda r: _percent(r.baseline)),
    "says a label": lambda s: _percent(s.event.says) if s.report else "",
    "says the right one": lambda s: _percent(s.event.said_right) if s.report else "",
    "macro-F1": _of_labels(lambda r: _number(r.macro_f1)),
    "Matthews": _of_labels(lambda r: _number(r.matthews)),
    "acc": _measured("acc", _percent),
    "acc_norm": _measured("acc_norm", _percent),
    "loss": _measured("loss", _number),
    "perplexity": _measured("perplexity", human_number),
    "exact match": _measured("exact_match", _percent),
    "token F1": _measured("f1", _percent),
    "ROUGE-L": _measured("rouge_l", _percent),
    "BLEU": _measured("bleu", _points),
    "ended by itself": _of_texts(lambda t: _percent(t.ended)),
}
"""What is compared, with 95 % intervals in parentheses; lines that nobody has a figure for are left out."""


def columns(found: "Scores") -> dict[str, "Scored"]:
    """Who is compared, by heading."""
    few = {f"{found.few_shot.count}-shot": found.few_shot.scored} if found.few_shot else {}
    if found.base:
        return {"base model": found.base, **few, f"at step {found.tuned.event.step:,}": found.tuned}
    name = f"at step {found.tuned.event.step:,}" if found.tuned.event.step else "the model"
    return {name: found.tuned, **few}


def compared(found: "Scores") -> Table:
    """The base model and the session, figure by figure."""
    models = columns(found)
    table = _table("", *models)
    for name, figure in FIGURES.items():
        if any(cells := [figure(each) for each in models.values()]):
            table.add_row(name, *cells)
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


def harness(found: Sequence["Figure"]) -> Table:
    """Figures of lm-eval, each with its standard error."""
    beside = any(each.base is not None for each in found)
    table = _table("task", "metric", *(["base model"] if beside else []), "tuned" if beside else "the model")
    for each in found:
        base = [_with_error(each.base, each.base_error)] if beside else []
        table.add_row(each.task, each.metric, *base, _with_error(each.tuned, each.tuned_error))
    return table


def _with_error(value: float | None, error: float | None) -> str:
    shown = UNKNOWN if value is None else _number(value)
    return shown if error is None or isnan(error) else f"{shown} ± {error:.3f}"


def _table(first: str, *others: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.add_column(first)  # the one that wraps where there is little room
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


# --- documents --------------------------------------------------------------------------------------------------------


def document(found: "Scores") -> dict[str, Any]:
    """The event of the evaluation, with its reports, cautions and the base model's; numbers that are none are null."""
    few = found.few_shot
    beside = {"base": _document(found.base)} if found.base else {}
    if few:
        beside["few_shot"] = _document(few.scored) | {
            "examples": few.count,
            "fitted": [min(few.fitted), max(few.fitted)],
        }
    return _document(found.tuned) | {"cautions": list(_cautions(found))} | beside


def _document(scored: "Scored") -> dict[str, Any]:
    event: dict[str, Any] = json.loads(to_json(scored.event))
    parts = {"report": scored.report, "choices": scored.choices, "texts": scored.texts}
    figures = {"figures": plain(scored.figures)} if scored.figures else {}
    return event | {name: plain(part) for name, part in parts.items() if part} | figures


def plain(value: Any) -> Any:
    """Dataclasses as JSON has them; numbers that are none are null."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
