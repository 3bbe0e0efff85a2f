"""Claims about divergence: what counts as one, what does not, and where a run is rolled back to."""

import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.common.events import Finished, Noted
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions
from zolite.training import divergence
from zolite.training.divergence import BAD, SPAN, Divergence
from zolite.training.replay import CPU, factors_at
from zolite.training.resume import begin, resume
from zolite.training.verify import verify


def noisy(mean: float, spread: float, count: int, seed: int) -> list[float]:
    make = random.Random(seed)
    return [max(0.0, make.gauss(mean, spread)) for _ in range(count)]


def fed(losses: list[float], start: int = 0) -> Divergence:
    made = Divergence(start)
    for step, loss in enumerate(losses, start + 1):
        made.add(step, loss)
    return made


@settings(max_examples=50)
@given(st.floats(0.1, 5), st.integers(0, 1000))
def test_noise_is_no_divergence(mean: float, seed: int) -> None:
    """A loss that scatters by a third around one value, or falls to half of it, has not diverged."""
    assert not fed(noisy(mean, mean / 3, 600, seed)).found
    assert not fed([loss * (1 - i / 1200) for i, loss in enumerate(noisy(mean, mean / 3, 600, seed))]).found


@settings(max_examples=50)
@given(st.floats(0.1, 2), st.integers(0, 1000))
def test_a_rise_is_found_and_rolled_back_before_it(mean: float, seed: int) -> None:
    """After 200 good steps a loss of three times as much is found within 40, and the last good step is before it."""
    after = fed(noisy(mean, mean / 5, 200, seed) + noisy(3 * mean, mean / 5, 40, seed + 1))
    assert after.found and 0 < after.last_good <= 205


def test_losses_that_are_not_finite_are_found_soon() -> None:
    """A few losses in a row that are none are enough; one is not."""
    good = noisy(1.0, 0.1, 100, 0)
    assert not fed([*good, math.nan, *good]).found
    assert fed([*good, *[math.nan] * BAD]).found
    one_of_two = fed([each for loss in good for each in (loss, math.nan)])
    assert not one_of_two.found and one_of_two.mean == fed(good).mean


def test_a_young_run_waits() -> None:
    """Nothing is found before SPAN losses are seen, and a run is rolled back to where it began at most."""
    assert not fed([math.inf] * (SPAN - 1)).found
    young = fed([*noisy(1.0, 0.1, SPAN, 3), *[50.0] * 20], start=400)
    assert young.found and young.last_good >= 400


@pytest.mark.parametrize("more", [1, 50])
def test_once_found_nothing_changes(more: int) -> None:
    """Later losses do not move the last good step."""
    losses = noisy(1.0, 0.1, 100, 5) + [9.0] * 30
    one, other = fed(losses), fed(losses + [0.5] * more)
    assert one.found and other.found and one.last_good == other.last_good


def test_a_run_is_rolled_back_and_goes_on(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that diverges is rolled back by its journal, goes on in smaller steps, and resumes bit for bit."""
    monkeypatch.setattr(divergence, "SPAN", 5)
    monkeypatch.setattr(divergence, "SPREADS", 1.0)
    made = recipe(train__steps=60, train__lr=3.0, train__schedule="constant", train__save_every=7)
    events = list(begin(made, "whole", lambda: False))
    warned = [e.message for e in events if isinstance(e, Noted) and "the loss diverged" in e.message]
    assert warned and isinstance(events[-1], Finished) and events[-1].step == 60
    with sessions.open_("whole") as session:
        rates = [chapter.recipe.train.lr for chapter in session.chapters]
        assert rates == pytest.approx([3.0 / 3**i for i in range(len(rates))]) and len(rates) > 1
        taken = [(row.step, row.lr) for row in session.journal.steps()]
    assert [step for step, _ in taken] == list(range(1, 61)) and taken[-1][1] == pytest.approx(rates[-1])
    with sessions.open_("whole") as session:
        assert all(verdict.sound for verdict in verify(session, CPU))
    count = iter(range(10**6))
    list(begin(made, "parts", lambda: next(count) >= taken[0][0] + 40))
    list(resume("parts", {}, False, lambda: False))
    with sessions.open_("whole") as one, sessions.open_("parts") as other:
        (_, a), (_, b) = factors_at(one), factors_at(other)
    assert all(torch.equal(a[name], b[name]) for name in a)
