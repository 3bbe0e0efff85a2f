"""Claim: which weight formats leave a zeroth-order difference readable.

Central differences along fixed Gaussian directions, at several ε, correlated with those of the same weights in float32
at ε = 1e-3. "int8, activations too" is bitsandbytes' own product; "int8, pairs" rounds the activations' mean and
difference, as model/kernels.pair_product does on a GPU. "int8, as it runs" is what a step does on this device.

python benchmarks/noise.py [OUT]        on the CPU or the GPU, whichever is there
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import RESULTS, write
from torch import Tensor

from zolite.config import recipe as recipes
from zolite.config.weights import WEIGHT_FORMATS
from zolite.demo.run import demo_recipe
from zolite.model import quant
from zolite.training.prepare import prepare
from zolite.training.run import Run
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key

DIRECTIONS, EPSILONS = 16, (1e-3, 1e-2, 3e-2)


def differences(run: Run, eps: float) -> Tensor:
    """(DIRECTIONS,) central differences on the first batch."""
    objective = run.engine.bind([run.examples["train"][i] for i in run.order.batch_at(0)])
    directions = [Noise(Key(5, i)) for i in range(DIRECTIONS)]  # the same object for both signs: that makes them a pair
    with torch.inference_mode():
        losses = [objective([Combo(((s * eps, d),)) for s in (1.0, -1.0)]) for d in directions]
    return torch.stack([(plus - minus) / (2 * eps) for plus, minus in losses]).cpu()


def activations_too(layer: quant.Int8Linear, x: Tensor) -> Tensor:
    """What bitsandbytes does: each row of activations rounded to int8 as well."""
    rows = x.reshape(-1, layer.in_features).to(torch.float16)
    codes, scales, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(rows)
    weight_scales = (layer.scales.float() * 127).view(-1)
    y = torch.ops.bitsandbytes.int8_scaled_mm(codes, layer.codes, scales, weight_scales, dtype=torch.float16)
    return y.to(x.dtype).view(*x.shape[:-1], layer.out_features)


def pairs(layer: quant.Int8Linear, x: Tensor) -> Tensor:
    """The two points' activations as mean and difference, each row of either rounded to int8, in float32."""
    plus, minus = x.float().chunk(2)
    weight = quant.weight16(layer, torch.float32)
    mean, difference = (F.linear(_rounded(half), weight) for half in ((plus + minus) / 2, (plus - minus) / 2))
    return torch.cat([mean + difference, mean - difference]).to(x.dtype)


def _rounded(x: Tensor) -> Tensor:
    level = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (x / level).round() * level


def plainly(run: Run) -> Run:
    """With transformers' own decoder, whose layers can be changed one by one."""
    return dataclasses.replace(run, engine=dataclasses.replace(run.engine, decode=None))


def table(name: str, run: Run, reference: Tensor | None) -> tuple[list[dict[str, Any]], Tensor]:
    """A row an ε, and the differences at the smallest."""
    found = {eps: differences(run, eps) for eps in EPSILONS}
    against = found[EPSILONS[0]] if reference is None else reference
    corr = {eps: float(torch.corrcoef(torch.stack([against, d]))[0, 1]) for eps, d in found.items()}
    return [{"format": name, "eps": eps, "correlation": round(c, 4)} for eps, c in corr.items()], against


def at(form: str) -> Run:
    return prepare(recipes.override(demo_recipe(), {"model.quant": form}))


if __name__ == "__main__":
    exact = WEIGHT_FORMATS["int8"]
    WEIGHT_FORMATS["int8"] = dataclasses.replace(exact, cpu="float32", cuda="float32")
    rows, reference = table("int8 weights, float32 activations", at("int8"), None)
    WEIGHT_FORMATS["int8"] = exact
    run = at("int8")
    rows += table("int8, as it runs", run, reference)[0]
    run = plainly(run)
    rows += table("int8, weights only", run, reference)[0]
    for name, forward in (("int8, activations too", activations_too), ("int8, pairs", pairs)):
        quant.Int8Linear.forward = forward  # type: ignore[method-assign]
        rows += table(name, run, reference)[0]
    reference = table("float32", at("float32"), None)[1]
    for form in ("bf16", "nf4"):  # nf4's weights are other numbers: its row says how far, rounding included
        rows += table(form, at(form), reference)[0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write(f"noise-{device}", rows, Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
