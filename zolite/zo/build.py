"""A recipe's method to its estimator and rule: each piece's class by its row, its fields by the settings' names."""

import dataclasses
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from zolite.config.composition import resolved
from zolite.config.methods import ESTIMATORS, RULES, SAMPLERS, WRAPPERS, MethodPart, Piece, chain_of
from zolite.config.recipe import ResolvedTrain
from zolite.zo.estimators import Estimator
from zolite.zo.samplers import WEIGHTS, Sampler
from zolite.zo.space import Space
from zolite.zo.updates import Chain, Decay, Descend, Rule, schedule

Nets = Callable[[Space], Tensor]
"""A space to its blocks' learned networks, (blocks, WEIGHTS)."""


def blank(space: Space) -> Tensor:
    """Networks that a checkpoint is about to fill."""
    return torch.zeros(len(space.blocks), WEIGHTS)


def build(m: MethodPart, t: ResolvedTrain, nets: Nets = blank) -> tuple[Estimator, Rule]:
    """The estimator, and the rule that ends with the learning rate."""
    m = resolved(m)
    values = {f.name: getattr(m, f.name) for f in dataclasses.fields(m)}
    values |= {"eps": t.eps, "queries": t.queries, "batch": t.batch, "steps": t.steps, "nets": nets}
    *around, innermost = chain_of(m.sampler)
    sampler: Sampler = made(SAMPLERS[innermost], values)
    for name in reversed(around):
        sampler = made(WRAPPERS[name], values | {"inner": sampler})
    estimator: Estimator = made(ESTIMATORS[m.estimator], values | {"sampler": sampler})
    rules: list[Rule] = [made(RULES[name], values) for name in m.rule]
    decay = [Decay(m.decay)] if m.decay else []
    return estimator, Chain((*rules, *decay, Descend(schedule(t.schedule, t.lr, t.steps))))


def made(piece: Piece, values: Mapping[str, Any]) -> Any:
    """A piece's object, with every field that a setting, or the row's `fixed`, has by name."""
    make = cast(Callable[..., Any], pkgutil.resolve_name(piece.make) if isinstance(piece.make, str) else piece.make)
    known = {**values, **piece.fixed}
    return make(**{name: known[name] for name in inspect.signature(make).parameters if name in known})
