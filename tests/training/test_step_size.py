"""Claims about what is measured before the first step: on losses whose best ε and displacement are known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zolite.common.events import Noted
from zolite.config.recipe import Recipe
from zolite.training import step_size
from zolite.training.prepare import prepare
from zolite.training.run import Run
from zolite.training.step_size import LOSS_BUDGET, RADII, Measured, crossing, least_error, measure
from zolite.zo.direction import Combo, Noise, dense
from zolite.zo.rng import Key
from zolite.zo.space import make_space

N = 64


def objective(curvature: float, cubic: float, noise: float) -> Callable[[Sequence[Combo]], Tensor]:
    """A loss with that mean curvature along unit normal directions, a third derivative, and rounding noise."""
    space, make = make_space({"w": (N,)}, 0, torch.float32, torch.device("cpu")), torch.Generator().manual_seed(0)
    gradient = torch.randn(N, generator=make).double() / N**0.5

    def losses(points: Sequence[Combo], groups: int = 1) -> Tensor:
        found = []
        for point in points:
            at = dense(point, space).double()
            along = at @ gradient
            found.append(1 + along + curvature * at.square().sum() / (2 * N) + cubic * along**3)
        return torch.stack(found) + noise * torch.randn(len(found), generator=make).double()

    return losses


@pytest.mark.parametrize("curvature", [0.5, 5.0, 50.0, 5000.0])
def test_the_displacement_is_where_a_random_step_costs_so_much(curvature: float) -> None:
    """On a quadratic, R = √(2 · LOSS_BUDGET / curvature), as far as the radii go."""
    found = measure([objective(curvature, 0.0, 1e-9)], 0)
    assert found.displacement == pytest.approx(min(RADII[-1], math.sqrt(2 * LOSS_BUDGET / curvature)), rel=0.35)


@pytest.mark.parametrize("slope", [0.1, 3.0])
def test_the_projected_gradient_is_the_slope_along_a_direction(slope: float) -> None:
    """Of a plane, whatever the radius: (L(θ + εz) − L(θ − εz)) / 2ε is slope · z."""
    space = make_space({"w": (N,)}, 0, torch.float32, torch.device("cpu"))
    gradient = torch.zeros(N, dtype=torch.float64)
    gradient[0] = slope
    zs = [dense(Combo(((1.0, Noise(Key(0, 0, ("ladder", i)))),)), space).double()[0] for i in range(4)]

    def plane(points: Sequence[Combo], groups: int = 1) -> Tensor:
        return torch.stack([1 + dense(point, space).double() @ gradient for point in points])

    wanted = slope * math.sqrt(sum(float(z) ** 2 for z in zs) / 4)
    assert measure([plane], 0, 4).gradient == pytest.approx(wanted, rel=1e-3)


@settings(max_examples=20)
@given(a=st.floats(-7, -3), b=st.floats(-1, 2))
def test_epsilon_is_where_the_error_is_least(a: float, b: float) -> None:
    """With errors a/ε and b ε², ε is within a factor of two of √[6]{a² / 2b²}, where that is a radius."""
    make, radii = torch.Generator().manual_seed(1), torch.tensor(RADII).double()
    noise, bend = 10**a, 10**b
    scatter = noise / radii * torch.randn(64, len(RADII), generator=make).double()
    gradients = torch.randn(64, 1, generator=make).double() + scatter + bend * radii**2
    best = min(max((noise**2 / (2 * bend**2)) ** (1 / 6), RADII[0]), RADII[-1])
    assert 0.5 < least_error(gradients)[0] / best < 2.0


def test_a_crossing_is_between_its_radii() -> None:
    """Never outside the radii, whatever the rises are, numbers or none."""
    assert crossing([0.0] * 8, 1.0) == RADII[-1] and crossing([2.0] * 8, 1.0) == RADII[0]
    assert RADII[2] <= crossing([0.0, -1.0, 0.5, *[4.0] * 5], 1.0) <= RADII[3]
    assert RADII[1] <= crossing([0.0, 0.0, *[1e4] * 6], 1.0) <= RADII[2]


def test_longer_runs_take_smaller_steps() -> None:
    """So that all are displaced as far: √3 R / √T where steps fall evenly to 0, R / √T where they stay."""
    found = Measured(0.01, 1.0, 0.01, 0.1)
    for kind in ("linear", "constant"):
        lengths = [found.first_step(t, kind) for t in (100, 400)]
        assert lengths[0] == pytest.approx(2 * lengths[1])
    displaced = sum((found.first_step(300, "linear") * (1 - t / 300)) ** 2 for t in range(300)) ** 0.5
    assert displaced == pytest.approx(0.1, rel=0.01)
    assert found.first_step(300, "constant") * 300**0.5 == pytest.approx(0.1)


def chosen(run: Run) -> list[Noted]:
    """Notes of step sizes; the others say how often the rows are read."""
    return [note for note in run.notes if "passes over" not in note.message]


def kinds(run: Run) -> list[str]:
    """First words of what was chosen."""
    return [note.message.partition(" ")[0] for note in chosen(run)]


def test_what_is_given_is_not_measured(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe with lr and eps measures nothing; one that lacks either keeps the other, and says what it chose."""
    both = prepare(recipe(train__lr=1e-3, train__eps=1e-2))
    assert not kinds(both) and both.recipe.train.lr == 1e-3
    from dataclasses import replace

    open_ = recipe(method__name="mezo-rms")
    one = prepare(replace(open_, train=replace(open_.train, lr=None, eps=1e-2)))
    assert one.recipe.train.eps == 1e-2 and one.recipe.train.lr > 0
    assert kinds(one) == ["step", "learning"]
    none = prepare(replace(open_, train=replace(open_.train, lr=None, eps=None)))
    assert kinds(none) == ["step", "ε", "learning"]
    assert [note.level for note in chosen(none)] == ["info", "detail", "detail"]
    again = prepare(replace(open_, train=replace(open_.train, lr=None, eps=None)))
    assert (none.recipe, none.notes) == (again.recipe, again.notes)


def test_a_projected_gradient_below_its_error_is_reported() -> None:
    """Where rounding drowns the projected gradient, the remedy is named."""
    drowned = measure([objective(1.0, 0.0, 10.0)], 0)
    assert not drowned.clear and "bf16" in step_size.weak(drowned)
    assert measure([objective(1.0, 0.1, 1e-9)], 0).clear


def test_a_short_run_measures_less() -> None:
    """Never more than a fifth of the run's forwards, but at least one direction; all of it for longer runs."""
    assert step_size.effort(2000) == (step_size.DIRECTIONS, step_size.BATCHES) and step_size.effort(1) == (1, 1)
    for steps in range(40, 2000):
        directions, batches = step_size.effort(steps)
        assert 1 <= directions * batches * len(RADII) <= steps / step_size.SHARE


def test_a_run_that_starts_from_a_probe_takes_smaller_steps(recipe: Callable[..., Recipe], separable: str) -> None:
    """As far as a parabola says for its smaller budget: with the same measurements, a tenth of the rate."""
    found = Measured(1e-2, 1.0, 0.1, 0.03)
    assert found.after_probe().first_step(100, "linear") == pytest.approx(found.first_step(100, "linear") / 10)
    made = recipe(data__path=separable, method__name="mezo-rms")
    made = replace(made, adapter=replace(made.adapter, linear_probe=True), train=replace(made.train, lr=None))
    assert "0.0005 nats" in prepare(made).notes[-1].message
    assert "0.05 nats" in prepare(replace(made, adapter=replace(made.adapter, linear_probe=False))).notes[-1].message
