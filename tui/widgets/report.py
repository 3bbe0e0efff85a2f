"""What `zolite data check` found, as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from textual.content import Content

from zolite.common.text import one_line, visible
from zolite.config.recipe import DataPart
from zolite.data.kinds.registry import KINDS

BARS = 24  # cells of the longest
MOST_LABELS = 8  # that are shown
TRAINED = "$text-success bold"


def shapes() -> Iterator[Content]:
    """Which columns rows may have, and what is learned of them."""
    for kind in reversed(KINDS.values()):
        yield Content.assemble("  ", (f"{', '.join(kind.columns(DataPart.template)):<18}", "bold"), f" {kind.title}")


def described(report: Mapping[str, Any], context: int) -> Content:
    """Everything, or what is wrong."""
    return Content("\n").join(list(wrong(report) if report["problems"] else right(report, context)))


def wrong(report: Mapping[str, Any]) -> Iterator[Content]:
    many = report.get("faults") or len(report["problems"])
    yield Content.assemble((f"✗ {many:,} problem{'s' if many > 1 else ''}", "$text-error bold"))
    yield from (Content(f"  {visible(problem)}") for problem in report["problems"])
    if many > len(report["problems"]):
        yield Content(f"  … and {many - len(report['problems']):,} more")
    if report.get("examples"):
        yield Content.assemble("→ press ", ("c", "bold"), " to say which column is which")
    elif report["hint"]:
        yield Content(f"→ {visible(report['hint'])}")


def right(report: Mapping[str, Any], context: int) -> Iterator[Content]:
    """What a person needs first: can they be used, what they are, what is likely wrong. Then details."""
    yield Content.assemble(("✓ ", "$text-success"), (report["title"], "bold"))
    counts = " · ".join(f"{split} {count:,}" for split, count in report["rows"].items())
    yield Content(f"  {counts}")
    if labels := list(report["labels"].items()):
        more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
        shown = ", ".join(f"{one_line(label)} {count:,}" for label, count in labels[:MOST_LABELS])
        always = f"  always saying {one_line(labels[0][0])!r} would be right in {report['majority']:.0%}"
        yield Content(f"  labels: {shown}{more}")
        yield Content.assemble((always, "$text-muted"))
    yield from (Content.assemble(("▲ ", "$text-warning"), one_line(text)) for text in report["warnings"])
    yield from (Content.assemble(("· ", "$text-muted"), one_line(note)) for note in report["notes"])
    yield Content("")
    yield from first(report)
    yield from lengths(report, context)
    if longest := ", ".join(f"line {each['line']} ({each['tokens']:,})" for each in report["longest"][:3]):
        yield Content.assemble(("  longest: ", "$text-muted"), longest)


def first(report: Mapping[str, Any]) -> Iterator[Content]:
    """Rows as the model reads them; what is trained is marked by brackets, weight and colour."""
    yield Content.assemble(("As the model reads it; ", "bold"), ("⟦what it learns to say⟧", TRAINED))
    for row in report["first"][:3]:
        yield Content.assemble((f"line {row['line']}, {row['tokens']} tokens", "$text-muted"))
        yield Content.assemble(
            *((f"⟦{visible(p['text'])}⟧", TRAINED) if p["trained"] else visible(p["text"]) for p in row["pieces"])
        )
    yield Content("")


def lengths(report: Mapping[str, Any], context: int) -> Iterator[Content]:
    by = "letters, roughly" if report["counted"] == "letters" else report["counted"]
    yield Content.assemble(("Tokens a row", "bold"), (f", counted by {by}", "$text-muted"))
    most = max(each["rows"] for each in report["lengths"])
    for each in report["lengths"]:
        bar = "█" * round(BARS * each["rows"] / most) or ("▏" if each["rows"] else "")
        over = ("  ▲ beyond the context", "$text-warning") if context and each["upto"] > context else ""
        yield Content.assemble(f"  ≤{each['upto']:6,} ", (bar, "$primary"), f" {each['rows']:,}", over)
    yield Content(f"  half have up to {report['typical']:,}, the longest {report['tokens']:,}")
