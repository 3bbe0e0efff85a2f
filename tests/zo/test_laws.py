"""The laws that every row of the table of methods obeys, and compositions that no row is."""

import gc
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.zo.bench import (
    BIG,
    CASES,
    EVERY,
    MATRICES,
    ROWS,
    SEED,
    SMALL,
    STEPS,
    Bench,
    Changes,
    Shapes,
    half_square,
    read,
    recipe_of,
    same_bits,
)
from zolite.common.errors import UsageError
from zolite.config import composition
from zolite.config.composition import forwards_per_step, ranks, replays, state_bytes, state_formula
from zolite.config.methods import ESTIMATORS, METHODS, RULES, SAMPLERS, WRAPPERS, chain_of, method
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.sessions.session import Session
from zolite.training.replay import catch_up_
from zolite.zo import rng
from zolite.zo.build import build
from zolite.zo.direction import Combo, Noise, Scaled, mirrored
from zolite.zo.estimators import Curvature, OneSided, PerExample, Population, TwoSided
from zolite.zo.rng import DISTRIBUTIONS, TILE, Key
from zolite.zo.samplers import Aligned, Guided
from zolite.zo.state import State, restore_state, split_state
from zolite.zo.updates import schedule

DRAWN = rng.words
CUTS = (EVERY, 7)  # before a step with a new basis, and inside a window


every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(autouse=True)
def as_the_loop_does() -> Iterator[None]:
    """Steps run under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True, scope="module")
def words_once() -> Iterator[None]:
    """A direction is read several times, and its random words are most of the work; tests/zo/test_rng.py is of them."""
    known = lru_cache(1024)(lambda inference, *address: DRAWN(*address))

    def words(key: Key, first: int, count: int, device: torch.device) -> Tensor:
        if isinstance(key.step, Tensor):
            return DRAWN(key, first, count, device)
        return known(torch.is_inference_mode_enabled(), key, first, count, device)

    rng.words = words
    yield
    rng.words = DRAWN


def drifts(bench: Bench) -> bool:
    """Does theta move without an estimate?"""
    return bench.recipe.method.decay > 0


@every_case
def test_measured_is_applied(case: str) -> None:
    """Each direction of an estimate was measured at ε in that very step, bit for bit, new bases or not.

    Curvature alone applies another: the z that it measured along z / √H, along z / √H_new.
    """
    bench = Bench(CASES[case], read=True)
    eps, seen = bench.recipe.train.eps, 0
    for step in range(STEPS):
        held, theta = {n: v.clone() for n, v in bench.state["estimator"].items()}, bench.space.theta.clone()
        taken = bench.step(step)
        steps_own = bench.measured[len(taken.before) :]
        assert len(taken.estimate.grad.terms) == len(taken.estimate.coefs) and taken.estimate.coefs.any()
        for i, (c, direction) in enumerate(taken.estimate.grad.terms):
            assert c is not None and float(c) == float(taken.estimate.coefs[i])
            if isinstance(bench.estimator, Curvature):
                assert isinstance(direction, Scaled)
                before, after = (Scaled(direction.inner, h.rsqrt()) for h in (held["h"], bench.state["estimator"]["h"]))
                assert same_bits(read(Combo(((eps, before),)), bench.space), steps_own[2 * i])
                assert same_bits(read(direction, bench.space), read(after, bench.space))
                assert not torch.equal(held["h"], bench.state["estimator"]["h"])
            else:
                bench.space.theta.copy_(theta)  # a direction may not depend on when it is read
                offset = read(Combo(((eps, direction),)), bench.space)
                assert offset.any() and any(same_bits(offset, other) for other in steps_own)
            seen += 1
        bench.space.theta.copy_(theta)
        bench.space.add_(taken.update)
    assert seen >= STEPS


def keeps_the_past(case: str) -> bool:
    """Does a rule apply more than a step's own estimate?"""
    return any(RULES[name].moment for name in recipe_of(CASES[case]).method.rule)


