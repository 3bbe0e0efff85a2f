"""A resolved recipe's method to its estimator and rule."""

from collections.abc import Callable

import torch
from torch import Tensor

from zolite.config.composition import MethodPart, chain_of
from zolite.config.recipe import ResolvedTrain
from zolite.zo import rng as noise
from zolite.zo.estimators import Curvature, Estimator, OneSided, PerExample, TwoSided
from zolite.zo.samplers import WEIGHTS, Activation, Aligned, Guided, Independent, Learned, LowRank, Sampler, Subspace
from zolite.zo.space import Space
from zolite.zo.updates import (
    Adam,
    Chain,
    Clip,
    Decay,
    Descend,
    FactorMomentum,
    Momentum,
    Rms,
    Rule,
    Sign,
    Spread,
    schedule,
)

SAMPLERS: dict[str, Callable[[MethodPart, ResolvedTrain], Sampler]] = {
    "normal": lambda m, t: Independent(noise.normal),
    "signs": lambda m, t: Independent(noise.rademacher),
    "low-rank": lambda m, t: LowRank(m.rank, m.every),
    "subspace": lambda m, t: Subspace(m.rank, m.every),
    "activation": lambda m, t: Activation(),
    "aligned": lambda m, t: Aligned(m.rank, m.every, m.probes, m.delta, t.eps, t.steps),
}

Nets = Callable[[Space], Tensor]
"""A space to its blocks' learned networks, (blocks, WEIGHTS)."""

AROUND: dict[str, Callable[[MethodPart, ResolvedTrain, Sampler, Nets], Sampler]] = {
    "guided": lambda m, t, inner, nets: Guided(inner, m.pool, m.share, False, m.unit, t.eps),
    "greedy": lambda m, t, inner, nets: Guided(inner, m.pool, m.share, True, m.unit, t.eps),
    "learned": lambda m, t, inner, nets: Learned(inner, nets),
}

ESTIMATORS: dict[str, Callable[[MethodPart, ResolvedTrain, Sampler], Estimator]] = {
    "two-sided": lambda m, t, s: TwoSided(s, t.eps, t.queries),
    "one-sided": lambda m, t, s: OneSided(s, t.eps, t.queries),
    "curvature": lambda m, t, s: Curvature(s, t.eps, m.smooth, t.queries),
    "per-example": lambda m, t, s: PerExample(s, t.eps, t.batch),
}

RULES: dict[str, Callable[[MethodPart], Rule]] = {
    "sign": lambda m: Sign(),
    "rms": lambda m: Rms(m.beta2),
    "clip": lambda m: Clip(m.clip),
    "spread": lambda m: Spread(),
    "momentum": lambda m: Momentum(m.beta),
    "adam": lambda m: Adam(m.beta, m.beta2),
    "factor-momentum": lambda m: FactorMomentum(m.rank, m.every, m.beta),
}


def blank(space: Space) -> Tensor:
    """Networks that a checkpoint is about to fill."""
    return torch.zeros(len(space.blocks), WEIGHTS)


def build(m: MethodPart, t: ResolvedTrain, nets: Nets = blank) -> tuple[Estimator, Rule]:
    """The estimator, and the rule that ends with the learning rate. Both parts must be resolved."""
    *around, innermost = chain_of(m.sampler)
    sampler = SAMPLERS[innermost](m, t)
    for name in reversed(around):
        sampler = AROUND[name](m, t, sampler, nets)
    rules = [RULES[name](m) for name in m.rule] + ([Decay(m.decay)] if m.decay else [])
    return ESTIMATORS[m.estimator](m, t, sampler), Chain((*rules, Descend(schedule(t.schedule, t.lr, t.steps))))
