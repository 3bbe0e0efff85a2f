"""A method at work on a small space, as training takes its steps, and the compositions that the laws are about."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zolite.config import recipe as recipes
from zolite.config.methods import METHODS
from zolite.config.recipe import Recipe
from zolite.zo.build import build
from zolite.zo.direction import Combo, Direction, Noise
from zolite.zo.estimators import Estimate, refreshed
from zolite.zo.rng import Key
from zolite.zo.samplers import INPUTS, NET, WEIGHTS
from zolite.zo.space import Space, make_space
from zolite.zo.state import State

CPU = torch.device("cpu")
SEED = 2**40 + 3
STEPS, EVERY = 12, 5  # bases are new at steps 0, 5 and 10

Shapes = Mapping[str, tuple[int, ...]]
BIG: Shapes = {"m": (37, 31), "a": (3,), "z": (31, 61), "k": (37, 31), "c": (5,)}  # 4,193 numbers: odd, over a tile
SMALL: Shapes = {"w": (5, 5), "b": (3,), "c": (3, 1)}  # 31
MATRICES: Shapes = {"m": (6, 4), "k": (4, 9)}  # as an adapter has them, without a vector

Changes = dict[str, Any]
ROWS: dict[str, Changes] = {name: {"method.name": name} for name in METHODS}
# Numbers at which a row does within a few steps what it does in a run.
ROWS["hizoo"] |= {"method.smooth": 1e-4}
ROWS["pgap"] |= {"method.probes": 3}

COMPOSED: dict[str, Changes] = {
    **{
        f"{name}-x3": ROWS[name] | {"train.queries": 3}
        for name in ("mezo", "mezo-sign", "spsa", "lozo", "lozo-m", "pgap", "mezo-gv", "zo-finetuner", "hizoo")
    },
    "subzero-x3": ROWS["subzero"] | {"train.queries": 3},
    "agzo-x3": ROWS["agzo"] | {"train.queries": 3},
    "guided(low-rank)": {"method.sampler": "guided(low-rank)"},
    "guided(subspace)": {"method.sampler": "guided(subspace)", "method.unit": True, "method.pool": 5},
    "guided(aligned)": {"method.sampler": "guided(aligned)", "method.probes": 3},
    "greedy(rademacher)": {"method.sampler": "greedy(rademacher)"},
    "learned(low-rank)": {"method.sampler": "learned(low-rank)"},
    "guided(learned(normal))": {"method.sampler": "guided(learned(normal))"},
    "guided-factor-momentum": {"method.sampler": "guided(low-rank)", "method.rule": "factor-momentum"},
    "one-sided": {"method.estimator": "one-sided", "train.queries": 2},
    "population": {"method.estimator": "population", "train.queries": 3},
    "population-low-rank": {"method.estimator": "population", "method.sampler": "low-rank", "train.queries": 4},
    "one-sided-guided": {"method.estimator": "one-sided", "method.sampler": "guided(normal)", "train.queries": 1},
    "curvature-rademacher": {"method.estimator": "curvature", "method.sampler": "rademacher", "method.smooth": 1e-4},
    "clip-momentum": {"method.rule": "clip,momentum", "method.clip": 5.0},
    "std-normalize-two-sided": {"method.rule": "std-normalize", "train.queries": 3},
    "per-example-adam": {"method.estimator": "per-example", "method.rule": "adam"},
    "decay": {"method.decay": 0.5},
    "lozo-m-decay": ROWS["lozo-m"] | {"method.decay": 0.5},
}
CASES = ROWS | COMPOSED


def recipe_of(changes: Changes) -> Recipe:
    """A resolved recipe: short windows, a small batch, and a learned optimizer where one is wanted."""
    quick = {
        "method.every": EVERY,
        "method.optimizer": "networks",
        "train.steps": STEPS,
        "train.batch": 8,
        "train.lr": 1e-4,
        "train.eps": 1e-2,
        "train.seed": SEED,
    }
    return recipes.resolve(recipes.override(Recipe(), {"method.name": "mezo"} | quick | changes))


def half_square(x: Tensor) -> Tensor:
    """½ |x|², whose gradient is x."""
    return x.double().square().sum() / 2


def quartic(x: Tensor) -> Tensor:
    """A loss of fourth order: its central differences depend on ε."""
    return (x.double() - 0.5).pow(4).mean()


def networks(space: Space) -> Tensor:
    """Learned networks with fixed weights, whose scales are about 1."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(len(space.blocks), WEIGHTS, generator=generator)
    inner = NET * INPUTS + NET
    return torch.cat((drawn[:, :inner] * 0.3, drawn[:, inner:-1] * 0.03, drawn[:, -1:] * 0.1 + 1), dim=1)


