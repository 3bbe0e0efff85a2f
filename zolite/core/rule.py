"""Rules: how an estimate becomes an update."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from zolite.core.estimator import Estimate
from zolite.core.sampler import State
from zolite.core.space import Space

Schedule = Callable[[int], float]
"""Step, counted from 0, to learning rate."""


class Rule(Protocol):
    def init(self, space: Space) -> State: ...

    def update(self, estimate: Estimate, step: int, state: State, space: Space) -> Estimate:
        """The estimate whose `grad` is what to add to theta."""


@dataclass(frozen=True)
class Descend:
    """θ ← θ − η(step) · ĝ."""

    lr: Schedule

    def init(self, space: Space) -> State:
        return {}

    def update(self, estimate: Estimate, step: int, state: State, space: Space) -> Estimate:
        return replace(estimate, grad=estimate.grad.scaled(-self.lr(step)))


def schedule(kind: str, lr: float, steps: int) -> Schedule:
    """`constant`, or `linear`: from lr at step 0 to lr / steps at the last."""
    return {"constant": lambda step: lr, "linear": lambda step: lr * max(0, steps - step) / steps}[kind]
