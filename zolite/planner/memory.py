"""Where the memory of a run goes: one line a purpose, with its bytes and the reason; the lines sum to the peak.

    lines = ledger(hardware, spec, recipe, rows)
    peak(lines), allocated(lines), ours(lines)

Every line follows from the code that allocates it, so there is nothing to fit: docs/log.md has it against measurements.
K points in a forward, n trained numbers, a bytes of an activation.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zolite.common.text import human_bytes
from zolite.config import methods
from zolite.config.architectures import Linear
from zolite.config.composition import chain_of
from zolite.config.recipe import ResolvedRecipe
from zolite.data.lengths import Rows
from zolite.planner.activations import BASIS_TOKENS, EVAL_TOKENS, FLOAT, Forward, Model, Working, working
from zolite.planner.hardware import Hardware
from zolite.planner.model_spec import ModelSpec

MIB = 2**20
STEP = 8  # data/batch.py: a bucket may end so far behind the longest row
SEGMENT, LARGE, ROUND = 20 * MIB, 10 * MIB, 2 * MIB  # torch's allocator: what it asks the driver for
SMALL_BLOCK = MIB  # smaller ones share segments of 2 MiB
MARGIN, LEAST_MARGIN = 0.02, 64 * MIB

# Bytes a weight by format: codes, and a float32 scale for 64 of them where it is nf4. int8 has one for a whole row.
CODES = {"int8": 1.0, "nf4": 0.5 + FLOAT / 64, "bf16": 2.0, "float32": 4.0}


Shape = tuple[int, ...]
# Each layer's factors: (rank, layer) to a shape.
FACTORS: dict[str, Callable[[int, Linear], Shape]] = {
    "a": lambda rank, layer: (rank, layer.inputs),
    "b": lambda rank, layer: (layer.outputs, rank),
    "c": lambda rank, layer: (rank, rank),
}


@dataclass(frozen=True)
class Factors:
    """What a space makes of a layer's factors."""

    trained: tuple[str, ...]  # as engine/adapter.py has it; a test holds it equal
    frozen: tuple[str, ...] = ()
    aside: Mapping[str, int] = field(default_factory=dict)  # bytes of a frozen number to export from, by device
    thin: bool = False  # a rank is at most a layer's smaller side


SPACES = {
    "lora": Factors(("a", "b")),
    "lora-b": Factors(("b",), ("a",), {"cuda": FLOAT, "cpu": FLOAT}),
    "lora-core": Factors(("c",), ("a", "b"), {"cuda": 0, "cpu": 2}, thin=True),  # exports take the host's copy
}


@dataclass(frozen=True)
class Line:
    """`where`: allocated (torch counts it), reserved (torch holds it beyond that), process, or outside of it."""

    what: str
    bytes: int
    why: str
    where: str = "allocated"


Ledger = tuple[Line, ...]


def peak(lines: Iterable[Line]) -> int:
    return sum(line.bytes for line in lines)


def allocated(lines: Iterable[Line]) -> int:
    """What torch.cuda.max_memory_allocated would say."""
    return sum(line.bytes for line in lines if line.where == "allocated")


def ours(lines: Iterable[Line]) -> int:
    """What the process takes of the card, without the margin."""
    return sum(line.bytes for line in lines if line.where != "outside")


def ledger(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows) -> Ledger:
    """Of a resolved recipe. Lines of no bytes stay: they say why there are none."""
    model = laid_out(hardware, spec, recipe)
    step, evaluation = forwards(model, recipe, rows)
    fixed = [*weights(model), *adapter(hardware, model, recipe), *tools(hardware, model, recipe, rows)]
    at_work = [*busy(step, evaluation), load(hardware, model, fixed, step, evaluation)]
    beyond = reserved(hardware, model, step, evaluation, rows)
    process = Line("context", hardware.context_bytes, CONTEXT[hardware.device], "process")
    mine = [process, *fixed, *at_work, *beyond]
    return (*mine, *outside(hardware, peak(mine)))


CONTEXT = {
    "cuda": "the driver's own, the code of torch's, cuBLAS' and Triton's kernels, captured graphs",
    "cpu": "Python with torch, transformers and bitsandbytes",
}


def laid_out(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe) -> Model:
    """The model as it would lie on that device."""
    quant = recipe.model.quant
    names = {linear.name for linear in spec.linears}
    fused = hardware.device == "cuda" and hardware.fused and spec.fast and quant != "float32"
    seen = recipe.data.context + STEP
    return Model(
        spec=spec,
        quant=quant,
        activation=activation(hardware.device, quant),
        fused=fused and (not spec.window or spec.window >= seen),
        triton=hardware.device == "cuda" and hardware.fused,
        rank=recipe.adapter.rank,
        core=recipe.adapter.space == "lora-core",
        adapted=frozenset(names & set(recipe.adapter.targets) if recipe.adapter.targets else names),
    )


