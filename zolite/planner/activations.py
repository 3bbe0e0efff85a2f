"""Activations of a forward, from shapes alone: what model/fused_decoder.py, model/loss.py and transformers hold.

    activation_memory(model, forward) -> ActivationMemory(residual, layer, logits)

Each sum below names tensors that are alive at once, at the places in the code where most are. Tests run that code with
every tensor counted and compare. K perturbed copies ("points" where the mathematics is meant), S sequences of each, T
tokens, R = K · S · T rows, D width, I the MLP's inner width, a bytes of an activation, r rank.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zolite.config import sizes
from zolite.config.architectures import Linear
from zolite.config.weights import WEIGHT_FORMATS
from zolite.planner.model_spec import ModelSpec

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Model:
    """A model as it lies on a device: its numbers, how its weights are stored, and its adapters."""

    spec: ModelSpec
    quant: str
    activation: int  # a: bytes
    fused: bool  # zolite's own decoder runs it
    triton: bool  # zolite's kernels are there: int8 weights are expanded in one pass
    rank: int
    adapted: frozenset[str]  # last names of the layers with adapters
    core: bool = False  # between the factors of an adapter

    @property
    def coded(self) -> bool:
        return WEIGHT_FORMATS[self.quant].coded

    def low(self, *names: str) -> int:
        """Numbers of x Aᵀ of these layers, for one row; a core makes as many of them again."""
        return self.rank * sum(name in self.adapted for name in names) * (2 if self.core else 1)

    def expanded(self, linear: Linear) -> int:
        """Bytes of a layer's weight as it is multiplied: none more where it lies in 16 bits."""
        return linear.inputs * linear.outputs * self.activation if self.coded else 0

    def expanding(self, linear: Linear) -> int:
        """The same just before: without Triton, int8 weights go through float32."""
        through = self.quant == "int8" and not self.triton and self.activation != FLOAT
        return self.expanded(linear) + (FLOAT * linear.inputs * linear.outputs if through else 0)


@dataclass(frozen=True)
class Forward:
    points: int  # K
    sequences: int  # S
    tokens: int  # T
    positions: int  # of a point that predict something
    mirrored: bool = False  # pairs of points, so that int8 weights go through the product of pairs

    @property
    def rows(self) -> int:
        """Of one point."""
        return self.sequences * self.tokens


@dataclass(frozen=True)
class ActivationMemory:
    """Bytes. Residual and layer are there together, the logits after them."""

    residual: int
    layer: int
    logits: int

    @property
    def peak(self) -> int:
        return max(self.residual + self.layer, self.logits)


def activation_memory(model: Model, forward: Forward) -> ActivationMemory:
    """Of one forward, without everything that is there between steps."""
    rows = forward.points * forward.rows
    plain = _encoder if model.spec.encoder else _generic
    by = plain if not model.fused else _paired if paired(model, forward) else _dense
    # transformers keeps the embeddings, each layer's input beside its own sum, and decoders' embeddings of positions
    kept = 1 if model.fused else 4 if model.spec.places and not model.spec.encoder else 3
    residual = kept * rows * model.spec.hidden * model.activation + 8 * rows  # and token numbers for each point
    return ActivationMemory(residual, max(by(model, forward)), _logits(model, forward))


def paired(model: Model, forward: Forward) -> bool:
    """Do int8 weights multiply means and differences of pairs of points?"""
    return model.fused and model.quant == "int8" and forward.mirrored and forward.points % 2 == 0


def pieces(model: Model, forward: Forward) -> tuple[int, int]:
    """Rows of all points that attention, and the MLP, take at once in zolite's decoder."""
    s = model.spec
    widths = ((2 * (s.heads + 2 * s.kv_heads) * s.head_dim, forward.tokens), (2 * s.intermediate, sizes.TILE_ROWS))
    attention, mlp = (_piece(model, forward, width, unit) for width, unit in widths)
    return attention, mlp


