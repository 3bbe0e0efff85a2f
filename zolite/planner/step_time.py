"""How long a step takes: every kernel of it by the slower of its arithmetic and its memory traffic, and its start.

    step_seconds(hardware, spec, recipe, rows)

The rates are the hardware's, measured or published. What the constants below say of a kernel inside a step, beside a
large one alone, was fitted to 35 steps on one H100 (benchmarks/results/step-nvidia-h100-80gb-hbm3.json): all of them
come out within 15%. K points, R rows of all points, D width, I the MLP's inner width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from zolite.config import sizes
from zolite.config.architectures import Linear
from zolite.config.composition import forwards_per_step
from zolite.config.recipe import (
    ResolvedRecipe,
    evaluations_of,
    starts_with_feedback,
    starts_with_fit,
    starts_with_probe,
)
from zolite.data.lengths import Rows
from zolite.planner.activations import Forward, Model, paired, pieces
from zolite.planner.hardware import Hardware
from zolite.planner.memory import laid_out, step_forwards, trained_numbers
from zolite.planner.model_spec import ModelSpec

PRODUCT = 0.92  # of the rate of a large product alone: power limit, and tiles that the last wave leaves idle
PAIRS_WITH_ADAPTER = 0.91  # of the product of pairs: it adds the adapter's (benchmarks/products.py)
ELEMENTWISE = 0.72  # of the copy rate: norms, gates, adapters' thin products; rows are shorter than a copy's
ATTENTION = 0.65  # of the product rate
START_PRODUCT = 11e-6  # seconds until a product's tiles are full, and until its last is stored
START = 1e-6  # between two kernels of a graph
LAUNCH_CPU = 20e-6  # an operation of torch on a CPU
ONCE = 40  # small kernels of a step outside its layers
GENERIC = 26  # bytes a number that transformers' norms move, through float32; also what turning queries takes

PROBE_SHARE = 0.4  # of a run's forwards that a start in closed form may take, if it takes more than one site
EAGER_KERNELS = 24  # small ones of a layer of transformers' decoder


@dataclass(frozen=True)
class Kernel:
    """`rate` for its operations, `traffic` in bytes; `share` of the copy rate that it reaches."""

    operations: float = 0.0
    rate: float = 1.0
    traffic: float = 0.0
    share: float = 1.0
    product: bool = False


def step_seconds(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows) -> float:
    """One step, data and journal apart: they are made while the device works."""
    model, t = laid_out(hardware, spec, recipe), recipe.train
    forward = step_forwards(recipe, rows)[0]
    at_once = forward.points * forward.sequences / rows.sequences
    whole = forwards_per_step(recipe.method, t.queries, t.batch) * t.batch / at_once
    return max(1.0, whole) * _forward(hardware, model, forward) + _around(hardware, spec, recipe)


def beside_seconds(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe, rows: Rows) -> float:
    """What a run does beside its steps: all evaluations, and a start in closed form that takes as long as it may."""
    model, t = laid_out(hardware, spec, recipe), recipe.train
    sequences, positions = rows.evaluation
    each = max(1, sizes.EVAL_TOKENS // (sequences * rows.tokens))
    once = _forward(hardware, model, Forward(1, each * sequences, rows.tokens, each * positions))
    twice = 2 if rows.labels and starts_with_fit(recipe) else 1  # labels are compared, and what is said is looked at
    looks = twice * evaluations_of(t.steps, t.eval_every) * -(-t.eval_rows // each) if rows.evaluated else 0
    starts = starts_with_probe(recipe.adapter) if rows.labels else starts_with_feedback(recipe)
    start = linear_probe_rows(recipe) if starts else 0
    return (looks + start / each) * once


def linear_probe_rows(recipe: ResolvedRecipe) -> int:
    """As many rows as a start in closed form may read, if it takes more than one site: a share of the run's."""
    t = recipe.train
    return int(PROBE_SHARE * t.steps * t.batch * forwards_per_step(recipe.method, t.queries, t.batch))


def _around(hardware: Hardware, spec: ModelSpec, recipe: ResolvedRecipe) -> float:
    """Copies are filled, theta is moved."""
    n = trained_numbers(spec, recipe)
    fill = Kernel(traffic=n * (4 + 2 * recipe.train.copies), share=ELEMENTWISE)
    move = Kernel(traffic=8 * n, share=ELEMENTWISE)
    return seconds(hardware, fill) + seconds(hardware, move) + ONCE * seconds(hardware, Kernel())


def _forward(hardware: Hardware, model: Model, forward: Forward) -> float:
    s = model.spec
    layer = sum(seconds(hardware, kernel) for kernel in _layer(hardware, model, forward))
    layer += sum(seconds(hardware, kernel) * n for n, kernel in _experts(hardware, model, forward))
    count = forward.points * forward.positions
    head = Kernel(2 * count * s.hidden * s.vocabulary, product_rate(hardware, model), 2 * s.hidden * s.vocabulary)
    return s.layers * layer + seconds(hardware, head)


def seconds(hardware: Hardware, kernel: Kernel) -> float:
    start = LAUNCH_CPU if hardware.device == "cpu" else START_PRODUCT if kernel.product else START
    moving = kernel.traffic / (kernel.share * hardware.copy_per_s)
    return start + max(kernel.operations / kernel.rate, moving)


