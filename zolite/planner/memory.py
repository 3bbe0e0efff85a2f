"""Where the memory of a run goes: one line a purpose, with its bytes and the reason; the lines sum to the peak.

    lines = ledger(hardware, spec, recipe, rows)
    peak(lines), allocated(lines), ours(lines)

Every line follows from the code that allocates it, so there is nothing to fit: docs/log.md has it against measurements.
K perturbed copies in a forward, n trained numbers, a bytes of an activation.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from zolite.common.text import human_bytes
from zolite.config import composition, sizes
from zolite.config.architectures import Linear
from zolite.config.recipe import ResolvedRecipe, starts_with_feedback
from zolite.config.spaces import SPACES
from zolite.config.weights import WEIGHT_FORMATS
from zolite.data.lengths import Rows
from zolite.planner.activations import FLOAT, ActivationMemory, Forward, Model, activation_memory
from zolite.planner.hardware import Hardware
from zolite.planner.model_spec import ModelSpec

MIB = 2**20
SEGMENT, LARGE, ROUND = 20 * MIB, 10 * MIB, 2 * MIB  # torch's allocator: what it asks the driver for
SMALL_BLOCK = MIB  # smaller ones share segments of 2 MiB
MARGIN, LEAST_MARGIN = 0.02, 64 * MIB

Shape = tuple[int, ...]
GROUPS = ("weights", "adapter", "activations", "libraries", "margin", "other programs")


@dataclass(frozen=True)
class Line:
    """`where`: allocated (torch counts it), reserved (torch holds it beyond that), process, or outside of it."""

    what: str
    bytes: int
    why: str
    group: str  # one of GROUPS: what a person thinks of
    where: str = "allocated"


Ledger = tuple[Line, ...]


def peak(lines: Iterable[Line]) -> int:
    return sum(line.bytes for line in lines)


def allocated(lines: Iterable[Line]) -> int:
    """What torch.cuda.max_memory_allocated would say."""
    return sum(line.bytes for line in lines if line.where == "allocated")


def counted(lines: Iterable[Line], device: str) -> Ledger:
    """What a run on a device of that name calls its memory: torch's allocations on a GPU, its process elsewhere."""
    places = ("allocated", "process") if device.startswith("CPU") else ("allocated",)
    return tuple(line for line in lines if line.bytes and line.where in places)


def ours(lines: Iterable[Line]) -> int:
    """What the process takes of the card, without the margin."""
    return sum(line.bytes for line in lines if line.where != "outside")


def own(lines: Ledger) -> int:
    """What a run itself needs to have free, its margin included."""
    return peak(lines) - by_group(lines)["other programs"]


def by_group(lines: Iterable[Line]) -> dict[str, int]:
    """Bytes of every group, in their order."""
    sums = dict.fromkeys(GROUPS, 0)
    for line in lines:
        sums[line.group] += line.bytes
    return sums


def ledger(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows) -> Ledger:
    """Of a resolved recipe. Lines of no bytes stay: they say why there are none."""
    model = laid_out(hardware, spec, recipe)
    step, evaluation = forwards(model, recipe, rows)
    rest = [*adapter(hardware, model, recipe), *tools(hardware, model, recipe, rows)]
    fixed = [*weights(model), *rest]
    at_work = [*activation_lines(step, evaluation), load(hardware, model, rest, step, evaluation)]
    at_work += started(hardware, model, recipe, rows, max(step.peak, evaluation.peak))
    beyond = reserved(hardware, model, step, evaluation, rows)
    process = Line("context", hardware.context_bytes, CONTEXT[hardware.device], "libraries", "process")
    mine = [process, *fixed, *at_work, *beyond]
    return (*mine, *outside(hardware, peak(mine)))


CONTEXT = {
    "cuda": "the driver's own, the code of torch's, cuBLAS' and Triton's kernels, captured graphs",
    "cpu": "Python with torch, transformers and bitsandbytes",
}


