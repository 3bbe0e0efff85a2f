"""Claim: what separates a method's directions from mezo's: noise, norm, alignment or rank.

python benchmarks/directions.py DATA [OUT] [--tasks sst2,trec] [--methods mezo,lozo] [--draws 200] [--optimizer FILE]

At numbers θ that mezo at its default rate comes to in 0 and in 1,000 of 2,000 steps, and that stay where they are,
each method makes --draws estimates ĝ of the gradient, as in steps one after the other, each on the next batch of 16. G
is the gradient over GRADIENT_ROWS rows, by backpropagation; H a second difference of the loss of a step's batch, as far
away as the method's points are. Everything is relative to ‖G‖ and averaged:

- slopes: correlation of the first slopes with those by backpropagation on the same batch; 1 is free of noise
- gain: ⟨ĝ, G⟩, how much of the gradient a step follows; 1 for an unbiased estimate
- cosine: root mean square of ĝ's with G; one random direction of n numbers has √(1/n)
- norm: ‖ĝ‖², about n for one random direction
- bend: ĝᵀHĝ, the loss' curvature along a step
- window, and its gain, cosine, norm and bend: the same of the mean of WINDOW estimates in a row
- sharpness: bend / norm over the mean of that, a draw in each of WINDOWS windows: its deviation and its largest, which
  is what bounds a rate that must be stable in all of them

What a step can take off the loss at the best rate is gain² / 2 bend of ‖G‖², which `progress` is, over the forwards.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write
from methods import Job, Row, examples_of, loaded_model, recipe_of
from textbook import restored
from torch import Tensor

from zolite.core.direction import Combo, Dense
from zolite.core.estimator import Estimate
from zolite.core.key import Key
from zolite.core.methods import forwards_per_step
from zolite.learn import Gradients
from zolite.learned import networks
from zolite.train import Run, assemble, batches_of, prepare_step, stepper

FORWARDS, SPOTS, WINDOW, WINDOWS, GRADIENT_ROWS, BY_BACKPROPAGATION = 4000, (0, 1000), 50, 40, 256, 16


def made(job: Job, data: Path, optimizer: Path) -> Run:
    """A run that is yet to begin."""
    loaded, recipe = loaded_model(), recipe_of(job, data, optimizer)
    nets = networks(recipe.method.optimizer, loaded.fingerprint)
    return assemble(recipe, loaded, examples_of(job.task, data), {}, (), 0, nets)


def reached(job: Job, data: Path) -> list[Tensor]:
    """θ after as many steps as SPOTS has, by mezo."""
    run, found = made(job, data, Path()), list[Tensor]()
    take = stepper(run)
    for step in range(max(SPOTS) + 1):
        if step in SPOTS:
            found.append(run.space.theta.clone())
        take(batches_of(run, step), step)
    return found


def gradient(run: Run, by: Gradients, rows: range, step: int = 0) -> Tensor:
    """Over some training rows, at the run's θ."""
    parts = [run.examples["train"][i] for i in rows]
    return by([run.engine.put(batch) for batch in run.engine.batch(parts, step)], run.space.theta)[1]


def dense(run: Run, combo: Combo) -> Tensor:
    out = torch.zeros_like(run.space.theta)
    combo.add_to(out, 1.0, run.space)
    return out


@torch.inference_mode()
def bend(run: Run, step: int, estimate: Tensor) -> float:
    """ĝᵀHĝ on a step's batch."""
    batches = [run.engine.put(batch) for batch in batches_of(run, step)]
    far = run.recipe.train.eps * run.space.size**0.5 / float(estimate.norm())
    direction = Dense(estimate)
    points = [Combo(((far, direction),)), Combo(((-far, direction),)), Combo()]
    plus, minus, here = run.engine.objective(batches)(points).tolist()
    return (plus + minus - 2 * here) / far**2


def estimated(run: Run, step: int) -> tuple[Estimate, Tensor]:
    """The estimate of a step, and ĝ."""
    batches = batches_of(run, step)
    prepare_step(run, batches, step)
    with torch.inference_mode():
        objective = run.engine.objective([run.engine.put(batch) for batch in batches])
        key = Key(run.recipe.train.seed, step)
        estimate = run.estimator.estimate(objective, key, run.state["estimator"], run.space)
        return estimate, dense(run, estimate.grad)


