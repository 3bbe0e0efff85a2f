"""Claim: what separates a method's directions from mezo's: norm, alignment, rank or noise. On a CPU, without a forward.

python benchmarks/directions.py DATA [OUT] [--tasks trec,sst2] [--methods mezo,lozo] [--draws 50] [--optimizer FILE]

ROWS rows' own gradients are taken by backpropagation (float32, SmolLM2-135M, lora-b) at two θ: at the start, and after
FIRST_ORDER steps of AdamW. With them the loss of a batch is a plane, on which each method makes its estimates ĝ of the
gradient G as in steps one after the other, each on a batch of 16 of the rows; θ stays where it is. ĝ is times the
method's default rate over mezo's. The curvature is the rows' Fisher matrix F, the mean of their gradients' squares.
Averages, relative to ‖G‖:

- gain: ⟨ĝ, G⟩, how much of the gradient a step follows; 1 for an unbiased estimate
- cosine: root mean square of ĝ's with G
- norm: ‖ĝ‖² over n
- bend: ĝᵀFĝ; what a step at the best rate takes off the loss goes with gain² / bend: `progress`, over the forwards
- window: the same of the mean of WINDOW estimates in a row, which low-rank makes in one subspace
- sharp: ĝᵀFĝ / ‖ĝ‖², a draw in each of WINDOWS windows: mean and largest, over mezo's mean (tr F / n). A rate that is
  stable in all of them goes with one over the largest.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import RESULTS, write
from methods import BATCH, MODEL, Job, Row, examples_of, first_order, recipe_of
from torch import Tensor

from zolite.common.paths import paths
from zolite.config.composition import forwards_per_step
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.model import load as models
from zolite.training.learn_scales import Gradients
from zolite.training.prepare import assemble
from zolite.training.run import Run
from zolite.training.scale_nets import networks
from zolite.zo.build import build
from zolite.zo.direction import dense
from zolite.zo.estimators import Estimator
from zolite.zo.rng import Key
from zolite.zo.samplers import Objective
from zolite.zo.space import Space
from zolite.zo.state import State

FORWARDS, ROWS, FIRST_ORDER, RATE, WINDOW, WINDOWS = 4000, 32, 10, 3e-3, 50, 20
SPOTS = {"start": 0, "after": 1000}  # θ, and the number of the first step that is drawn there


@dataclass(frozen=True)
class Plane:
    """Losses around a θ, to first order."""

    space: Space
    losses: Tensor  # (ROWS,)
    gradients: Tensor  # (ROWS, n)

    def objective(self, step: int) -> Objective:
        """A step's batch."""
        rows = torch.randperm(ROWS, generator=torch.Generator().manual_seed(step))[:BATCH]
        loss, gradient = self.losses[rows].mean(), self.gradients[rows].mean(dim=0)
        return lambda points, groups=1: torch.stack([loss + gradient @ dense(p, self.space) for p in points])

    def bend(self, x: Tensor) -> float:
        return float((self.gradients @ x).square().mean())


def plane(run: Run) -> Plane:
    """At the run's θ."""
    by, found = Gradients.of(run.engine), list[tuple[Tensor, Tensor]]()
    for row in run.examples["train"][:ROWS]:
        found.append(by([run.engine.put(batch) for batch in run.engine.batch([row], 0)], run.space.theta))
    return Plane(run.space, torch.stack([loss for loss, _ in found]), torch.stack([g for _, g in found]))