def laid_out(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe) -> Model:
    """The model as it would lie on that device."""
    quant = recipe.model.quant
    fused = hardware.device == "cuda" and hardware.fused and spec.fast and quant != "float32"
    longest = recipe.data.context + sizes.BUCKET_TOKENS  # a bucket may end behind the longest row
    return Model(
        spec=spec,
        quant=quant,
        activation=WEIGHT_FORMATS[quant].activation_bytes(hardware.device),
        fused=fused and (not spec.window or spec.window >= longest),
        triton=hardware.device == "cuda" and hardware.fused,
        rank=recipe.adapter.rank,
        core=SPACES[recipe.adapter.space].bases,
        adapted=frozenset(each.name for each in targeted(spec.linears, recipe.adapter.targets) if each.count),
    )


# --- what lies there for the whole run -------------------------------------------------------------------------------


def weights(model: Model) -> list[Line]:
    s, a, stored = model.spec, model.activation, WEIGHT_FORMATS[model.quant]
    scales = sum(stored.row_bytes * linear.count * linear.outputs for linear in s.linears)
    layers = int(s.linear * stored.bytes) + scales
    routed = int(s.routed * stored.bytes) + sum(stored.row_bytes * each.count * each.outputs for each in s.experts)
    experts = f"{s.routed:,} weights in {model.quant}, {s.experts_each} experts a layer"
    head = f"{s.vocabulary:,} × {s.hidden:,} in {8 * a} bits" if s.head else "it is the embedding table"
    return [
        Line("linear layers", layers, f"{s.linear:,} weights in {model.quant}, scales included", "weights"),
        *([Line("experts", routed, experts, "weights")] if routed else []),
        Line("embeddings", a * s.embedding, f"{s.embedding:,} numbers in {8 * a} bits", "weights"),
        Line("head", a * s.head, head, "weights"),
        Line("norms and biases", a * s.other, f"{s.other:,} numbers in {8 * a} bits", "weights"),
    ]


def adapter(hardware: Hardware, model: Model, recipe: ResolvedRecipe) -> list[Line]:
    factors, copies, a = SPACES[recipe.adapter.space], recipe.train.copies, model.activation
    trained = blocks(model.spec, recipe, factors.trained)
    n, frozen = _count(trained), _count(blocks(model.spec, recipe, factors.frozen))
    held = composition.state_bytes(recipe.method, trained)
    aside = factors.export_bytes.get(hardware.device, 0)
    still = f"{frozen:,} numbers in {8 * a} bits to multiply" + (f", in {8 * aside} to export" if aside else "")
    written = composition.direction_bytes(recipe.method)
    noise = "a direction is written out in float32 before it is added" if written else "noise is made inside a kernel"
    lines = (
        ("trained numbers", FLOAT * n, f"{n:,} in float32"),
        ("perturbed copies", copies * n * a, f"{copies} of them in {8 * a} bits, each for one pass through the model"),
        ("frozen factors", (a + aside) * frozen, still),
        ("optimizer state", held, f"{recipe.method.name} keeps {composition.state_formula(recipe.method)} bytes"),
        ("directions", written * n, noise),
    )
    return [Line(what, size, why, "adapter") for what, size, why in lines]


def blocks(spec: ModelSpec, recipe: ResolvedRecipe, factors: Iterable[str]) -> dict[str, Shape]:
    """These factors of every layer with an adapter."""
    space, rank = SPACES[recipe.adapter.space], recipe.adapter.rank
    return {
        f"{linear.name}.{linear.inputs}.{linear.outputs}.{i}.{factor}": space.shapes(
            linear.inputs, linear.outputs, rank
        )[factor]
        for linear in targeted(spec.linears, recipe.adapter.targets)
        for i in range(linear.count)
        for factor in factors
    }


def targeted(linears: Iterable[Linear], targets: Sequence[str]) -> list[Linear]:
    """Layers with adapters, and how many: all, those of a last name, or single ones by their full names."""
    single = Counter(target.rpartition(".")[2] for target in targets if "." in target)

    def count(each: Linear) -> int:
        return each.count if not targets or each.name in targets else min(each.count, single[each.name])

    return [replace(each, count=count(each)) for each in linears]