def _piece(model: Model, forward: Forward, width: int, unit: int) -> int:
    """As `Paired.pieces` and `Dense.pieces` cut them: whole points, or rows of all or of one."""
    m, points = forward.rows, forward.points
    if paired(model, forward):
        return points * even(m, -(-2 * points * m * width // sizes.PIECE_BYTES), unit)
    most = sizes.PIECE_BYTES_EXPANDED if model.coded else sizes.PIECE_BYTES
    if 2 * width * points * m <= most:
        return points * m
    return even(m, -(-2 * width * m // most), unit)


def even(total: int, count: int, unit: int) -> int:
    """The longest of `count` stretches of alike length in multiples of `unit`."""
    size = -(-total // max(1, count))
    return min(total, -(-size // unit) * unit)


def _paired(model: Model, forward: Forward) -> Iterable[int]:
    s, a = model.spec, model.activation
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    attention, mlp = pieces(model, forward)
    for rows, users, wide in ((attention, QKV, q + 2 * kv), (mlp, GATES, 2 * s.intermediate)):
        low = a * model.low(*users)
        codes = s.hidden + FLOAT + low  # int8, a scale, and what adapters made of the rows
        yield rows * (codes + (a * s.hidden if low else 0))
        yield rows * (codes + a * wide)
    yield from _mixed(model, attention)
    yield attention * (a * q + q + FLOAT + a * model.low("o_proj"))
    yield mlp * (2 * a * s.intermediate + FLOAT + a * model.low("down_proj"))


def _dense(model: Model, forward: Forward) -> Iterable[int]:
    s, a = model.spec, model.activation
    q = s.heads * s.head_dim
    attention, mlp = pieces(model, forward)
    by = {linear.name: linear for linear in s.linears}
    for rows, users in ((attention, QKV), (mlp, GATES)):
        made = a * s.hidden  # the normed rows
        for name in users:
            yield rows * made + model.expanding(by[name])
            made += a * by[name].outputs
            yield rows * made + max(model.expanded(by[name]), rows * a * model.low(name))
    yield from _mixed(model, attention)
    yield attention * a * (q + model.low("o_proj")) + model.expanding(by["o_proj"])
    yield mlp * a * 2 * s.intermediate  # a gate's result takes its place, and the other half goes
    yield mlp * a * (s.intermediate + model.low("down_proj")) + model.expanding(by["down_proj"])


def _mixed(model: Model, rows: int) -> Iterable[int]:
    """Queries, keys and values, with their norms' results where they have norms; what attention makes of them."""
    s, a = model.spec, model.activation
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    normed = q + kv if s.head_norms else 0
    yield rows * (a * (q + 2 * kv + normed + q) + FLOAT * s.heads)


def _generic(model: Model, forward: Forward) -> Iterable[int]:
    """transformers' decoder: whole batches between all products, and norms in float32."""
    s, a = model.spec, model.activation
    rows = forward.points * forward.rows
    by = {linear.name: linear for linear in s.linears}
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    x = a * s.hidden
    # Where attention is a table of all pairs of tokens, so are the masks of layers with a window and without.
    pairs, masks = (n * forward.tokens * rows * a if s.eager else 0 for n in (s.heads, 2))
    inner = [by[name] for name in INNER if name in by]
    largest = max(model.expanding(linear) for linear in s.linears)
    yield rows * (x + 2 * FLOAT * s.hidden + (a * s.hidden if a != FLOAT else 0))  # a norm
    if inner or not s.experts:
        yield rows * (x + a * _mlp_width(s, by))
        multiplied = max(map(model.expanded, inner), default=largest)
        yield rows * (x + a * _mlp_width(s, by, while_multiplying=True)) + multiplied
    if s.experts:
        yield from (each + pairs + masks for each in _experts(model, rows, x))  # a layer keeps its table to its end
    if s.eager:
        yield rows * (x + a * (3 * q + 2 * kv)) + 3 * pairs + masks  # keys and values for each head, and a softmax
    yield rows * (x + a * (2 * q + 2 * kv + 3 * q) + FLOAT * s.heads)  # turned queries, and what turning them takes
    yield rows * (x + a * (q + kv)) + largest
    if s.window and s.window < forward.tokens:
        yield rows * (x + a * (q + 2 * kv)) + forward.tokens**2 * a  # a mask


@dataclass(frozen=True)
class Held:
    """What a layer of an encoder holds beside the stream where most is there at once, in transformers' own modules."""

    inner: float = 2  # times the MLP's inner width
    streams: float = 0  # times the stream's width, beside those
    scores: float = 0  # matrices of attention, where it is made of whole ones


HELD = {
    "albert": Held(inner=4),
    "modernbert": Held(inner=4, streams=3.4),
    "deberta-v2": Held(scores=7.25),
    "deberta": Held(scores=7.25),
    "mpnet": Held(scores=3),
}
"""By architecture, where it is not as BERT's."""


def _encoder(model: Model, forward: Forward) -> Iterable[int]:
    """transformers' encoders: with a mask for each row's padding."""
    s, a = model.spec, model.activation
    rows, held = forward.points * forward.rows, HELD.get(s.architecture, Held())
    mask, largest = rows * forward.tokens, max(model.expanding(linear) for linear in s.linears)
    beside = held.streams * s.hidden
    yield int(rows * a * (beside + held.inner * s.intermediate)) + mask
    yield int(rows * a * (beside + held.inner * s.intermediate / 2)) + mask + largest
    yield int(rows * a * (5 * s.hidden + held.scores * s.heads * forward.tokens)) + mask + largest


def _experts(model: Model, rows: int, x: int) -> Iterable[int]:
    """What model/experts.py holds, of rows of `x` bytes each: sums in float32, and one expert with its tokens."""
    s, a = model.spec, model.activation
    part = min(rows, sizes.EXPERT_TOKENS)
    made = rows * (x + FLOAT * s.hidden + 3 * 8 * s.experts_of_token + (a + FLOAT) * s.experts_each)
    yield made + rows * a * s.hidden  # the sums in the activations' dtype
    yield made + part * (a + 2 * FLOAT) * s.hidden  # an expert's results, weighted
    for each in s.experts:
        inwards = each.inputs == s.hidden
        between = each.outputs if inwards else each.inputs + each.outputs
        yield made + part * a * (s.hidden + between) + model.expanding(each)
        if inwards:
            yield made + part * a * (s.hidden + each.outputs + s.gates * each.outputs // 2)


QKV, GATES = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
INNER = ("up_proj", "gate_up_proj", "fc1", "c_fc", "dense_h_to_4h")


def _mlp_width(s: ModelSpec, by: Mapping[str, Linear], while_multiplying: bool = False) -> int:
    """Numbers of a row between the MLP's products: the gate's, and a layer's own before and after its adapter."""
    if "gate_up_proj" in by:
        return (2 if while_multiplying else 4) * s.intermediate
    if "gate_proj" in by:
        return (2 if while_multiplying else 3) * s.intermediate
    return (1 if while_multiplying else 2) * s.intermediate


def _logits(model: Model, forward: Forward) -> int:
    """Final hidden states where something is predicted, and float32 logits of them, in chunks."""
    s, a = model.spec, model.activation
    count = forward.points * forward.positions
    hidden = count * s.hidden * a
    gathered = min(count, max(1, sizes.CHUNK_NUMBERS // s.hidden)) * s.hidden * (a + 3 * FLOAT)
    columns = min(s.vocabulary, max(sizes.COLUMNS, sizes.CHUNK_NUMBERS // count // sizes.COLUMNS * sizes.COLUMNS))
    if s.encoder:
        return count * (2 * s.hidden + s.vocabulary) * a + 2 * FLOAT * count * columns
    return hidden + max(gathered, 2 * FLOAT * count * columns)
