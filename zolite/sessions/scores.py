"""What `zolite eval` found last of a session, kept in its folder for its report: labels, and what was said for which.

The session may have come from anywhere, so what is read is checked: counts, not the figures that follow from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zolite.common import files, guarded
from zolite.common.text import json_text

FILE = "scores.json"
MOST = 16 << 20  # bytes
MOST_LABELS = 2000


@dataclass(frozen=True)
class Kept:
    step: int
    split: str
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows by their label, columns by the chosen one


def keep(folder: Path, document: Mapping[str, Any]) -> None:
    """In a session's folder; `document` is what `zolite eval --json` prints. Nothing, where rows have no labels."""
    if report := document.get("report"):
        names = [each["label"] for each in report["labels"]]
        kept = {"step": document["step"], "split": document["split"], "labels": names, "confusion": report["confusion"]}
        with files.saving("the scores", folder):
            files.replace(folder / FILE, json_text(kept).encode("utf-8", "backslashreplace"))


def kept(folder: Path, upto: int) -> Kept | None:
    """None where there are none, they are not whole, or they are of a step after `upto`, which is gone."""
    try:
        found = guarded.json_of(folder / FILE, MOST)
        names, table = (
            tuple(map(_text, found["labels"])),
            tuple(map(_counts, found["confusion"])),
        )
        read = Kept(_count(found["step"]), _text(found["split"]), names, table)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    square = len(table) == len(names) and all(len(line) == len(names) for line in table)
    return read if square and 0 < len(names) <= MOST_LABELS and any(map(any, table)) and read.step <= upto else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value


def _counts(line: Any) -> tuple[int, ...]:
    return tuple(map(_count, line))


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value
