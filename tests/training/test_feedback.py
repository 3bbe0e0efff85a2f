"""The start of rows without labels: its gradient, and that dev decides what stays of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zolite.config import sizes
from zolite.data.examples import Example, one_sequence
from zolite.model.feedback import SHARES, factors
from zolite.training import feedback
from zolite.training.feedback import Feedback, Held, Places, gradient_, loss_on, parts, pull_, start_from_feedback_
from zolite.training.prepare import prepare
from zolite.training.run import Run

Completions = Callable[..., Run]


@pytest.fixture
def completions(recipe: Callable[..., Any], folder: Callable[..., Path]) -> Completions:
    """A run of completions on the tiny model, in space lora."""
    return lambda **changes: prepare(recipe(data__path=str(folder("completion")), adapter__space="lora", **changes))


@pytest.fixture
def run(completions: Completions) -> Run:
    """Without a start."""
    return completions(adapter__feedback=False)


def gradient(made: Feedback, rows: Sequence[Example]) -> Tensor:
    """Of these rows, from nothing: (n,)."""
    found = torch.zeros_like(made.engine.adapter.space.theta)
    gradient_(found, made, rows)
    return found


OWN = [(3, 4, 5, 6), (7, 8, 9), (10, 11, 12, 13, 14)]


def singles(count: int) -> list[Example]:
    """Rows of two tokens: attention sees the first alone."""
    return [one_sequence((3 + i, 40 + i), range(1, 2)) for i in range(count)]


@contextmanager
def autograd(run: Run) -> Iterator[dict[str, Tensor]]:
    """Leaves in the place of every factor, by block name."""
    leaves, layers = dict[str, Tensor](), run.engine.adapter.layers
    before = {name: (layer.a, layer.b) for name, layer in layers.items()}
    for name, layer in layers.items():
        a, b = (t.detach().clone().requires_grad_() for t in factors(layer))
        layer.a, layer.b = a[None], b[None]
        leaves |= {f"{name}.a": a, f"{name}.b": b}
    yield leaves
    for name, layer in layers.items():
        layer.a, layer.b = before[name]


def test_where_a_token_sees_itself_alone_the_gradient_is_autograds(run: Run) -> None:
    engine, rows = run.engine, singles(7)
    engine.adapter.space.theta.add_(0.05 * torch.randn_like(engine.adapter.space.theta))
    with torch.inference_mode():
        made = Feedback.of(engine, rows)
        assert made is not None
        found = gradient(replace(made, shares=(torch.eye(1, SHARES).expand(4, SHARES),) * 2), rows)
    p, model = Places.of(rows, torch.device("cpu")), engine.loaded.model
    with torch.enable_grad(), autograd(run) as leaves:
        logits = model(input_ids=p.ids, use_cache=False).logits.flatten(0, 1)[p.places]
        torch.nn.functional.cross_entropy(logits, p.tokens).backward()
    for block in run.space.blocks:
        exact = leaves[block.name].grad
        exact = torch.zeros(block.shape) if exact is None else exact
        if "q_proj" not in block.name and "k_proj" not in block.name:  # attention to one token does not ask them
            torch.testing.assert_close(block.of(found), exact, rtol=0.05, atol=5e-3 * float(exact.abs().max()))


def test_a_pull_has_no_slope_where_nothing_moved_and_leads_back_where_it_did(run: Run) -> None:
    with torch.inference_mode():
        made = Feedback.of(run.engine, run.rows[:8])
        assert made is not None
        held, theta = Held.of(made, OWN), run.space.theta
        grad = torch.zeros_like(theta)
        pull_(grad, made, held, 0)
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-5)
        before, moved = theta.clone(), 0.05 * torch.randn_like(theta)
        theta.add_(moved)
        run.engine.at_theta()
        pull_(grad, made, held, 0)
        assert float(grad @ moved) > 0
        theta.copy_(before)


def test_places_know_their_neighbours() -> None:
    rows = [one_sequence((1, 2, 3, 4, 5), (2, 3)), one_sequence((6, 7, 8), (1, 2))]
    p = Places.of(rows, torch.device("cpu"))
    assert p.places.tolist() == [1, 2, 3, 4]
    assert p.tokens.tolist() == [3, 4, 7, 8]
    assert p.near[:, :3].tolist() == [[0, 1, 4], [1, 4, 4], [2, 3, 4], [3, 4, 4]]


def test_it_helps_and_what_dev_liked_best_stays(run: Run) -> None:
    dev = run.examples["dev"]
    result = start_from_feedback_(run.engine, run.examples, OWN, 4, 0, 10**6)
    assert result is not None
    assert result.steps > 0
    assert result.after < result.before
    with torch.inference_mode():
        assert loss_on(run.engine, dev[: feedback.DEV_ROWS]) == pytest.approx(result.after, rel=1e-5)


def test_the_same_start_twice(run: Run) -> None:
    theta, first = run.space.theta, run.space.theta.clone()
    found = []
    for _ in range(2):
        theta.copy_(first)
        start_from_feedback_(run.engine, run.examples, OWN, 4, 0, 500)
        found.append(theta.clone())
    assert torch.equal(*found)
    assert not torch.equal(found[0], first)


def test_where_dev_likes_nothing_the_adapter_is_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, *[2.0] * 1000])
    monkeypatch.setattr(feedback, "loss_on", lambda *_: next(losses))
    before = run.space.theta.clone()
    result = start_from_feedback_(run.engine, run.examples, OWN, 4, 0, 10**6)
    assert result is not None
    assert (result.steps, result.after) == (0, 1.0)
    assert torch.equal(run.space.theta, before)


def test_what_breaks_off_leaves_the_best_so_far(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, calls, real = run.space.theta.clone(), [], feedback.gradient_

    def breaking(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("CUDA out of memory")
        real(*args)

    monkeypatch.setattr(feedback, "gradient_", breaking)
    with pytest.raises(RuntimeError):
        start_from_feedback_(run.engine, run.examples, OWN, 4, 0, 10**6)
    assert torch.equal(run.space.theta, before)


def test_it_ends_with_the_rows_that_it_may_read(run: Run) -> None:
    result = start_from_feedback_(run.engine, run.examples, OWN, 4, 0, 300)
    assert result is not None
    assert result.rows <= 300 + len(feedback.RATES) * (feedback.EVERY * 4 + feedback.DEV_ROWS)


def test_forwards_keep_no_more_than_they_may(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = Feedback.of(run.engine, run.rows[:8]), run.rows[:24]
    assert made is not None
    whole = gradient(made, rows)
    monkeypatch.setattr(sizes, "START_KEPT", 2**14)
    cut = parts(made, rows)
    assert len(cut) > 3
    assert sorted(i for part in cut for i in part) == list(range(24))
    torch.testing.assert_close(gradient(made, rows), whole, rtol=1e-3, atol=1e-5)


def test_a_run_begins_with_it_and_says_so(completions: Completions) -> None:
    run = completions(train__steps=2000)
    assert any("slope that comes back" in note.message for note in run.notes)
    assert run.space.theta.any()


def test_a_run_that_is_too_short_does_not(completions: Completions) -> None:
    run = completions(train__steps=10)
    assert not any("slope that comes back" in note.message for note in run.notes)


def test_blocks_of_no_known_form_are_said(completions: Completions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Feedback, "of", classmethod(lambda *_: None))
    run = completions(train__steps=2000)
    assert feedback.UNKNOWN in [note.message for note in run.notes]
