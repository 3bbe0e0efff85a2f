"""Captured steps against eager ones, on a GPU; what refuses capture; and that no step waits for the device."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zolite.config.methods import METHODS
from zolite.config.recipe import Recipe
from zolite.engine import cuda_graph
from zolite.engine.cuda_graph import Steps
from zolite.model.fused_decoder import Decoder
from zolite.training.prepare import prepare
from zolite.training.run import Run, batches_of, stepper
from zolite.zo.direction import Combo, Noise, mirrored
from zolite.zo.estimators import Estimate
from zolite.zo.rng import Key

Make = Callable[..., Recipe]


def gpu(test: Any) -> Any:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test))


FORMATS = ("int8", "nf4", "bf16")


@pytest.fixture(autouse=True)
def stream() -> Any:
    """Steps move the process to a stream of their own; the next test starts on this one again."""
    yield
    if torch.cuda.is_available():
        torch.cuda.set_stream(torch.cuda.default_stream())


def run_of(recipe: Make, **changes: Any) -> Run:
    return prepare(recipe(**{"model__device": "cuda", "train__lr": 0.01, "train__steps": 40} | changes))


def taken(run: Run, steps: int, capture: bool = True) -> tuple[Tensor, Tensor, Steps]:
    """(losses, theta, what took the steps) of the first steps."""
    take = stepper(run)
    take.captures = capture
    losses = [take(batches_of(run, step), step).losses for step in range(steps)]
    return torch.cat(losses).cpu(), run.space.theta.cpu().clone(), take


# CPU: what needs no graph


def test_a_cpu_takes_its_steps_one_kernel_at_a_time(recipe: Make) -> None:
    run = prepare(recipe())
    take = stepper(run)
    assert not take.captures
    for step in range(3):
        batches = batches_of(run, step)
        take(batches, step)
    assert take.refusal() == ""
    assert not take.graphs


def test_estimates_are_kept_where_no_later_step_writes(recipe: Make) -> None:
    run = prepare(recipe())
    shared = Estimate(Combo(((1.0, Noise(Key(0, 0))),)), torch.zeros(1), torch.zeros(2))
    take = Steps(run.engine, lambda batches, step: None, lambda batches, step: shared, run.state)
    kept = take(batches_of(run, 0), 0)
    shared.losses.fill_(7.0)
    assert kept.losses.tolist() == [0.0, 0.0]
    assert kept.grad == Combo()


@pytest.mark.parametrize(
    ("points", "are"),
    [
        (lambda a, b: [(0.1, a), (-0.1, a)], True),
        (lambda a, b: [(0.1, a), (-0.1, a), (0.2, b), (-0.2, b)], True),
        (lambda a, b: [(0.1, a), (-0.1, b)], False),
        (lambda a, b: [(0.1, a), (0.1, a)], False),
        (lambda a, b: [(0.1, a), (-0.2, a)], False),
        (lambda a, b: [(0.1, a), (-0.1, a), (0.2, b)], False),
        (lambda a, b: [(0.1, a), (0.2, b), (-0.1, a), (-0.2, b)], False),
    ],
)
def test_only_opposite_neighbours_are_mirrored(points: Any, are: bool) -> None:
    combos = [Combo((term,)) for term in points(Noise(Key(0, 0)), Noise(Key(0, 0, (1,))))]
    assert mirrored(combos) == are
    assert not mirrored([Combo()])
    assert not mirrored([Combo(), Combo()])


# GPU


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"zo-finetuner"}))
@pytest.mark.parametrize("space", ["lora-b", "lora-core"])
@gpu
def test_every_method_is_captured_bit_for_bit(recipe: Make, method: str, space: str) -> None:
    changes = {"method__name": method, "method__every": 4, "train__lr": 0.0, "model__quant": "int8"}
    changes["adapter__space"] = space
    eager, eager_theta, _ = taken(run_of(recipe, **changes), 10, capture=False)
    losses, theta, take = taken(run_of(recipe, **changes), 10)
    assert any(take.graphs.values()) and not take.refusal()
    assert torch.equal(losses, eager)
    assert torch.equal(theta, eager_theta)


@pytest.mark.parametrize("quant", FORMATS)
@pytest.mark.parametrize(("kind", "space"), [("label", "lora-b"), ("completion", "lora-b"), ("label", "lora-core")])
@gpu
def test_a_captured_run_is_the_eager_one_bit_for_bit(
    recipe: Make, folder: Callable[..., Any], quant: str, kind: str, space: str
) -> None:
    changes = {"model__quant": quant, "data__path": str(folder(kind)), "adapter__space": space}
    eager, eager_theta, _ = taken(run_of(recipe, **changes), 20, capture=False)
    losses, theta, take = taken(run_of(recipe, **changes), 20)
    assert any(take.graphs.values()) and not take.refusal()
    assert torch.equal(losses, eager)
    assert torch.equal(theta, eager_theta)
    assert len(losses.unique()) == losses.numel()  # no step is another's replay


@pytest.mark.parametrize(("quant", "most"), [("int8", 0.02), ("nf4", 2e-3), ("bf16", 2e-3)])
@gpu
def test_waves_and_microbatches_are_the_whole(recipe: Make, quant: str, most: float) -> None:
    """To within rounding, which for int8 is that of its activations where points run in pairs."""
    data = recipe().data.path
    found = [
        taken(
            run_of(
                recipe,
                model__quant=quant,
                data__path=data,
                train__queries=2,
                train__copies=copies,
                train__microbatch=rows,
            ),
            1,
        )[0]
        for copies, rows in ((4, 0), (2, 0), (1, 0), (4, 2), (2, 3))
    ]
    assert torch.equal(found[0], found[1]) or quant != "int8"  # pairs are pairs, in any wave
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=most, atol=0.0)


@pytest.mark.parametrize(("quant", "space"), [*((q, "lora-b") for q in (*FORMATS, "float32")), ("int8", "lora-core")])
@gpu
def test_no_step_waits_for_the_device(recipe: Make, quant: str, space: str) -> None:
    run = run_of(recipe, model__quant=quant, adapter__space=space)
    assert isinstance(run.engine.decode, Decoder) == (quant != "float32")
    for capture in (False, True) if quant != "float32" else (True,):  # transformers' masks wait, unless captured
        take = stepper(run)
        take.captures = capture
        for step in range(24):  # every bucket eagerly, then captured
            take(batches_of(run, step), step)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(24):
                take(batches_of(run, step), step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert not take.refusal()


@gpu
def test_a_step_that_reads_back_is_taken_eagerly_and_said_once(recipe: Make) -> None:
    def reading(batches: Sequence[Any], step: Any) -> Estimate:
        estimate = steps.step(batches, step)
        return replace(estimate, coefs=estimate.coefs * float(estimate.losses[0]))  # waits: what a ranking does

    data = recipe().data.path
    run, plain = (run_of(recipe, data__path=data) for _ in range(2))
    steps = stepper(run)
    take = Steps(run.engine, steps.before, reading, run.state)
    losses = torch.cat([take(batches_of(run, step), step).losses for step in range(12)]).cpu()
    assert take.refusal() and take.refusal() == ""
    assert not take.captures
    assert torch.equal(losses, taken(plain, 12, capture=False)[0])


@gpu
def test_a_method_that_counts_in_python_is_not_captured(recipe: Make) -> None:
    run = run_of(recipe)
    run.state["rule"]["taken"] = 0
    steps = stepper(run)

    def counting(batches: Sequence[Any], step: Any) -> Estimate:
        run.state["rule"]["taken"] += 1
        return steps.step(batches, step)

    take = Steps(run.engine, steps.before, counting, run.state)
    for step in range(12):
        take(batches_of(run, step), step)
    assert run.state["rule"]["taken"] == 12  # the capture that was given up counts for nothing
    assert "Python" in take.refusal()


@gpu
def test_there_are_no_more_graphs_than_allowed(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "MOST_GRAPHS", 1)
    data = recipe().data.path
    losses, theta, take = taken(run_of(recipe, data__path=data), 20)
    monkeypatch.setattr(cuda_graph, "MOST_GRAPHS", 32)
    others, same_theta, many = taken(run_of(recipe, data__path=data), 20)
    assert len(take.graphs) == 1 < len(many.graphs)
    assert torch.equal(losses, others) and torch.equal(theta, same_theta)
