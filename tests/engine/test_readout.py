"""Claims about the start in closed form: what it predicts is what the model then says, and sessions hold it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from zolite import recipe as recipes
from zolite import session as sessions
from zolite.data.batch import sample
from zolite.engine import readout
from zolite.engine.readout import _seen, find, labels, readout_, regress
from zolite.evaluate import evaluate
from zolite.recipe import Recipe
from zolite.replay import factors_at
from zolite.train import begin, prepare, resume

Make = Callable[..., Recipe]


@pytest.fixture
def separable(tmp_path: Path) -> str:
    """Rows whose last word says the label, which the random model does not know."""
    for split, count in (("train", 60), ("dev", 30), ("test", 30)):
        texts = [f"number {i}: {'river' if i * 7 % 5 < 2 else 'blue'}" for i in range(count)]
        rows = [{"text": t, "label": "yes" if t.endswith("river") else "no"} for t in texts]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path)


def test_it_learns_what_features_say(recipe: Make, separable: str) -> None:
    """Labels that the last word decides are all right before the first step, as the engine itself measures it."""
    run = prepare(recipe(data__path=separable))
    before = evaluate(run.engine, run.examples["test"], "test", 0).value
    note, rows = readout_(run.engine, run.examples)
    assert "readout" in note and rows >= 60 + 2 * 30
    assert before < 0.9 and evaluate(run.engine, run.examples["test"], "test", 0).value == 1.0


def test_the_last_layer_is_exact(recipe: Make, separable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the regression expects of the last layer is what the model then says, but for the stream's new length."""
    monkeypatch.setattr(readout, "LAYERS", 1)
    run = prepare(recipe(data__path=separable))
    (site, *_), norm = find(run.engine)
    tokens, rows = labels(run.examples["train"][0]), sample(run.examples["train"], 60)
    assert tokens is not None and norm is not None
    head = run.engine.loaded.model.get_output_embeddings().weight[tokens].float()
    with torch.inference_mode():
        train = _seen(run.engine, [site.layer], norm, rows)
        gain = (train.before * train.after).sum(0) / train.before.square().sum(0)
        logits, x = train.after @ head.mT, train.xs[0]
        weight = 1e-3 * torch.randn(2, x.shape[1], generator=torch.Generator().manual_seed(0))
        readout.install_(run.engine, site, x, torch.linalg.pinv(head * gain), weight)
        now = _seen(run.engine, [], norm, rows).after @ head.mT
    moved, expected = (now - logits).diff(dim=1), (x @ weight.mT).diff(dim=1)
    assert F.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.95


def test_regression_is_the_best_there_is(recipe: Make) -> None:
    """Against plain gradient descent on the same ridge problem: no lower loss is found."""
    make = torch.Generator().manual_seed(0)
    x, answers = torch.randn(40, 6, generator=make), torch.randint(0, 3, (40,), generator=make)
    logits = torch.randn(40, 3, generator=make)
    found = readout._fit(x, logits, answers, 1e-2, torch.zeros(3, 6))

    def loss(w: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits + x @ w.mT, answers) + 1e-2 * w.square().sum()

    w = torch.zeros(3, 6, requires_grad=True)
    for _ in range(3000):
        (gradient,) = torch.autograd.grad(loss(w), w)
        w = (w - 0.5 * gradient).detach().requires_grad_()
    assert float(loss(found)) <= float(loss(w)) + 1e-5
    weight, expected = regress(x, logits, answers, x, logits, answers)
    assert expected == pytest.approx(float(F.cross_entropy(logits + x @ weight.mT, answers)), abs=1e-5)


def test_nothing_is_left_where_nothing_helps(recipe: Make, folder: Callable[..., Path]) -> None:
    """Rows without labels have none, and labels that nothing says anything about leave the adapter as it was drawn."""
    for kind in ("completion", "messages"):
        run = prepare(recipe(data__path=str(folder(kind))))
        assert readout_(run.engine, run.examples) == ("", 0)
        assert not run.engine.adapter.moved and not run.space.theta.any()


def test_a_session_holds_it(recipe: Make, separable: str) -> None:
    """The A's that a readout gave are in the checkpoint: a resume and an export have them, bit for bit."""
    made = recipe(data__path=separable, train__steps=4)
    made = replace(made, adapter=replace(made.adapter, readout=True))
    list(begin(made, "whole", lambda: False))
    count = iter(range(100))
    list(begin(made, "parts", lambda: next(count) >= 2))
    list(resume("parts", {}, False, lambda: False))
    whole, parts = ({} | factors_at(s)[1] for s in map(sessions.open_, ("whole", "parts")))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with sessions.open_("whole") as session:
        drawn = prepare(replace(made, adapter=replace(made.adapter, readout=False))).engine.adapter.frozen
        moved = [name for name, value in drawn.items() if not torch.equal(value, whole[name])]
        assert moved and all(f"frozen.{name}" in session.newest()[0].tensors() for name in moved)


def test_off_when_asked(recipe: Make, separable: str) -> None:
    """`adapter.readout` = false, or a space that trains A too, begins at the model as it is."""
    off = recipe(data__path=separable)
    lora = recipes.override(off, {"adapter.space": "lora", "adapter.readout": True})
    assert not prepare(off).choices and not prepare(lora).choices
