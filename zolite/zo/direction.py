"""Directions: implicit vectors in a space, rebuilt from a key. Their one verb is to add themselves to a buffer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zolite.zo import rng as noise
from zolite.zo.lowrank import Factors, Group, groups, lengths, vectors
from zolite.zo.rng import Key
from zolite.zo.space import Direction, Scalar, Space


@dataclass(frozen=True)
class Noise:
    """Independent numbers with zero mean and unit variance: N(0, 1) with `normal`, ±1 with `rademacher`."""

    key: Key
    transform: Callable[[Tensor], Tensor] = noise.normal

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        n, chunk = space.size, noise.CHUNKS.get(out.device.type, noise.CHUNK)
        for first in range(0, n, chunk):
            last = min(first + chunk, n)
            whole = -(-(last - first) // noise.TILE) * noise.TILE
            numbers = self.transform(noise.words(self.key, first, whole, out.device))
            out[first:last].add_(numbers[: last - first].mul_(alpha))


@dataclass(frozen=True)
class Combo:
    """Σ cᵢ dᵢ, still implicit. The empty sum is the origin."""

    terms: tuple[tuple[Scalar, Direction], ...] = ()

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        for coefficient, direction in self.terms:
            direction.add_to(out, alpha * coefficient, space)

    def scaled(self, factor: Scalar) -> "Combo":
        return Combo(tuple((factor * coefficient, direction) for coefficient, direction in self.terms))

    def flat(self) -> Iterator[tuple[Scalar, Direction]]:
        """The terms of a sum of sums, with the products that `add_to` would form."""
        for coefficient, direction in self.terms:
            if isinstance(direction, Combo):
                yield from direction.scaled(coefficient).flat()
            else:
                yield coefficient, direction


@dataclass(frozen=True, eq=False)
class Dense:
    """A vector that is there: a moment of past estimates."""

    values: Tensor  # (n,) float32

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        out.add_(self.values * alpha)


@dataclass(frozen=True)
class Theta:
    """The matrices of theta itself: what weight decay takes a part of."""

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        for block in space.blocks:
            if len(block.shape) > 1:
                block.of(out).add_(block.of(space.theta) * alpha)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Another direction, each number times its own."""

    inner: Direction
    by: Tensor  # (n,) float32

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        out.add_((dense(self.inner, space) * self.by).mul_(alpha))


@dataclass(frozen=True, eq=False)
class Product:
    """L Rᵀ for each matrix, the numbers themselves for each vector."""

    groups: list[Group]
    left: Factors  # (G, m, r) a group
    right: Factors  # (G, n, r)
    vectors: Tensor  # the vectors' numbers, one block behind the other

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        into, parts = [], []
        for group, left, right in zip(self.groups, self.left, self.right, strict=True):
            into += [block.of(out).view(group.m, group.n) for block in group.blocks]
            parts += list(torch.bmm(left, right.mT).mul_(alpha).unbind())
        rest = vectors(space)
        into += [block.of(out).view(-1) for block in rest]
        parts += torch.split(self.vectors * alpha, lengths(rest))
        torch._foreach_add_(into, parts)


@dataclass(frozen=True)
class Modulated:
    """One Gaussian U for all, and for each of many its own signs: U ∘ (r sᵀ) for a matrix, U ∘ r for a vector."""

    shared: Noise
    signs: Key

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        z = dense(self.shared, space)
        found, rest = groups(space), vectors(space)
        counts = [len(g.blocks) * (g.m + g.n) for g in found]
        signs = noise.numbers(self.signs, sum(counts) + sum(lengths(rest)), out.device, noise.rademacher)
        *drawn, last = torch.split(signs, [*counts, sum(lengths(rest))])
        into, parts = [], []
        for group, part in zip(found, drawn, strict=True):
            r, s = torch.split(part.view(len(group.blocks), -1), [group.m, group.n], dim=1)
            into += [block.of(out).view(group.m, group.n) for block in group.blocks]
            parts += list((group.of(z) * r.unsqueeze(2) * s.unsqueeze(1)).mul_(alpha).unbind())
        for block, signed in zip(rest, torch.split(last, lengths(rest)), strict=True):
            into.append(block.of(out).view(-1))
            parts.append((block.of(z).view(-1) * signed).mul_(alpha))
        torch._foreach_add_(into, parts)


def dense(direction: Direction, space: Space) -> Tensor:
    """A direction as the vector that it is, (n,) float32."""
    out = torch.zeros_like(space.theta)
    direction.add_to(out, 1.0, space)
    return out


def mirrored(points: Sequence[Combo]) -> bool:
    """Are they pairs θ + cd and θ − cd, one behind the other?"""
    pairs = list(zip(points[0::2], points[1::2], strict=False))
    return len(points) == 2 * len(pairs) and all(_opposite(a, b) for a, b in pairs)


def _opposite(a: Combo, b: Combo) -> bool:
    if len(a.terms) != 1 or len(b.terms) != 1:
        return False
    (c, d), (other, same) = a.terms[0], b.terms[0]
    return d is same and not isinstance(c, Tensor) and not isinstance(other, Tensor) and c == -other
