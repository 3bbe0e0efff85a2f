"""The matrices of a space, by shape, and low-rank factors of them.

Blocks of one shape are worked on together: G matrices of (m, n), r columns a factor. What is no matrix is a vector.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from zolite.zo.space import Block, Space

Factors = list[Tensor]
"""One (G, rows, columns) a group."""


@dataclass(frozen=True)
class Group:
    """Matrices of one shape, in the order of their names."""

    m: int
    n: int
    blocks: tuple[Block, ...]

    def rank(self, most: int) -> int:
        return min(most, self.m, self.n)

    def of(self, flat: Tensor) -> Tensor:
        """A copy of the matrices out of a flat (n,): (G, m, n)."""
        return torch.stack([block.of(flat).view(self.m, self.n) for block in self.blocks])


def groups(space: Space, square: bool = False) -> list[Group]:
    """Every block of two dimensions or more, by shape; with `square`, each seen as near a square as its size allows."""
    matrices = [(_square(b.shape) if square else _flat(b.shape), b) for b in space.blocks if len(b.shape) > 1]
    ordered = sorted(matrices, key=lambda pair: (pair[0], pair[1].offset))
    return [Group(m, n, tuple(b for _, b in pairs)) for (m, n), pairs in groupby(ordered, key=lambda pair: pair[0])]


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _square(shape: tuple[int, ...]) -> tuple[int, int]:
    """SubZero (arXiv 2410.08989) folds a thin matrix: the widest m ≤ √size that divides it, by size / m."""
    size = math.prod(shape)
    m = next(m for m in range(math.isqrt(size), 0, -1) if size % m == 0)
    return m, size // m


def vectors(space: Space) -> list[Block]:
    """Every block of one dimension."""
    return [block for block in space.blocks if len(block.shape) < 2]


def lengths(blocks: Sequence[Block]) -> list[int]:
    return [math.prod(block.shape) for block in blocks]


def split(flat: Tensor, found: Sequence[Group], shape: Callable[[Group], tuple[int, int]]) -> Factors:
    """Views of a flat tensor, of `shape` a matrix."""
    shapes = [(len(group.blocks), *shape(group)) for group in found]
    parts = torch.split(flat, [math.prod(s) for s in shapes])
    return [part.view(s) for part, s in zip(parts, shapes, strict=True)]


def size(found: Sequence[Group], shape: Callable[[Group], tuple[int, int]]) -> int:
    """How many numbers such a flat tensor has."""
    return sum(len(group.blocks) * math.prod(shape(group)) for group in found)


def left(rank: int) -> Callable[[Group], tuple[int, int]]:
    """The shape of a left factor."""
    return lambda group: (group.m, group.rank(rank))


def right(rank: int) -> Callable[[Group], tuple[int, int]]:
    """The shape of a right factor."""
    return lambda group: (group.n, group.rank(rank))


def core(rank: int) -> Callable[[Group], tuple[int, int]]:
    """The shape of what stands between two factors."""
    return lambda group: (group.rank(rank), group.rank(rank))
