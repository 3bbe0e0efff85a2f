"""Claims about the start in closed form: what it predicts is what the model then says, and sessions hold it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.engine.batch import sample
from zolite.sessions import session as sessions
from zolite.training import linear_probe
from zolite.training.evaluate import evaluate
from zolite.training.linear_probe import (
    REGULARIZER,
    Features,
    FeatureScale,
    ProbedLayer,
    Result,
    Sequences,
    find,
    fit,
    start_from_probe_,
)
from zolite.training.prepare import prepare
from zolite.training.replay import factors_at
from zolite.training.resume import begin, resume
from zolite.zo.direction import Combo

Make = Callable[..., Recipe]
MOST = 2000  # rows


def test_it_learns_what_features_say(recipe: Make, separable: str) -> None:
    """Labels that the last word decides are all right before the first step, as the engine itself measures it."""
    run = prepare(recipe(data__path=separable))
    before = evaluate(run.engine, run.examples["test"], "test", 0).value
    found = start_from_probe_(run.engine, run.examples, MOST)
    assert "linear probe" in found.text and found.rows >= 60 + 2 * 30
    assert before < 0.9 and evaluate(run.engine, run.examples["test"], "test", 0).value == 1.0


def of_several_tokens(folder: str) -> str:
    """Its labels begin alike, and one is longer."""
    for file in Path(folder).glob("*.jsonl"):
        file.write_text(file.read_text().replace('"yes"', '"a river"').replace('"no"', '"a sea of blue"'))
    return folder


def test_scores_are_the_engines(recipe: Make, separable: str) -> None:
    """What a linear probe means to move is what the run itself compares: mean log-probabilities of whole labels."""
    run = prepare(recipe(data__path=of_several_tokens(separable)))
    rows = run.examples["dev"]
    with torch.inference_mode():
        seen = linear_probe.features_of(run.engine, rows, [])
        assert torch.allclose(seen.scores, run.engine.scores(rows).cpu(), atol=1e-5)
        assert seen.loss == pytest.approx(float(run.engine.bind(rows)([Combo()])), abs=1e-5)


def test_labels_that_begin_alike(recipe: Make, separable: str) -> None:
    """Labels whose first tokens say nothing are told apart by those behind, which a layer reaches through attention."""
    run = prepare(recipe(data__path=of_several_tokens(separable)))
    with torch.inference_mode():
        before = linear_probe.features_of(run.engine, run.examples["test"], []).loss
        found = start_from_probe_(run.engine, run.examples, MOST)
        assert found.text and found.loss == pytest.approx(linear_probe.loss_on(run.engine, run.examples["dev"]), 1e-3)
        assert linear_probe.features_of(run.engine, run.examples["test"], []).loss < before - 0.05


def test_what_is_installed_is_what_was_meant(recipe: Make, separable: str) -> None:
    """At every layer: small weights move the labels' logits as they say, for all rows, as the model itself measures."""
    run = prepare(recipe(data__path=separable))
    rows, layers = sample(run.examples["train"], 60), find(run.engine)
    assert [layer.name.rpartition(".")[2] for layer in layers[-2:]] == ["o_proj", "down_proj"]
    for layer in layers:
        with torch.inference_mode():
            train, old = linear_probe.features_of(run.engine, rows, [layer]), linear_probe._factors(run.engine, layer)
            x = train.xs[layer.name]
            weight = 1e-3 * torch.randn(2, x.shape[1], generator=torch.Generator().manual_seed(0)) / x.std()
            directions = linear_probe.output_directions(run.engine, layer, rows)
            linear_probe.install_(run.engine, layer, x, directions, weight - weight.mean(0), slice(0, 4))
            now = linear_probe.features_of(run.engine, rows, [])
            run.engine.adapter.put_(old)
        moved, expected = ((now.scores - train.scores).diff(dim=1), (x @ weight.mT).diff(dim=1))
        assert F.cosine_similarity(moved.flatten(), expected.flatten(), dim=0) > 0.95, layer.name
        assert moved.norm() == pytest.approx(float(expected.norm()), rel=0.2), layer.name


def test_derivative_by_autograd(recipe: Make, separable: str) -> None:
    """Pushes measure the derivative that autograd has: along an output direction its own logit moves by one, alone."""
    run = prepare(recipe(data__path=separable))
    rows, layer = sample(run.examples["train"], 60), find(run.engine)[0]
    with torch.inference_mode():
        out = linear_probe.output_directions(run.engine, layer, rows)
    derivatives = []
    for part in linear_probe._sequences(run.engine, rows):
        push = torch.zeros(len(part.rows), out.shape[0], requires_grad=True)

        def add(_: Any, __: Any, output: Tensor, push: Tensor = push, part: Sequences = part) -> Tensor:
            return output.index_put(part.places, push.repeat_interleave(part.each, 0), accumulate=True)

        handle = layer.linear.register_forward_hook(add)
        scores = part.scores()
        handle.remove()
        derivatives.append(
            [torch.autograd.grad(scores[:, c].sum(), push, retain_graph=True)[0].mean(0) for c in (0, 1)]
        )
    mean = torch.tensor([[float(v) for v in sum(part[c] for part in derivatives) / len(derivatives)] for c in (0, 1)])
    assert (mean @ out).diff(dim=0).flatten().tolist() == pytest.approx([-1.0, 1.0], rel=0.1)