def sharpness(run: Run, spot: int) -> list[float]:
    """Of a draw in each of so many windows, relative to their mean: its deviation, and the largest."""
    steps = range(spot, spot + WINDOW * WINDOWS, WINDOW)
    drawn = [(step, estimated(run, step)[1]) for step in steps]
    found = [bend(run, step, estimate) / float(estimate.norm()) ** 2 for step, estimate in drawn]
    mean = statistics.fmean(found)
    return [statistics.stdev(found) / mean, max(found) / mean]


def looked_at(run: Run, spot: int, draws: int) -> Row:
    """A method at the numbers that its run has."""
    by = Gradients.of(run.engine)
    whole = gradient(run, by, range(GRADIENT_ROWS))
    size = float(whole.norm()) ** 2
    seen, sums, pairs = list[dict[str, float]](), list[dict[str, float]](), list[tuple[float, float]]()
    total = torch.zeros_like(whole)
    for step in range(spot, spot + draws):
        estimate, found = estimated(run, step)
        if len(pairs) < BY_BACKPROPAGATION:
            _, own = by([run.engine.put(batch) for batch in batches_of(run, step)], run.space.theta)
            slope, direction = estimate.grad.terms[0]
            pairs.append((float(slope), float(own @ dense(run, Combo(((1.0, direction),))))))
        total += found
        seen.append(numbers(run, step, found, whole, size))
        if (step + 1) % WINDOW == 0:
            sums.append(numbers(run, step, total / WINDOW, whole, size))
            total.zero_()
    cost = forwards_per_step(run.recipe.method, run.recipe.train)
    one, window = means(seen), means(sums)
    return {
        "numbers": run.space.size,
        "gradient": size**0.5,
        "forwards_per_step": cost,
        "slopes": round(statistics.correlation(*zip(*pairs, strict=True)), 4),
        **one,
        "progress": one["gain"] ** 2 / one["bend"] / 2 / cost,
        "sharpness": sharpness(run, spot),
        "window": window,
        "window_progress": window["gain"] ** 2 / window["bend"] / 2 / cost / WINDOW if sums else None,
    }


def numbers(run: Run, step: int, estimate: Tensor, whole: Tensor, size: float) -> dict[str, float]:
    along, norm = float(estimate @ whole), float(estimate.norm()) ** 2
    cosine = along / (norm * size) ** 0.5
    return {"gain": along / size, "cosine": cosine, "norm": norm / size, "bend": bend(run, step, estimate) / size}


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    def mean(name: str, power: int = 1) -> float:
        return float(f"{statistics.fmean([row[name] ** power for row in rows]) ** (1 / power):.5g}")

    if not rows:
        return {}
    return {"gain": mean("gain"), "cosine": mean("cosine", 2), "norm": mean("norm"), "bend": mean("bend")}


def everything(options: argparse.Namespace) -> Iterator[Row]:
    for task in options.tasks:
        model = loaded_model().model
        with restored(model):
            thetas = reached(Job(task, "mezo", forwards=FORWARDS), options.data)
        for spot, theta in zip(SPOTS, thetas, strict=True):
            for method in options.methods:
                with restored(model):
                    run = made(Job(task, method, forwards=FORWARDS), options.data, options.optimizer)
                    run.space.theta.copy_(theta)
                    row = {"task": task, "method": method, "steps": spot, **looked_at(run, spot, options.draws)}
                print(json.dumps(row), flush=True)
                yield row


def main() -> None:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--tasks", type=names, default=["sst2", "trec"])
    parser.add_argument("--methods", type=names, default=["mezo", "lozo", "pgap", "mezo-gv", "mezo-greedy"])
    parser.add_argument("--draws", type=int, default=200, help="a multiple of 50")
    parser.add_argument("--optimizer", type=Path, default=Path(), help="for zo-finetuner")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = list(everything(options))
    write(f"directions-{loaded_model().device.type}", rows, options.out)


if __name__ == "__main__":
    main()
