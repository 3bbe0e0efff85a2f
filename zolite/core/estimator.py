"""Estimators: at which points the loss is wanted, and what the losses say of the gradient."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zolite.core.direction import Combo, Direction
from zolite.core.key import Key
from zolite.core.sampler import Objective, Sampler
from zolite.core.space import Space
from zolite.core.state import State


@dataclass(frozen=True)
class Estimate:
    """An estimate of the gradient, Σ cᵢ dᵢ, and what it was made of. Nothing here is on the host yet."""

    grad: Combo
    coefs: Tensor  # (n,) float32, one a direction
    losses: Tensor  # (K,) float32, one a point


class Estimator(Protocol):
    def init(self, space: Space) -> State: ...

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate: ...

    def replay(self, coefs: Tensor, key: Key, state: State, space: Space) -> Estimate:
        """The estimate that gave these coefficients, without measuring anything."""


@dataclass(frozen=True)
class TwoSided:
    """Simultaneous perturbation, n-SPSA: ĝ = 1/n Σᵢ (L(θ + εdᵢ) − L(θ − εdᵢ)) / 2ε · dᵢ.

    Spall 1992; Malladi et al., "Fine-Tuning Language Models with Just Forward Passes" (MeZO), arXiv 2305.17333,
    definition 1 and algorithm 2. Departures: all directions of a step see the same batch (algorithm 2 draws one each),
    and the points are written from a float32 master, where the authors' code walks +ε, −2ε, +ε over the weights.

    A step with a loss that is not finite gets zero coefficients, decided on the device: it moves nothing.
    """

    sampler: Sampler
    eps: float
    n: int = 1

    def init(self, space: Space) -> State:
        return self.sampler.init(space)

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate:
        directions = self.sampler.draw(key, self.n, state, space)
        losses = objective([Combo(((sign * self.eps, d),)) for d in directions for sign in (1.0, -1.0)])
        coefs = (losses[0::2] - losses[1::2]) / (2 * self.eps * self.n)
        finite = torch.isfinite(losses).all() & torch.isfinite(coefs).all()  # a huge difference over 2ε overflows
        coefs = torch.where(finite, coefs, torch.zeros_like(coefs))
        return _assemble(coefs, losses, directions)

    def replay(self, coefs: Tensor, key: Key, state: State, space: Space) -> Estimate:
        return _assemble(coefs, coefs.new_empty(0), self.sampler.draw(key, self.n, state, space))


def _assemble(coefs: Tensor, losses: Tensor, directions: list[Direction]) -> Estimate:
    return Estimate(Combo(tuple(zip(coefs.unbind(), directions, strict=True))), coefs, losses)
