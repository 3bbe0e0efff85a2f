"""Rules: how an estimate becomes an update."""

from dataclasses import dataclass, replace
from typing import Protocol, cast, overload

import torch
from torch import Tensor

from zolite.core.direction import Scalar
from zolite.core.estimator import Estimate
from zolite.core.key import Step
from zolite.core.space import Space
from zolite.core.state import State


class Schedule(Protocol):
    """Step to learning rate: the same float32 whether the step is given as a number or as a tensor."""

    @overload
    def __call__(self, step: int) -> float: ...

    @overload
    def __call__(self, step: Tensor) -> Scalar: ...


class Rule(Protocol):
    def init(self, space: Space) -> State: ...

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        """The estimate whose `grad` is what to add to theta."""


@dataclass(frozen=True)
class Descend:
    """θ ← θ − η(step) · ĝ."""

    lr: Schedule

    def init(self, space: Space) -> State:
        return {}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        return replace(estimate, grad=estimate.grad.scaled(-self.lr(step)))


def schedule(kind: str, lr: float, steps: int) -> Schedule:
    """`constant`, or `linear`: from lr at step 0 to lr / steps at the last."""

    def linear(step: Step) -> Scalar:
        if not isinstance(step, Tensor):
            return lr * max(0, steps - step) / steps
        left = (steps - step).clamp(min=0).double()  # rounded once, at the end, as a float is that meets a float32
        return (lr * left / torch.full_like(left, steps)).float()  # CUDA divides by a number as · 1 / number: not alike

    return cast(Schedule, {"constant": lambda step: lr, "linear": linear}[kind])
