"""Claims about single samplers, estimators and rules: what their papers say of them, and where published codes fail."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.zo.bench import (
    BIG,
    CPU,
    EVERY,
    ROWS,
    SEED,
    SMALL,
    STEPS,
    Bench,
    Changes,
    Shapes,
    networks,
    read,
    same_bits,
)
from zolite.config.methods import square as planned_square
from zolite.zo import rng as noise
from zolite.zo.direction import Combo, Noise, Product, Scaled, dense
from zolite.zo.estimators import Estimate, Playback
from zolite.zo.lowrank import core, groups, left, right, size, split
from zolite.zo.rng import Key
from zolite.zo.samplers import (
    Aligned,
    Guided,
    Learned,
    LowRank,
    Objective,
    Sampler,
    Subspace,
    features,
    normed,
    sigmas,
    spread,
)
from zolite.zo.space import Space, make_space
from zolite.zo.state import State
from zolite.zo.updates import FactorMomentum, StdNormalize


@pytest.fixture(autouse=True)
def as_the_loop_does() -> Iterator[None]:
    """Steps run under inference mode."""
    with torch.inference_mode():
        yield


def never(points: Sequence[Combo], groups: int = 1) -> Tensor:
    raise AssertionError("measured")


def noisy_space(shapes: Shapes) -> Space:
    space = make_space(shapes, 1, torch.float32, CPU)
    Noise(Key(77, 0, ("theta",))).add_to(space.theta, 1.0, space)
    return space


def drawn(sampler: Sampler, step: int, n: int, state: State, space: Space, objective: Objective = never) -> list[Any]:
    return sampler.draw(Key(SEED, step), n, state, objective, space)


def linear(gradient: Tensor, space: Space) -> Objective:
    """The loss of a plane: an offset's losses are its products with the gradient."""
    return lambda points, groups=1: torch.stack([read(point, space).double() @ gradient for point in points]).float()


# P-GAP

PGAP = Aligned(rank=4, every=EVERY, probes=6, delta=2.0, eps=1e-2, steps=STEPS)
PAIR = {"p": (9, 7), "q": (9, 7), "z": (3, 8)}  # one of rank 3


def aligned(sampler: Aligned = PGAP) -> tuple[Space, State]:
    """A space of three matrices, and a basis of a plane's gradient."""
    space = noisy_space(PAIR)
    state = sampler.init(space)
    sampler.refresh(linear(space.theta.double(), space), Key(SEED, 0), state, space)
    return space, state


def coordinates(sampler: Aligned, step: int, s: list[Tensor], space: Space) -> tuple[list[Tensor], list[Tensor]]:
    """Z of a step, and Z₀, its raw numbers."""
    found, key = groups(space), Key(SEED, step).fold("z", 0)
    raw = split(noise.numbers(key, size(found, core(sampler.rank)), CPU), found, core(sampler.rank))
    return sampler.coordinates(key, s, found), raw


def test_aligned_part() -> None:
    """⟨S, Z⟩ = ξ √δ ‖S‖, ξ = ±1 for each matrix, both signs occurring; δ falls evenly from 2 to 0 over the run."""
    space, state = aligned()
    _, s, _ = PGAP._basis(state, groups(space))
    signs = set()
    for step in range(STEPS + 1):
        delta = 2 * (1 - step / STEPS)
        for z, values in zip(coordinates(PGAP, step, s, space)[0], s, strict=True):
            along = (z.diagonal(dim1=1, dim2=2) * values.squeeze(1)).sum(dim=1) / values.squeeze(1).norm(dim=1)
            torch.testing.assert_close(along.abs(), torch.full_like(along, math.sqrt(delta)), rtol=1e-5, atol=2e-6)
            signs |= {tuple(along.sign().tolist())} if delta else set()
    assert len(signs) > 4 and any(len(set(pair)) == 2 for pair in signs)  # of two matrices of one shape