@pytest.mark.parametrize("case", [c for c in CASES if not keeps_the_past(c)])
def test_applied_is_the_estimate(case: str) -> None:
    """A rule without a moment adds the estimate's own directions, and theta moves by coefficient · direction alone."""
    bench = Bench(CASES[case])
    for step in range(STEPS):
        expected = bench.space.theta.clone()
        taken = bench.step(step)
        terms = list(taken.update.terms)
        if drifts(bench):
            terms = terms[1:]
            rate = float(taken.update.terms[0][0])
            for block in bench.space.blocks:
                if len(block.shape) > 1:
                    block.of(expected).mul_(1 + rate)
        assert [d for _, d in terms] == [d for _, d in taken.estimate.grad.terms]
        for c, direction in terms:
            expected += read(direction, bench.space) * c
        torch.testing.assert_close(bench.space.theta, expected, rtol=2e-7, atol=1e-6)
        assert not torch.equal(bench.space.theta, bench.space.theta - read(taken.update, bench.space))


@every_case
def test_same_direction(case: str) -> None:
    """(seed, step, state) decides the directions, whatever the order of blocks, however often asked, what between."""
    bench, other = Bench(CASES[case]), Bench(CASES[case], dict(list(BIG.items())[::-1]))
    for b in (bench, other):
        b.run(2)
    first = {step: [read(d, bench.space) for d in bench.directions(step)] for step in (3, EVERY)}
    assert all(z.any() for drawn in first.values() for z in drawn)
    for step in (EVERY, 3, 9, EVERY):
        drawn = other.directions(step)
        drawn[0].add_to(torch.zeros(other.space.size), torch.tensor(-0.3), other.space)
        for d, z in reversed(list(zip(drawn, first.get(step, []), strict=False))):
            assert same_bits(read(d, other.space), z)


@every_case
def test_all_differ(case: str) -> None:
    """Steps, queries and seeds all give different directions; numbers drawn freely, ones without a correlation.

    Directions of low rank share factors, and so correlate by up to 1/√(m r) for matrices of m rows; an example's share
    their Gaussian U, and so by the fourth moment's root as much again.
    """
    bench = Bench(CASES[case])
    bench.step(0)
    drawn = [read(d, bench.space) for step in range(3, 7) for seed in (0, SEED) for d in bench.directions(step, seed)]
    found = torch.stack(drawn)
    cosines = torch.corrcoef(found).fill_diagonal_(0).abs()
    most = math.sqrt((3 if isinstance(bench.estimator, PerExample) else 1) / found.shape[1])
    assert float(cosines.max()) < (5.5 * most if free(bench) else 0.8)
    assert len(torch.unique(found, dim=0)) == len(found)


def free(bench: Bench) -> bool:
    """Are numbers of a direction drawn on their own?"""
    *around, innermost = chain_of(bench.recipe.method.sampler)
    scaled = isinstance(bench.estimator, Curvature) or not all(WRAPPERS[name].in_kernel for name in around)
    return SAMPLERS[innermost].independent and not scaled


def restored(case: str, held: tuple[dict[str, object], dict[str, Tensor], Tensor]) -> Bench:
    """A new process: a method as a checkpoint has it, its plain values through JSON."""
    bench = Bench(CASES[case])
    plain, tensors, theta = held
    restore_state(bench.state, json.loads(json.dumps(plain)), {k: v.clone() for k, v in tensors.items()})
    bench.space.theta.copy_(theta)
    return bench


def checkpoint(bench: Bench) -> tuple[dict[str, object], dict[str, Tensor], Tensor]:
    plain, tensors = split_state(bench.state)
    return plain, {name: tensor.clone() for name, tensor in tensors.items()}, bench.space.theta.clone()


def assert_same(a: Bench, b: Bench) -> None:
    """Theta and state, to the bit."""
    assert same_bits(a.space.theta, b.space.theta)
    (plain, tensors), (others, also) = split_state(a.state), split_state(b.state)
    assert plain == others and tensors.keys() == also.keys()
    assert all(same_bits(tensor, also[name]) for name, tensor in tensors.items())


@every_case
def test_resume(case: str) -> None:
    """A run cut at a step, with its state through JSON and tensors, ends bitwise where the uncut run ends."""
    straight, held = Bench(CASES[case]), {}
    for step in range(STEPS):
        if step in CUTS:
            held[step] = checkpoint(straight)
        straight.step(step)
    for cut, saved in held.items():
        resumed = restored(case, saved)
        resumed.run(STEPS, first=cut)
        assert_same(resumed, straight)
        assert not torch.equal(saved[2], straight.space.theta)