def test_other_tokens_are_left_alone() -> None:
    """The measure is the inverse root of (unit² + the other tokens' second moment), which it never builds."""
    make = torch.Generator().manual_seed(0)
    x, others = torch.randn(50, 12, generator=make), 3 * torch.randn(7, 12, generator=make)
    found = FeatureScale.of(x, others)
    output = found.scaled(x)
    unit = x.square().mean(0).sqrt() * 12**0.5
    other = others / unit
    dense = torch.eye(12).double() + REGULARIZER * 12 / 7 * (other.mT @ other).double()
    values, turn = torch.linalg.eigh(dense)
    assert torch.allclose(output.double(), (x / unit).double() @ (turn * values.rsqrt()) @ turn.mT, atol=1e-5)
    weight = torch.randn(3, 12, generator=make)
    assert torch.allclose(output @ weight.mT, x @ found.back(weight).mT, atol=1e-5)


def test_regression_is_the_best_there_is(recipe: Make) -> None:
    """Against plain gradient descent on the same ridge problem: no lower loss is found."""
    make = torch.Generator().manual_seed(0)
    x, answers = torch.randn(40, 6, generator=make), torch.randint(0, 3, (40,), generator=make)
    logits = torch.randn(40, 3, generator=make)
    found = linear_probe._fit(x, logits, answers, 1e-2, torch.zeros(3, 6), 100)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits + x @ w.mT, answers) + 1e-2 * w.square().sum()

    w = torch.zeros(3, 6, requires_grad=True)
    for _ in range(3000):
        (gradient,) = torch.autograd.grad(loss(w), w)
        w = (w - 0.5 * gradient).detach().requires_grad_()
    assert float(loss(found)) <= float(loss(w.detach())) + 1e-5
    rows, layer = Features({"a": x}, {"a": x}, logits, answers), ProbedLayer("a", None, None)  # type: ignore[arg-type]
    weight, expected = fit(rows, rows, layer)
    assert expected == pytest.approx(float(F.cross_entropy(logits + x @ weight.mT, answers)), abs=1e-5)


def test_nothing_is_left_where_nothing_helps(recipe: Make, folder: Callable[..., Path]) -> None:
    """Rows without labels have none, and labels that nothing says anything about leave the adapter as it was drawn."""
    for kind in ("completion", "messages"):
        run = prepare(recipe(data__path=str(folder(kind))))
        assert start_from_probe_(run.engine, run.examples, MOST) == Result("", 0)
        assert not run.engine.adapter.moved and not run.space.theta.any()


def test_what_does_not_help_is_taken_back(recipe: Make, separable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites that made dev worse leave the adapter as it was drawn, and nothing of it to be saved."""
    run, install = prepare(recipe(data__path=separable)), linear_probe.install_
    drawn = {name: value.clone() for name, value in run.engine.adapter.frozen.items()}
    monkeypatch.setattr(linear_probe, "install_", lambda e, layer, x, out, w, r: install(e, layer, x, out, -30 * w, r))
    assert start_from_probe_(run.engine, run.examples, MOST).text == ""
    assert not run.engine.adapter.moved and not run.space.theta.any()
    assert all(torch.equal(value, drawn[name]) for name, value in run.engine.adapter.frozen.items())


@pytest.mark.parametrize("objective", ["rank", "say"])
def test_a_session_holds_it(objective: str, recipe: Make, separable: str) -> None:
    """The A's of a linear probe, and of the fit behind it, are in the checkpoint: a resume and an export have them."""
    made = recipe(data__path=separable, train__steps=4, train__objective=objective, adapter__rank=10)
    made = replace(made, adapter=replace(made.adapter, linear_probe=True))
    list(begin(made, "whole", lambda: False))
    count = iter(range(100))
    list(begin(made, "parts", lambda: next(count) >= 2))
    list(resume("parts", {}, False, lambda: False))
    whole, parts = ({} | factors_at(s)[1] for s in map(sessions.open_, ("whole", "parts")))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with sessions.open_("whole") as session:
        drawn = prepare(replace(made, adapter=replace(made.adapter, linear_probe=False))).engine.adapter.frozen
        moved = [name for name, value in drawn.items() if not torch.equal(value, whole[name])]
        assert moved and all(f"frozen.{name}" in session.newest()[0].tensors() for name in moved)


def test_off_when_asked(recipe: Make, separable: str) -> None:
    """`adapter.linear_probe` = false, or a space that trains A too, begins at the model as it is."""
    off = recipe(data__path=separable)
    lora = recipes.override(off, {"adapter.space": "lora", "adapter.linear_probe": True})
    assert not any("probe" in note.message for made in (off, lora) for note in prepare(made).notes)


def test_numbers_that_are_none(recipe: Make) -> None:
    """Features that overflowed say nothing, and break nothing."""
    make = torch.Generator().manual_seed(0)
    x, answers = torch.randn(40, 6, generator=make), torch.randint(0, 2, (40,), generator=make)
    x[:, 0] = 2.0 * answers - 1
    x[3, 1], x[4, 2] = math.inf, math.nan
    rows, layer = Features({"a": x}, {"a": x}, torch.zeros(40, 2), answers), ProbedLayer("a", None, None)  # type: ignore[arg-type]
    weight, loss = fit(rows, rows, layer)
    assert torch.isfinite(weight).all() and loss < 0.1