def test_aligned_diagonal() -> None:
    """Only the diagonal of Z₀ changes, and along S alone."""
    space, state = aligned()
    _, s, _ = PGAP._basis(state, groups(space))
    for z, z0, values in zip(*coordinates(PGAP, 3, s, space), s, strict=True):
        change = z - z0
        assert change.diagonal(dim1=1, dim2=2).any(dim=1).all()
        unit = values.squeeze(1) / values.squeeze(1).norm(dim=1, keepdim=True)
        diagonal = change.diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(unit * (unit * diagonal).sum(dim=1, keepdim=True), diagonal, rtol=0, atol=1e-5)
        assert not (change - torch.diag_embed(diagonal)).any()


def test_aligned_without_gradient() -> None:
    """Where the probes see nothing, S = 0 and Z₀ is left as it is: a finite direction in some subspace."""
    space = noisy_space(PAIR)
    state = PGAP.init(space)
    PGAP.refresh(lambda points, groups=1: torch.ones(len(points)), Key(SEED, 0), state, space)
    assert not state["s"].any()
    _, s, _ = PGAP._basis(state, groups(space))
    assert all(torch.equal(z, z0) for z, z0 in zip(*coordinates(PGAP, 0, s, space), strict=True))
    (direction,) = drawn(PGAP, 0, 1, state, space)
    assert read(direction, space).isfinite().all() and read(direction, space).any()


def test_aligned_basis() -> None:
    """U S Vᵀ is the best approximation of the probed gradient of its rank, which is the mean of the probes' parts."""
    space, state = aligned()
    found, gradient = groups(space), torch.zeros(space.size)
    for j in range(PGAP.probes):
        q = read(Noise(Key(SEED, 0).fold("probe", j)), space)
        gradient += (q @ space.theta) * q / PGAP.probes
    torch.testing.assert_close(
        PGAP.probe(linear(space.theta.double(), space), Key(SEED, 0), space), gradient, rtol=1e-3, atol=1e-3
    )
    for group, u, s, v in zip(found, *PGAP._basis(state, found), strict=True):
        for basis in (u, v):
            eye = torch.eye(group.rank(4)).expand(len(group.blocks), -1, -1)
            torch.testing.assert_close(basis.mT @ basis, eye, rtol=0, atol=1e-5)
        left_, values, right_ = torch.linalg.svd(group.of(gradient), full_matrices=False)
        r = group.rank(4)
        best = left_[..., :r] * values[:, None, :r] @ right_[:, :r]
        torch.testing.assert_close(u * s @ v.mT, best, rtol=1e-3, atol=2e-3 * float(values.max()))
        assert (u.gather(1, u.abs().argmax(dim=1, keepdim=True)) > 0).all()


def mean_square(sampler: Sampler, state: State, space: Space, draws: int, step: int = 1) -> dict[str, float]:
    """‖D‖² of each block over its size, the mean over draws."""
    total = torch.zeros(space.size)
    for direction in drawn(sampler, step, draws, state, space):
        total += read(direction, space).square() / draws
    return {block.name: float(block.of(total).mean()) for block in space.blocks}


def test_aligned_size() -> None:
    """E‖D‖² = m n (1 + (δ − 1) / r²)."""
    space, state = aligned()
    found = mean_square(PGAP, state, space, 1500)
    delta = 2 * (1 - 1 / STEPS)
    for name, rank in (("p", 4), ("q", 4), ("z", 3)):
        assert found[name] == pytest.approx(1 + (delta - 1) / rank**2, abs=4 * math.sqrt(2 / 1500) / rank)


