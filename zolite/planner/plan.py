"""What fits, how fast it is and what is best: every choice of model, weights, space and layout under a budget.

    planning = plan(hardware, wish)         pure arithmetic, no torch
    document(planning)                      what `zolite plan --json` prints

A choice is tried with its whole batch in one forward, then with ever smaller microbatches, which cost time and change
nothing else; the first that fits is its plan.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import log2
from pathlib import Path
from typing import Any

from zolite.common.errors import DoesNotFit, UsageError
from zolite.common.text import human_bytes, human_seconds, parsed_bytes
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.composition import per_example
from zolite.config.methods import METHODS
from zolite.config.recipe import QUANTS, Recipe, ResolvedRecipe
from zolite.config.spaces import SPACES
from zolite.config.weights import PACKED, WEIGHT_FORMATS
from zolite.data.lengths import Rows, estimate
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.backprop import Backprop, compared, needed
from zolite.planner.calibration import Correction, so_far
from zolite.planner.hardware import Hardware
from zolite.planner.memory import Ledger, Line, ledger, ours, own, peak
from zolite.planner.model_spec import ModelSpec
from zolite.planner.step_time import beside_seconds, step_seconds

FORMATS = ("int8", "nf4", "bf16")
DAY = 86400.0  # seconds
LONGEST_RUN = 7 * DAY

RULE = (
    "best first by log2(parameters) + ½ log2(steps an hour × correlation²): a model twice as large counts like four "
    "times as many steps; correlation is how true a weight format keeps measured loss differences, as measured: "
    + ", ".join(f"{name} {WEIGHT_FORMATS[name].correlation:g}" for name in FORMATS)
    + "; a run of more than a day comes behind all shorter ones"
)


@dataclass(frozen=True)
class Wish:
    """What was asked for; () leaves a choice open."""

    models: tuple[ModelSpec, ...]
    recipe: Recipe  # everything else
    rows: Rows
    quants: tuple[str, ...] = FORMATS
    spaces: tuple[str, ...] = ("auto",)  # what the rows suggest


@dataclass(frozen=True)
class Plan:
    """A choice that fits: a resolved recipe, what it holds and how long it takes."""

    spec: ModelSpec
    recipe: ResolvedRecipe
    ledger: Ledger
    seconds_per_step: float
    total_seconds: float
    score: float

    @property
    def peak_bytes(self) -> int:
        """With what other programs hold."""
        return peak(self.ledger)

    @property
    def own_bytes(self) -> int:
        """Without: what has to be free."""
        return own(self.ledger)

    @property
    def long(self) -> bool:
        """Does it take more than a person waits for?"""
        return self.total_seconds > DAY


@dataclass(frozen=True)
class Rejected:
    """A choice that is not one, and why. `peak_bytes` are of its smallest layout, 0 where that was not asked."""

    spec: ModelSpec
    recipe: ResolvedRecipe
    reason: str
    peak_bytes: int = 0


@dataclass(frozen=True)
class Planning:
    hardware: Hardware
    plans: tuple[Plan, ...]  # best first
    rejected: tuple[Rejected, ...]
    backprop: Backprop
    correction: Correction
    rows: Rows


def plan(hardware: Hardware, wish: Wish, correction: Correction | None = None) -> Planning:
    """All that fits, best first. DoesNotFit with the smallest thing that would, where nothing does."""
    correction = correction or Correction()
    tried = [_tried(hardware, spec, recipe, wish.rows, correction) for spec, recipe in choices(wish)]
    plans = sorted((each for each in tried if isinstance(each, Plan)), key=lambda each: (each.long, -each.score))
    rejected = tuple(each for each in tried if isinstance(each, Rejected))
    if not plans:
        raise _nothing(hardware, rejected)
    best = plans[0]
    beside = compared(hardware, best.spec, best.recipe.adapter.rank, wish.rows)
    return Planning(hardware, tuple(plans), rejected, beside, correction, wish.rows)


def choices(wish: Wish) -> Iterator[tuple[ModelSpec, ResolvedRecipe]]:
    """Models × formats × spaces, with everything else as it was asked."""
    for spec in wish.models:
        for quant in wish.quants:
            for space in wish.spaces:
                changes = {"model.name": spec.name, "model.quant": quant, "adapter.space": space}
                yield spec, recipes.resolve(recipes.override(wish.recipe, changes), wish.rows.labels)


def _tried(
    hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows, correction: Correction
) -> Plan | Rejected:  # fmt: skip
    if reason := refusal(hardware, spec, recipe, rows):
        return Rejected(spec, recipe, reason)
    lines: Ledger = ()
    for layout in layouts(recipe):
        lines = corrected(ledger(hardware, spec, layout, rows), correction)
        if peak(lines) <= hardware.total_bytes:
            return _timed(hardware, spec, layout, rows, lines, correction)
    needs, has = human_bytes(peak(lines)), human_bytes(hardware.total_bytes)
    return Rejected(spec, recipe, f"needs {needs} of {has} even with one row and one copy at a time", peak(lines))


def refusal(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows) -> str:
    """Why a choice is none, whatever the memory."""
    method = METHODS[recipe.method.name]
    if rows.tokens > spec.context:
        return f"rows of {rows.tokens:,} tokens are longer than its context of {spec.context:,}"
    if recipe.adapter.space not in method.spaces:
        return f"{method.name} does not train {recipe.adapter.space}"
    if spec.packed and spec.packed not in ("gguf", *PACKED):
        return f"its files are quantized by {spec.packed}, which is not read: take the model as it was published"
    return ""


def layouts(recipe: ResolvedRecipe) -> Iterator[ResolvedRecipe]:
    """The same steps in ever less memory."""
    each: ResolvedRecipe | None = recipe
    while each is not None:
        yield each
        each = smaller(each)


def smaller(recipe: ResolvedRecipe) -> ResolvedRecipe | None:
    """Half the rows of a forward, or half its perturbed copies where it has one row; None where it has one of each.

    Mirrored pairs of copies stay together to the last, since int8 weights multiply pairs by another product.
    """
    t = recipe.train
    if t.microbatch > 1 and not per_example(recipe.method):  # which has one row a copy as it is
        return replace(recipe, train=replace(t, microbatch=-(-t.microbatch // 2)))
    return replace(recipe, train=replace(t, copies=t.copies // 2)) if t.copies > 1 else None


def corrected(lines: Ledger, correction: Correction) -> Ledger:
    """With what earlier runs took more than was predicted; that they took less is not relied on."""
    more = int(max(0.0, correction.bytes - 1) * ours(lines))
    if not more:
        return lines
    why = f"{correction.runs} runs here took {correction.bytes:.3f} times what was predicted"
    return (*lines, Line("correction", more, why, "libraries", "process"))


def _timed(
    hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows, lines: Ledger, correction: Correction
) -> Plan | Rejected:
    by = correction.seconds_of(recipe.model.quant, recipe.model.name)
    step = by * step_seconds(hardware, spec, recipe, rows)
    total = recipe.train.steps * step
    total += by * beside_seconds(hardware, spec, recipe, rows)
    if total > LONGEST_RUN:
        return Rejected(spec, recipe, f"{recipe.train.steps:,} steps would take {human_seconds(total)}", peak(lines))
    return Plan(spec, recipe, lines, step, total, quality(spec, recipe.model.quant, step))


def quality(spec: ModelSpec, quant: str, seconds_per_step: float) -> float:
    """RULE in numbers."""
    return log2(spec.parameters) + 0.5 * log2(3600 / seconds_per_step * WEIGHT_FORMATS[quant].correlation ** 2)


def _nothing(hardware: Hardware, rejected: Sequence[Rejected]) -> DoesNotFit | UsageError:
    """What would fit with the least memory, or else the first reason."""
    sized = sorted((each for each in rejected if each.peak_bytes), key=lambda each: each.peak_bytes)
    if not sized:
        first = rejected[0]
        return UsageError(f"{first.spec.name}: {first.reason}", "take a shorter context or another model")
    least = sized[0]
    if least.peak_bytes <= hardware.total_bytes:
        return DoesNotFit(f"nothing finishes in time: {least.spec.name} {least.reason}", "take fewer --steps")
    what = f"{least.spec.name} in {least.recipe.model.quant} with {human_bytes(least.peak_bytes)}"
    return DoesNotFit(
        f"nothing fits {human_bytes(hardware.total_bytes)}",
        f"the smallest that would is {what}, one row and one perturbed copy at a time",
    )


CONTEXT = 512  # tokens, where nothing says how long rows are
LEAST_CONTEXT = 8
ANSWERED = 8  # one position in so many predicts something, where nothing says how many do


def asked(
    model: str | None,
    vram: str | None,
    hardware: str | None,
    context: int | None,
    data: str | None,
    template: str | None,
    choices: Mapping[str, Any],
    columns: str = "",
    task: str = "",
) -> Planning:
    """From options as they are written: sizes as "8GiB", names of models and cards; None leaves a choice open."""
    budget = size(vram) if vram else 0
    card = _card(hardware, budget)
    specs = _specs(model, context)
    wanted = wish(specs, _rows(model, context or CONTEXT, data, template, columns, task), **choices)
    return plan(machine.pretended(card, budget) if budget else card, wanted, _known(card, hardware))


def _card(named: str | None, budget: int) -> Hardware:
    """A card of the catalogue or this machine; where it has no GPU, a common card that has the budget."""
    card = machine.published(named) if named else machine.here()
    return machine.typical(budget) if budget and not named and card.device == "cpu" else card


def _specs(model: str | None, context: int | None) -> list[ModelSpec]:
    """The one that was named, else the catalogue's."""
    if context is not None and context < LEAST_CONTEXT:
        raise UsageError(f"a context of {context} tokens", f"{LEAST_CONTEXT} is the least")
    if not model:
        return [model_spec.of_catalogue(name) for name, known in catalog.models().items() if known.suggested]
    spec = model_spec.spec(model)
    if context and context > spec.context:
        raise UsageError(
            f"{spec.name} has a context of {spec.context:,} tokens, less than {context:,}",
            f"--context {spec.context}, or a model with a longer one",
        )
    return [spec]


