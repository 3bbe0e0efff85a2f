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

from zolite.config import sizes
from zolite.config.architectures import ACTIVATIONS, ROTATIONS
from zolite.model.lora import Active, PerturbedLinear
from zolite.model.quant import Int8Linear, is_linear, triton_kernels, weight16

MOST_ROUNDED = 0.25  # of a model's final hidden states; beyond, its int8 activations are not to be trusted

Piece = tuple[slice, slice]
"""Which points' which rows: whole points, or rows of one point, or the same rows of all points. Never open-ended."""


class Arithmetic(Protocol):
    """How rows are held between two products, and how they are multiplied. `Dense` and `Paired` do the same sums."""

    def pieces(self, points: int, rows: int, width: int, unit: int, user: nn.Module) -> Iterator[Piece]:
        """All points' rows in pieces of whole `unit`s, not too large where a row has `width` numbers in between."""

    def normed(self, h: Tensor, at: Piece, norm: Any, users: Sequence[nn.Module]) -> Any:
        """RMSNorm of h[at], ready for the products of `users`."""

    def taken(self, x: Tensor, at: Piece, users: Sequence[nn.Module]) -> Any:
        """x, which is of that piece, ready for products."""

    def gated(self, g: Tensor, u: Tensor, at: Piece, users: Sequence[nn.Module]) -> Any:
        """silu(g) · u, ready for products; g is overwritten."""

    def product(self, x: Any, at: Piece, user: nn.Module, into: Tensor | None = None) -> Tensor:
        """user(x) as a new tensor, or added to into[at]."""


@dataclass(frozen=True)
class Decoder:
    """ids (S · B, T) and where (positions,) in the flattened S · B · T to final hidden states there, (positions, D)."""

    model: Any  # transformers' decoder: the weights, as it holds them
    kernels: Any  # the module of that name, which only loads where there is Triton
    pairs: bool  # pairs of points may go through int8 products: all weights are int8
    stacks: dict[nn.Module, Tensor]  # frozen A's of layers that read the same rows, by the first of the layers
    active: Active
    cos: Tensor  # (longest text, head width) float32
    sin: Tensor

    def __call__(self, ids: Tensor, where: Tensor) -> Tensor:
        paired = self.pairs and self.active.mirrored
        arithmetic: Arithmetic = Paired(self.kernels, self.stacks) if paired else Dense(self.kernels)
        h = self.model.embed_tokens(ids).view(self.active.copies, -1, self.model.config.hidden_size)
        for layer in self.model.layers:
            self._attend(h, layer, arithmetic, ids.shape[1])
            self._transform(h, layer, arithmetic)
        norm = self.model.norm
        final: Tensor = self.kernels.rms_norm(h.view(-1, h.shape[-1])[where], norm.weight, norm.variance_epsilon)
        return final

    def _attend(self, h: Tensor, layer: Any, arithmetic: Arithmetic, tokens: int) -> None:
        """h += attention(norm(h)), for whole sequences at a time."""
        attention = layer.self_attn
        users = (attention.q_proj, attention.k_proj, attention.v_proj)
        width = 2 * sum(parts(user)[0].out_features for user in users)
        for at in arithmetic.pieces(len(h), h.shape[1], width, tokens, attention.q_proj):
            x = arithmetic.normed(h, at, layer.input_layernorm, users)
            q, k, v = (arithmetic.product(x, at, user).view(-1, tokens, *_heads(user, attention)) for user in users)
            del x
            y = self._mixed(q, k, v, attention)
            del q, k, v
            x = arithmetic.taken(y, at, (attention.o_proj,))
            del y
            arithmetic.product(x, at, attention.o_proj, into=h)
            del x

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor, attention: Any) -> Tensor:
        """Causal attention of q (rows, T, Hq, d) on k and v (rows, T, Hk, d): (rows · T, Hq · d)."""
        if hasattr(attention, "q_norm"):
            q, k = (self.kernels.rms_norm(y, n.weight, n.variance_epsilon) for y, n in _headwise(attention, q, k))
        self.kernels.rotary_(q, k, self.cos, self.sin)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attention.scaling, enable_gqa=True)
        return y.transpose(1, 2).flatten(2).flatten(0, 1)

    def _transform(self, h: Tensor, layer: Any, arithmetic: Arithmetic) -> None:
        """h += down(silu(gate(x)) · up(x)) with x = norm(h)."""
        mlp = layer.mlp
        users = (mlp.gate_proj, mlp.up_proj)
        width = 2 * parts(mlp.gate_proj)[0].out_features
        for at in arithmetic.pieces(len(h), h.shape[1], width, sizes.TILE_ROWS, mlp.gate_proj):
            x = arithmetic.normed(h, at, layer.post_attention_layernorm, users)
            g, u = (arithmetic.product(x, at, user) for user in users)
            del x
            y = arithmetic.gated(g, u, at, (mlp.down_proj,))
            del g, u
            arithmetic.product(y, at, mlp.down_proj, into=h)
            del y


