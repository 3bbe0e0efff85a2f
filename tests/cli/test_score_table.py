"""Claims about the report of `zolite eval`: everything is in it, and nothing looks better than it is."""

import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from zolite.cli.score_table import document, render
from zolite.common.events import Evaluated
from zolite.data.kinds.kind import Row
from zolite.monitor.classification import report_of
from zolite.training.evaluate import Prediction, figures
from zolite.training.greedy import Said
from zolite.training.score import Scored, Scores


def scored(pairs: list[tuple[int, int]], labels: tuple[str, ...], step: int, says: bool) -> Scored:
    found = [Prediction(right, chosen, (), Said("", chosen if says else None)) for right, chosen in pairs]
    event = Evaluated(step, "test", "accuracy", rows=len(pairs), seconds=1.0, **figures(found))
    return Scored(event, found, report_of(labels, [r for r, _ in pairs], [c for _, c in pairs]))


def made(pairs: list[tuple[int, int]], labels: tuple[str, ...], says: bool = True) -> Scores:
    rows = tuple(Row(i + 1, {}) for i in range(len(pairs)))
    base = scored([(right, 0) for right, _ in pairs], labels, 0, says=False)
    return Scores("first", labels, rows, ("",) * len(rows), scored(pairs, labels, 400, says), base)


def printed(found: Scores, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(render(found))
    return capture.get()


HAM = [(0, 0)] * 252 + [(1, 1)] * 8


def test_it_has_every_number() -> None:
    """The score with what is said, base and session side by side, a line a label, and who was taken for whom."""
    text = printed(made([(0, 0)] * 40 + [(0, 1)] * 10 + [(1, 1)] * 45 + [(1, 0)] * 5, ("no", "yes")))
    head = (
        "test: accuracy 85.0% among 2 labels (always 'no': 50.0%), says a label 100.0%, the right one 85.0%; 100 rows"
    )
    assert text.splitlines()[0] == head
    lines = [line.split() for line in text.splitlines()]
    assert ["accuracy,", "ranked", "50.0%", "85.0%"] in lines
    assert ["base", "model", "at", "step", "400"] in lines and ["majority", "baseline", "50.0%", "50.0%"] in lines
    assert ["says", "a", "label", "0.0%", "100.0%"] in lines
    assert ["Matthews", "0.000", "0.704"] in lines
    assert ["no", "50", "45", "40", "88.9%", "80.0%", "0.842"] in lines
    assert ["1", "no", "40", "10"] in lines and ["2", "yes", "5", "45"] in lines
    assert "▲" not in text


def test_a_perfect_score_on_lopsided_rows_does_not_look_like_success() -> None:
    text = printed(made(HAM, ("ham", "spam")))
    first = text.splitlines()[1]
    assert first.startswith("▲ accuracy says little where 96.9%")
    assert "fewer than 20 rows" in text and "always 'ham'" in text and "96.9%" in text


@pytest.mark.parametrize("labels", [2, 20, 21])
def test_confusion_has_room(labels: int) -> None:
    """Up to 20 labels, in a terminal of 80 columns without a cut number."""
    names = tuple(f"a label with a long name, number {i}" for i in range(labels))
    text = printed(made([(i, i) for i in range(labels) for _ in range(33)], names), width=80)
    assert ("label ↓, chosen →" in text) is (labels <= 20)
    if labels <= 20:
        *_, last = [line for line in text.splitlines() if line.strip()]
        assert last.split()[-1] == "33" and last.startswith(str(labels))


def test_without_labels_there_is_one_line() -> None:
    event = Evaluated(400, "test", "loss", 1.25, 200, 1.0)
    found = Scores("first", (), (), (), Scored(event), Scored(replace(event, value=2.5)))
    assert printed(found) == "test: loss 1.250 nats a token (base model 2.500); 200 rows\n"
    assert document(found)["base"]["value"] == 2.5 and document(found)["says"] is None


def test_the_document_is_json() -> None:
    """Whole, and what is no number is null."""
    found = document(made([(0, 0)] * 3, ("no", "yes"), says=False))
    text = json.dumps(found, allow_nan=False)
    again: dict[str, Any] = json.loads(text)
    assert again["report"]["labels"][1]["recall"] is None and again["base"]["report"]["rows"] == 3
    assert again["value"] == 1.0 and again["says"] == 0.0 and len(again["cautions"]) >= 2
    assert not any(isinstance(v, float) and math.isnan(v) for v in again.values())
