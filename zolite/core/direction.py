"""Directions: implicit vectors in a space, rebuilt from a key. Their one verb is to add themselves to a buffer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from zolite.core import key as noise
from zolite.core.key import Key
from zolite.core.space import Space

Scalar = Tensor | float


class Direction(Protocol):
    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        """out += alpha · self, with out (n,) float32. Must add the same bits each time it is asked."""


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


def mirrored(points: Sequence[Combo]) -> bool:
    """Are they pairs θ + cd and θ − cd, one behind the other?"""
    pairs = list(zip(points[0::2], points[1::2], strict=False))
    return len(points) == 2 * len(pairs) and all(_opposite(a, b) for a, b in pairs)


def _opposite(a: Combo, b: Combo) -> bool:
    if len(a.terms) != 1 or len(b.terms) != 1:
        return False
    (c, d), (other, same) = a.terms[0], b.terms[0]
    return d is same and not isinstance(c, Tensor) and not isinstance(other, Tensor) and c == -other
