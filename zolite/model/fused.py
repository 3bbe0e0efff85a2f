"""A Llama-like decoder in one pass over its layers, with fused kernels between the products.

transformers' own decoder runs any architecture; this one runs the commonest (Llama, Mistral, Qwen2 and 3, SmolLM, …) on
CUDA at the speed of the card and in less memory: norms, rotations and gates are one kernel each, products add to the
residual stream in place, and the wide middle of the MLP exists for a piece of the rows at a time.

S points, B sequences a point, T tokens, M = B · T rows a point, D width, I the MLP's inner width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zolite.model.quant import Int8Linear, is_linear, triton_kernels, weight16
from zolite.model.slots import Active, SlotLinear

# The MLP's middle, at most. Weights that must be expanded once more for each piece get larger ones.
PIECE_BYTES, PIECE_BYTES_EXPANDED = 128 << 20, 256 << 20
MOST_ROUNDED = 0.25  # of a model's final hidden states; beyond, its int8 activations are not to be trusted
STEP = 128  # rows: pieces are multiples of a product's tile
ROTATIONS = ("default", "llama3", "linear", "yarn")  # whose angles do not depend on the length of the text


class Arithmetic(Protocol):
    """How rows are held between two products, and how they are multiplied. `Dense` and `Paired` do the same sums."""

    def normed(self, h: Tensor, norm: Any, users: Sequence[nn.Module]) -> Any:
        """RMSNorm of h (S, M, D), ready for the products of `users`."""

    def taken(self, x: Tensor, users: Sequence[nn.Module]) -> Any:
        """x (S, M, D) itself, ready for products."""

    def gated(self, g: Tensor, u: Tensor, users: Sequence[nn.Module], points: slice) -> Any:
        """silu(g) · u, ready for products; g is overwritten."""

    def pieces(self, points: int, rows: int, mlp: Any) -> Iterator[tuple[slice, slice]]:
        """Which points' which rows go through the MLP together."""

    def product(self, x: Any, user: nn.Module, at: tuple[slice, slice], into: Tensor | None = None) -> Tensor:
        """user(x[at]) as a new tensor, or added to into[at]. An x made of a piece alone is all of it."""


@dataclass(frozen=True)
class Decoder:
    """ids (S · B, T) and where (positions,) in the flattened S · B · T to final hidden states there, (positions, D)."""

    model: Any  # transformers' decoder: the weights, as it holds them
    kernels: Any  # the module of that name, which only loads where there is Triton
    pairs: bool  # every product's weights are int8
    active: Active
    cos: Tensor  # (longest text, head width) float32
    sin: Tensor

    def __call__(self, ids: Tensor, where: Tensor) -> Tensor:
        points = self.active.slots
        paired = self.pairs and self.active.mirrored
        arithmetic: Arithmetic = Paired(self.kernels) if paired else Dense(self.kernels)
        h = self.model.embed_tokens(ids).view(points, -1, self.model.config.hidden_size)
        for layer in self.model.layers:
            self._attend(h, layer, arithmetic, ids.shape)
            self._transform(h, layer, arithmetic)
        norm = self.model.norm
        final: Tensor = self.kernels.rms_norm(h.view(-1, h.shape[-1])[where], norm.weight, norm.variance_epsilon)
        return final

    def _attend(self, h: Tensor, layer: Any, arithmetic: Arithmetic, shape: torch.Size) -> None:
        """h += attention(norm(h))."""
        attention = layer.self_attn
        users = (attention.q_proj, attention.k_proj, attention.v_proj)
        x = arithmetic.normed(h, layer.input_layernorm, users)
        q, k, v = (arithmetic.product(x, user, ALL).view(*shape, -1, attention.head_dim) for user in users)
        del x
        if hasattr(attention, "q_norm"):
            q, k = (self.kernels.rms_norm(y, n.weight, n.variance_epsilon) for y, n in _headwise(attention, q, k))
        self.kernels.rotary_(q, k, self.cos, self.sin)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attention.scaling, enable_gqa=True)
        del q, k, v
        y = arithmetic.taken(y.transpose(1, 2).reshape(*h.shape[:2], -1), (attention.o_proj,))
        arithmetic.product(y, attention.o_proj, ALL, into=h)

    def _transform(self, h: Tensor, layer: Any, arithmetic: Arithmetic) -> None:
        """h += down(silu(gate(x)) · up(x)) with x = norm(h)."""
        mlp = layer.mlp
        x = arithmetic.normed(h, layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj))
        for at in arithmetic.pieces(len(h), h.shape[1], mlp):
            g, u = (arithmetic.product(x, user, at) for user in (mlp.gate_proj, mlp.up_proj))
            y = arithmetic.gated(g, u, (mlp.down_proj,), at[0])
            del g, u
            arithmetic.product(y, mlp.down_proj, at, into=h)
            del y