def test_aligned_diagnostic() -> None:
    """G's cosine with a model's true gradient is about √(h/d), and its subspace holds little more than a random one.

    Of h Gaussian probes in d dimensions cos² is about h / (h + d), over Gaussian fluctuation. A random subspace of
    rank r holds r² / m n of the gradient; that of G here a few times as much, where d is as small as 1,152.
    """
    shapes = {"a": (24, 32), "b": (16, 24)}
    with torch.inference_mode(False):
        generator = torch.Generator().manual_seed(3)
        x, y = torch.randn(64, 32, generator=generator), torch.randn(64, 16, generator=generator)
        a = (torch.randn(24, 32, generator=generator) / 6).requires_grad_()
        b = (torch.randn(16, 24, generator=generator) / 5).requires_grad_()

        def model(a: Tensor, b: Tensor) -> Tensor:
            return ((torch.tanh(x @ a.T) @ b.T - y).square()).mean()

        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(model(a, b), (a, b))])
        start = torch.cat((a.detach().flatten(), b.detach().flatten()))
    space = make_space(shapes, 1, torch.float32, CPU)
    space.theta.copy_(start)

    def objective(points: Sequence[Combo], groups: int = 1) -> Tensor:
        losses = []
        for point in points:
            space.fill_([point])
            parts = [block.of(space.copies[0]).double() for block in space.blocks]
            losses.append(model_double(parts[0], parts[1]))
        return torch.stack(losses).float()

    def model_double(a: Tensor, b: Tensor) -> Tensor:
        return ((torch.tanh(x.double() @ a.T) @ b.T - y.double()).square()).mean()

    sampler = Aligned(rank=4, every=1, probes=10, delta=2.0, eps=1e-2, steps=100)
    cosines, captured = [], []
    for step in range(40):
        state, key = sampler.init(space), Key(SEED, step)
        cosines.append(float(torch.cosine_similarity(sampler.probe(objective, key, space), gradient, dim=0)))
        sampler.refresh(objective, key, state, space)
        found = groups(space)
        for group, u, _, v in zip(found, *sampler._basis(state, found), strict=True):
            inside = u.mT @ group.of(gradient) @ v
            part = float(inside.square().sum() / group.of(gradient).square().sum())
            captured.append(part / (group.rank(4) ** 2 / (group.m * group.n)))
    expected = math.sqrt(10 / (10 + space.size))
    assert sum(cosines) / 40 == pytest.approx(expected, rel=0.15)
    assert 1 < sum(captured) / len(captured) < 6


# LOZO

LOZO = LowRank(rank=2, every=EVERY)
MIXED = {"p": (9, 7), "q": (9, 7), "v": (40,), "z": (1, 6)}


def test_low_rank_window() -> None:
    """V is the same inside a window, for all queries, and new outside; U is new each step and query."""
    space = noisy_space(MIXED)
    found = [drawn(LOZO, step, 2, {}, space) for step in range(2 * EVERY)]
    right_ = [torch.cat([part.flatten() for part in d.right]) for pair in found for d in pair]
    left_ = [torch.cat([part.flatten() for part in d.left]) for pair in found for d in pair]
    first, second = right_[: 2 * EVERY], right_[2 * EVERY :]
    assert all(torch.equal(v, first[0]) for v in first) and all(torch.equal(v, second[0]) for v in second)
    assert not torch.isin(first[0], second[0]).any()
    assert len(torch.unique(torch.stack(left_), dim=0)) == len(left_)


def test_low_rank_streams() -> None:
    """U, V and the vectors' numbers share none: each has an address of its own, so that a new V leaves U as it is.

    In the released code both come from one stream, and the step with a new V applies another U than it measured.
    """
    space = noisy_space(MIXED)
    for step in (0, 1, EVERY):
        (d,) = drawn(LOZO, step, 1, {}, space)
        parts = [torch.cat([p.flatten() for p in d.left]), torch.cat([p.flatten() for p in d.right]), d.vectors]
        assert all(not torch.isin(a, b).any() for a in parts for b in parts if a is not b)
        u = noise.numbers(Key(SEED, step).fold("u", 0), size(groups(space), left(2)), CPU)
        assert torch.equal(parts[0], u)


def test_low_rank_blocks() -> None:
    """A matrix's direction has the rank asked for, or its own; a vector's is full noise; E‖D‖² is r m n and n."""
    space = noisy_space(MIXED)
    (d,) = drawn(LOZO, 3, 1, {}, space)
    z = read(d, space)
    by_name = {block.name: block.of(z) for block in space.blocks}
    assert [int(torch.linalg.matrix_rank(by_name[name])) for name in ("p", "q", "z")] == [2, 2, 1]
    assert len(torch.unique(by_name["v"])) == 40 and torch.equal(by_name["v"], d.vectors)
    total = torch.zeros(space.size)
    for step in range(0, 400 * EVERY, EVERY):
        (d,) = drawn(LOZO, step, 1, {}, space)
        total += read(d, space).square() / 400
    means = {block.name: float(block.of(total).mean()) for block in space.blocks}
    assert means == pytest.approx({"p": 2, "q": 2, "v": 1, "z": 1}, rel=0.25)


