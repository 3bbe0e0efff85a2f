"""Scores by label, as `zolite eval` found them last."""

from math import isfinite

from zolite.common.text import UNKNOWN, many, one_line
from zolite.monitor.classification import Report, cautions, report_of
from zolite.monitor.log import split_text
from zolite.report.markup import Markup, joined, table, tag
from zolite.report.subject import Subject

MOST_CONFUSED = 20  # labels whose confusion is shown
MOST_LABELS = 60  # that are listed one by one


def by_label(subject: Subject) -> Markup:
    """What `zolite eval` found last."""
    kept = subject.scores
    if kept is None:
        return (
            tag(
                "p",
                "Not measured yet: ",
                tag("code", f"zolite eval {subject.name} --data ROWS"),
                " does, and adds it here.",
                class_="note",
            )
            if subject.facts.get("labels")
            else Markup()
        )
    right = [i for i, line in enumerate(kept.confusion) for _ in range(sum(line))]
    chosen = [j for line in kept.confusion for j, count in enumerate(line) for _ in range(count)]
    found = report_of(kept.labels, right, chosen)
    low, high = found.interval.low, found.interval.high
    words = (
        f"{split_text(kept.split)}, step {kept.step:,}: {found.accuracy:.1%} of {found.rows:,} rows are right "
        f"(95 % interval {low:.1%} to {high:.1%}); always {one_line(found.majority)!r} would be {found.baseline:.1%}."
    )
    warned = [tag("p", f"▲ {each}", class_="warn") for each in cautions(found)]
    return joined(tag("p", words), warned, _label_table(found), _confusion(found))


def _label_table(found: Report) -> Markup:
    rows = [
        (one_line(s.label), f"{s.rows:,}", f"{s.chosen:,}", f"{s.right:,}", *map(_share, (s.precision, s.recall, s.f1)))
        for s in sorted(found.labels, key=lambda s: -s.rows)[:MOST_LABELS]
    ]
    more = len(found.labels) - len(rows)
    note = tag("p", f"and {many(more, 'label')} more, with fewer rows", class_="note") if more else ""
    return joined(table(("label", "rows", "chosen", "right", "precision", "recall", "F1"), rows), note)


def _share(value: float) -> str:
    return f"{value:.1%}" if isfinite(value) else UNKNOWN


def _confusion(found: Report) -> Markup:
    if not 1 < len(found.labels) <= MOST_CONFUSED:
        return Markup()
    names = [one_line(s.label) for s in found.labels]
    head = tag("tr", tag("th", "label ↓, chosen →"), (tag("th", name) for name in names))
    body = [
        tag("tr", tag("td", names[i]), (_cell(count, i == j) for j, count in enumerate(line)))
        for i, line in enumerate(found.confusion)
    ]
    table = tag("table", tag("thead", head), tag("tbody", body))
    return joined(tag("h3", "What was chosen for which"), tag("div", table, class_="wide"))


def _cell(count: int, right: bool) -> Markup:
    return tag("td", f"{count:,}" if count else "·", class_=("hit" if right else "miss") if count else None)
