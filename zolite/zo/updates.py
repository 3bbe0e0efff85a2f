"""Rules: how an estimate becomes an update. They are chained; the last scales by the learning rate.

c is a coefficient of the estimate Σ cᵢ dᵢ, N their number, n the trained numbers, η the learning rate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast, overload

import torch
from torch import Tensor

from zolite.zo.direction import Combo, Dense, Product, Theta
from zolite.zo.estimators import Estimate
from zolite.zo.lowrank import groups, left, lengths, right, size, split, vectors
from zolite.zo.rng import Step
from zolite.zo.space import Direction, Scalar, Space
from zolite.zo.state import State


class Schedule(Protocol):
    """Step to learning rate: the same float32 whether the step is given as a number or as a tensor."""

    @overload
    def __call__(self, step: int) -> float: ...

    @overload
    def __call__(self, step: Tensor) -> Scalar: ...


class Rule(Protocol):
    """What is not overridden holds nothing."""

    def init(self, space: Space) -> State:
        """What it holds before the first step: tensors, changed in place by `update`."""
        return {}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        """The estimate whose `grad` is what to add to theta, or to hand to the next rule.

        Must not wait for the device: a captured graph replays it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Descend(Rule):
    """θ ← θ − η(step) · ĝ."""

    lr: Schedule

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        return replace(estimate, grad=estimate.grad.scaled(-self.lr(step)))


@dataclass(frozen=True)
class Chain(Rule):
    """One rule after the other. Their states must be tensors, changed in place."""

    rules: Sequence[Rule]

    def init(self, space: Space) -> State:
        states = enumerate(rule.init(space) for rule in self.rules)
        return {f"{i}.{name}": value for i, state in states for name, value in state.items()}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        for i, rule in enumerate(self.rules):
            own = {n.removeprefix(f"{i}."): value for n, value in state.items() if n.startswith(f"{i}.")}
            estimate = rule.update(estimate, step, own, space)
        return estimate


@dataclass(frozen=True)
class Sign(Rule):
    """Each coefficient's sign in its place: ZO-signSGD as ZO-Bench has it, arXiv 2402.11592, the sign of the scalar."""

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        return replace(estimate, grad=_mapped(estimate.grad, torch.sign))


@dataclass(frozen=True)
class Clip(Rule):
    """Each coefficient cut to ±clip: QZO, Shang et al., arXiv 2505.13430, directional derivative clipping.

    Departure: its rule alone; QZO trains the scales of quantized weights, which are no space here.
    """

    clip: float

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        return replace(estimate, grad=_mapped(estimate.grad, lambda c: c.clamp(-self.clip, self.clip)))


@dataclass(frozen=True)
class StdNormalize(Rule):
    """cᵢ ← cᵢ / (N std c), with N coefficients: FZOO's step, arXiv 2506.09034, equation for one-sided probes.

    With cᵢ = (lᵢ − l₀) / (ε N) this is (lᵢ − l₀) / (N σ), σ the standard deviation of the losses (over N − 1; over N in
    the authors' code). The paper's update has a further 1 / ε; like the authors' code, this has not. Their reuse of the
    losses of the step before is a branch that their code never reaches, and is not here. Where the losses are all alike
    there is nothing to divide by, and the step moves nothing.
    """

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        coefs = torch.stack([cast(Tensor, c) for c, _ in estimate.grad.terms])
        std = coefs.std()
        scaled = torch.where(std > 0, coefs / (len(coefs) * std), torch.zeros_like(coefs))
        directions = (d for _, d in estimate.grad.terms)
        return replace(estimate, grad=Combo(tuple(zip(scaled.unbind(), directions, strict=True))))


@dataclass(frozen=True)
class Rms(Rule):
    """cᵢ ← cᵢ / √v, cut to ±most, with v a running mean of the squares of c: every step is about as long.

    MEAZO, arXiv 2605.03869: Adam's second moment (Kingma and Ba, arXiv 1412.6980, algorithm 1, its correction too) of
    one scalar, the projected gradient, for all coordinates. For directions that treat them alike, a moment for each
    would only be noise. Departures: the cut at ±most; v takes the mean of the squares of a step's coefficients, where
    MEAZO takes the square of their mean (alike for one direction); no small number is added to √v. A step that measured
    nothing (all c are 0) leaves v as it was. It holds v and the sum of the weights in it, two float32 numbers.
    """

    beta2: float
    most: float = 3.0  # of its own size

    def init(self, space: Space) -> State:
        return {"v": space.theta.new_zeros(()), "seen": space.theta.new_zeros(())}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        v, seen = state["v"], state["seen"]  # seen: the weights in v, 1 − β^t
        square = torch.stack([cast(Tensor, c) for c, _ in estimate.grad.terms]).square().mean().clamp(max=1e35)
        measured = (square > 0).float()
        v.lerp_(square, (1 - self.beta2) * measured)
        seen.lerp_(torch.ones_like(seen), (1 - self.beta2) * measured)
        size = (v / seen.clamp(min=1e-30)).sqrt().clamp(min=1e-30)
        return replace(estimate, grad=_mapped(estimate.grad, lambda c: (c / size).clamp(-self.most, self.most)))


