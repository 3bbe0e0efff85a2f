"""An estimator, a sampler, a wrapper and a rule of another package: a class and a row each, and nothing else.

They obey the laws of the table, train the tiny model, resume and replay like those that zolite brings.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.zo import test_laws as laws
from tests.zo.bench import CASES, SMALL, Bench, half_square
from zolite.common.errors import UsageError
from zolite.common.events import StepDone
from zolite.config import recipe as recipes
from zolite.config.composition import forwards_per_step, state_bytes
from zolite.config.methods import ESTIMATORS, RULES, SAMPLERS, WRAPPERS, Need, Piece
from zolite.config.recipe import Recipe
from zolite.data.lengths import Rows
from zolite.planner.memory import step_forwards
from zolite.sessions.session import open_
from zolite.training import resume as training
from zolite.training.replay import rebuild
from zolite.zo.direction import Combo, Noise, dense
from zolite.zo.estimators import Estimate, Tape
from zolite.zo.rng import Key, Step
from zolite.zo.samplers import Objective, Sampler
from zolite.zo.space import Direction, Space
from zolite.zo.state import State
from zolite.zo.updates import Rule


@dataclass(frozen=True)
class LeaveOneOut:
    """ĝ = 1 / ((N − 1) ε) Σ (lᵢ − l̄) dᵢ: each loss less the mean of the others; N points and not θ."""

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
        coefs = (losses - losses.mean()) / ((self.queries - 1) * self.eps)
        sound = tape.losses.isfinite().all() & coefs.isfinite().all()
        coefs = torch.where(sound, coefs, torch.zeros_like(coefs))
        return Estimate(Combo(tuple(zip(coefs.unbind(), directions, strict=True))), coefs, tape.losses)


@dataclass(frozen=True)
class Sphere(Sampler):
    """Gaussian directions, each of length √n."""

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        drawn = [Noise(key.fold("sphere", i)) for i in range(n)]
        return [Combo(((math.sqrt(space.size) / dense(d, space).norm(), d),)) for d in drawn]


@dataclass(frozen=True)
class Doubled(Sampler):
    """Another sampler's directions, twice as long."""

    inner: Sampler

    def init(self, space: Space) -> State:
        return self.inner.init(space)

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        return [Combo(((2.0, d),)) for d in self.inner.draw(key, n, state, objective, space)]


@dataclass(frozen=True)
class Follow(Rule):
    """Each coefficient by a factor that forgets the past at `beta`: a rule with a state."""

    beta: float

    def init(self, space: Space) -> State:
        return {"size": space.theta.new_zeros(())}

    def update(self, estimate: Estimate, step: Step, state: State, space: Space) -> Estimate:
        state["size"].mul_(self.beta).add_(estimate.coefs.abs().mean())
        shrink = 1 / (1 + 1e-3 * state["size"])
        terms = tuple((c * shrink, d) for c, d in estimate.grad.terms)
        return replace(estimate, grad=Combo(terms))


OUTSIDE = {"method.estimator": "leave-one-out", "method.sampler": "doubled(sphere)", "method.rule": "follow"}


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows, as another package adds them."""
    several = Need(lambda w: w.queries > 1, "estimator leave-one-out needs two directions, not {queries}")
    monkeypatch.setitem(
        ESTIMATORS,
        "leave-one-out",
        Piece(
            "each loss less the mean of the others",
            LeaveOneOut,
            numbers={"queries": 4},
            needs=(several,),
            points=lambda w: w.queries,
            at_once=lambda w: w.queries,
        ),
    )
    monkeypatch.setitem(SAMPLERS, "sphere", Piece("of length √n", Sphere))
    monkeypatch.setitem(WRAPPERS, "doubled", Piece("twice as long", Doubled, length=lambda m: 2.0))
    state = {"formula": "4", "state": lambda m, shapes: 4}
    monkeypatch.setitem(RULES, "follow", Piece("shrunk", Follow, numbers={"beta": 0.5}, **state))
    monkeypatch.setitem(CASES, "outside", OUTSIDE)


@pytest.mark.parametrize(
    "law",
    [
        laws.test_measured_is_applied,
        laws.test_same_direction,
        laws.test_all_differ,
        laws.test_resume,
        laws.test_replay,
        laws.test_step_on_device,
        laws.test_matrices_alone,
        laws.test_memory,
        laws.test_forwards,
        laws.test_points,
        laws.test_directions_of_the_kernel,
        laws.test_not_finite,
        laws.test_huge_loss,
        laws.test_schedule_is_obeyed,
    ],
    ids=lambda law: law.__name__,
)
def test_laws(law: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold for pieces that the package has never heard of."""
    patching = {"monkeypatch": monkeypatch} if "monkeypatch" in inspect.signature(law).parameters else {}
    with torch.inference_mode():
        law("outside", **patching)


def test_descends() -> None:
    """A quadratic falls to a tenth."""
    bench = Bench(OUTSIDE | {"train.lr": 1 / (8 * 31), "train.steps": 300, "train.schedule": "constant"}, SMALL)
    start = half_square(bench.space.theta)
    assert float(half_square(bench.run(300))) < float(start) / 10


def test_trains_a_model(recipe: Callable[..., Recipe], home: Path) -> None:
    """A run of the tiny model with them is planned, broken off, resumed to the same bits, and replayed."""
    changes = {name.replace(".", "__"): value for name, value in OUTSIDE.items()}
    chosen = recipe(train__steps=6, train__lr=1e-3, train__eps=1e-2, **changes)
    m, t = (resolved := recipes.resolve(chosen)).method, resolved.train
    assert (t.queries, t.copies, m.beta, forwards_per_step(m, 4, 6), state_bytes(m, {})) == (4, 4, 0.5, 4, 4)
    (forward,) = step_forwards(resolved, Rows(64, 1))
    assert forward.points == 4 and not forward.mirrored
    events = list(training.begin(chosen, "whole", lambda: False))
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 7))

    taken: list[int] = []
    for event in training.begin(chosen, "broken", lambda: taken[2:] != []):
        taken.extend([event.step] if isinstance(event, StepDone) else [])
    list(training.resume("broken", {}, False, lambda: False))
    with open_("whole") as whole, open_("broken") as broken:
        assert whole.recipe.method == broken.recipe.method == m
        a, b = rebuild(whole).tensors(), rebuild(broken).tensors()
        assert all(torch.equal(a[name], b[name]) for name in a) and any(t.any() for t in a.values())


def test_needs_are_told() -> None:
    """What a row asks for is refused with its reason."""
    with pytest.raises(UsageError, match="needs two directions, not 1"):
        recipes.override(Recipe(), OUTSIDE | {"train.queries": 1})
