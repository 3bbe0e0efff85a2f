"""A run and the memory it may take: checked against the ledger before the model is loaded, held to, and remembered.

within(recipe, asked, examples, device)     under train.vram_gib: the layout that fits, or DoesNotFit
remember(run, tracker)                       what it took, beside what was predicted, for the next plan
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median

import torch

from zolite.common.errors import DoesNotFit, ZoliteError
from zolite.common.text import human_bytes
from zolite.config.recipe import ResolvedRecipe, TrainPart
from zolite.data.examples import Example, sizes_of
from zolite.data.lengths import Rows
from zolite.engine import device_memory
from zolite.planner import calibration, model_spec
from zolite.planner import hardware as machine
from zolite.planner.hardware import Hardware
from zolite.planner.memory import ledger, peak
from zolite.planner.model_spec import ModelSpec
from zolite.planner.plan import FORMATS, layouts
from zolite.training.out_of_memory import StepTracker
from zolite.training.run import Run, trained

GIB = 2**30
WARM = 10  # steps in which kernels are compiled and graphs captured
LEAST = 10  # steps after those, for a median that says something


def within(
    recipe: ResolvedRecipe, asked: TrainPart, examples: Mapping[str, Sequence[Example]], device: torch.device
) -> ResolvedRecipe:
    """A resolved recipe with as many rows and perturbed copies a forward as fit, where `asked` leaves them open.

    Torch takes no more of a card than the budget from here on; without one, as much as there is.
    """
    if recipe.train.vram_gib == math.inf:
        device_memory.hold_to(device, None)
        return recipe
    limit = int(limit_bytes(recipe))
    hardware = machine.pretended(machine.here(device.type), limit)
    rows, spec = rows_of(examples, recipe), model_spec.spec(recipe.model.name)
    fitting = _fitting(hardware, spec, recipe, rows, bool(asked.microbatch or asked.copies))
    if fitting is None:
        raise _too_much(hardware, spec, recipe, rows)
    device_memory.hold_to(device, limit, hardware.context_bytes)
    return fitting


def _fitting(
    hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows, fixed: bool
) -> ResolvedRecipe | None:
    """Its first layout that fits, or it alone."""
    tried = [recipe] if fixed else layouts(recipe)
    return next((r for r in tried if peak(ledger(hardware, spec, r, rows)) <= hardware.total_bytes), None)


def _too_much(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows) -> DoesNotFit:
    """With the format that would fit, or else the smallest need there is."""
    needs = human_bytes(peak(ledger(hardware, spec, recipe, rows)))
    what = f"{spec.name} in {recipe.model.quant} needs {needs} of {human_bytes(hardware.total_bytes)}"
    others = [replace(recipe, model=replace(recipe.model, quant=q)) for q in (recipe.model.quant, *FORMATS)]
    for other in others:
        if found := _fitting(hardware, spec, other, rows, fixed=False):
            t = found.train
            how = f"--quant {other.model.quant} --set train.microbatch={t.microbatch} --set train.copies={t.copies}"
            return DoesNotFit(what, f"this would fit: {how}")
    sizes = {peak(ledger(hardware, spec, last, rows)): last for other in others for last in [[*layouts(other)][-1]]}
    least = min(sizes)
    return DoesNotFit(
        what,
        f"the smallest that would is {sizes[least].model.quant}, one row and one perturbed copy at a time, with "
        f"{human_bytes(least)}; `zolite plan --vram {hardware.total_bytes >> 20}MiB` lists what fits",
    )


def limit_bytes(recipe: ResolvedRecipe) -> float:
    return recipe.train.vram_gib * GIB


def rows_of(examples: Mapping[str, Sequence[Example]], recipe: ResolvedRecipe, lengths: int = 8) -> Rows:
    """What a ledger wants to know of rows that are there."""
    rows, scored = sizes_of(trained(examples, recipe)), sizes_of(examples["train"])
    return Rows(
        tokens=int(max(rows.longest.max(), scored.longest.max())),
        positions=int(rows.places.max()),
        sequences=int(rows.sequences.max()),
        lengths=lengths,
        evaluated=bool(examples.get("dev")),
        scored=(int(scored.sequences.max()), int(scored.places.max())),
    )


def remember(run: Run, tracker: StepTracker) -> None:
    """What a run took, by its steps after the first, for `zolite plan`; nothing where its layout had to change.

    A run is not to fail over this: what cannot be predicted or written down is not remembered.
    """
    warm = [(seconds, tokens) for step, seconds, tokens in tracker.steps if tokens][WARM:]
    device = run.engine.loaded.device
    if len(warm) < LEAST or tracker.changed:
        return
    took, tokens = median(seconds for seconds, _ in warm), round(fmean(tokens for _, tokens in warm))
    rows = rows_of(run.examples, run.recipe, len(run.lengths) or 1)
    with contextlib.suppress(ZoliteError, OSError):
        calibration.record(run.recipe, rows, tokens, device_memory.peak_bytes(device), took, device.type)
