"""What stands between the last layer that writes into the residual stream and the logits: written out, both ways.

    tail = Tail.of(loaded, layer, ids)          None where nothing that is known stands there
    logits = tail.logits(tail.stream(at, change))
    slope = tail.slope(at, change, …)           exact, as formulas: no graph is kept

A change of that layer's output reaches the stream times a constant, or through a norm behind the block (Gemma 2 and 3,
OLMo 2); then come the last norm and the head, with its scale or cap. Norms are recognised by what they compute, not by
their class: any with y = weight · z + bias for z = x / rms(x), or z = (x − mean) / deviation.

N places, D width of the stream, V words.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zolite.model.loss import Head

SAMPLES = 64  # random vectors that a norm is recognised by
EXACT, ROUGH = 1e-3, 5e-2  # relative errors: of a norm in float32, and of what passed a model in 16 bits
EPS_NAMES = ("variance_epsilon", "eps", "epsilon", "norm_eps")


@dataclass(frozen=True)
class Norm:
    """y = weight ∘ z + bias, where z is x, less its mean if `centred`, over the root of its mean square."""

    weight: Tensor  # (D,) float32
    bias: Tensor  # (D,) float32
    eps: float
    centred: bool

    @classmethod
    def of(cls, module: nn.Module, width: int) -> "Norm | None":
        """A module that is such a norm; None for any other."""
        twin = copy.deepcopy(module).float()
        device = next((p.device for p in twin.parameters()), torch.device("cpu"))
        x = torch.randn(SAMPLES, width, generator=torch.Generator().manual_seed(0)).to(device) * 3 + 0.3
        try:
            y = twin(x)
        except Exception:  # noqa: BLE001 - not every module takes one tensor of this shape
            return None
        if not isinstance(y, Tensor) or y.shape != x.shape:
            return None
        eps = next((float(found) for name in EPS_NAMES if (found := getattr(module, name, None)) is not None), 1e-6)
        return next((norm for centred in (False, True) if (norm := _recognised(x, y, eps, centred))), None)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) float32 → the same."""
        return self.weight * _unit(x, self.eps, self.centred)[0] + self.bias

    def slope(self, x: Tensor, g: Tensor) -> Tensor:
        """The loss's slope at x (N, D), given its slope g at the norm's output."""
        z, inverse = _unit(x, self.eps, self.centred)
        g = self.weight * g
        g = g - g.mean(1, keepdim=True) if self.centred else g
        return inverse * (g - z * (g * z).mean(1, keepdim=True))


def _unit(x: Tensor, eps: float, centred: bool) -> tuple[Tensor, Tensor]:
    """(x of unit size, what it was multiplied by): (N, D) and (N, 1)."""
    x = x - x.mean(1, keepdim=True) if centred else x
    inverse = (x.square().mean(1, keepdim=True) + eps).rsqrt()
    return x * inverse, inverse


def _recognised(x: Tensor, y: Tensor, eps: float, centred: bool) -> Norm | None:
    """Weight and bias by least squares over samples, if they explain all that the module says."""
    z, _ = _unit(x, eps, centred)
    zs, ys = z - z.mean(0), y - y.mean(0)
    weight = (zs * ys).sum(0) / zs.square().sum(0)
    bias = y.mean(0) - weight * z.mean(0)
    bias = torch.where(bias.abs() > 1e-4 * y.abs().max(), bias, 0.0)
    norm = Norm(weight, bias, eps, centred)
    return norm if _apart(norm(x), y) < EXACT else None


@dataclass(frozen=True)
class Reading:
    """What a forward had at N places, float32."""

    inputs: Tensor  # (N, F): of the layer
    outputs: Tensor  # (N, D): what it said
    streams: Tensor  # (N, D): what the last norm read

    def __getitem__(self, some: Any) -> "Reading":
        return Reading(self.inputs[some], self.outputs[some], self.streams[some])