@cache
def shifts(groups: int, size: int) -> Tensor:
    """Where each group's examples have the loss's origin, (groups, size): the mean is 0, as of a whole batch."""
    drawn = torch.randn(groups, size, generator=torch.Generator().manual_seed(9))
    return (drawn - drawn.mean(dim=0)) * (groups > 1)


@dataclass(frozen=True)
class Taken:
    """A step: what was measured before it, its estimate, and what was added to theta."""

    before: Tensor
    estimate: Estimate
    update: Combo

    @property
    def losses(self) -> Tensor:
        """As the journal keeps them."""
        return torch.cat((self.before, self.estimate.losses))


class Bench:
    """A method's estimator, rule and state on a small space, and what its last step measured."""

    def __init__(
        self, changes: Changes, shapes: Shapes = BIG, loss: Callable[[Tensor], Tensor] = half_square, read: bool = False
    ) -> None:
        self.recipe = recipe_of(changes)
        self.shapes, self.loss, self.reads = shapes, loss, read
        self.space = make_space(shapes, 1, torch.float32, CPU)
        Noise(Key(77, 0, ("theta",))).add_to(self.space.theta, 1.0, self.space)
        self.estimator, self.rule = build(self.recipe.method, self.recipe.train, networks)
        self.state: dict[str, State] = {
            "estimator": self.estimator.init(self.space),
            "rule": self.rule.init(self.space),
        }
        self.points = 0  # how many the last step wanted
        self.measured: list[Tensor] = []  # offsets from theta of these, where they are read
        self.spoilt: dict[int, float] = {}  # losses to report instead, by the point's number in the step

    def objective(self, points: Sequence[Combo], groups: int = 1) -> Tensor:
        assert len(points) % groups == 0
        losses = []
        for i, point in enumerate(points):
            if self.reads:
                self.measured.append(read(point, self.space))
            self.space.fill_([point])
            if not point.terms:
                self.look()
            x = self.space.copies[0] + shifts(groups, self.space.size)[i * groups // len(points)]
            spoilt = self.spoilt.get(self.points)
            losses.append(self.loss(x).float() if spoilt is None else torch.tensor(spoilt))
            self.points += 1
        return torch.stack(losses)

    def look(self) -> None:
        """θ itself is measured: a round of power iteration, as of a layer whose inputs were a matrix's own rows."""
        inputs = self.estimator.sampler.inputs(self.state["estimator"], self.space)
        for block in self.space.blocks:
            if block.name in inputs:
                matrix = block.of(self.space.theta).flatten(1)
                found = torch.nn.functional.normalize(matrix.T @ (matrix @ inputs[block.name]), dim=0)
                if found.isfinite().all():
                    inputs[block.name].copy_(found)

    def step(self, step: int, as_tensor: bool = False) -> Taken:
        """As training takes it; the number may be on the device, as inside a captured graph."""
        self.measured.clear()
        self.points, key = 0, Key(self.recipe.train.seed, step)
        before = refreshed(self.estimator, self.objective, key, self.state["estimator"], self.space)
        now = torch.tensor(step) if as_tensor else step
        estimate = self.estimator.estimate(self.objective, Key(key.seed, now), self.state["estimator"], self.space)
        update = self.rule.update(estimate, now, self.state["rule"], self.space).grad
        self.space.add_(update)
        return Taken(before, estimate, update)

    def run(self, steps: int, first: int = 0) -> Tensor:
        """Steps up to that number; a copy of theta."""
        for step in range(first, steps):
            self.step(step)
        return self.space.theta.clone()

    def directions(self, step: int, seed: int = SEED) -> list[Direction]:
        """Those of a step from the state as it is, and as it is left, with losses that only depend on their order."""
        held = {name: value.clone() for name, value in self.state["estimator"].items()}

        def objective(points: Sequence[Combo], groups: int = 1) -> Tensor:
            return torch.sin(torch.arange(len(points)) * 1.7) * self.recipe.train.eps

        refreshed(self.estimator, objective, Key(seed, step), held, self.space)
        estimate = self.estimator.estimate(objective, Key(seed, step), held, self.space)
        return [direction for _, direction in estimate.grad.terms]


def read(direction: Direction, space: Space) -> Tensor:
    out = torch.zeros(space.size)
    direction.add_to(out, 1.0, space)
    return out


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))