ALL = (slice(None), slice(None))


@dataclass(frozen=True)
class Dense:
    """16-bit rows by 16-bit weights, by the vendor's library; 8-bit and 4-bit weights are expanded for each use."""

    kernels: Any

    def normed(self, h: Tensor, norm: Any, users: Sequence[nn.Module]) -> Tensor:
        normed: Tensor = self.kernels.rms_norm(h, norm.weight, norm.variance_epsilon)
        return normed

    def taken(self, x: Tensor, users: Sequence[nn.Module]) -> Tensor:
        return x

    def gated(self, g: Tensor, u: Tensor, users: Sequence[nn.Module], points: slice) -> Tensor:
        gated: Tensor = self.kernels.silu_mul_(g, u)
        return gated

    def pieces(self, points: int, rows: int, mlp: Any) -> Iterator[tuple[slice, slice]]:
        base, _ = parts(mlp.gate_proj)
        size = (PIECE_BYTES if isinstance(base, nn.Linear) else PIECE_BYTES_EXPANDED) // (4 * base.out_features)
        if size >= points * rows:
            yield ALL
            return
        count = -(-rows // max(1, size))
        for point in range(points):
            yield from ((slice(point, point + 1), part) for part in even(rows, count))

    def product(self, x: Tensor, user: nn.Module, at: tuple[slice, slice], into: Tensor | None = None) -> Tensor:
        base, adapter = parts(user)
        piece = x if into is not None else x[at]
        rows = piece.reshape(-1, piece.shape[-1])
        if into is None:
            flat = F.linear(rows, weight16(base, x.dtype), base.bias)
            out = flat.view(*piece.shape[:2], -1)
        else:
            out = into[at]
            flat = out.view(-1, out.shape[-1])  # whole points, or rows of one: either lies in one stretch
            flat.addmm_(rows, weight16(base, x.dtype).mT)
            if base.bias is not None:
                flat.add_(base.bias)
        if adapter is not None:
            first = at[0].start or 0
            out.baddbmm_(adapter.low(piece, first), adapter.b[first : first + len(piece)].mT, alpha=adapter.scale)
        return out


@dataclass(frozen=True)
class Codes:
    """Rows of pairs of points as `kernels.norm_pairs` writes them, and each user's x Aᵀ."""

    codes: Tensor  # (S, M, K) int8
    scales: Tensor  # (S, M) float32
    low: dict[nn.Module, Tensor]  # (S, M, r)


@dataclass(frozen=True)
class Paired:
    """Pairs of mirrored points: the mean and the difference of their rows in int8, by int8 weights."""

    kernels: Any

    def normed(self, h: Tensor, norm: Any, users: Sequence[nn.Module]) -> Codes:
        keep = any(isinstance(user, SlotLinear) for user in users)
        codes, scales, x = self.kernels.norm_pairs(h, norm.weight, norm.variance_epsilon, keep)
        return Codes(codes, scales, _lows(x, users))

    def taken(self, x: Tensor, users: Sequence[nn.Module]) -> Codes:
        codes, scales = self.kernels.pairs(x, None, False)
        return Codes(codes, scales, _lows(x, users))

    def gated(self, g: Tensor, u: Tensor, users: Sequence[nn.Module], points: slice) -> Codes:
        codes, scales = self.kernels.pairs(g, u, any(isinstance(user, SlotLinear) for user in users))
        return Codes(codes, scales, _lows(g, users))

    def pieces(self, points: int, rows: int, mlp: Any) -> Iterator[tuple[slice, slice]]:
        base, _ = parts(mlp.gate_proj)
        count = -(-points * rows * base.out_features * 5 // PIECE_BYTES)  # two of 16 bits and one of 8
        return ((slice(None), part) for part in even(rows, count))

    def product(self, x: Codes, user: nn.Module, at: tuple[slice, slice], into: Tensor | None = None) -> Tensor:
        base, adapter = parts(user)
        rows = slice(*at[1].indices(x.codes.shape[1]))
        if into is not None:
            taken, given, out = slice(0, x.codes.shape[1]), slice(*at[1].indices(into.shape[1])), into
        else:
            taken, given = rows, slice(0, rows.stop - rows.start)
            out = base.scales.new_empty(len(x.codes), given.stop, base.out_features, dtype=base.dtype)
        extra = None
        if adapter is not None:
            extra = (x.low[user][:, taken].contiguous(), adapter.b, adapter.scale)
        self.kernels.pair_product(
            x.codes, x.scales, base.codes, base.scales, base.bias, extra, out, taken, given, into is not None
        )
        return out


def parts(user: nn.Module) -> tuple[Any, SlotLinear | None]:
    """A linear layer's frozen weights, and its adapter if it has one."""
    return (user.base, user) if isinstance(user, SlotLinear) else (user, None)


def even(total: int, count: int) -> Iterator[slice]:
    """`count` stretches of alike length, or fewer, in multiples of STEP."""
    size = -(-total // max(1, count))
    size = min(total, -(-size // STEP) * STEP)
    return (slice(first, min(first + size, total)) for first in range(0, total, size))


def _lows(x: Tensor | None, users: Sequence[nn.Module]) -> dict[nn.Module, Tensor]:
    return {user: user.low(x, 0) for user in users if isinstance(user, SlotLinear) and x is not None}


def _headwise(attention: Any, q: Tensor, k: Tensor) -> tuple[tuple[Tensor, Any], ...]:
    return (q, attention.q_norm), (k, attention.k_norm)


def fused(model: Any, active: Active, longest: int) -> Decoder | None:
    """The fast decoder of a transformers model on CUDA, for texts up to `longest` tokens; None where it has none.

    Whether the model is like a Llama is asked of its parts' names, and then of its numbers: on a few tokens the final
    hidden states must be those of transformers' own decoder.
    """
    decoder = model.get_decoder()
    if not (_runs_here(decoder) and _looks_alike(decoder)):
        return None
    made = assemble(decoder, active, longest)
    if not _agrees(made, decoder):
        return None
    return made if not made.pairs or _pairs_hold(made) else replace(made, pairs=False)


def assemble(decoder: Any, active: Active, longest: int) -> Decoder:
    """The fast decoder, unasked whether it fits."""
    from zolite.model import kernels

    linears = [m for layer in decoder.layers for m in layer.modules() if is_linear(m)]
    return Decoder(
        decoder, kernels, all(isinstance(m, Int8Linear) for m in linears), active, *_angles(decoder, longest)
    )


def _runs_here(decoder: Any) -> bool:
    weight: Tensor = next(decoder.parameters())
    return weight.dtype != torch.float32 and triton_kernels(weight.device) is not None


LAYER = (
    "input_layernorm.variance_epsilon", "post_attention_layernorm.variance_epsilon", "self_attn.head_dim",
    "self_attn.scaling", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.act_fn",
)  # fmt: skip


def _looks_alike(decoder: Any) -> bool:
    config = decoder.config
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    return (
        all(_has(decoder, name) for name in ("embed_tokens", "layers", "norm.variance_epsilon", "rotary_emb"))
        and all(_has(layer, name) for layer in decoder.layers for name in LAYER)
        and not window
        and rotation in ROTATIONS
        and config.hidden_act in ("silu", "swish")
    )


def _has(module: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True


def _angles(decoder: Any, longest: int) -> tuple[Tensor, Tensor]:
    weight = decoder.embed_tokens.weight
    places = torch.arange(longest, device=weight.device)[None]
    cos, sin = decoder.rotary_emb(weight.new_zeros(1, dtype=torch.float32), position_ids=places)
    return cos[0].contiguous(), sin[0].contiguous()


@torch.inference_mode()
def _agrees(made: Decoder, decoder: Any) -> bool:
    """To within what rounding does in two layers: all are of one kind, and a wrong scale or turn does more."""
    layers = decoder.layers
    if made.cos.shape[-1] != layers[0].self_attn.head_dim or len({type(layer) for layer in layers}) > 1:
        return False
    ids, where = _some_tokens(made)
    decoder.layers = layers[:2]
    try:
        theirs = decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        ours = made(ids, where)
    finally:
        decoder.layers = layers
    return _error(ours, theirs) < 0.03


@torch.inference_mode()
def _pairs_hold(made: Decoder) -> bool:
    """Can this model's activations be rounded to int8? A tenth off is usual; some have outliers that drown the rest."""
    slots = [m.b.shape[0] for m in made.model.modules() if isinstance(m, SlotLinear)]
    if min(slots, default=1) < 2:
        return False  # two points never run together
    ids, where = _some_tokens(made)
    exact = made(ids, where)
    made.active.slots, made.active.mirrored = 2, True
    rounded = made(ids.repeat(2, 1), where)
    made.active.slots, made.active.mirrored = 1, False
    return _error(rounded, exact) < MOST_ROUNDED


def _some_tokens(made: Decoder) -> tuple[Tensor, Tensor]:
    """(1, 32) tokens, fewer where texts are shorter, and the place of each."""
    where = torch.arange(min(32, len(made.cos)), device=made.cos.device)
    return (where + 1)[None] * 37 % made.model.config.vocab_size, where


def _error(x: Tensor, exact: Tensor) -> float:
    return float((x.float() - exact.float()).norm() / exact.float().norm())