@pytest.mark.parametrize("name", ["lozo", "lozo-m", "pgap", "subzero"])
def test_new_basis_is_measured(name: str) -> None:
    """A step with a new basis applies the direction that it measured, in the new basis: no seed fault is possible."""
    bench = Bench(ROWS[name], read=True)
    for step in range(2 * EVERY + 1):
        taken = bench.step(step)
        plus, minus = bench.measured[-2:]
        ((_, direction),) = taken.estimate.grad.terms
        d = read(direction, bench.space)
        assert same_bits(d * bench.recipe.train.eps, plus) and same_bits(plus, -minus)
        (product,) = drawn(bench.estimator.sampler, step, 1, bench.state["estimator"], bench.space)
        assert same_bits(read(product, bench.space), d)


# LOZO-M


def estimate_of(direction: Product, coefficient: float) -> Estimate:
    coefs = torch.tensor([coefficient])
    return Estimate(Combo(((coefs[0], direction),)), coefs, coefs)


def test_momentum_follows_its_basis() -> None:
    """When V moves, N becomes β N V_oldᵀ V_new / n, which applies N V_oldᵀ projected on the new V.

    With n = 4,000 rows of V, VᵀV / n is the identity within a few percent: least squares for N_new V_newᵀ ≈ N V_oldᵀ.
    """
    space = noisy_space({"w": (6, 4000), "b": (5,)})
    rule, state = FactorMomentum(2, EVERY, 0.9), {}
    state = rule.init(space)
    (first,) = drawn(LOZO, 0, 1, {}, space)
    rule.update(estimate_of(first, 3.0), 0, state, space)
    torch.testing.assert_close(state["n"].view(6, 2), 3 * first.left[0][0])
    torch.testing.assert_close(state["vectors"], 3 * first.vectors)
    rule.update(estimate_of(first, 0.0), 1, state, space)
    before, old = state["n"].view(6, 2).clone(), first.right[0][0]
    torch.testing.assert_close(before, 0.9 * 3 * first.left[0][0])
    (moved,) = drawn(LOZO, EVERY, 1, {}, space)
    new = moved.right[0][0]
    applied = rule.update(estimate_of(moved, 0.0), EVERY, state, space).grad
    after = state["n"].view(6, 2)
    torch.testing.assert_close(after, 0.9 * before @ (old.T @ new) / 4000)
    best = torch.linalg.lstsq(new, (before @ old.T).T).solution.T
    assert float((after / 0.9 - best).norm() / best.norm()) < 0.1
    torch.testing.assert_close(space.blocks[1].of(read(applied, space)), after @ new.T)
    torch.testing.assert_close(space.blocks[0].of(read(applied, space)), 0.9**2 * 3 * first.vectors)


def test_momentum_adds_coefficients() -> None:
    """Inside a window N ← β N + (1 − β) c U, of every direction of the step."""
    space = noisy_space(MIXED)
    rule = FactorMomentum(2, EVERY, 0.75)
    state = rule.init(space)
    expected = torch.zeros_like(state["n"])
    for step in range(3):
        pair = drawn(LOZO, step, 2, {}, space)
        coefs = torch.tensor([2.0, -1.0])
        grad = Combo(
            ((coefs[0], Combo(((torch.tensor(0.5), pair[0]), (torch.tensor(1.5), pair[1])))), (coefs[1], pair[1]))
        )
        rule.update(Estimate(grad, coefs, coefs), step, state, space)
        a, b = (torch.cat([part.flatten() for part in d.left]) for d in pair)
        fresh = 1.0 * a + 3.0 * b - 1.0 * b
        expected = fresh if step == 0 else 0.75 * expected + 0.25 * fresh
    torch.testing.assert_close(state["n"], expected)


# MeZO-GV

