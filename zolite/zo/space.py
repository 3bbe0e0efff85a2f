"""The trained numbers: one flat float32 buffer with named blocks, and the copies that forwards read.

K points, n trained numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Scalar = Tensor | float


@dataclass(frozen=True)
class Block:
    """A named tensor inside the flat buffer."""

    name: str
    shape: tuple[int, ...]
    offset: int

    def of(self, flat: Tensor) -> Tensor:
        """The block's view of a flat (…, n): (…, *shape)."""
        return flat[..., self.offset : self.offset + math.prod(self.shape)].view((*flat.shape[:-1], *self.shape))


def layout(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Block, ...]:
    """Blocks one behind the other in the order of their names, so that an address never depends on who asked first."""
    blocks, offset = [], 0
    for name in sorted(shapes):
        blocks.append(Block(name, shapes[name], offset))
        offset += math.prod(shapes[name])
    return tuple(blocks)


class Direction(Protocol):
    """An implicit vector of a space (zo/direction.py has those that there are)."""

    def add_to(self, out: Tensor, alpha: Scalar, space: "Space") -> None:
        """out += alpha · self, with out (n,) float32. Must add the same bits each time it is asked."""


class Writer(Protocol):
    """A faster way to do what `Space` does, for some directions. False where it cannot: then nothing was written."""

    def fill_(self, space: "Space", points: Sequence[Direction]) -> bool: ...

    def add_(self, space: "Space", update: Direction) -> bool: ...


@dataclass(frozen=True)
class Space:
    """`theta` (n,) float32 is the truth; `copies` (K, n) in the model's dtype are what its forwards read.

    Both keep their address for life. Copies are always rewritten whole from theta, never perturbed in place and back,
    so nothing drifts.
    """

    blocks: tuple[Block, ...]
    theta: Tensor
    copies: Tensor
    writer: Writer | None = None

    @property
    def size(self) -> int:
        return self.theta.numel()

    def fill_(self, points: Sequence[Direction]) -> None:
        """copies[k] = theta + points[k], summed in float32 and rounded once. ValueError for more points than copies."""
        if self.writer and self.writer.fill_(self, points):
            return
        for copy, point in zip(self.copies[: len(points)], points, strict=True):
            target = copy if copy.dtype == torch.float32 else torch.empty_like(self.theta)
            target.copy_(self.theta)
            point.add_to(target, 1.0, self)
            if target is not copy:
                copy.copy_(target)

    def add_(self, update: Direction) -> None:
        """theta += update."""
        if not (self.writer and self.writer.add_(self, update)):
            update.add_to(self.theta, 1.0, self)


def make_space(
    shapes: Mapping[str, tuple[int, ...]],
    copies: int,
    dtype: torch.dtype,
    device: torch.device,
    writer: Writer | None = None,
) -> Space:
    """A space of zeros."""
    blocks = layout(shapes)
    n = sum(math.prod(shape) for shape in shapes.values())
    theta = torch.zeros(n, dtype=torch.float32, device=device)
    return Space(blocks, theta, torch.zeros(copies, n, dtype=dtype, device=device), writer)