@pytest.mark.parametrize("case", [c for c in CASES if replays(recipe_of(CASES[c]).method)])
def test_replay(case: str) -> None:
    """Losses through float32 bytes, as the journal keeps them, rebuild theta and state bitwise without a measurement.

    From the start and from checkpoints, over steps with a new basis and steps whose losses were not finite.
    """
    straight, rows, held = Bench(CASES[case]), [], {}
    for step in range(STEPS):
        if step in (0, *CUTS):
            held[step] = checkpoint(straight)
        straight.spoilt = {3: {0: math.nan}, 8: {1: math.inf}}.get(step, {})
        rows.append(SimpleNamespace(step=step + 1, losses=straight.step(step).losses.numpy().tobytes()))
    for after, saved in held.items():
        replayed = restored(case, saved)
        replay(replayed, rows, after)
        assert_same(replayed, straight)
        assert not replayed.points


def replay(bench: Bench, rows: list[SimpleNamespace], after: int) -> None:
    """`catch_up_` over rows that stand for a session's journal."""
    journal = SimpleNamespace(steps=lambda after, upto: [row for row in rows if after < row.step <= upto])
    stretches = lambda after, upto: [(bench.recipe, after, upto)]  # noqa: E731
    session = SimpleNamespace(name="bench", journal=journal, stretches=stretches)
    catch_up_(cast(Session, session), after, STEPS, bench.space, bench.state)


def test_not_replayed() -> None:
    """What looks at the model's activations cannot be replayed, says so, and is all that does."""
    assert {c for c in CASES if not replays(recipe_of(CASES[c]).method)} == {"agzo", "agzo-x3"}


@every_case
def test_step_on_device(case: str) -> None:
    """A step given as a 0-D tensor, as inside a captured graph, takes theta and state to the bits of the number."""
    here, there = Bench(CASES[case], SMALL), Bench(CASES[case], SMALL)
    for step in range(STEPS):
        here.step(step)
        there.step(step, as_tensor=True)
    assert_same(here, there)


@every_case
def test_matrices_alone(case: str) -> None:
    """A space without a vector, which is what an adapter's is, trains as any other."""
    bench = Bench(CASES[case], MATRICES)
    before = bench.space.theta.clone()
    after = bench.run(2 * EVERY)
    assert after.isfinite().all() and all((b.of(after) != b.of(before)).all() for b in bench.space.blocks)


def test_state_round_trip() -> None:
    """Numbers, text, lists and tensors of a state come back into a fresh one, tensors at their own address."""
    basis, moment = torch.arange(6.0).view(2, 3), torch.tensor([1.5], dtype=torch.bfloat16)
    state: dict[str, State] = {
        "estimator": {"version": 3, "basis": basis, "history": [0.5, None], "note": "x"},
        "rule": {"version": 4, "basis": moment},
    }
    fresh: dict[str, State] = {
        "estimator": {"version": -1, "basis": torch.zeros(2, 3), "history": [], "note": ""},
        "rule": {"version": -1, "basis": torch.zeros(1, dtype=torch.bfloat16)},
    }
    address = fresh["estimator"]["basis"].data_ptr()
    plain, tensors = split_state(state)
    assert all(name.startswith("state.") for name in tensors) and len(tensors) == 2  # beside theta's blocks in one file
    restore_state(fresh, json.loads(json.dumps(plain)), tensors)
    assert fresh["estimator"]["basis"].data_ptr() == address
    assert torch.equal(fresh["estimator"].pop("basis"), basis) and torch.equal(fresh["rule"].pop("basis"), moment)
    assert fresh == {"estimator": {"version": 3, "history": [0.5, None], "note": "x"}, "rule": {"version": 4}}


@every_case
def test_no_graph(case: str) -> None:
    """With autograd on, steps save nothing for a backward pass and nothing that they make requires a gradient."""

    def saved(tensor: Tensor) -> Tensor:
        raise AssertionError("a tensor was saved for a backward pass")

    with torch.inference_mode(False), torch.autograd.graph.saved_tensors_hooks(saved, saved):
        assert torch.is_grad_enabled()
        bench = Bench(CASES[case], SMALL)
        for step in range(2):
            taken = bench.step(step)
            made = [
                bench.space.theta,
                bench.space.copies,
                taken.estimate.coefs,
                taken.losses,
                read(taken.update, bench.space),
            ]
            made += [c for c, _ in taken.update.terms if isinstance(c, Tensor)] + list(
                split_state(bench.state)[1].values()
            )
            assert not any(tensor.requires_grad or tensor.grad_fn for tensor in made)