@dataclass(frozen=True)
class Dense:
    """16-bit rows by 16-bit weights, by the vendor's library; 8-bit and 4-bit weights are expanded for each use."""

    kernels: Any

    def pieces(self, points: int, rows: int, width: int, unit: int, user: nn.Module) -> Iterator[Piece]:
        most = sizes.PIECE_BYTES if isinstance(parts(user)[0], nn.Linear) else sizes.PIECE_BYTES_EXPANDED
        if 2 * width * points * rows <= most:
            yield slice(0, points), slice(0, rows)
            return
        for point in range(points):
            for part in even(rows, -(-2 * width * rows // most), unit):
                yield slice(point, point + 1), part

    def normed(self, h: Tensor, at: Piece, norm: Any, users: Sequence[nn.Module]) -> Tensor:
        normed: Tensor = self.kernels.rms_norm(h[at], norm.weight, norm.variance_epsilon)
        return normed

    def taken(self, x: Tensor, at: Piece, users: Sequence[nn.Module]) -> Tensor:
        return x.view(at[0].stop - at[0].start, -1, x.shape[-1])

    def gated(self, g: Tensor, u: Tensor, at: Piece, users: Sequence[nn.Module]) -> Tensor:
        gated: Tensor = self.kernels.silu_mul_(g, u)
        return gated

    def product(self, x: Tensor, at: Piece, user: nn.Module, into: Tensor | None = None) -> Tensor:
        base, adapter = parts(user)
        rows, weight = x.view(-1, x.shape[-1]), weight16(base, x.dtype)
        if into is None:
            out = F.linear(rows, weight, base.bias).view(*x.shape[:2], -1)
        else:
            out = into[at]
            flat = out.view(-1, out.shape[-1])  # whole points, or rows of one: either lies in one stretch
            flat.addmm_(rows, weight.mT)
            if base.bias is not None:
                flat.add_(base.bias)
        if adapter is not None:
            out.baddbmm_(adapter.low(x, at[0].start), adapter.b[at[0]].mT, alpha=adapter.scale)
        return out


@dataclass(frozen=True)
class Codes:
    """Rows of pairs of points as `kernels.norm_pairs` writes them, and each user's x Aᵀ."""

    codes: Tensor  # (S, rows, K) int8
    scales: Tensor  # (S, rows) float32
    low: dict[nn.Module, Tensor]  # (S, rows, r)


@dataclass(frozen=True)
class Paired:
    """Pairs of mirrored points: the mean and the difference of their rows in int8, by int8 weights."""

    kernels: Any
    stacks: dict[nn.Module, Tensor]

    def pieces(self, points: int, rows: int, width: int, unit: int, user: nn.Module) -> Iterator[Piece]:
        count = -(-2 * points * rows * width // sizes.PIECE_BYTES)
        return ((slice(0, points), part) for part in even(rows, count, unit))

    def normed(self, h: Tensor, at: Piece, norm: Any, users: Sequence[nn.Module]) -> Codes:
        codes, scales, x = self.kernels.norm_pairs(h, norm.weight, norm.variance_epsilon, at[1], _adapted(users))
        return Codes(codes, scales, self._lows(x, users))

    def taken(self, x: Tensor, at: Piece, users: Sequence[nn.Module]) -> Codes:
        x = x.view(at[0].stop, -1, x.shape[-1])
        codes, scales = self.kernels.pairs(x, None, False)
        return Codes(codes, scales, self._lows(x, users))

    def gated(self, g: Tensor, u: Tensor, at: Piece, users: Sequence[nn.Module]) -> Codes:
        codes, scales = self.kernels.pairs(g, u, _adapted(users))
        return Codes(codes, scales, self._lows(g, users))

    def _lows(self, x: Tensor | None, users: Sequence[nn.Module]) -> dict[nn.Module, Tensor]:
        """x Aᵀ for each user's adapter, in one product where their A's are stacked."""
        adapted = [user for user in users if isinstance(user, PerturbedLinear)]
        if x is None or not adapted:
            return {}
        if adapted[0] not in self.stacks:
            return {user: user.low(x, 0) for user in adapted}
        low = torch.matmul(x, self.stacks[adapted[0]].mT)
        lows = torch.split(low, [user.a.shape[0] for user in adapted], dim=2)
        return {user: user.through_core(low, 0) for user, low in zip(adapted, lows, strict=True)}

    def product(self, x: Codes, at: Piece, user: nn.Module, into: Tensor | None = None) -> Tensor:
        base, adapter = parts(user)
        extra = None if adapter is None else (x.low[adapter], adapter.b, adapter.scale)
        out, first = into, at[1].start
        if out is None:
            out, first = base.scales.new_empty(*x.codes.shape[:2], base.out_features, dtype=base.dtype), 0
        self.kernels.pair_product(
            x.codes, x.scales, base.codes, base.scales, base.bias, extra, out, first, into is not None
        )
        return out


def parts(user: nn.Module) -> tuple[Any, PerturbedLinear | None]:
    """A linear layer's frozen weights, and its adapter if it has one."""
    return (user.base, user) if isinstance(user, PerturbedLinear) else (user, None)


def even(total: int, count: int, unit: int) -> Iterator[slice]:
    """`count` stretches of alike length, or fewer, in multiples of `unit`."""
    size = -(-total // max(1, count))
    size = min(total, -(-size // unit) * unit)
    return (slice(first, min(first + size, total)) for first in range(0, total, size))


def _adapted(users: Sequence[nn.Module]) -> bool:
    return any(isinstance(user, PerturbedLinear) for user in users)


def _heads(user: nn.Module, attention: Any) -> tuple[int, int]:
    return parts(user)[0].out_features // attention.head_dim, attention.head_dim


def _headwise(attention: Any, q: Tensor, k: Tensor) -> tuple[tuple[Tensor, Any], ...]:
    return (q, attention.q_norm), (k, attention.k_norm)


def fused(model: Any, active: Active, longest: int) -> Decoder | None:
    """The fast decoder of a transformers model on CUDA, for texts up to `longest` tokens; None where it has none.

    Whether the model is like a Llama is asked of its parts' names, and then of its numbers: on a few tokens the final
    hidden states must be those of transformers' own decoder.
    """
    decoder = model.get_decoder()
    if not (_runs_here(decoder) and _looks_alike(decoder, longest)):
        return None
    made = assemble(decoder, active, longest)
    if not _agrees(made, decoder):
        return None
    return made if not made.pairs or _pairs_hold(made) else replace(made, pairs=False)


def assemble(decoder: Any, active: Active, longest: int) -> Decoder:
    """The fast decoder, unasked whether it fits."""
    from zolite.model import kernels

    linears = [m for layer in decoder.layers for m in layer.modules() if is_linear(m)]
    pairs = all(isinstance(m, Int8Linear) for m in linears)
    return Decoder(decoder, kernels, pairs, _stacks(decoder), active, *_angles(decoder, longest))


def _stacks(decoder: Any) -> dict[nn.Module, Tensor]:
    """Puts the frozen A's of layers that read the same rows into one tensor, of which each layer's becomes a part."""
    stacks: dict[nn.Module, Tensor] = {}
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for users in ((attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)):
            adapted = [user for user in users if isinstance(user, PerturbedLinear) and user.a.dim() == 2]
            if len(adapted) > 1:
                stack = stacks[adapted[0]] = torch.cat([user.a for user in adapted])
                for user, a in zip(adapted, torch.split(stack, [user.a.shape[0] for user in adapted]), strict=True):
                    user.a = a
    return stacks


def _runs_here(decoder: Any) -> bool:
    weight: Tensor = next(decoder.parameters())
    return weight.dtype != torch.float32 and triton_kernels(weight.device) is not None


LAYER = (
    "input_layernorm.variance_epsilon", "post_attention_layernorm.variance_epsilon", "self_attn.head_dim",
    "self_attn.scaling", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.act_fn",
)  # fmt: skip


def _looks_alike(decoder: Any, longest: int) -> bool:
    config = decoder.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    return (
        all(_has(decoder, name) for name in ("embed_tokens", "layers", "norm.variance_epsilon", "rotary_emb"))
        and all(_has(layer, name) for layer in decoder.layers for name in LAYER)
        and all(getattr(layer.self_attn, "use_rope", True) for layer in decoder.layers)  # SmolLM3: not in every fourth
        and (not window or window >= longest)
        and rotation in ROTATIONS
        and config.hidden_act in ACTIVATIONS
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
    copies = [m.b.shape[0] for m in made.model.modules() if isinstance(m, PerturbedLinear)]
    if min(copies, default=1) < 2:
        return False  # two points never run together
    ids, where = _some_tokens(made)
    exact = made(ids, where)
    made.active.copies, made.active.mirrored = 2, True
    rounded = made(ids.repeat(2, 1), where)
    made.active.copies, made.active.mirrored = 1, False
    return _error(rounded, exact) < MOST_ROUNDED


def _some_tokens(made: Decoder) -> tuple[Tensor, Tensor]:
    """(1, 32) tokens, fewer where texts are shorter, and the place of each."""
    where = torch.arange(min(32, len(made.cos)), device=made.cos.device)
    return (where + 1)[None] * 37 % made.model.config.vocab_size, where


def _error(x: Tensor, exact: Tensor) -> float:
    return float((x.float() - exact.float()).norm() / exact.float().norm())
