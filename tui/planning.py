"""What New run computes: which models fit, the plans, and what a choice takes. Arithmetic alone: a change is priced in
milliseconds, in the app's own process.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError
from zolite.common.text import human_bytes
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.config.sizes import BUCKET_TOKENS
from zolite.data.lengths import Rows
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner import plan as planner
from zolite.planner.backprop import needed
from zolite.planner.calibration import Correction
from zolite.planner.hardware import Hardware
from zolite.planner.memory import GROUPS, Ledger, by_group, ledger, own, peak
from zolite.planner.model_spec import ModelSpec
from zolite.planner.plan import Planning, Rejected
from zolite.planner.step_time import beside_seconds, step_seconds

from .widgets.stack import Part

LONGEST = 2048  # tokens that a context is set to without being asked


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Offer:
    """A model of the catalogue on this machine. `best` is its least peak, and in which format."""

    name: str  # as MODEL
    title: str
    parameters: int
    context: int
    licence: str
    here: bool  # its weights are on the disk
    quant: str
    peak_bytes: int
    fits: bool


def offers(hardware: Hardware) -> list[Offer]:
    """Those that fit first, the largest of them first."""
    found = [_offer(hardware, short, known) for short, known in catalog.models().items() if known.suggested]
    return sorted(found, key=lambda each: (not each.fits, -each.parameters if each.fits else each.parameters))


def _offer(hardware: Hardware, short: str, known: catalog.Known) -> Offer:
    spec, rows = model_spec.of_catalogue(short), Rows(planner.CONTEXT, planner.CONTEXT // planner.ANSWERED)
    built_in = short in catalog.builtins()
    wanted = recipes.override(Recipe(), {"train.microbatch": 1, "data.context": rows.tokens})
    sizes = {
        quant: peak(ledger(hardware, spec, recipes.resolve(recipes.override(wanted, {"model.quant": quant})), rows))
        for quant in planner.FORMATS
    }
    fitting = [quant for quant in planner.FORMATS if sizes[quant] <= hardware.total_bytes]
    quant = fitting[0] if fitting else min(sizes, key=lambda each: sizes[each])
    return Offer(
        name=f"builtin:{short}" if built_in else known.hub,
        title=known.title,
        parameters=known.parameters,
        context=spec.context,
        licence=known.licence,
        here=_here(short, known),
        quant=quant,
        peak_bytes=sizes[quant],
        fits=bool(fitting),
    )


def _here(short: str, known: catalog.Known) -> bool:
    if short in catalog.builtins():
        return importlib.util.find_spec(catalog.builtin(short).package) is not None
    folder = model_spec.place(known.hub)
    return folder is not None and any(folder.glob("*.safetensors"))


# --- plans ------------------------------------------------------------------------------------------------------------


def rows_of(report: Mapping[str, Any] | None, context: int = 0) -> Rows:
    """Lengths of the rows, from the document of `zolite data check`, up to the context."""
    if not report or not report["tokens"]:
        tokens = context or planner.CONTEXT
        return Rows(tokens, -(-tokens // planner.ANSWERED))
    longest = min(context or LONGEST, report["tokens"])
    return Rows(_padded(longest), min(longest, report["positions"]), labels=len(report["labels"]))


def _padded(tokens: int) -> int:
    """As batches are."""
    return -(-tokens // BUCKET_TOKENS) * BUCKET_TOKENS


def proposed(
    hardware: Hardware, model: str, rows: Rows, asked: Mapping[str, Any], correction: Correction
) -> tuple[Planning | None, tuple[Rejected, ...], str]:
    """(plans, what was rejected, what to say where there are none)."""
    try:
        specs = [model_spec.spec(model)] if model else suggested(rows)
        wish = planner.wish(specs, rows, **asked)
        planning = planner.plan(hardware, wish, correction)
    except DoesNotFit as error:
        return None, (), f"{error.message}. {error.hint}"
    except ZoliteError as error:
        return None, (), f"{error.message}. {error.hint}" if error.hint else error.message
    return planning, planning.rejected, ""


def suggested(rows: Rows) -> list[ModelSpec]:
    specs = [model_spec.of_catalogue(name) for name, known in catalog.models().items() if known.suggested]
    return [spec for spec in specs if spec.context >= rows.tokens]


def context_for(report: Mapping[str, Any]) -> int:
    """Room for every row, and no less than the default: what rows do not fill takes no memory. Letters may mislead."""
    longest: int = report["tokens"] * (2 if report["counted"] == "letters" else 1)
    return max(recipes.DataPart.context, min(LONGEST, _padded(longest)))


@dataclass(frozen=True)
class Priced:
    """A choice and what it takes here; `problem` where it is none."""

    recipe: Recipe
    ledger: Ledger
    budget_bytes: int
    seconds_per_step: float
    total_seconds: float
    backprop_bytes: int
    problem: str = ""

    @property
    def peak_bytes(self) -> int:
        return peak(self.ledger)

    @property
    def own_bytes(self) -> int:
        """Without what other programs hold."""
        return own(self.ledger)

    @property
    def free_bytes(self) -> int:
        """What they leave."""
        return max(0, self.budget_bytes - (self.peak_bytes - self.own_bytes))

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.budget_bytes


def priced(hardware: Hardware, spec: ModelSpec, recipe: Recipe, rows: Rows, correction: Correction) -> Priced:
    """Of a recipe as it stands: nothing in it is made smaller to fit."""
    full = recipes.resolve(recipe, rows.labels)
    longest = min(rows.tokens, _padded(full.data.context))
    rows = replace(rows, tokens=longest, positions=min(rows.positions, longest))
    lines = planner.corrected(ledger(hardware, spec, full, rows), correction)
    by = correction.seconds_of(full.model.quant, full.model.name)
    step = by * step_seconds(hardware, spec, full, rows)
    beside = by * beside_seconds(hardware, spec, full, rows)
    return Priced(
        recipe=recipe,
        ledger=lines,
        budget_bytes=hardware.total_bytes,
        seconds_per_step=step,
        total_seconds=full.train.steps * step + beside,
        backprop_bytes=needed(hardware, spec, full.adapter.rank, longest),
        problem=planner.refusal(hardware, spec, full, rows),
    )


def advice(hardware: Hardware, choice: Priced) -> str:
    """Whether backpropagation would do, in a sentence."""
    need, has = human_bytes(choice.backprop_bytes), human_bytes(hardware.total_bytes)
    if hardware.device != "cuda":
        return f"Backpropagation (QLoRA) would need {need}, and days on a CPU."
    if choice.backprop_bytes <= hardware.total_bytes:
        return (
            f"Backpropagation (QLoRA) would need {need} of {has}: it fits here and takes 10 to 100 times fewer steps."
        )
    return (
        f"Backpropagation (QLoRA) would need {need} of {has}: it does not fit here. zolite takes more steps, and fits."
    )


# How each group of a ledger's lines is drawn.
LOOKS = dict(
    zip(
        GROUPS,
        (
            ("█", "$primary"),
            ("▓", "$accent"),
            ("▚", "$secondary"),
            ("▒", "$text-muted"),
            ("░", "$text-muted"),
            ("▞", "$warning"),
        ),
        strict=True,
    )
)


def parts(lines: Ledger) -> list[Part]:
    """A ledger as a bar."""
    return [Part(name, size, *LOOKS[name]) for name, size in by_group(lines).items()]


# --- a choice ---------------------------------------------------------------------------------------------------------


def within(hardware: Hardware, budget_bytes: int) -> Hardware:
    """The machine with a budget: what others hold is outside of it only where it is the whole machine's."""
    return hardware if budget_bytes >= hardware.total_bytes else machine.pretended(hardware, budget_bytes)


def changed(recipe: Recipe, values: Mapping[str, str]) -> tuple[Recipe, str]:
    """The recipe with settings as they were typed, and what is wrong with them; an empty one means its default."""
    defaults = {path: each.default for path, each in recipes.SETTINGS.items()}
    given = {path: value if value.strip() else defaults[path] for path, value in values.items()}
    try:
        return recipes.override(recipe, given), ""
    except UsageError as error:
        lines = error.message.splitlines()
        return recipe, "; ".join(line.strip() for line in lines[1:] or lines)


def command(recipe: Recipe, name: str = "") -> list[str]:
    """What starts this on the command line: every setting that is not the default."""
    now, defaults = recipes.to_dict(recipe), recipes.to_dict(Recipe())
    arguments = ["train", recipe.model.name, "--data", recipe.data.path]
    if name:
        arguments += ["--name", name]
    for part, values in now.items():
        for key, value in values.items():
            if (part, key) not in (("model", "name"), ("data", "path")) and value != defaults[part].get(key):
                arguments += ["--set", f"{part}.{key}={','.join(value) if isinstance(value, list) else value}"]
    return arguments