@pytest.fixture(scope="module")
def frozen() -> None:
    """Sets all that is alive aside, so that the collector only tells of what is made from now on."""
    gc.collect()
    gc.freeze()


def live_bytes() -> int:
    """Bytes of every new tensor that Python holds, storages that several share counted once."""
    gc.collect()
    tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@every_case
@pytest.mark.usefixtures("frozen")
def test_memory(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method holds what its rows say beside theta and the copies, from its first moment and after steps."""
    monkeypatch.setattr(rng, "words", DRAWN)  # none are kept
    Bench(CASES[case]).step(0)  # what these tests themselves keep
    before, bench = live_bytes(), Bench(CASES[case])
    promised = state_bytes(bench.recipe.method, BIG)
    assert (promised > 0) == (state_formula(bench.recipe.method) != "0")
    for step in range(EVERY + 1):
        held = [v for part in bench.state.values() for v in part.values() if isinstance(v, Tensor)]
        assert sum(t.numel() * t.element_size() for t in held) == promised
        held.clear()
        bench.step(step)
    assert live_bytes() - before == 2 * 4 * bench.space.size + promised


@every_case
def test_forwards(case: str) -> None:
    """Over whole windows as many points are measured as the table says, every one of them reported as a loss."""
    bench, points = Bench(CASES[case]), 0
    for step in range(2 * EVERY):
        taken = bench.step(step)
        assert bench.points == len(taken.losses)
        points += bench.points
    m, t = bench.recipe.method, bench.recipe.train
    assert points / bench.estimator.groups == pytest.approx(
        2 * EVERY * forwards_per_step(m, t.queries, t.batch), rel=1e-12
    )


@every_case
def test_points(case: str) -> None:
    """What is measured together is what the rows say: pairs or not, how many at most, and θ first or not."""
    bench, asked = Bench(CASES[case]), []

    def objective(points: Sequence[Combo], groups: int = 1) -> Tensor:
        asked.append(points)
        return bench.objective(points, groups)

    bench.step(0)
    bench.estimator.estimate(objective, Key(SEED, 1), bench.state["estimator"], bench.space)
    m, t = bench.recipe.method, bench.recipe.train
    assert mirrored(asked[-1]) == composition.mirrored(m)
    assert max(map(len, asked)) == composition.points_at_once(m, t.queries, t.batch)
    assert (asked[0] == [Combo()]) == ESTIMATORS[m.estimator].theta_first
    assert (len(asked) > 1 + (asked[0] == [Combo()])) == ranks(m)


@every_case
def test_directions_of_the_kernel(case: str) -> None:
    """Directions that the noise kernel draws, by the rows, are sums of noise that it knows; others are not."""
    bench = Bench(CASES[case])
    bench.step(0)
    drawn = Combo(tuple((1.0, direction) for direction in bench.directions(1)))
    known = all(isinstance(d, Noise) and d.transform in DISTRIBUTIONS.values() for _, d in drawn.flat())
    assert known == (composition.direction_bytes(bench.recipe.method) == 0)


STEP_LENGTHS = {
    "sign": 0.05,
    "rms": 0.05,
    "adam": 0.05,
    "std-normalize": 0.1,
    "per-example": 6e-3,
}  # where the gradient's size is taken away
FEWER = {"fzoo": {"train.queries": 4}, "es": {"train.queries": 8}, "grzo": {"train.batch": 6}}


def rate(recipe: Recipe) -> tuple[float, str]:
    """A learning rate for ½|θ|² in 31 dimensions, and its schedule."""
    m, length = recipe.method, 1.0
    for part in (*m.rule, m.estimator):
        if part in STEP_LENGTHS:
            return STEP_LENGTHS[part], "linear"
    if "low-rank" in m.sampler:
        length *= m.rank
    if "guided" in m.sampler:
        length *= 1 / math.floor(m.share * m.pool) + 1 / (m.pool - math.floor(m.share * m.pool))
    return (1 - m.beta if "momentum" in m.rule else 1.0) / (2 * 31 * length), "constant"


@pytest.mark.parametrize(
    "case", [*ROWS, "one-sided", "population", "clip-momentum", "learned(low-rank)", "guided-factor-momentum"]
)
def test_descends(case: str) -> None:
    """½|θ|² falls to a tenth.

    Two-sided differences of a quadratic are exact, and a step takes it down by 1 − u² (2η − η² |d|²), u the part of d
    along θ. With E|d|² = n l² and η = 1 / 2 n l², that is e^(−3/4n) a step in expected logarithm where directions
    favour none: e⁻⁵ in 7 n steps. Rules that take the gradient's size away stay a step's length away from the least, so
    that theirs falls to 0; they and moments, which lag, get 10 n.
    """
    recipe = recipe_of(CASES[case])
    lr, kind = rate(recipe)
    steps = 31 * (10 if recipe.method.rule else 7)
    settings = {"train.lr": lr, "train.schedule": kind, "train.steps": steps} | FEWER.get(case, {})
    bench = Bench(CASES[case] | settings, SMALL)
    start = half_square(bench.space.theta)
    assert float(half_square(bench.run(steps))) < float(start) / 10


UNBIASED: dict[str, Changes] = {
    "mezo": ROWS["mezo"],
    "spsa": ROWS["spsa"],
    "qzo": ROWS["qzo"] | {"method.clip": 1e9},
    "lozo": ROWS["lozo"] | {"method.every": 1},
    "subzero": ROWS["subzero"] | {"method.every": 1, "method.rank": 3},
    "one-sided": {"method.estimator": "one-sided", "train.eps": 1e-3},
    "population": {"method.estimator": "population", "train.eps": 1e-3},
    "hizoo": ROWS["hizoo"] | {"method.smooth": 1e-30},
}


@pytest.mark.parametrize("case", UNBIASED)
def test_aligns_with_gradient(case: str) -> None:
    """The mean of many estimates points along the gradient, and is as long as it, over the directions' mean square.

    With d of E d dᵀ = l² I in n dimensions, g the unit gradient and N draws, the mean is, over l², a = mean (d·g)² / l²
    along g, with a variance of (κ − 1) / N, and n − 1 numbers across it, each with one of κ' / N, where κ and κ' are
    the fourth moments of d: 3 and 1 of Gaussian numbers. A product's of rank r are up to (1 + 2/r)² times as large: 4
    of rank 2. Four standard errors out, of N = 800 with κ = 12, κ' = 4: 0.5 from 1, a cosine of 0.9. Else N = 400: 0.3.
    """
    queries, draws = 40, 800 if case == "lozo" else 400
    bench = Bench(UNBIASED[case] | {"train.lr": 1e-12, "train.queries": queries}, SMALL)
    gradient, total = bench.space.theta.clone(), torch.zeros(31)
    for step in range(draws // queries):
        total += read(bench.step(step).estimate.grad, bench.space) / (draws // queries)
        bench.space.theta.copy_(gradient)
    square = bench.recipe.method.rank if case == "lozo" else 1.0
    matrix = bench.space.blocks[-1] if case == "lozo" else None  # vectors are Gaussian, whatever the rank
    if matrix is not None:
        total, gradient = matrix.of(total).flatten() / square, matrix.of(gradient).flatten()
    assert float(torch.cosine_similarity(total, gradient, dim=0)) > 0.9
    assert abs(float(total @ gradient / gradient.square().sum()) - 1) < (0.5 if case == "lozo" else 0.3)


def test_curvature_of_a_plane() -> None:
    """With H = 1 and nothing learned of it, curvature is mezo, bit for bit, but for the loss at θ."""
    plain, curved = Bench(ROWS["mezo"]), Bench(ROWS["hizoo"])
    curved.estimator = replace(cast(Curvature, curved.estimator), smooth=0.0)
    for step in range(STEPS):
        a, b = plain.step(step), curved.step(step)
        assert same_bits(a.estimate.losses, b.estimate.losses[:2]) and len(b.estimate.losses) == 3
        assert same_bits(a.estimate.coefs, b.estimate.coefs)
    assert same_bits(plain.space.theta, curved.space.theta)


def own_points(bench: Bench) -> range:
    """Points of a step that was taken whose loss, if it is not finite, stops the step.

    A probe counts for nothing then, and a candidate for the worst, as their authors' codes would have it; where θ is
    measured first, `one-sided`, nothing is known without it, nor of a candidate of a step that has one scale for all.
    """
    two_sided = isinstance(bench.estimator, TwoSided)
    return range(bench.points - 2 * bench.recipe.train.queries if two_sided else probes(bench), bench.points)


def probes(bench: Bench) -> int:
    sampler: Any = bench.estimator.sampler
    sampler = getattr(sampler, "inner", sampler)
    return 2 * sampler.probes if isinstance(sampler, Aligned) else 0


@every_case
def test_not_finite(case: str) -> None:
    """A loss that is not finite, at any one point of the estimate, gives zero coefficients, moves nothing and is seen.

    Weight decay, which is no estimate, goes on; nothing that is not finite gets into the state.
    """
    reference = Bench(CASES[case], SMALL)
    reference.step(0)
    for spoilt in own_points(reference):
        bench = Bench(CASES[case], SMALL)
        before, bench.spoilt = bench.space.theta.clone(), {spoilt: (math.nan, math.inf, -math.inf)[spoilt % 3]}
        taken = bench.step(0)
        assert not taken.estimate.coefs.any()
        if drifts(bench):
            left = 1 - bench.recipe.method.decay * bench.recipe.train.lr
            torch.testing.assert_close(
                bench.space.blocks[-1].of(bench.space.theta), bench.space.blocks[-1].of(before) * left
            )
        else:
            assert torch.equal(bench.space.theta, before)
        assert taken.losses.isfinite().logical_not().nonzero().tolist() == [[spoilt]]
        assert all(tensor.isfinite().all() for tensor in split_state(bench.state)[1].values())


@pytest.mark.parametrize("case", [c for c in CASES if ranks(recipe_of(CASES[c]).method)])
def test_candidate_not_finite(case: str) -> None:
    """A candidate whose loss is not finite, be it −∞, is ranked last, as if its loss were a huge one."""
    benches = []
    for value in (1e30, math.nan, math.inf, -math.inf):
        bench = Bench(CASES[case], SMALL)
        bench.step(0)
        first = probes(bench) + isinstance(bench.estimator, OneSided)
        bench = Bench(CASES[case], SMALL)
        bench.spoilt = {first: value}
        benches.append((bench, bench.step(0)))
    finite, *rest = benches
    for bench, taken in rest:
        assert taken.losses.isfinite().logical_not().sum() == 1
        if isinstance(bench.estimator, OneSided):
            assert not taken.estimate.coefs.any()
        else:
            assert same_bits(taken.estimate.coefs, finite[1].estimate.coefs) and taken.estimate.coefs.any()
            assert same_bits(bench.space.theta, finite[0].space.theta)
    worst = cast(Combo, finite[1].estimate.grad.terms[0][1])
    if isinstance(bench.estimator.sampler, Guided):
        weights = [float(c) for c, _ in worst.terms]
        assert weights[0] == min(weights)


def test_probe_not_finite() -> None:
    """A probe with a loss that is not finite adds nothing to the basis, and is seen; the step goes on."""
    for value in (math.nan, math.inf):
        bench, zero = Bench(ROWS["pgap"], SMALL), Bench(ROWS["pgap"], SMALL)
        bench.spoilt, zero.spoilt = {2: value}, {2: 7.0, 3: 7.0}
        a, b = bench.step(0), zero.step(0)
        assert a.before.isfinite().tolist() == [True, True, False, True, True, True] and a.estimate.coefs.any()
        assert same_bits(a.estimate.coefs, b.estimate.coefs)
        assert_same(bench, zero)


@every_case
def test_overflow(case: str) -> None:
    """Finite losses whose difference over ε is not move nothing either."""
    reference = Bench(CASES[case] | {"method.decay": 0.0}, SMALL)
    reference.step(0)
    plus, minus = {
        TwoSided: (-2, -1),
        Curvature: (-3, -2),
        OneSided: (-1, probes(reference)),
        Population: (0, 1),
        PerExample: (0, 1),
    }[cast(type[Any], type(reference.estimator))]
    bench = Bench(CASES[case] | {"method.decay": 0.0}, SMALL)
    before, bench.spoilt = bench.space.theta.clone(), {plus % reference.points: 3e38, minus % reference.points: -3e38}
    taken = bench.step(0)
    assert not taken.estimate.coefs.any() and taken.losses.isfinite().all()
    assert torch.equal(bench.space.theta, before)


@pytest.mark.parametrize("case", CASES)
def test_huge_loss(case: str) -> None:
    """A loss that is finite but huge leaves theta finite, then and in the steps after it."""
    bench = Bench(CASES[case], SMALL)
    for step in range(4):
        bench.spoilt = {1: 1e30} if step == 0 else {}
        bench.step(step)
    assert bench.space.theta.isfinite().all()


@pytest.mark.parametrize("case", ["hizoo", "overflow"])
def test_curvature_sits_out(case: str) -> None:
    """A step that moves nothing leaves H as it was."""
    bench = Bench(ROWS["hizoo"] | {"method.smooth": 0.5}, SMALL)
    bench.spoilt = {0: math.inf} if case == "hizoo" else {0: 2e38, 1: -1e38}
    assert not bench.step(0).estimate.coefs.any()
    assert torch.equal(bench.state["estimator"]["h"], torch.ones(31))


def odd(case: str) -> list[Any]:
    """A case over odd spaces."""
    spaces = {"one": {"w": (5, 5), "s": (1,)}, "scalar": {"w": (5, 5), "s": ()}, "vectors": {"v": (7,), "s": (4,)}}
    spaces["tensor"] = {"w": (4, 3, 2)}
    return [pytest.param(case, shapes, id=f"{case}-{name}") for name, shapes in spaces.items()]


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize(("case", "shapes"), [one for case in CASES for one in odd(case)])
def test_odd_spaces(case: str, shapes: Shapes) -> None:
    """A block of one number, one without a shape, no matrix at all, and a matrix of three dimensions all train."""
    bench = Bench(CASES[case], shapes)
    before = bench.space.theta.clone()
    after = bench.run(3)
    assert after.isfinite().all() and all((b.of(after) != b.of(before)).any() for b in bench.space.blocks)


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_schedules(steps: int) -> None:
    """`linear` falls evenly from lr at the first step to lr / steps at the last, never below 0; `constant` stays."""
    linear, constant = schedule("linear", 0.3, steps), schedule("constant", 0.3, steps)
    rates = [linear(step) for step in range(steps)]
    assert rates[0] == 0.3 and rates[-1] == pytest.approx(0.3 / steps, rel=1e-12)
    assert all(a - b == pytest.approx(0.3 / steps, rel=1e-9) for a, b in pairwise(rates))
    assert linear(steps) == linear(steps + 5) == 0
    assert {constant(step) for step in range(steps)} == {0.3}


@every_case
def test_schedule_is_obeyed(case: str) -> None:
    """A step applies the rate that its schedule has there, to everything: estimate, moment and decay."""
    last, moved = STEPS - STEPS % EVERY, {}
    for kind in ("linear", "constant"):
        bench = Bench(CASES[case] | {"train.schedule": kind, "train.lr": 1.0}, SMALL)
        before = bench.space.theta.clone()
        update = bench.step(last).update
        bench.space.theta.copy_(before)
        moved[kind] = read(update, bench.space)
    assert moved["constant"].any()
    torch.testing.assert_close(moved["linear"], moved["constant"] * (STEPS - last) / STEPS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_row(name: str) -> None:
    """A row of the table is found by its name, says what it is, trains spaces that exist, and is built of its parts."""
    row, recipe = method(name), recipe_of(ROWS[name])
    assert row.name == name and row.summary and row.paper and row.spaces and set(row.spaces) <= set(SPACES)
    estimator, rule = build(recipe.method, recipe.train)
    assert estimator.groups in (1, recipe.train.batch) and rule


def test_unknown_method() -> None:
    """An unknown method is the user's mistake, and the error names those that exist."""
    with pytest.raises(UsageError) as error:
        method("adam")
    assert "'adam'" in error.value.message and all(name in error.value.hint for name in METHODS)


def test_big_space() -> None:
    """The space of these tests is what they need: over a tile, no multiple of anything, and matrices of one shape."""
    n = sum(map(math.prod, BIG.values()))
    assert n > TILE and n % 2 == 1 and len(set(BIG.values())) < len(BIG)
