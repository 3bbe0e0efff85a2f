"""Estimators: at which points the loss is wanted, and what the losses say of the gradient.

K points, N directions of a step (`queries`), ε the perturbation scale. The projected gradient along a direction d is
∇L · d; a coefficient is such a number over N, or what an estimator makes of it.

A step with a loss that is not finite gets zero coefficients, decided on the device: the estimate moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from zolite.zo.direction import Combo, Modulated, Noise, Scaled, dense
from zolite.zo.rng import Key
from zolite.zo.samplers import Objective, Sampler
from zolite.zo.space import Direction, Space
from zolite.zo.state import State


@dataclass(frozen=True)
class Estimate:
    """An estimate of the gradient, Σ cᵢ dᵢ, and what it was made of. Nothing here is on the host yet."""

    grad: Combo
    coefs: Tensor  # (N,) float32, one a direction
    losses: Tensor  # (K,) float32: all that the step measured, in that order


class Estimator(Protocol):
    @property
    def sampler(self) -> Sampler: ...

    @property
    def groups(self) -> int:
        """Parts of a batch that see points of their own."""

    def init(self, space: Space) -> State:
        """What it and its sampler hold before the first step."""

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate:
        """A step's estimate, a pure function of the key, the state and the losses.

        Changes the state's tensors in place. It must not wait for the device: a captured graph replays it.
        """


@dataclass
class Tape:
    """An objective that keeps the losses that it returned."""

    objective: Objective
    parts: list[Tensor] = field(default_factory=list)

    def __call__(self, points: Sequence[Combo], groups: int = 1) -> Tensor:
        self.parts.append(self.objective(points, groups))
        return self.parts[-1]

    @property
    def losses(self) -> Tensor:
        """All of them, (K,) float32."""
        return torch.cat(self.parts)


@dataclass
class Playback:
    """An objective that returns recorded losses (K,): a step is taken once more, without the model."""

    losses: Tensor
    used: int = 0

    def __call__(self, points: Sequence[Combo], groups: int = 1) -> Tensor:
        """The next losses, one a point. ValueError where there are no more."""
        first, self.used = self.used, self.used + len(points)
        if self.used > len(self.losses):
            raise ValueError(f"a step that measures {self.used} losses or more has {len(self.losses)}")
        return self.losses[first : self.used]


@dataclass(frozen=True)
class TwoSided:
    """Simultaneous perturbation, N-SPSA: ĝ = 1/N Σᵢ (L(θ + εdᵢ) − L(θ − εdᵢ)) / 2ε · dᵢ, by 2 N points.

    Spall 1992; Malladi et al., "Fine-Tuning Language Models with Just Forward Passes" (MeZO), arXiv 2305.17333,
    definition 1 and algorithm 2. Departures: all directions of a step see the same batch (algorithm 2 draws one each),
    and the points are written from a float32 master, where the authors' code adds +ε, −2ε, +ε to the weights.
    """

    sampler: Sampler
    eps: float
    queries: int = 1
    groups: int = 1

    def init(self, space: Space) -> State:
        return self.sampler.init(space)

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate:
        tape = Tape(objective)
        directions = self.sampler.draw(key, self.queries, state, tape, space)
        losses = tape(_both(directions, self.eps))
        self.sampler.learn(losses[0::2], losses[1::2], state)
        return _assemble(central_differences(losses, self.eps, self.queries), tape.losses, directions)


@dataclass(frozen=True)
class OneSided:
    """ĝ = 1/N Σᵢ (L(θ + εdᵢ) − L(θ)) / ε · dᵢ: N + 1 points for N directions, θ first.

    With random signs and the rule `std-normalize` this is FZOO, Dang et al., arXiv 2506.09034, algorithm 1. Departure:
    where ε was measured (training/step_size.py), it was for central differences, whose error is of another order.
    """

    sampler: Sampler
    eps: float
    queries: int
    groups: int = 1

    def init(self, space: Space) -> State:
        return self.sampler.init(space)

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate:
        tape = Tape(objective)
        here = tape([Combo()])
        directions = self.sampler.draw(key, self.queries, state, tape, space)
        plus = tape([Combo(((self.eps, d),)) for d in directions])
        self.sampler.learn(plus, here.expand_as(plus), state)
        coefs = _guarded((plus - here) / (self.eps * self.queries), tape.losses)
        return _assemble(coefs, tape.losses, directions)


@dataclass(frozen=True)
class Population:
    """ĝ = 1/(N − 1) Σᵢ (L(θ + εdᵢ) − L̄) / ε · dᵢ, L̄ the mean of the N losses: as many points as directions.

    That is each loss less the mean of the others, over N: leave-one-out centring, as AIM-ZO has it (equation 5) and
    LOREN's code. What all losses share drops out, so θ itself need not be measured. With the rule `std-normalize` a
    step is that of evolution strategies with standardised losses, Qiu et al., "Evolution Strategies at Scale", arXiv
    2509.24372. Departures: theirs maximises rewards of texts, adds a small number to the standard deviation, which is
    over N, and has the members' weights in 16 bits; here a loss is minimised, and where all losses are alike the step
    moves nothing.
    """

    sampler: Sampler
    eps: float
    queries: int
    groups: int = 1

    def init(self, space: Space) -> State:
        return self.sampler.init(space)

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate:
        tape = Tape(objective)
        directions = self.sampler.draw(key, self.queries, state, tape, space)
        losses = tape([Combo(((self.eps, d),)) for d in directions])
        mean = losses.mean()
        self.sampler.learn(losses, mean.expand_as(losses), state)
        coefs = _guarded((losses - mean) / (self.eps * (self.queries - 1)), tape.losses)
        return _assemble(coefs, tape.losses, directions)


@dataclass(frozen=True)
class Curvature:
    """A running diagonal H of the Hessian: measured along z / √H, applied along z / √H_new.

    HiZOO, Zhao et al., arXiv 2402.15173, algorithm 1: Ĥ = |L₊ + L₋ − 2 L₀| / 2ε² · H z², H ← (1 − α) H + α Ĥ.
    Departures: H is float32, whatever the weights (in 16 bits the published α leaves it as it was); it is kept above a
    floor; the loss at θ is measured once, where the authors' code measures it again, only to log it; several directions
    share L₀ and average their Ĥ. It holds h (n,) float32. α (`smooth`) is 1e-6 by default, which an older README of the
    authors gave for LoRA; it now says 1e-8 for full weights, and their script has 0.
    """

    sampler: Sampler
    eps: float
    smooth: float
    queries: int = 1
    floor: float = 1e-6
    groups: int = 1

    def init(self, space: Space) -> State:
        return self.sampler.init(space) | {"h": torch.ones_like(space.theta)}

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate:
        tape, h = Tape(objective), state["h"]
        drawn = self.sampler.draw(key, self.queries, state, tape, space)
        by = h.rsqrt()
        losses = tape([*_both([Scaled(z, by) for z in drawn], self.eps), Combo()])
        sides, here = losses[:-1], losses[-1]
        self.sampler.learn(sides[0::2], sides[1::2], state)
        bend = _guarded((sides[0::2] + sides[1::2] - 2 * here).abs() / (2 * self.eps**2 * self.queries), losses)
        seen = torch.stack([c * dense(z, space).square() for c, z in zip(bend.unbind(), drawn, strict=True)]).sum(dim=0)
        new = (h * (1 - self.smooth + self.smooth * seen)).clamp(min=self.floor)
        coefs = (sides[0::2] - sides[1::2]) / (2 * self.eps * self.queries)
        sound = losses.isfinite().all() & coefs.isfinite().all() & new.isfinite().all()
        h.copy_(torch.where(sound, new, h))
        coefs = torch.where(sound, coefs, torch.zeros_like(coefs))
        by = h.rsqrt()
        return _assemble(coefs, tape.losses, [Scaled(z, by) for z in drawn])


@dataclass(frozen=True)
class PerExample:
    """A direction for every example of the batch from two points each: Uᵢ = U ∘ (rᵢ sᵢᵀ), U Gaussian, r and s signs.

    GRZO, arXiv 2606.02857: δᵢ = (lᵢ₊ − lᵢ₋) / 2, aᵢ = δᵢ / std δ, ĝ = 1 / (2 ε B) Σᵢ aᵢ Uᵢ. An example's points are its
    own group's, so that B directions cost two forwards of the batch. Departures: the authors add a small number to the
    standard deviation, here a step whose δ are all alike moves nothing; it is over B − 1, as in their code (a reading
    of the paper has B); the options of one question share their signs, where their code draws signs for each; and the
    perturbed product of LoRA's two factors is exact, where their code keeps its first order.
    """

    sampler: Sampler
    eps: float
    batch: int

    @property
    def groups(self) -> int:
        return self.batch

    def init(self, space: Space) -> State:
        return self.sampler.init(space)

    def estimate(self, objective: Objective, key: Key, state: State, space: Space) -> Estimate:
        shared = Noise(key.fold("shared"))
        directions: list[Direction] = [Modulated(shared, key.fold("signs", i)) for i in range(self.batch)]
        losses = objective(_both(directions, self.eps), self.batch)
        half = (losses[0::2] - losses[1::2]) / 2
        std = half.std()
        coefs = torch.where(std > 0, half / (std * 2 * self.eps * self.batch), torch.zeros_like(half))
        return _assemble(_guarded(coefs, losses), losses, directions)


def central_differences(losses: Tensor, eps: float, n: int) -> Tensor:
    """Losses (2n,) at both sides of n directions to projected gradients over n, (n,); zeros if any is not finite."""
    return _guarded((losses[0::2] - losses[1::2]) / (2 * eps * n), losses)


def _both(directions: Sequence[Direction], eps: float) -> list[Combo]:
    return [Combo(((sign * eps, d),)) for d in directions for sign in (1.0, -1.0)]


def _guarded(values: Tensor, losses: Tensor) -> Tensor:
    """Zeros if any loss or value is not finite: a huge difference over 2ε overflows."""
    finite = torch.isfinite(losses).all() & torch.isfinite(values).all()
    return torch.where(finite, values, torch.zeros_like(values))


def _assemble(coefs: Tensor, losses: Tensor, directions: Sequence[Direction]) -> Estimate:
    return Estimate(Combo(tuple(zip(coefs.unbind(), directions, strict=True))), coefs, losses)


def refreshed(estimator: Estimator, objective: Objective, key: Key, state: State, space: Space) -> Tensor:
    """What is due before a step, and the losses (K,) that it measured, perhaps none. The key's step is a number."""
    tape = Tape(objective, [space.theta.new_zeros(0)])
    if isinstance(key.step, int) and estimator.sampler.due(key.step):
        estimator.sampler.refresh(tape, key, state, space)
    return tape.losses
