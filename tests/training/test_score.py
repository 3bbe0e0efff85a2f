"""Claims about scoring a session or a model: what stands beside the score, and each row's part in it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from zolite.common.errors import UsageError
from zolite.config.recipe import Recipe
from zolite.training.resume import begin
from zolite.training.score import records, score, scores

Make = Callable[..., Recipe]
PLAIN = {"model.quant": "float32", "model.device": "cpu", "data.context": 128}


@pytest.fixture
def trained(recipe: Make, folder: Callable[..., Path]) -> Path:
    """Session "run"; returns the folder of its rows."""
    data = folder()
    list(begin(recipe(data__path=str(data), train__lr=0.05, train__steps=3), "run", lambda: False))
    return data


def test_a_session_is_compared_with_its_base_model(trained: Path, recipe: Make) -> None:
    """The base is the model by itself, on the same rows; the score alone is the session's."""
    found = scores("run", trained, {})
    model = scores(recipe().model.name, trained, PLAIN)
    assert found.base is not None and model.base is None
    assert [p.ranked for p in found.base.predictions] == [p.ranked for p in model.tuned.predictions]
    for ours, theirs in zip(found.base.predictions, model.tuned.predictions, strict=True):
        assert ours.shares == pytest.approx(theirs.shares, abs=1e-5)
        assert ours.shares != pytest.approx(found.tuned.predictions[0].shares, abs=1e-3)
    alone = score("run", trained, {})
    assert (alone.value, alone.says, alone.step) == (found.tuned.event.value, found.tuned.event.says, 3)


def test_the_report_is_of_the_predictions(trained: Path) -> None:
    """Its counts, the event's figures and the records tell of one and the same choices."""
    found = scores("run", trained, {})
    report, event, rows = found.tuned.report, found.tuned.event, list(records(found))
    assert report is not None and report.accuracy == event.value and report.baseline == event.majority
    counted = Counter((row["label"], row["ranked"]) for row in rows)
    for i, right in enumerate(found.labels):
        assert [counted[right, chosen] for chosen in found.labels] == list(report.confusion[i])
    assert sum(row["says_label"] for row in rows) == event.says * len(rows)
    for line, row in enumerate(rows, start=1):
        assert row["line"] == line and row["prompt"].endswith("Category:") and row["base"].keys() <= row.keys()
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["ranked"] == max(row["probabilities"], key=row["probabilities"].__getitem__)


def test_rows_without_labels_have_a_loss_and_no_more(recipe: Make, folder: Callable[..., Path]) -> None:
    """Predictions of them are refused before a model loads."""
    data = folder("completion")
    found = scores(recipe().model.name, data, PLAIN)
    assert found.tuned.event.metric == "loss" and found.tuned.report is None
    with pytest.raises(UsageError, match="have no labels"):
        scores("no/such-model", data, PLAIN, labelled=True)