def trained_numbers(spec: ModelSpec, recipe: ResolvedRecipe) -> int:
    """n."""
    return _count(blocks(spec, recipe, SPACES[recipe.adapter.space].trained))


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def tools(hardware: Hardware, model: Model, recipe: ResolvedRecipe, rows: Rows) -> list[Line]:
    """What libraries keep, and zolite's own decoder."""
    if hardware.device != "cuda":
        return []
    big = hardware.capability[0] in (9, 10)
    workspace = 32 * MIB if big else 4096 * 1024 * 2 + 16 * 1024 * 8
    angles = 2 * FLOAT * (rows.tokens + 1 + sizes.BUCKET_TOKENS) * model.spec.head_dim if model.fused else 0
    made = "cosines and sines of every place" if model.fused else "made anew in each forward"
    return [
        Line("cuBLAS", workspace, f"its workspace on compute capability {hardware.capability[0]}.x", "libraries"),
        Line("rotations", angles, made, "activations"),
    ]


# --- what comes and goes ---------------------------------------------------------------------------------------------


def forwards(model: Model, recipe: ResolvedRecipe, rows: Rows) -> tuple[ActivationMemory, ActivationMemory]:
    """The largest activations of a step, and those of an evaluation."""
    kinds = [activation_memory(model, forward) for forward in step_forwards(recipe, rows)]
    step = max(kinds, key=lambda each: each.peak)
    if not rows.evaluated:
        return step, ActivationMemory(0, 0, 0)
    sequences, positions = rows.evaluation
    count = max(1, sizes.EVAL_TOKENS // (sequences * rows.tokens))
    return step, activation_memory(model, Forward(1, count * sequences, rows.tokens, count * positions))


def step_forwards(recipe: ResolvedRecipe, rows: Rows) -> list[Forward]:
    """A step's largest forwards: mirrored pairs of copies go together, candidates that a pool ranks do not."""
    m, points = recipe.method, recipe.train.copies
    at_once = 1 if composition.per_example(m) else recipe.train.microbatch
    mirrored = composition.mirrored(m) and points > 1
    sequences, positions = at_once * rows.sequences, at_once * rows.positions
    found = [Forward(points, sequences, rows.tokens, positions, mirrored)]
    if mirrored and composition.ranks(m):
        found.append(Forward(points, sequences, rows.tokens, positions))
    return found


def activation_lines(step: ActivationMemory, evaluation: ActivationMemory) -> list[Line]:
    most = max((step, evaluation), key=lambda each: each.peak)
    of = "an evaluation" if most is evaluation else "a step"
    more = max(0, most.logits - most.residual - most.layer)
    beyond = "in chunks, where a layer's memory was" + (": so much more" if more else ": no more")
    lines = (
        ("residual stream", most.residual, f"what goes from layer to layer in {of}"),
        ("one layer", most.layer, f"activations between two products in {of}, at their most"),
        ("logits", more, beyond),
    )
    return [Line(what, size, why, "activations") for what, size, why in lines]


def load(
    hardware: Hardware, model: Model, rest: Sequence[Line], step: ActivationMemory, evaluation: ActivationMemory
) -> Line:
    """How far a load exceeds the run: it reads tensor by tensor, and quantizes each from a copy or two in 16 bits.

    Of experts a layer's are read together, and once more where files have them one by one.

    Frozen bases are found in a forward of some tokens, layer by layer in float32.
    """
    largest = max(linear.inputs * linear.outputs for linear in model.spec.linears)
    copies = {"int8": 2 * model.activation + 1, "nf4": model.activation}.get(model.quant, 0) * largest
    together = max((each.inputs * each.outputs for each in model.spec.experts), default=0) * model.spec.experts_each
    copies = max(copies, 2 * model.activation * together)
    if model.core:
        copies = max(copies, basis_memory(model))
    if hardware.device == "cpu":
        copies += 2 * model.activation * model.spec.embedding  # a load of SmolLM2-135M took about so much
    more = max(0, copies - peak(rest) - max(step.peak, evaluation.peak))
    why = f"before they are quantized layers take {human_bytes(copies)}, while nothing runs yet"
    return Line("load", more, why + unpacking(hardware, model.spec), "weights")


def unpacking(hardware: Hardware, spec: ModelSpec) -> str:
    """What a GGUF file takes of the host's memory as it is loaded to a GPU: one tensor, unpacked and laid out."""
    if spec.packed != "gguf" or hardware.device == "cpu":
        return ""
    largest = max(spec.embedding, *(linear.inputs * linear.outputs for linear in spec.linears))
    return f"; of the host's memory the GGUF file takes {human_bytes(2 * 2 * largest)}, a tensor at a time in 16 bits"


def started(hardware: Hardware, model: Model, recipe: ResolvedRecipe, rows: Rows, later: int) -> list[Line]:
    """How far the start of rows without labels exceeds what comes `later`: it ends before steps are captured."""
    if rows.labels or not starts_with_feedback(recipe):
        return []
    s, n = model.spec, trained_numbers(model.spec, recipe)
    forward = activation_memory(replace(model, fused=False), Forward(1, *_start_rows(rows), 1))
    inner = max(linear.outputs for linear in s.linears)
    kept = min(sizes.START_KEPT, 3 * s.hidden * s.layers * model.activation * sizes.START_TOKENS)
    places = kept // (3 * s.hidden * s.layers * model.activation)
    expanded = model.activation * max(linear.inputs * linear.outputs for linear in s.linears)
    walk = FLOAT * places * (6 * inner + 4 * s.hidden) + 3 * FLOAT * sizes.START_LOGITS + expanded
    size = FLOAT * n * (4 if hardware.device == "cpu" else 3) + kept + max(forward.peak, walk)
    why = f"before any step: Adam's two numbers and a slope of {n:,}, and what a forward keeps at predicted tokens"
    return [Line("start", max(0, size - later), why, "activations")]


def _start_rows(rows: Rows) -> tuple[int, int]:
    """Sequences and their tokens of a forward of the start."""
    return max(1, sizes.START_TOKENS // rows.tokens), rows.tokens


def basis_memory(model: Model) -> int:
    """What it takes to find bases: a forward without adapters, a weight, and a layer's rows twice, for their mean."""
    bare = activation_memory(replace(model, fused=False, adapted=frozenset()), Forward(1, *sizes.BASIS_TOKENS, 1))
    rows = sizes.BASIS_TOKENS[0] * sizes.BASIS_TOKENS[1]
    most = max(each.inputs * each.outputs + 2 * rows * (each.inputs + each.outputs) for each in model.spec.linears)
    return bare.peak + FLOAT * most


def mapped(spec: ModelSpec) -> int:
    """Bytes of a CPU process that are only its checkpoint's file: the system takes them back when it is short.

    Of a GGUF file a tensor at a time is mapped, and let go.
    """
    return 0 if spec.packed == "gguf" else 2 * spec.parameters


def reserved(
    hardware: Hardware, model: Model, step: ActivationMemory, evaluation: ActivationMemory, rows: Rows
) -> list[Line]:
    """What torch's allocator holds beyond what is in use."""
    if hardware.device != "cuda":
        return []
    eager = max(evaluation.peak, step.peak if rows.lengths > 1 else 0)
    pool = 0 if model.spec.experts else min(step.peak, eager)  # how many rows an expert has is read back: no graphs
    each = WEIGHT_FORMATS[model.quant].bytes
    stored = [(int(linear.inputs * linear.outputs * each), linear.count) for linear in model.spec.linears]
    together = model.spec.experts_each or 1  # a layer's experts lie in one tensor
    stored += [(int(e.inputs * e.outputs * each) * together, e.count // together) for e in model.spec.experts]
    loose = sum(segments(size, count) - size * count for size, count in stored)
    lines = (
        ("captured steps", pool, "CUDA graphs keep a step's memory while an evaluation or another length runs"),
        ("allocator", loose + 2 * SEGMENT, "it asks the driver for 2 MiB at least, and mostly for 20"),
    )
    return [Line(what, size, why, "libraries", "reserved") for what, size, why in lines]


def segments(size: int, count: int) -> int:
    """Bytes asked of the driver for so many tensors of one size, by the rules of torch's allocator."""
    if size >= LARGE:
        return count * -(-size // ROUND) * ROUND
    return -(-count // max(1, SEGMENT // max(size, SMALL_BLOCK))) * SEGMENT if size > SMALL_BLOCK else size * count


def outside(hardware: Hardware, mine: int) -> list[Line]:
    margin = max(LEAST_MARGIN, int(MARGIN * mine))
    why = f"{MARGIN:.0%} of the above, at least {human_bytes(LEAST_MARGIN)}"
    return [
        Line("other processes", hardware.others_bytes, "what is in use beside this one", "other programs", "outside"),
        Line("streamed layers", 0, "none: all layers are on the device", "weights", "outside"),
        Line("margin", margin, why, "margin", "outside"),
    ]
