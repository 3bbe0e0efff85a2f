"""How a loss's slope at the end of the model goes back down its residual stream, as formulas: no graph is kept.

    chain = Chain.of(model, ids)                 the blocks, last ones first, that are of a known form; () for none
    with chain.watched(places) as kept: …        a forward; what stands at these places of its tokens is kept
    for each in chain.down(kept, δ, shares): …          a layer, what it read, the slope at what it says

At a place where a token is predicted, a loss's slope δ at the stream behind the last block is known (model/tail.py). A
half of a block adds f(norm(s)) to the stream s, so the slope before it is δ + norm'(s)ᵀ f'ᵀ δ. Through an MLP that is
exact, products with its own weights at that one token. Through attention only the values' path is taken, at places
whose token is predicted, with each head's mean attention from one such place to itself and to a few before it
(`shares`); what keys and queries say, and places that predict nothing, are left out. So slopes are exact in the last
block and an estimate below, whose cosine with the true one falls with depth (docs/log.md has it by layer). The norm of
a half, its activation and what scales its output are recognised by what they compute, and a block that computes
something else ends the chain: layers below it get no slope.

N places, D width of the stream, F inputs and O outputs of a layer, H heads, G heads of values, L blocks, K shares.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zolite.model.lora import PerturbedLinear
from zolite.model.quant import weight16
from zolite.model.tail import ROUGH, Norm, _apart, _flat, _hooked, _watched

DIFFERENCE = 1e-3  # of an activation's argument, over 1 + its size: its derivative is a central difference
SHARES = 8  # places, the token's own among them, that a head's mean attention is known of
PUSH = 0.1  # of a value's size


@dataclass(frozen=True)
class Half:
    """What adds `factor` · post(out(…)) to the stream; `norm` is of what it reads there, None where that is bare."""

    reader: nn.Module  # whose input is the stream
    norm: Norm | None
    inner: tuple[nn.Module, ...]  # linear layers that read it: (up,), (gate, up), or (v,)
    out: nn.Module
    post: Norm | None
    factor: float
    activation: Callable[[Tensor], Tensor] | None = None  # None: attention
    heads: int = 0
    groups: int = 0  # heads of values

    @property
    def numbers(self) -> int:
        """That are kept of a place."""
        return _width(self.reader) + (0 if self.activation else _width(self.out))

    def read(self, stream: Tensor) -> Tensor:
        return stream if self.norm is None else self.norm(stream)

    def back_in(self, stream: Tensor, slope: Tensor) -> Tensor:
        return slope if self.norm is None else self.norm.slope(stream, slope)

    def back_out(self, said: Callable[[], Tensor], slope: Tensor) -> Tensor:
        """The slope at what `out` says, of the slope at the stream behind."""
        slope = self.factor * slope
        return slope if self.post is None else self.post.slope(said(), slope)


@dataclass(frozen=True)
class Kept:
    """Of one half, at N places: the stream that it read, and what its last layer read."""

    stream: Tensor  # (N, D)
    read: Tensor  # (N, F); of an MLP empty, since it follows from the stream


@dataclass(frozen=True)
class Slope:
    """Of one layer: what it read, and the loss's slope at what it says, float32."""

    layer: nn.Module
    x: Tensor  # (N, F)
    slope: Tensor  # (N, O)

    # Of a layer with an adapter.
    a: Tensor | None = None  # (r, F)
    low: Tensor | None = None  # (N, r), the slope at A x, over the adapter's scale