def fitted(run: Run) -> None:
    """FIRST_ORDER steps of AdamW."""
    take = first_order(replace(run, recipe=replace(run.recipe, train=replace(run.recipe.train, lr=RATE))))
    for step in range(FIRST_ORDER):
        print(f"step {step}: {float(take(step)):.3f}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Draws:
    """A method's estimates, one a step."""

    recipe: Recipe
    plane: Plane
    estimator: Estimator
    state: State

    @classmethod
    def of(cls, recipe: Recipe, plane: Plane, fingerprint: str) -> "Draws":
        estimator, _ = build(recipe.method, recipe.train, networks(recipe.method.optimizer, fingerprint))
        return cls(recipe, plane, estimator, estimator.init(plane.space))

    @torch.inference_mode()
    def __call__(self, step: int) -> Tensor:
        objective, key, space = self.plane.objective(step), Key(self.recipe.train.seed, step), self.plane.space
        if self.estimator.sampler.due(step):
            self.estimator.sampler.refresh(objective, key, self.state, space)
        found = self.estimator.estimate(objective, key, self.state, space)
        return dense(found.grad, space) * (self.recipe.train.lr / SPACES[self.recipe.adapter.space].step_sizes[0])


def uneven(at: Plane, rank: int = 2, windows: int = 1000) -> Row:
    """Where tr F is: in which block, and how much of it low-rank's V of a window sees, over its mean."""
    grams = []
    for block in at.space.blocks:
        rows = block.of(at.gradients).flatten(0, 1)  # (ROWS · m, n)
        grams.append(rows.T @ rows)
    traces = torch.stack([gram.trace() for gram in grams])
    drawn = torch.randn(windows, len(grams), grams[0].shape[0], rank, generator=torch.Generator().manual_seed(0))
    seen = torch.einsum("wbnr,bnm,wbmr->w", drawn, torch.stack(grams), drawn) / rank / traces.sum()
    largest = int(traces.argmax())
    return {
        "block": at.space.blocks[largest].name,
        "share": float(traces[largest] / traces.sum()),
        "columns": float(torch.linalg.eigvalsh(grams[largest])[-1] / traces[largest]),
        "window_deviation": float(seen.std()),
        "window_of_40": float(seen.view(-1, 40).amax(dim=1).mean()),  # the largest of a run of 2,000 steps
    }


def looked_at(draws: Draws, first: int, count: int) -> Row:
    """A method at one θ."""
    seen, sums = list[Row](), list[Row]()
    total = torch.zeros_like(draws.plane.space.theta)
    for step in range(first, first + count):
        estimate = draws(step)
        seen.append(numbers(draws.plane, estimate))
        total += estimate
        if (step + 1) % WINDOW == 0:
            sums.append(numbers(draws.plane, total / WINDOW))
            total.zero_()
    sharp = [numbers(draws.plane, draws(step))["sharp"] for step in range(first, first + WINDOW * WINDOWS, WINDOW)]
    cost = forwards_per_step(draws.recipe.method, draws.recipe.train.queries, draws.recipe.train.batch)
    return {
        **{f"{name}": mean(seen, name) for name in ("gain", "cosine", "norm", "bend")},
        "progress": mean(seen, "gain") ** 2 / mean(seen, "bend") / cost,
        "window": {name: mean(sums, name) for name in ("gain", "cosine", "norm", "bend")},
        "sharp": [statistics.fmean(sharp), statistics.stdev(sharp), max(sharp)],
    }


def numbers(at: Plane, x: Tensor) -> Row:
    """Of one estimate."""
    whole = at.gradients.mean(dim=0)
    size, norm, n = float(whole @ whole), float(x @ x), x.numel()
    along, bend = float(x @ whole), at.bend(x)
    trace = float(at.gradients.square().sum()) / len(at.gradients)
    cosine = (along**2 / (norm * size)) ** 0.5
    return {
        "gain": along / size,
        "cosine": cosine,
        "norm": norm / size / n,
        "bend": bend / size,
        "sharp": bend / norm / (trace / n),
    }


def mean(rows: Sequence[Row], name: str) -> float:
    power = 2 if name == "cosine" else 1
    return float(f"{statistics.fmean([row[name] ** power for row in rows]) ** (1 / power):.4g}")


def everything(options: argparse.Namespace) -> Iterator[Row]:
    for task in options.tasks:
        recipe = recipe_of(Job(task, "mezo", forwards=FORWARDS), options.data)
        loaded = models.load(models.resolve(MODEL), "float32", torch.device("cpu"), paths()["cache"])
        run = assemble(recipe, loaded, examples_of(task, options.data), {}, (), 0)
        for spot, first in SPOTS.items():
            if first:
                fitted(run)
            here = plane(run)
            print(f"{task}, {spot}: {len(here.losses)} gradients", file=sys.stderr, flush=True)
            print(json.dumps({"task": task, "spot": spot, **uneven(here)}), file=sys.stderr, flush=True)
            for method in options.methods:
                recipe = recipe_of(Job(task, method, forwards=FORWARDS), options.data, options.optimizer)
                found = looked_at(Draws.of(recipe, here, loaded.fingerprint), first, options.draws)
                row = {"task": task, "spot": spot, "loss": float(here.losses.mean()), "method": method, **found}
                print(json.dumps(row), flush=True)
                yield row


def main() -> None:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--tasks", type=names, default=["trec", "sst2"])
    parser.add_argument("--methods", type=names, default=["mezo", "lozo", "pgap", "mezo-gv", "zo-finetuner"])
    parser.add_argument("--draws", type=int, default=50, help="a multiple of 50")
    parser.add_argument("--optimizer", type=Path, default=RESULTS / "optimizer.safetensors", help="for zo-finetuner")
    options = parser.parse_args()
    write("directions-cpu", list(everything(options)), options.out)


if __name__ == "__main__":
    main()