INNER: dict[str, Changes] = {
    "normal": {},
    "rademacher": {},
    "low-rank": {},
    "subspace": {"method.rank": 3},
    "aligned": {"method.probes": 3},
    "learned(normal)": {},
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("around", ["guided", "greedy"])
def test_ranked_is_used(inner: str, around: str) -> None:
    """The vectors ranked are the ones used, byte for byte, whatever sampler they are of, weighted by rank.

    The released code starts another stream for each tensor, and uses vectors that it never ranked.
    """
    changes = INNER[inner] | {"method.sampler": f"{around}({inner})", "method.pool": 5, "method.share": 0.4}
    bench = Bench(changes, read=True)
    for step in (0, 1):
        taken = bench.step(step)
        pool = bench.measured[-7:-2]
        losses = taken.estimate.losses[:5].tolist()
        ((_, v),) = taken.estimate.grad.terms
        weights = [float(c) for c, _ in cast(Combo, v).terms]
        for (_, z), offset in zip(cast(Combo, v).terms, pool, strict=True):
            assert same_bits(read(z, bench.space) * bench.recipe.train.eps, offset)
        order = sorted(range(5), key=losses.__getitem__)
        wanted = [1.0, 0, 0, 0, 0] if around == "greedy" else [1 / 2, 1 / 2, -1 / 3, -1 / 3, -1 / 3]
        assert [weights[i] for i in order] == pytest.approx(wanted, rel=1e-6) and order != list(range(5))
        combined = sum(w * z for w, z in zip(weights, pool, strict=True))
        torch.testing.assert_close(bench.measured[-2], cast(Tensor, combined), rtol=1e-4, atol=1e-6)


def test_ties() -> None:
    """Candidates of one loss keep their order."""
    guided = Guided(LowRank(2, EVERY), 4, 0.5, False, False, 1e-2)
    space = noisy_space(MIXED)
    (v,) = drawn(guided, 0, 1, {}, space, lambda points, groups=1: torch.tensor([2.0, 1.0, 2.0, 1.0]))
    assert [float(c) for c, _ in v.terms] == [-0.5, 0.5, -0.5, 0.5]
    (v,) = drawn(guided, 0, 1, {}, space, lambda points, groups=1: torch.ones(4))
    assert [float(c) for c, _ in v.terms] == [0.5, 0.5, -0.5, -0.5]


@pytest.mark.parametrize(("pool", "share"), [(4, 0.5), (8, 0.5), (6, 0.2)])
@pytest.mark.parametrize("unit", [False, True])
def test_guided_length(pool: int, share: float, unit: bool) -> None:
    """‖v‖² is n (1/n₁ + 1/n₂) as printed, and n where the unit is asked for."""
    settings = {"method.name": "mezo-gv", "method.pool": pool, "method.share": share, "method.unit": unit}
    bench = Bench(settings)
    ((_, v),) = bench.step(0).estimate.grad.terms
    first = int(share * pool)
    expected = 1.0 if unit else 1 / first + 1 / (pool - first)
    found = float(read(v, bench.space).square().mean())
    assert found == pytest.approx(expected, rel=5 * math.sqrt(2 / bench.space.size))


def test_guided_is_even() -> None:
    """With halves, a ranking the other way round turns v and its projected gradient: the estimate is the same."""
    bench = Bench(ROWS["mezo-gv"])
    ranked = torch.tensor([3.0, 1.0, 2.0, 4.0])
    grads = []
    for pool, sides in ((ranked, [5.0, 7.0]), (-ranked, [7.0, 5.0])):
        played = Playback(torch.cat((pool, torch.tensor(sides))))
        grads.append(bench.estimator.estimate(played, Key(SEED, 0), bench.state["estimator"], bench.space).grad)
    (a, v), (b, w) = (grad.terms[0] for grad in grads)
    assert float(a) == -float(b) != 0 and same_bits(read(v, bench.space), -read(w, bench.space))
    assert same_bits(read(grads[0], bench.space), read(grads[1], bench.space))


@pytest.mark.parametrize(
    ("name", "gain", "draws"), [("mezo-gv", 2.1, 250), ("mezo-greedy", 1.55, 250), ("mezo", 1.0, 500)]
)
def test_guided_gain(name: str, gain: float, draws: int) -> None:
    """n cos² of the direction with the gradient of a plane is 2.1 on average with a pool of 4, greedy 1.55, mezo's 1.

    A Gaussian's square has a variance of 2, a maximum of four's less than twice that: five standard errors.
    """
    space = noisy_space({"w": (25,)})
    bench = Bench(ROWS[name], {"w": (25,)})
    plane = linear(space.theta.double() / space.theta.norm(), space)
    total = 0.0
    for step in range(draws):
        estimate = bench.estimator.estimate(plane, Key(SEED, step), bench.state["estimator"], space)
        ((_, v),) = estimate.grad.terms
        total += 25 * float(torch.cosine_similarity(read(v, space), space.theta, dim=0)) ** 2 / draws
    assert total == pytest.approx(gain, abs=5 * math.sqrt(2 / draws) * math.sqrt(gain) / 1.4)


# SubZero

THIN = {"a": (64, 2), "b": (2, 64), "w": (12, 18), "p": (7, 1), "v": (30,)}


def test_subspace_orthonormal() -> None:
    """U and V are orthonormal, differ from each other, stay for a window, and move at its end."""
    sampler, space = Subspace(4, EVERY), noisy_space(THIN)
    state, bases = sampler.init(space), []
    for step in (0, EVERY):
        assert sampler.due(step) and not sampler.due(step + 1)
        sampler.refresh(never, Key(SEED, step), state, space)
        bases.append({name: value.clone() for name, value in state.items()})
        found = square_groups(space)
        for name, shape in (("u", left(4)), ("v", right(4))):
            for group, basis in zip(found, split(state[name], found, shape), strict=True):
                eye = torch.eye(group.rank(4)).expand(len(group.blocks), -1, -1)
                torch.testing.assert_close(basis.mT @ basis, eye, rtol=0, atol=1e-5)
    assert all(not torch.equal(bases[0][name], bases[1][name]) for name in ("u", "v"))


def square_groups(space: Space) -> list[Any]:
    return groups(space, square=True)


def test_subspace_folded() -> None:
    """Thin matrices are folded to near squares, so that their directions have the rank asked for there."""
    space = noisy_space(THIN)
    shapes = {block.name: (group.m, group.n) for group in square_groups(space) for block in group.blocks}
    assert shapes == {"a": (8, 16), "b": (8, 16), "w": (12, 18), "p": (1, 7)}
    sampler = Subspace(4, EVERY)
    state = sampler.init(space)
    sampler.refresh(never, Key(SEED, 0), state, space)
    (d,) = drawn(sampler, 0, 1, state, space)
    z = {block.name: block.of(read(d, space)) for block in space.blocks}
    assert int(torch.linalg.matrix_rank(z["a"].view(8, 16))) == int(torch.linalg.matrix_rank(z["b"].view(8, 16))) == 4


def test_subspace_size() -> None:
    """E‖D‖² = m n, whatever the rank: mezo's step sizes carry over."""
    sampler, space = Subspace(3, EVERY), noisy_space(THIN)
    state = sampler.init(space)
    sampler.refresh(never, Key(SEED, 0), state, space)
    found = mean_square(sampler, state, space, 1500)
    assert found == pytest.approx(dict.fromkeys(THIN, 1.0), abs=5 * math.sqrt(2 / 1500))


def test_square() -> None:
    """The shape that the planner reckons with is the one that is used."""
    for m, n in ((64, 2), (2, 64), (12, 18), (7, 1), (576, 8), (1536, 8)):
        space = make_space({"w": (m, n)}, 0, torch.float32, CPU)
        (group,) = groups(space, square=True)
        assert planned_square(m, n) == (group.m, group.n) and group.m <= group.n and group.m * group.n == m * n


# ZO Fine-tuner


def test_learned_scale() -> None:
    """σ is |net|, never negative; what all are scaled by keeps Σ d σ'² = Σ d, and so the whole direction's size."""
    space = noisy_space(BIG)
    stats, losses, last = torch.randn(5, 2), torch.tensor([1.0, -2.0]), torch.rand(5)
    nets = networks(space)
    nets[:, -1] -= torch.tensor([0.0, 4.0, 0.0, 4.0, 0.0])  # two whose outputs are below 0
    x = features(stats, losses, last)
    assert torch.equal(x[:, 2:4], losses.expand(5, 2)) and torch.equal(x[:, 4], last) and torch.equal(x[:, :2], stats)
    found = sigmas(nets, x)
    w1, b1, w2, b2 = torch.split(nets.double(), [320, 64, 64, 1], dim=1)
    for i in range(5):
        out = w2[i] @ torch.tanh(w1[i].view(64, 5) @ x[i].double() + b1[i]) + b2[i, 0]
        assert float(found[i]) == pytest.approx(abs(float(out)), rel=1e-4) and (i % 2 == 0) == bool(out > 0)
    sizes = torch.tensor([float(math.prod(block.shape)) for block in space.blocks])
    scaled = normed(found, space)
    assert float((sizes * scaled.square()).sum()) == pytest.approx(space.size, rel=1e-5)
    torch.testing.assert_close(scaled / scaled[0], found / found[0])
    for block, value in zip(space.blocks, scaled, strict=True):
        assert (block.of(spread(scaled, space)) == value).all()
    assert not normed(torch.zeros(5), space).any()


def test_learned_memory() -> None:
    """σ and both losses of a step are the next one's inputs; losses that are not finite are not taken in."""
    bench = Bench(ROWS["zo-finetuner"], SMALL)
    state = bench.state["estimator"]
    assert state["sigma"].tolist() == [1.0] * 3 and state["losses"].tolist() == [0.0] * 2
    taken = bench.step(0)
    assert torch.equal(state["losses"], taken.estimate.losses) and not torch.equal(state["sigma"], torch.ones(3))
    held = state["losses"].clone()
    bench.spoilt = {0: math.nan, 1: math.inf}
    bench.step(1)
    assert torch.equal(state["losses"], held)


def test_learned_scales_the_inner() -> None:
    """The direction is the inner sampler's, each block times one number of its own."""
    space = noisy_space(BIG)
    sampler = Learned(LOZO, networks)
    state = sampler.init(space)
    (d,), (inner,) = drawn(sampler, 2, 1, state, space), drawn(LOZO, 2, 1, {}, space)
    z, plain = read(d, space), dense(inner, space)
    ratios = [block.of(z) / block.of(plain) for block in space.blocks]
    means = [float(ratio.mean()) for ratio in ratios]
    assert (
        all(float((r - m).abs().max()) < 1e-4 * m for r, m in zip(ratios, means, strict=True)) and len(set(means)) == 5
    )
    assert isinstance(d, Scaled)


# HiZOO


def test_curvature_floor() -> None:
    """H stays float32, at first 1, and above its floor, where a plane pulls it down with a smoothing of 1 at once."""
    bench = Bench(ROWS["hizoo"] | {"method.smooth": 1.0}, SMALL, loss=lambda x: x.double().sum())
    h = bench.state["estimator"]["h"]
    assert torch.equal(h, torch.ones(31)) and h.dtype == torch.float32
    for step in range(3):
        bench.step(step)
        assert h is bench.state["estimator"]["h"] and h.dtype == torch.float32 and float(h.min()) >= 9.99e-7
    assert bench.space.theta.isfinite().all()


def test_curvature_measures() -> None:
    """On ½ Σ kᵢ xᵢ², from H = 1, what a step sees is kᵢ + ½ Σ k on average: E ½ zᵀKz · zᵢ² of Gaussian z.

    With Σ k = 328 and 256 queries, a number is off by 164 · √8 / √256 = 29 at a standard error, for fourth moments.
    """
    k = torch.cat((torch.full((3,), 100.0), torch.full((28,), 1.0))).double()
    settings = {"method.smooth": 1.0, "train.lr": 1e-12, "train.queries": 256, "train.eps": 0.3}
    bench = Bench(ROWS["hizoo"] | settings, SMALL, loss=lambda x: (k * x.double().square()).sum() / 2)
    bench.step(0)
    h = bench.state["estimator"]["h"]
    assert float(h[:3].mean()) == pytest.approx(264, abs=4 * 29 / math.sqrt(3))
    assert float(h[3:].mean()) == pytest.approx(165, abs=4 * 29 / math.sqrt(28) + 4 * 10)  # and one scalar for all


def test_curvature_keeps_small_steps() -> None:
    """A smoothing of 1e-6, the published one, moves H: in 16 bits it would not."""
    bench = Bench({"method.name": "hizoo", "method.smooth": 1e-6}, SMALL)
    bench.step(0)
    h = bench.state["estimator"]["h"]
    assert (h != 1).any() and torch.equal(h.bfloat16(), torch.ones(31, dtype=torch.bfloat16))


# FZOO, GRZO


@pytest.mark.parametrize("name", ["fzoo", "grzo"])
def test_flat_moves_nothing(name: str) -> None:
    """Losses that are all alike have no standard deviation to divide by: the step moves nothing."""
    bench = Bench(ROWS[name], SMALL, loss=lambda x: x.double().sum() * 0 + 3)
    before = bench.space.theta.clone()
    bench.step(0)
    assert same_bits(bench.space.theta, before)


def test_flat_to_an_offset() -> None:
    """One-sided losses that are all alike, though not θ's, have no standard deviation either."""
    bench = Bench(ROWS["fzoo"], SMALL)
    before, bench.spoilt = bench.space.theta.clone(), {0: 1.0} | dict.fromkeys(range(1, 9), 2.0)
    taken = bench.step(0)
    assert taken.estimate.coefs.all() and torch.equal(bench.space.theta, before)


def test_std_normalize() -> None:
    """cᵢ / (N std c), in which any scale of the loss or of ε is lost."""
    coefs = torch.tensor([3.0, -1.0, 0.5, 7.0])
    space = make_space({"w": (3,)}, 0, torch.float32, CPU)
    for scale in (1.0, 1e-6, 1e6):
        terms = tuple((c * scale, Noise(Key(1, 0).fold(i))) for i, c in enumerate(coefs.unbind()))
        grad = StdNormalize().update(Estimate(Combo(terms), coefs, coefs), 0, {}, space).grad
        std = (sum((float(c) - 2.375) ** 2 for c in coefs) / 3) ** 0.5
        assert [float(c) for c, _ in grad.terms] == pytest.approx([float(c) / (4 * std) for c in coefs], rel=1e-5)
        assert [d for _, d in grad.terms] == [d for _, d in terms]


def test_examples_share_numbers() -> None:
    """Every example's direction has one U's absolute values, and for a matrix a sign pattern of rank 1."""
    bench = Bench(ROWS["grzo"])
    terms = bench.step(0).estimate.grad.terms
    u = read(Noise(Key(SEED, 0).fold("shared")), bench.space)
    assert len(terms) == 8
    for _, d in terms:
        z = read(d, bench.space)
        assert torch.equal(z.abs(), u.abs())
        for block in bench.space.blocks:
            signs = block.of(z / u)
            assert signs.dim() == 1 or (int(torch.linalg.matrix_rank(signs)) == 1 and -1 < float(signs.mean()) < 1)


# AGZO


def test_inputs_are_views() -> None:
    """Where a model writes its inputs' direction is the state, at its address, under the matrix's name."""
    bench = Bench(ROWS["agzo"])
    state, sampler = bench.state["estimator"], bench.estimator.sampler
    inputs = sampler.inputs(state, bench.space)
    assert {name: len(a) for name, a in inputs.items()} == {"m": 31, "z": 61, "k": 31}
    assert state["a"].numel() == 31 + 61 + 31 and all(float(a.norm()) == pytest.approx(1) for a in inputs.values())
    store = state["a"].untyped_storage().data_ptr()
    for i, a in enumerate(inputs.values()):
        assert a.untyped_storage().data_ptr() == store
        a.copy_(torch.nn.functional.one_hot(torch.tensor(i + 2), len(a)))
    (d,) = drawn(sampler, 0, 1, state, bench.space)
    for i, (name, a) in enumerate(inputs.items()):
        (block,) = (b for b in bench.space.blocks if b.name == name)
        z = block.of(read(d, bench.space))
        assert (z[:, i + 2] != 0).all() and int((z != 0).any(dim=0).sum()) == 1
        r = z[:, i + 2] / math.sqrt(len(a))
        assert 0.4 < float(r.square().mean()) < 2


def test_inputs_of_the_others() -> None:
    """No other method asks for inputs."""
    for name in ROWS:
        bench = Bench(ROWS[name], SMALL)
        assert bool(bench.estimator.sampler.inputs(bench.state["estimator"], bench.space)) == (name == "agzo")