def product_rate(hardware: Hardware, model: Model) -> float:
    """Of 16-bit products; cards before Ampere have bfloat16 in software only."""
    if model.activation == 4:
        return PRODUCT * hardware.float32_per_s
    slow = hardware.device == "cuda" and hardware.capability < (8, 0) and model.quant != "int8"
    return PRODUCT * (hardware.float32_per_s if slow else hardware.tensor16_per_s)


def _layer(hardware: Hardware, model: Model, forward: Forward) -> Iterator[Kernel]:
    rows = forward.points * forward.rows
    attention, mlp = pieces(model, forward) if model.fused else (rows, rows)
    for linear in model.spec.linears:
        piece = attention if linear.name in ATTENDING else mlp
        share = linear.count / model.spec.layers
        for _ in range(round(-(-rows // piece) * share)):
            yield from _linear(hardware, model, linear, min(piece, rows), paired(model, forward))
    yield from (_between if model.fused else _between_generic)(hardware, model, forward, attention, mlp)


EXPERT_KERNELS = 8  # between an expert's products


def _experts(hardware: Hardware, model: Model, forward: Forward) -> Iterator[tuple[float, Kernel]]:
    """A layer's, each as often as it runs: each expert has its share of the rows."""
    s = model.spec
    for each in s.experts:
        count = each.count / s.layers
        rows = max(1, forward.points * forward.rows * s.experts_of_token // s.experts_each)
        yield from ((count, kernel) for kernel in _linear(hardware, model, replace(each, name=""), rows, pairs=False))
        yield count, Kernel(traffic=rows * each.outputs * 4, share=ELEMENTWISE)
        yield count * EXPERT_KERNELS / len(s.experts), Kernel()


ATTENDING = ("q_proj", "k_proj", "v_proj", "o_proj")
STACKED = ("k_proj", "v_proj", "up_proj")  # their A's are multiplied together with q_proj's, and gate_proj's
ADDING = ("o_proj", "down_proj")  # to the residual stream


def _linear(hardware: Hardware, model: Model, linear: Linear, rows: int, pairs: bool) -> Iterator[Kernel]:
    """A layer's product, with what its weights' format and its adapter take."""
    i, o, a = linear.inputs, linear.outputs, model.activation
    adapted, out = linear.name in model.adapted, rows * o * a * (2 if linear.name in ADDING and model.fused else 1)
    if adapted and model.core:
        yield Kernel(2 * rows * model.rank**2, product_rate(hardware, model), 2 * rows * model.rank * a, ELEMENTWISE)
    if pairs:
        rate = hardware.pairs_per_s * (PAIRS_WITH_ADAPTER if adapted else 1.0)
        yield Kernel(2 * rows * i * o, rate, i * o + rows * i + out, product=True)
        if adapted and linear.name not in STACKED:
            yield Kernel(traffic=rows * i * a, share=ELEMENTWISE)
        return
    if model.quant in hardware.expand_per_s:
        yield Kernel(i * o * a, hardware.expand_per_s[model.quant])
    yield Kernel(2 * rows * i * o, product_rate(hardware, model), (i * o + rows * i) * a + out, product=True)
    if adapted:
        yield Kernel(traffic=rows * i * a, share=ELEMENTWISE)
        yield Kernel(traffic=rows * o * a * (2 if model.fused else 4), share=ELEMENTWISE)


def _between(hardware: Hardware, model: Model, forward: Forward, attention: int, mlp: int) -> Iterator[Kernel]:
    """zolite's own kernels between the products of a layer."""
    s, a, pairs = model.spec, model.activation, paired(model, forward)
    rows = forward.points * forward.rows
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    made = a + 1 if pairs else a  # codes beside the rows themselves
    for piece, whole in ((min(attention, rows), True), (min(mlp, rows), False)):
        for _ in range(-(-rows // piece)):
            yield Kernel(traffic=piece * s.hidden * (a + made), share=ELEMENTWISE)
            if not whole:
                yield Kernel(traffic=piece * s.intermediate * (2 * a + made), share=ELEMENTWISE)
                continue
            yield Kernel(traffic=piece * (q + kv) * 2 * a * (2 if s.head_norms else 1), share=ELEMENTWISE)
            yield _attention(hardware, model, forward, piece)
            if pairs:
                yield Kernel(traffic=piece * q * made, share=ELEMENTWISE)


def _between_generic(hardware: Hardware, model: Model, forward: Forward, attention: int, mlp: int) -> Iterator[Kernel]:
    """transformers' kernels between them."""
    s, a, rows = model.spec, model.activation, forward.points * forward.rows
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    yield Kernel(traffic=rows * (2 * s.hidden + q + kv) * GENERIC, share=ELEMENTWISE)
    yield Kernel(traffic=rows * (6 * s.hidden + 5 * s.intermediate) * a, share=ELEMENTWISE)
    yield _attention(hardware, model, forward, rows)
    yield from [Kernel()] * EAGER_KERNELS


def _attention(hardware: Hardware, model: Model, forward: Forward, rows: int) -> Kernel:
    """Causal: half of all pairs of places, or as many as the window shows."""
    s = model.spec
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    seen = min(forward.tokens / 2, s.window or forward.tokens)
    rate = ATTENTION * product_rate(hardware, model) / PRODUCT
    return Kernel(4 * rows * seen * q, rate, rows * 2 * (q + kv) * model.activation, ELEMENTWISE)