@dataclass(frozen=True)
class Chain:
    """Halves from the last down; those of one group read the same stream."""

    groups: tuple[tuple[Half, ...], ...]
    last: nn.Module  # the last block

    @classmethod
    def of(cls, model: Any, ids: Tensor) -> "Chain":
        """The blocks that can be gone through, tried on one text ids (1, T)."""
        decoder = model.get_decoder()
        blocks = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m)][-1]
        groups = list[tuple[Half, ...]]()
        for block in reversed(blocks):
            found = halves(block, decoder, ids, model.config.get_text_config())
            if found is None:
                break
            groups += reversed(found)
        return cls(tuple(groups), blocks[-1])

    @property
    def halves(self) -> list[Half]:
        return [half for group in self.groups for half in group]

    @contextmanager
    def watched(self, places: Tensor) -> Iterator[list[Kept]]:
        """What the forward inside has at `places`, numbers of its S · T tokens; in the order of the halves."""
        kept, got = list[Kept](), dict[nn.Module, Tensor]()
        every = self.halves

        def note(module: nn.Module, args: Any) -> None:
            got[module] = args[0].reshape(-1, args[0].shape[-1])[places]

        modules = {half.reader for half in every} | {half.out for half in every if half.activation is None}
        with _hooked([module.register_forward_pre_hook(note) for module in modules]):
            yield kept
        kept += [Kept(got[h.reader], got[h.out] if h.activation is None else got[h.reader][:, :0]) for h in every]

    def down(
        self, kept: Sequence[Kept], slope: Tensor, shares: Sequence[Tensor], near: Tensor
    ) -> Generator[Slope, None, None]:
        """Slopes at every layer, given that at the stream behind the last block (N, D).

        `shares`: of each attention half (H, K), in the order of the halves. `near` (N, K): the number of the place so
        many tokens behind each, itself first; N where there is none.
        """
        every, heads = iter(kept), iter(shares)
        for group in self.groups:
            before = slope
            for half in group:
                at = next(every)
                if half.activation is not None:
                    before = before + (yield from _mlp(half, at, slope))
                else:
                    mean = next(heads) if half.inner else None
                    before = before + (yield from _attention(half, at, slope, mean, near))
            slope = before


def _mlp(half: Half, at: Kept, slope: Tensor) -> Generator[Slope, None, Tensor]:
    stream, act = at.stream.float(), half.activation
    assert act is not None
    x = half.read(stream)
    said = [_forward(layer, x) for layer in half.inner]
    gate, rest = said[0], said[1] if len(said) == 2 else None
    opened = act(gate)
    h = opened if rest is None else opened * rest
    dh = yield from _back(half.out, h, half.back_out(lambda: _forward(half.out, h), slope))
    steps = DIFFERENCE * (1 + gate.abs())
    derivative = (act(gate + steps) - act(gate - steps)) / (2 * steps)
    slopes = [dh * derivative] if rest is None else [dh * rest * derivative, dh * opened]
    back = torch.zeros_like(stream)
    for layer, each in zip(half.inner, slopes, strict=True):
        back += yield from _back(layer, x, each)
    return half.back_in(stream, back)


def _attention(
    half: Half, at: Kept, slope: Tensor, shares: Tensor | None, near: Tensor
) -> Generator[Slope, None, Tensor]:
    stream, read = at.stream.float(), at.read.float()
    back = yield from _back(half.out, read, half.back_out(lambda: _forward(half.out, read), slope))
    if shares is None:
        return torch.zeros_like(slope)
    (values,) = half.inner
    mixed = back.view(len(read), half.heads, -1)  # the slope at each head's mean of values
    behind = torch.cat([mixed, mixed.new_zeros(1, *mixed.shape[1:])])
    # a value is read by its own place and by those behind it
    each = torch.zeros_like(mixed)
    for k in range(shares.shape[1]):
        each += shares[:, k, None] * behind[near[:, k]]
    dv = each.view(len(read), half.groups, -1, mixed.shape[2]).sum(2).flatten(1)
    return half.back_in(stream, (yield from _back(values, half.read(stream), dv)))


def _width(module: Any) -> int:
    """Numbers that a norm or a layer reads of a token."""
    return int(module.in_features if hasattr(module, "in_features") else module.weight.shape[-1])


