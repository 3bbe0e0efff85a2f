"""Claim: both signs in one forward (copies 2) give the losses of one after the other (copies 1), in less time.

python benchmarks/copies.py [OUT]
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write

from zolite.config import recipe as recipes
from zolite.demo.run import demo_recipe
from zolite.training.prepare import prepare
from zolite.training.run import Run, batches_of, stepper
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key

BATCHES, STEPS = 10, 10


def prepared(quant: str, copies: int) -> Run:
    return prepare(recipes.override(demo_recipe(), {"model.quant": quant, "train.copies": copies}))


@torch.inference_mode()
def losses(run: Run) -> torch.Tensor:
    """(BATCHES, 2): both losses of the first batches, at the start."""
    found = []
    for step in range(BATCHES):
        objective = run.engine.bind([run.examples["train"][i] for i in run.order.batch_at(step)])
        found.append(objective([Combo(((s * 1e-2, Noise(Key(0, step))),)) for s in (1.0, -1.0)]))
    return torch.stack(found).double().cpu()


def speed(run: Run) -> float:
    """Seconds of a step, the median of STEPS."""
    seconds, take = [], stepper(run)
    for step in range(STEPS):
        began = time.monotonic()
        float(take(batches_of(run, step), step).losses[0])  # waits for the device
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def compare(quant: str) -> dict[str, Any]:
    one, two = prepared(quant, 1), prepared(quant, 2)
    first, second = losses(one), losses(two)
    two_sided, difference = first[:, 0] - first[:, 1], (first - second).abs()
    return {
        "quant": quant,
        "largest_relative_difference": float((difference / first).max()),
        "largest_difference_over_rms_loss_difference": float(difference.max() / two_sided.pow(2).mean().sqrt()),
        "time_ratio_copies_1_over_2": round(speed(one) / speed(two), 2),
    }


if __name__ == "__main__":
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [compare(quant) for quant in ("int8", "nf4", "bf16")]
    write(f"copies-{device}", rows, Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
