"""The table of methods: each a sampler × estimator × rule."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from zolite.core import key as noise
from zolite.core.estimator import Estimator, TwoSided
from zolite.core.rule import Descend, Rule, schedule
from zolite.core.sampler import Independent
from zolite.errors import UsageError
from zolite.recipe import SPACES, TrainPart


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    paper: str
    summary: str
    build: Callable[[TrainPart], tuple[Estimator, Rule]]
    forwards_per_step: Callable[[TrainPart], int]  # points measured, each one forward of the batch
    state_bytes: Callable[[int], int]  # held beside theta and the slots, for n trainable numbers
    spaces: tuple[str, ...] = SPACES
    deterministic: bool = True  # directions follow from (seed, step) alone, so a journal replays without the model


def _spsa(transform: Callable[[Tensor], Tensor]) -> Callable[[TrainPart], tuple[Estimator, Rule]]:
    def build(t: TrainPart) -> tuple[Estimator, Rule]:
        sampler = Independent(transform)
        return TwoSided(sampler, t.eps, t.queries), Descend(schedule(t.schedule, t.lr, t.steps))

    return build


def _pairs(t: TrainPart) -> int:
    return 2 * t.queries


def _stateless(n: int) -> int:
    return 0


METHODS = {
    m.name: m
    for m in (
        Method(
            "mezo",
            "Malladi et al. 2023, arXiv 2305.17333",
            "two-sided differences along Gaussian directions",
            _spsa(noise.normal),
            _pairs,
            _stateless,
        ),
        Method(
            "spsa",
            "Spall 1992, IEEE TAC 37(3)",
            "two-sided differences along random signs; the same bits on every device",
            _spsa(noise.rademacher),
            _pairs,
            _stateless,
        ),
    )
}


def method(name: str) -> Method:
    """A row by name."""
    if name not in METHODS:
        raise UsageError(f"no method {name!r}", f"choose one of {', '.join(METHODS)} (`zolite methods` explains them)")
    return METHODS[name]
