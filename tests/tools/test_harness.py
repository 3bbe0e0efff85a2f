"""Claims about lm-eval tasks: what is handed over is the tuned model, and what comes back is shown beside the base."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from zolite.common.errors import UsageError, ZoliteError
from zolite.config.recipe import Recipe
from zolite.tools import harness
from zolite.training.resume import begin

Make = Callable[..., Recipe]
PROMPT = torch.arange(3, 11).unsqueeze(0)


class Stub:
    """In lm-eval's place: a task is the logit of a token behind a prompt."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[dict[str, Any]] = []
        package, models, hf, tasks = (ModuleType(n) for n in ("lm_eval", "models", "huggingface", "tasks"))
        package.__spec__ = SimpleNamespace(name="lm_eval")  # type: ignore[assignment]
        package.simple_evaluate = self.evaluate  # type: ignore[attr-defined]
        hf.HFLM = SimpleNamespace  # type: ignore[attr-defined]
        tasks.TaskManager = lambda: SimpleNamespace(match_tasks=lambda names: [n for n in names if n == "logit"])  # type: ignore[attr-defined]
        names = ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
        for name, module in zip(names, (package, models, hf, tasks), strict=True):
            monkeypatch.setitem(sys.modules, name, module)

    def evaluate(self, model: Any, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        if asked["num_fewshot"] == 9:
            raise ConnectionError("no route to the hub")
        logit = float(model.pretrained(PROMPT).logits[0, -1, 7])
        return {"results": {"logit": {"alias": "logit", "acc,none": logit, "acc_stderr,none": 0.5, "f1,best": 1}}}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(monkeypatch)


def test_a_session_is_scored_beside_its_base_model(stub: Stub, recipe: Make, folder: Callable[..., Path]) -> None:
    list(begin(recipe(train__lr=0.05, train__steps=3), "run", lambda: False))
    found = harness.scores("run", ["logit"], {}, base=True)
    (alone, _) = harness.scores(recipe().model.name, ["logit"], {"model.quant": "float32"}, base=True, examples=2)
    acc, f1 = found
    assert (acc.task, acc.metric, f1.metric, acc.tuned_error, f1.tuned) == ("logit", "acc", "f1 (best)", 0.5, 1)
    assert math.isnan(f1.tuned_error) and acc.base == pytest.approx(alone.tuned, abs=1e-4)
    assert acc.tuned != pytest.approx(acc.base, abs=1e-3) and alone.base is None
    assert [each["num_fewshot"] for each in stub.asked] == [None, None, 2]


def test_what_is_missing_is_said(stub: Stub, recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that it does not know, a hub that is not there, and the package itself: with the command."""
    model = recipe().model.name
    with pytest.raises(UsageError, match="lm-eval has no task nonsense"):
        harness.scores(model, ["logit", "nonsense"], {}, base=False)
    with pytest.raises(ZoliteError, match="lm-eval stopped at logit: no route to the hub"):
        harness.scores(model, ["logit"], {"model.quant": "float32"}, base=False, examples=9)
    monkeypatch.delitem(sys.modules, "lm_eval")
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed") as refused:
        harness.scores(model, ["logit"], {}, base=False)
    assert refused.value.hint == '`pip install "zolite[lm-eval]"`, then once more'