def _forward(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer says of x (N, F), of one point."""
    dtype = layer.a.dtype if isinstance(layer, PerturbedLinear) else weight16(layer, x.dtype).dtype
    said: Tensor = layer(x.to(dtype)[None])[0]
    return said.float()


def _back(layer: nn.Module, x: Tensor, slope: Tensor) -> Generator[Slope, None, Tensor]:
    """Tells of a layer, and returns the slope at its inputs (N, F), of that at what it says (N, O)."""
    if not isinstance(layer, PerturbedLinear):
        yield Slope(layer, x, slope)
        return _product(slope, weight16(layer, slope.dtype))
    a, b = factors(layer)
    low = slope @ b
    yield Slope(layer, x, slope, a, low)
    return _product(slope, weight16(layer.base, layer.a.dtype)).addmm_(low, a, alpha=layer.scale)


def factors(layer: PerturbedLinear) -> tuple[Tensor, Tensor]:
    """A (r, F) and B (O, r) of the first point."""
    a, b = layer.a if layer.a.dim() == 2 else layer.a[0], layer.b[0]
    return a.float(), b.float()


def _product(slope: Tensor, weight: Tensor) -> Tensor:
    """slope (N, O) · weight (O, F) in the weight's dtype, as float32."""
    if weight.dtype != torch.float16:
        return (slope.to(weight.dtype) @ weight).float()
    size = slope.abs().amax().clamp(min=1e-30)  # slopes may be smaller than float16 can tell from 0
    return ((slope / size).half() @ weight).float() * size


# ---- mean attention


@contextmanager
def pushed(half: Half, push: Tensor, places: Tensor) -> Iterator[None]:
    """Adds `push` (N, O) to what the values' layer says at `places`, in the forward inside."""

    def add(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output.view(-1, output.shape[-1])[places] += push.to(output.dtype)
        return output

    with _hooked([half.inner[0].register_forward_hook(add)]):
        yield


def shares_of(chain: Chain, forward: Callable[[], Any], places: Tensor, near: Tensor, made: torch.Generator) -> Tensor:
    """(attention halves, 2, H, K): what each head's mean of values moved with values pushed there, and by how much.

    All layers are pushed at once, each in a direction of its own, so that what comes down from one to another is noise.
    Three forwards. Sums, so that those of several batches may be added: shares are the first over the second.
    """
    mixing = [half for half in chain.halves if half.activation is None and half.inner]
    with ExitStack() as stack:
        said = [stack.enter_context(_sizes(half.inner[0], places)) for half in mixing]
        forward()
    pushes = [
        torch.randn(s[0].shape, generator=made).to(s[0].device) * PUSH * s[0].square().mean().sqrt() for s in said
    ]
    moved = list[Tensor]()
    for sign in (1, -1):
        with chain.watched(places) as kept, ExitStack() as stack:
            for half, push in zip(mixing, pushes, strict=True):
                stack.enter_context(pushed(half, sign * push, places))
            forward()
        reads = [k.read.float() for h, k in zip(chain.halves, kept, strict=True) if h.activation is None and h.inner]
        moved = [r * sign / 2 + (moved[i] if moved else 0) for i, r in enumerate(reads)]
    found = [_shares(*each, near) for each in zip(mixing, moved, pushes, strict=True)]
    return torch.stack(found) if found else near.new_zeros(0)


def _shares(half: Half, moved: Tensor, push: Tensor, near: Tensor) -> Tensor:
    read = moved.view(len(moved), half.heads, -1)
    own = push.view(len(push), -1, read.shape[2])
    own = own.repeat_interleave(half.heads // own.shape[1], dim=1)
    behind = torch.cat([read, read.new_zeros(1, *read.shape[1:])])
    there = (near < len(read)).float()
    along = torch.stack([(behind[near[:, k]] * own).sum((0, 2)) for k in range(near.shape[1])], 1)
    size = torch.stack([(own.square().sum(2) * there[:, k, None]).sum(0) for k in range(near.shape[1])], 1)
    return torch.stack([along, size])


@contextmanager
def _sizes(layer: nn.Module, places: Tensor) -> Iterator[list[Tensor]]:
    said = list[Tensor]()
    with _hooked([layer.register_forward_hook(lambda _, __, output: said.append(_flat(output)[places]))]):
        yield said


# ---- which blocks are of a known form

ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")  # as configs call it
VALUES = ("v_proj", "value", "v")  # names of the layer that makes values
LINEARS = ("Linear", "Int8Linear", "Nf4Linear", "PerturbedLinear")


def halves(block: nn.Module, decoder: nn.Module, ids: Tensor, config: Any) -> list[tuple[Half, ...]] | None:
    """A block's groups of halves in their order, None where it computes something else."""
    seen = _Seen.of(block, decoder, ids)
    parts = [_linears(part, seen) for part in block.children()]
    found = [part for part in parts if part]
    if len(found) != 2 or seen.start is None or block not in seen.read:
        return None
    mixing, mlp = found
    attention, fed = _attending(block, mixing, seen, config), _feeding(block, mlp, seen, config)
    if attention is None or fed is None:
        return None
    first, middle, end = seen.start, seen.read[fed.reader], seen.said[block]
    if not _alike(seen.read[attention.reader], first):
        return None
    if _alike(middle, first):  # both read the block's input
        said = seen.said[attention.out] + seen.said[fed.out]
        return [(attention, fed)] if _alike(first + said, end) else None
    attention = seen.scaled(block, attention, middle - first)
    fed = seen.scaled(block, fed, end - middle)
    return [(attention,), (fed,)] if attention and fed else None


@dataclass(frozen=True)
class _Seen:
    """What passed a block's modules on one text, (tokens, width) float32."""

    read: dict[nn.Module, Tensor]
    said: dict[nn.Module, Tensor]
    start: Tensor | None

    @classmethod
    def of(cls, block: nn.Module, decoder: nn.Module, ids: Tensor) -> "_Seen":
        entry = list[Tensor]()

        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            entry.append(_flat(args[0] if args else kwargs["hidden_states"]))

        with (
            _watched(list(block.modules())) as calls,
            _hooked([block.register_forward_pre_hook(enter, with_kwargs=True)]),
        ):
            decoder(input_ids=ids, use_cache=False)
        read, said = {m: x for m, x, _ in calls}, {m: y for m, _, y in calls}
        return cls(read, said, entry[0] if entry else None)

    def reader(self, block: nn.Module, layer: nn.Module) -> tuple[nn.Module, Norm | None]:
        """The norm whose output a layer reads, or the layer itself."""
        x = self.read[layer]
        same = (m for m in block.modules() if m in self.said and self.said[m].shape == x.shape)
        norms = ((m, Norm.of(m, x.shape[1])) for m in same if torch.equal(self.said[m], x))
        return next(((module, norm) for module, norm in norms if norm), (layer, None))

    def scaled(self, block: nn.Module, half: Half, moved: Tensor) -> Half | None:
        """With what stands between its last layer and the stream, which it moved so."""
        said = self.said[half.out]
        posts = (m for m in block.modules() if m in self.read and self.read[m].shape == said.shape)
        norms = (Norm.of(m, said.shape[1]) for m in posts if torch.equal(self.read[m], said))
        for post in (None, *(norm for norm in norms if norm)):
            through = said if post is None else post(said)
            factor = float((through * moved).sum() / through.square().sum().clamp(min=1e-30))
            if _alike(factor * through, moved):
                return replace(half, post=post, factor=factor)
        return None


def _linears(part: nn.Module, seen: _Seen) -> list[nn.Module]:
    """Its layers in their order, without those that adapters stand around."""
    every = [m for m in part.modules() if type(m).__name__ in LINEARS and m in seen.read]
    inside = {m.base for m in every if isinstance(m, PerturbedLinear)}
    return [m for m in every if m not in inside]


def _attending(block: nn.Module, linears: list[nn.Module], seen: _Seen, config: Any) -> Half | None:
    out, heads = linears[-1], int(config.num_attention_heads)
    reader, norm = seen.reader(block, linears[0])
    names = {module: name.rpartition(".")[2] for name, module in block.named_modules()}
    values = tuple(layer for layer in linears[:-1] if names[layer] in VALUES)
    size, rest = divmod(seen.read[out].shape[1], heads)
    groups = seen.said[values[0]].shape[1] // max(1, size) if len(values) == 1 else 0
    if rest or not groups or groups * size != seen.said[values[0]].shape[1] or heads % groups:
        values, groups = (), 0
    return Half(reader, norm, values, out, None, 1.0, None, heads, groups)


def _feeding(block: nn.Module, linears: list[nn.Module], seen: _Seen, config: Any) -> Half | None:
    from transformers.activations import ACT2FN

    name = next((found for key in ACTIVATIONS if (found := getattr(config, key, None))), None)
    if name not in ACT2FN or len(linears) not in (2, 3):
        return None
    act, *inner, out = ACT2FN[name], *linears
    h = seen.read[out]
    for order in (inner, inner[::-1]):
        made = act(seen.said[order[0]]) * (seen.said[order[1]] if len(order) == 2 else 1)
        if made.shape == h.shape and _alike(made, h):
            reader, norm = seen.reader(block, order[0])
            return Half(reader, norm, tuple(order), out, None, 1.0, act)
    return None


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and _apart(a, b) < ROUGH
