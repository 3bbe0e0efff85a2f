"""Samplers: where directions come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from zolite.core import key as noise
from zolite.core.direction import Combo, Direction, Noise
from zolite.core.key import Key
from zolite.core.space import Space
from zolite.core.state import State


class Objective(Protocol):
    def __call__(self, points: Sequence[Combo], groups: int = 1) -> Tensor:
        """Points in a space to their losses (K,) float32, on one batch, at one theta.

        With groups, the batch's rows and the points are cut into as many equal runs, in their order: a point's loss is
        over the rows of its own run.
        """


class Sampler(Protocol):
    def init(self, space: Space) -> State: ...

    def draw(self, key: Key, n: int, state: State, space: Space) -> list[Direction]:
        """n directions for one step, a pure function of the key and the state."""


@dataclass(frozen=True)
class Independent:
    """Every coordinate on its own: Gaussian for MeZO, Rademacher for Spall's SPSA."""

    transform: Callable[[Tensor], Tensor] = noise.normal

    def init(self, space: Space) -> State:
        return {}

    def draw(self, key: Key, n: int, state: State, space: Space) -> list[Direction]:
        return [Noise(key.fold(i) if i else key, self.transform) for i in range(n)]