def _rows(model: str | None, longest: int, data: str | None, template: str | None, columns: str, task: str) -> Rows:
    """The lengths of somebody's rows, else of rows as long as they may be."""
    if not data:
        return Rows(longest, -(-longest // ANSWERED))
    folder = model_spec.place(model or "")
    asked = {"data.path": data, "data.columns": columns, "data.task": task}
    part = Recipe.of(asked | ({"data.template": template} if template else {})).data  # with what a task sets
    return estimate(Path(data), part.template, folder, longest, columns, part.verbalizer, task)


def _known(card: Hardware, named: str | None) -> Correction:
    """What runs here say of it, unless it is another machine's."""
    return Correction() if named or card.origin == "typical" else so_far(card)


def size(text: str) -> int:
    """Of --vram, in bytes."""
    try:
        return parsed_bytes(text)
    except ValueError:
        raise UsageError(f"--vram {text!r} is not a size", "for example --vram 8GiB") from None


def wish(specs: Sequence[ModelSpec], rows: Rows, **asked: Any) -> Wish:
    """From choices by the names of their options; None leaves one open. Raises with all that is wrong."""
    flags = {"rank": "adapter.rank", "method": "method.name", "batch": "train.batch", "steps": "train.steps"}
    changes = {path: asked[flag] for flag, path in flags.items() if asked.get(flag) is not None}
    for flag, known in (("quant", QUANTS), ("space", SPACES)):
        if asked.get(flag) is not None and asked[flag] not in known:
            raise UsageError(f"no {flag} {asked[flag]!r}", f"choose one of {', '.join(known)}")
    recipe = recipes.override(Recipe(), changes | {"data.context": max(LEAST_CONTEXT, rows.tokens)})
    quants = (asked["quant"],) if asked.get("quant") else FORMATS
    spaces = (asked["space"],) if asked.get("space") else Wish.spaces
    return Wish(tuple(specs), recipe, rows, quants, spaces)


# --- as a document ---------------------------------------------------------------------------------------------------


def document(planning: Planning) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "hardware": asdict(planning.hardware),
        "budget_bytes": planning.hardware.total_bytes,
        "free_bytes": planning.hardware.free_bytes,
        "rule": RULE,
        "error_so_far": asdict(planning.correction),
        "plans": [planned(each, planning.hardware) for each in planning.plans],
        "rejected": [
            choice(r.spec, r.recipe) | {"reason": r.reason, "peak_bytes": r.peak_bytes} for r in planning.rejected
        ],
        "backprop": asdict(planning.backprop),
    }


def planned(each: Plan, hardware: Hardware) -> dict[str, Any]:
    return choice(each.spec, each.recipe) | {
        "peak_bytes": each.peak_bytes,
        "own_bytes": each.own_bytes,
        "long": each.long,
        "headroom_bytes": hardware.total_bytes - each.peak_bytes,
        "ledger": [dataclasses.asdict(line) for line in each.ledger],
        "seconds_per_step": each.seconds_per_step,
        "steps": each.recipe.train.steps,
        "total_seconds": each.total_seconds,
        "score": each.score,
        "backprop_bytes": needed(hardware, each.spec, each.recipe.adapter.rank, each.recipe.data.context),
    }


def choice(spec: ModelSpec, recipe: ResolvedRecipe) -> dict[str, Any]:
    t = recipe.train
    return {
        "model": spec.name,
        "weights": recipe.model.quant,
        "space": recipe.adapter.space,
        "rank": recipe.adapter.rank,
        "method": recipe.method.name,
        "batch": t.batch,
        "microbatch": t.microbatch,
        "context": recipe.data.context,
        "copies": t.copies,
    }