def activation(device: str, quant: str) -> int:
    """Bytes, by quant.FORMATS."""
    return 4 if quant == "float32" or (device == "cpu" and quant != "bf16") else 2


# --- what lies there for the whole run -------------------------------------------------------------------------------


def weights(model: Model) -> list[Line]:
    s, a, quant = model.spec, model.activation, model.quant
    scales = sum(FLOAT * linear.count * linear.outputs for linear in s.linears) if quant == "int8" else 0
    layers = int(s.linear * CODES[quant]) + scales
    head = f"{s.vocabulary:,} × {s.hidden:,} in {8 * a} bits" if s.head else "it is the embedding table"
    return [
        Line("linear layers", layers, f"{s.linear:,} weights in {quant}, scales included"),
        Line("embeddings", a * s.embedding, f"{s.embedding:,} numbers in {8 * a} bits"),
        Line("head", a * s.head, head),
        Line("norms and biases", a * s.other, f"{s.other:,} numbers in {8 * a} bits"),
    ]


def adapter(hardware: Hardware, model: Model, recipe: ResolvedRecipe) -> list[Line]:
    factors, copies, a = SPACES[recipe.adapter.space], recipe.train.copies, model.activation
    trained = blocks(model.spec, recipe, factors.trained)
    n, frozen = _count(trained), _count(blocks(model.spec, recipe, factors.frozen))
    held = methods.state_bytes(recipe.method, trained)
    aside = factors.aside.get(hardware.device, 0)
    still = f"{frozen:,} numbers in {8 * a} bits to multiply" + (f", in {8 * aside} to export" if aside else "")
    return [
        Line("theta", FLOAT * n, f"{n:,} trained numbers in float32"),
        Line("copies", copies * n * a, f"{copies} copies of them in {8 * a} bits, one a point of a forward"),
        Line("frozen factors", (a + aside) * frozen, still),
        Line("method", held, f"{recipe.method.name} keeps {methods.state_formula(recipe.method)} bytes"),
        Line("directions", _written_out(recipe) * n, "noise is made inside a kernel" if not _written_out(recipe) else
             "a direction is written out in float32 before it is added"),
    ]  # fmt: skip


def blocks(spec: ModelSpec, recipe: ResolvedRecipe, factors: Iterable[str]) -> dict[str, Shape]:
    """These factors of every layer with an adapter."""
    targets, thin = set(recipe.adapter.targets), SPACES[recipe.adapter.space].thin
    return {
        f"{linear.name}.{linear.inputs}.{linear.outputs}.{i}.{factor}": FACTORS[factor](
            min(recipe.adapter.rank, linear.inputs, linear.outputs) if thin else recipe.adapter.rank, linear
        )
        for linear in spec.linears
        if not targets or linear.name in targets
        for i in range(linear.count)
        for factor in factors
    }


def trained_numbers(spec: ModelSpec, recipe: ResolvedRecipe) -> int:
    """n."""
    return _count(blocks(spec, recipe, SPACES[recipe.adapter.space].trained))


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _written_out(recipe: ResolvedRecipe) -> int:
    """Bytes a trained number while copies are filled, where engine/kernels.py cannot draw the directions itself."""
    inside = chain_of(recipe.method.sampler)[-1] in ("normal", "signs") and recipe.method.estimator != "curvature"
    return 0 if inside and "learned" not in recipe.method.sampler else 2 * FLOAT


def tools(hardware: Hardware, model: Model, recipe: ResolvedRecipe, rows: Rows) -> list[Line]:
    """What libraries keep."""
    if hardware.device != "cuda":
        return []
    big = hardware.capability[0] in (9, 10)
    workspace = 32 * MIB if big else 4096 * 1024 * 2 + 16 * 1024 * 8
    angles = 2 * FLOAT * (rows.tokens + 1 + STEP) * model.spec.head_dim if model.fused else 0
    return [
        Line("cuBLAS", workspace, f"its workspace on compute capability {hardware.capability[0]}.x"),
        Line("rotations", angles, "cosines and sines of every place" if model.fused else "made anew in each forward"),
    ]


# --- what comes and goes ---------------------------------------------------------------------------------------------