@dataclass(frozen=True)
class Decay(Rule):
    """Weight decay as a term, ĝ + λ θ, of matrices alone: the published codes spare biases and norms."""

    rate: float

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        decay: tuple[tuple[Scalar, Direction], ...] = ((self.rate, Theta()),)
        return replace(estimate, grad=Combo(decay + estimate.grad.terms))  # first: the others change what it reads


@dataclass(frozen=True)
class Momentum(Rule):
    """m ← β m + ĝ, and m is applied: SGD's momentum on the estimate (ZO-SGD-MMT of ZO-Bench, arXiv 2402.11592).

    It holds m (n,) float32.
    """

    beta: float

    def init(self, space: Space) -> State:
        return {"m": torch.zeros_like(space.theta)}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        m: Tensor = state["m"]
        m.mul_(self.beta)
        estimate.grad.add_to(m, 1.0, space)
        return replace(estimate, grad=Combo(((1.0, Dense(m)),)))


@dataclass(frozen=True)
class Adam(Rule):
    """Adam's moments of the estimate (MeZO-Adam, arXiv 2305.17333, section 2.2; Kingma and Ba, arXiv 1412.6980).

    It holds both, m and v (n,) float32. Departure: MeZO's authors rebuild them from the history of losses and seeds.
    """

    beta: float  # β₁
    beta2: float
    floor: float = 1e-8

    def init(self, space: Space) -> State:
        return {"m": torch.zeros_like(space.theta), "v": torch.zeros_like(space.theta)}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        m, v, g = state["m"], state["v"], torch.zeros_like(space.theta)
        estimate.grad.add_to(g, 1.0, space)
        m.lerp_(g, 1 - self.beta)
        v.lerp_(g.square_().clamp_(max=1e35), 1 - self.beta2)  # a huge number's square would be ∞, and m / √v NaN
        taken = _tensor(step, space).to(_wide(space.theta.device)) + 1
        first, second = (1 - beta**taken for beta in (self.beta, self.beta2))
        moved = m / first.float() / ((v / second.float()).sqrt() + self.floor)
        return replace(estimate, grad=Combo(((1.0, Dense(moved)),)))


@dataclass(frozen=True)
class FactorMomentum(Rule):
    """Momentum on U of U Vᵀ: N ← β N + (1 − β) c U, and N Vᵀ is applied. LOZO-M, arXiv 2410.07698, algorithm 2.

    When V moves, N is carried over first, N ← N V_oldᵀ V_new / n (n rows of V): least squares for
    N_new V_newᵀ ≈ N V_oldᵀ, with VᵀV ≈ n. The first step is N = c U. Vectors have the same momentum without a V.
    """

    rank: int
    every: int
    beta: float

    def init(self, space: Space) -> State:
        found, zeros = groups(space), space.theta.new_zeros
        sizes = (size(found, left(self.rank)), size(found, right(self.rank)), sum(lengths(vectors(space))))
        return {name: zeros(count) for name, count in zip(("n", "v", "vectors"), sizes, strict=True)}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        found, now = groups(space), _tensor(step, space)
        terms = [(c, cast(Product, d)) for c, d in estimate.grad.flat()]
        first, moved = now == 0, now % self.every == 0
        fresh = torch.where(first, 1.0, 1 - self.beta)
        momenta, bases = split(state["n"], found, left(self.rank)), split(state["v"], found, right(self.rank))
        for i, (momentum, old) in enumerate(zip(momenta, bases, strict=True)):
            new, one = terms[0][1].right[i], torch.eye(old.shape[2], device=old.device)
            carried = torch.bmm(momentum, torch.where(moved, torch.bmm(old.mT, new) / old.shape[1], one))
            momentum.copy_(carried.mul_(self.beta).add_(sum(c * d.left[i] for c, d in terms) * fresh))
            old.copy_(new)
        state["vectors"].mul_(self.beta).add_(sum(c * d.vectors for c, d in terms) * fresh)
        applied = Product(found, momenta, terms[0][1].right, state["vectors"])
        return replace(estimate, grad=Combo(((1.0, applied),)))


def _mapped(grad: Combo, change: Callable[[Tensor], Tensor]) -> Combo:
    return Combo(tuple((change(cast(Tensor, c)), d) for c, d in grad.terms))


def _wide(device: torch.device) -> torch.dtype:
    """What is rounded once at the end: Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _tensor(step: Step, space: Space) -> Tensor:
    return step if isinstance(step, Tensor) else torch.full((), step, dtype=torch.int64, device=space.theta.device)


def schedule(kind: str, lr: float, steps: int) -> Schedule:
    """`constant`, or `linear`: from lr at step 0 to lr / steps at the last."""

    def linear(step: Step) -> Scalar:
        if not isinstance(step, Tensor):
            return lr * max(0, steps - step) / steps
        left = (steps - step).clamp(min=0).to(_wide(step.device))
        return (lr * left / torch.full_like(left, steps)).float()  # CUDA divides by a number as · 1 / number: not alike

    return cast(Schedule, {"constant": lambda step: lr, "linear": linear}[kind])
