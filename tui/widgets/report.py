"""What `zolite data check` found, as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from textual.content import Content

from zolite.config.recipe import DataPart
from zolite.data.kinds.registry import KINDS

BARS = 24  # cells of the longest


def shapes() -> Iterator[Content]:
    """Which columns rows may have, and what is learned of them."""
    for kind in reversed(KINDS.values()):
        yield Content.assemble("  ", (f"{', '.join(kind.columns(DataPart.template)):<18}", "bold"), f" {kind.title}")


def described(report: Mapping[str, Any], context: int) -> Content:
    """Everything, or what is wrong."""
    return Content("\n").join(list(wrong(report) if report["problems"] else right(report, context)))


def wrong(report: Mapping[str, Any]) -> Iterator[Content]:
    many = len(report["problems"])
    yield Content.assemble((f"✗ {many} problem{'s' if many > 1 else ''}", "$text-error bold"))
    yield from (Content(f"  {problem}") for problem in report["problems"])
    if report.get("examples"):
        yield Content.assemble("→ press ", ("c", "bold"), " to say which column is which")
    elif report["hint"]:
        yield Content(f"→ {report['hint']}")


def right(report: Mapping[str, Any], context: int) -> Iterator[Content]:
    yield Content.assemble(("✓ ", "$text-success"), (report["title"], "bold"))
    held = report["files"].get("dev") == report["files"]["train"]
    counts = " · ".join(f"{split} {count:,}" for split, count in report["rows"].items())
    yield Content(f"  {counts}{', dev held out of train' if held else ''}")
    if report["labels"]:
        labels = sorted(report["labels"].items(), key=lambda item: -item[1])
        more = f" and {len(labels) - 8} more" if len(labels) > 8 else ""
        yield Content("  labels: " + ", ".join(f"{label} {count:,}" for label, count in labels[:8]) + more)
    yield Content("")
    yield from first(report)
    yield from lengths(report, context)
    yield from (Content.assemble(("! ", "$text-warning"), note) for note in report["notes"])


def first(report: Mapping[str, Any]) -> Iterator[Content]:
    """Rows as the model reads them; what is trained is marked by brackets, weight and colour."""
    yield Content.assemble(("As the model reads it; ", "bold"), ("⟦what it learns to say⟧", "$text-success bold"))
    for row in report["first"][:3]:
        yield Content.assemble((f"line {row['line']}, {row['tokens']} tokens", "$text-muted"))
        yield Content.assemble(
            *((f"⟦{p['text']}⟧", "$text-success bold") if p["trained"] else p["text"] for p in row["pieces"])
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