def forwards(model: Model, recipe: ResolvedRecipe, rows: Rows) -> tuple[Working, Working]:
    """The largest working memory of a step, and that of an evaluation."""
    kinds = [working(model, forward) for forward in step_forwards(recipe, rows)]
    step = max(kinds, key=lambda each: each.peak)
    if not rows.evaluated:
        return step, Working(0, 0, 0)
    count = max(1, EVAL_TOKENS // (rows.sequences * rows.tokens))
    return step, working(model, Forward(1, count * rows.sequences, rows.tokens, count * rows.positions))


def step_forwards(recipe: ResolvedRecipe, rows: Rows) -> list[Forward]:
    """A step's forwards of most points: pairs of points go together, candidates that a pool ranks do not."""
    m, points = recipe.method, recipe.train.copies
    at_once = 1 if m.estimator == "per-example" else recipe.train.microbatch
    mirrored = m.estimator in ("two-sided", "per-example") and points > 1
    sequences, positions = at_once * rows.sequences, at_once * rows.positions
    found = [Forward(points, sequences, rows.tokens, positions, mirrored)]
    if mirrored and {"guided", "greedy"} & set(chain_of(m.sampler)):
        found.append(Forward(points, sequences, rows.tokens, positions))
    return found


def busy(step: Working, evaluation: Working) -> list[Line]:
    most = max((step, evaluation), key=lambda each: each.peak)
    of = "an evaluation" if most is evaluation else "a step"
    more = max(0, most.logits - most.residual - most.layer)
    return [
        Line("residual stream", most.residual, f"what goes from layer to layer in {of}"),
        Line("one layer", most.layer, f"activations between two products in {of}, at their most"),
        Line("logits", more, "in chunks, where a layer's memory was" + (": so much more" if more else ": no more")),
    ]


def load(hardware: Hardware, model: Model, fixed: Sequence[Line], step: Working, evaluation: Working) -> Line:
    """How far a load exceeds the run: it reads tensor by tensor, and quantizes each from a copy or two in 16 bits.

    Frozen bases are found in a forward of some tokens, layer by layer in float32.
    """
    largest = max(linear.inputs * linear.outputs for linear in model.spec.linears)
    copies = {"int8": 2 * model.activation + 1, "nf4": model.activation}.get(model.quant, 0) * largest
    if model.core:
        copies = max(copies, basis_memory(model))
    if hardware.device == "cpu":
        copies += 2 * model.activation * model.spec.embedding  # a load of SmolLM2-135M took about so much
    more = max(0, copies - peak(fixed[4:]) - max(step.peak, evaluation.peak))
    return Line("load", more, f"before they are quantized layers take {human_bytes(copies)}, while nothing runs yet")


def basis_memory(model: Model) -> int:
    """What it takes to find bases: a forward without adapters, a weight, and a layer's rows twice, for their mean."""
    bare = working(replace(model, fused=False, adapted=frozenset()), Forward(1, *BASIS_TOKENS, 1))
    rows = BASIS_TOKENS[0] * BASIS_TOKENS[1]
    most = max(each.inputs * each.outputs + 2 * rows * (each.inputs + each.outputs) for each in model.spec.linears)
    return bare.peak + FLOAT * most


def mapped(spec: ModelSpec) -> int:
    """Bytes of a CPU process that are only its checkpoint's file: the system takes them back when it is short."""
    return 2 * spec.parameters


def reserved(
    hardware: Hardware, model: Model, step: Working, evaluation: Working, rows: Rows
) -> list[Line]:  # fmt: skip
    """What torch's allocator holds beyond what is in use."""
    if hardware.device != "cuda":
        return []
    eager = max(evaluation.peak, step.peak if rows.lengths > 1 else 0)
    pool = min(step.peak, eager)
    sizes = [(linear.inputs * linear.outputs, linear.count) for linear in model.spec.linears]
    loose = sum(
        segments(int(size * CODES[model.quant]), count) - int(size * CODES[model.quant]) * count
        for size, count in sizes
    )
    return [
        Line(
            "captured steps", pool, "graphs keep a step's memory while an evaluation or another length runs", "reserved"
        ),
        Line("allocator", loose + 2 * SEGMENT, "it asks the driver for 2 MiB at least, and mostly for 20", "reserved"),
    ]


def segments(size: int, count: int) -> int:
    """Bytes asked of the driver for so many tensors of one size, by the rules of torch's allocator."""
    if size >= LARGE:
        return count * -(-size // ROUND) * ROUND
    return -(-count // max(1, SEGMENT // max(size, SMALL_BLOCK))) * SEGMENT if size > SMALL_BLOCK else size * count


def outside(hardware: Hardware, mine: int) -> list[Line]:
    margin = max(LEAST_MARGIN, int(MARGIN * mine))
    return [
        Line("other processes", hardware.others_bytes, "what is in use beside this one", "outside"),
        Line("streamed layers", 0, "none: all layers are on the device", "outside"),
        Line("margin", margin, f"{MARGIN:.0%} of the above, at least {human_bytes(LEAST_MARGIN)}", "outside"),
    ]