@dataclass(frozen=True)
class Tail:
    """From a change of the layer's output, (N, D), to logits; `factor` of it reaches the stream, or of its norm."""

    factor: float
    post: Norm | None
    final: Norm
    head: Head
    last_norm: nn.Module

    def stream(self, at: Reading, change: Tensor) -> Tensor:
        if self.post is None:
            return at.streams + self.factor * change
        return at.streams + self.factor * (self.post(at.outputs + change) - self.post(at.outputs))

    def logits(self, stream: Tensor) -> Tensor:
        """(N, D) → (N, V) float32."""
        return self.head(self.final(stream).to(self.head.module.weight.dtype))

    def slope(self, at: Reading, change: Tensor, stream: Tensor, logits: Tensor, g: Tensor) -> Tensor:
        """The loss's slope at `change` (N, D), given its slope g (N, V) at the logits. `g` is written over."""
        back = self.factor * self.final.slope(stream, self.head.slope(logits, g))
        return back if self.post is None else self.post.slope(at.outputs + change, back)

    @classmethod
    def of(cls, model: Any, layer: nn.Module, block: nn.Module, ids: Tensor) -> "Tail | None":
        """The tail behind `layer` of `block`, measured on one text ids (1, T); None where it is none of those above."""
        decoder, head = model.get_decoder(), Head.of(model)
        with _watched(_behind(decoder, block)) as calls, _said(layer) as said:
            logits = model(input_ids=ids, use_cache=False).logits[0]
        if not calls or not said:
            return None
        last, before, _ = calls[-1]
        final, width = Norm.of(last, before.shape[-1]), before.shape[-1]
        change = torch.randn(said[0].shape, generator=torch.Generator().manual_seed(0)).to(said[0])
        change = change * before.square().mean(1, keepdim=True).sqrt()
        with _watched([last]) as again, _said(layer, change):
            decoder(input_ids=ids, use_cache=False)
        if final is None or not again:
            return None
        moved, said_ = again[-1][1] - before, said[0]
        for post in (None, *_posts(block, layer, ids, decoder, width)):
            through = change if post is None else post(said_ + change) - post(said_)
            factor = float((through * moved).sum() / through.square().sum())
            found = cls(factor, post, final, head, last)
            if _apart(factor * through, moved) < ROUGH and _apart(found.logits(before), logits.float()) < ROUGH:
                return found
        return None


def reading(model: Any, layer: nn.Module, last_norm: nn.Module, ids: Tensor, places: Tensor) -> Reading:
    """What a forward of ids (S, T) has at places (N,), indices into its S · T tokens."""
    with _watched([last_norm]) as calls, _said(layer) as said, _heard(layer) as heard:
        model.get_decoder()(input_ids=ids, use_cache=False)
    return Reading(heard[0][places], said[0][places], calls[-1][1][places])


def _behind(decoder: nn.Module, block: nn.Module) -> list[nn.Module]:
    """The decoder's modules outside of its blocks."""
    stacks = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and any(each is block for each in m)]
    inside = {id(m) for stack in stacks for m in stack.modules()}
    return [m for m in decoder.modules() if id(m) not in inside and m is not decoder]


def _posts(block: nn.Module, layer: nn.Module, ids: Tensor, decoder: nn.Module, width: int) -> Iterator[Norm]:
    """Norms of the block that read what the layer says."""
    with _watched(list(block.modules())) as calls, _said(layer) as said:
        decoder(input_ids=ids, use_cache=False)
    for module, read, _ in calls:
        if read.shape == said[0].shape and torch.equal(read, said[0]) and (norm := Norm.of(module, width)):
            yield norm


def _apart(a: Tensor, b: Tensor) -> float:
    """Their distance over the size of b, of the row in the middle: a text's first token is like no other."""
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp(min=1e-30)).median())


# ---- hooks: what passes is flattened to (tokens, width), float32


Call = tuple[nn.Module, Tensor, Tensor]


@contextmanager
def _hooked(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watched(modules: list[nn.Module]) -> Iterator[list[Call]]:
    """(module, what it read, what it said) of each call in the forward inside, in their order, of one tensor each."""
    calls: list[Call] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if args and all(isinstance(t, Tensor) and t.dim() == 3 and t.is_floating_point() for t in (args[0], output)):
            calls.append((module, _flat(args[0]), _flat(output)))

    with _hooked([m.register_forward_hook(note) for m in modules]):
        yield calls


@contextmanager
def _said(layer: nn.Module, change: Tensor | None = None) -> Iterator[list[Tensor]]:
    """What the layer says, changed by (tokens, D) if that is given."""
    said: list[Tensor] = []

    def note(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        said.append(_flat(output))
        return None if change is None else output + change.to(output.dtype).view(output.shape)

    with _hooked([layer.register_forward_hook(note)]):
        yield said


@contextmanager
def _heard(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What the layer reads."""
    heard: list[Tensor] = []
    note: Callable[[nn.Module, Any], None] = lambda _, args: heard.append(_flat(args[0]))  # noqa: E731
    with _hooked([layer.register_forward_pre_hook(note)]):
        yield heard


def _flat(x: Tensor) -> Tensor:
    return x.detach().reshape(-1, x.shape[-1]).float()
