"""Ten steps of every method are those of its naive float64 twin, given the same raw random numbers.

The loss is of fourth order, so that ε matters, and bases are new at steps 0, 4 and 8. Random numbers are taken from
their addresses; what is made of them is the twin's own.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.zo.bench import CPU, SEED, Bench, Changes, networks, quartic, read, shifts
from zolite.zo import rng as noise
from zolite.zo.direction import Noise
from zolite.zo.lowrank import Group, core, groups, left, lengths, right, size, split, vectors
from zolite.zo.rng import Key
from zolite.zo.samplers import INPUTS, NET

Array = NDArray[np.floating[Any]]
Blocks = dict[str, Array]
Twin = Callable[[str], ModuleType]
Shape = Callable[[Group], tuple[int, int]]

SHAPES = {"m": (7, 5), "a": (3,), "k": (7, 5), "z": (4, 6), "c": (2,)}
MATRICES = ("k", "m", "z")
LR, EPS, EVERY, STEPS, BATCH = 0.05, 0.1, 4, 10, 4


@pytest.fixture(autouse=True)
def as_the_loop_does() -> Any:
    """Steps run under inference mode."""
    with torch.inference_mode():
        yield


def bench_of(changes: Changes) -> Bench:
    settings = {
        "train.lr": LR,
        "train.eps": EPS,
        "train.steps": STEPS,
        "train.schedule": "constant",
        "train.batch": BATCH,
        "method.every": EVERY,
    }
    return Bench(settings | changes, SHAPES, quartic)


def blocks(bench: Bench, flat: Tensor) -> Blocks:
    return {block.name: block.of(flat).double().numpy().copy() for block in bench.space.blocks}


def whole(theta: Blocks) -> Array:
    return np.concatenate([theta[name].ravel() for name in sorted(theta)])


def loss_at(theta: Blocks | Array) -> float:
    """The mean of (x − ½)⁴, by its formula."""
    x = whole(theta) if isinstance(theta, dict) else theta
    return float(np.mean((x - 0.5) ** 4))


def gaussian(bench: Bench, key: Key, transform: Callable[[Tensor], Tensor] = noise.normal) -> Blocks:
    """Full-size numbers at a key."""
    return blocks(bench, read(Noise(key, transform), bench.space))


def factors(bench: Bench, key: Key, shape: Shape, square: bool = False) -> Blocks:
    """The raw numbers of every matrix's factor at a key, by the matrix's name."""
    found = groups(bench.space, square)
    parts = split(noise.numbers(key, size(found, shape), CPU), found, shape)
    return {
        block.name: one.double().numpy()
        for group, part in zip(found, parts, strict=True)
        for block, one in zip(group.blocks, part, strict=True)
    }


def ones(bench: Bench, key: Key) -> Blocks:
    """The raw numbers of the vectors beside the factors of a key."""
    rest = vectors(bench.space)
    parts = torch.split(noise.numbers(key.fold("vectors"), sum(lengths(rest)), CPU), lengths(rest))
    return {block.name: part.double().numpy() for block, part in zip(rest, parts, strict=True)}


def agree(bench: Bench, theta: Blocks | Array, start: Blocks | Array, amplified: float = 1.0) -> None:
    """The product's theta is the twin's within float32 rounding, which is far less than both have moved.

    A loss of about 5 is rounded by 2⁻²² and so its projected gradient, with ε = 0.1, by 2e-6 of some 1; where more is
    made of losses than projected gradients, so much more.
    """
    theirs = whole(theta) if isinstance(theta, dict) else theta
    first = whole(start) if isinstance(start, dict) else start
    distance = abs(bench.space.theta.double().numpy() - theirs).max()
    assert distance < 2e-5 * amplified < 1e-2 * abs(theirs - first).max()


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize(("name", "transform"), [("mezo", noise.normal), ("spsa", noise.rademacher)])
def test_mezo(twin: Twin, name: str, transform: Callable[[Tensor], Tensor], queries: int) -> None:
    bench = bench_of({"method.name": name, "train.queries": queries})
    theta = start = bench.space.theta.double().numpy().copy()
    for step in range(STEPS):
        keys = [Key(SEED, step).fold(i) if i else Key(SEED, step) for i in range(queries)]
        z = [whole(gaussian(bench, key, transform)) for key in keys]
        theta, coefs = twin("mezo").step(theta, loss_at, z, EPS, LR)
        assert bench.step(step).estimate.coefs.tolist() == pytest.approx(coefs.tolist(), abs=2e-5, rel=1e-5)
    agree(bench, theta, start)


def mezo_gradient(bench: Bench, theta: Array, step: int) -> tuple[float, Array]:
    """A step's projected gradient, and the direction that it is along."""
    z = whole(gaussian(bench, Key(SEED, step)))
    return (loss_at(theta + EPS * z) - loss_at(theta - EPS * z)) / (2 * EPS), z


def test_rms(twin: Twin) -> None:
    """The projected gradient over its running size."""
    bench, v, seen = bench_of({"method.name": "mezo-rms", "method.beta2": 0.8}), 0.0, 0.0
    theta = start = bench.space.theta.double().numpy().copy()
    for step in range(STEPS):
        c, z = mezo_gradient(bench, theta, step)
        v, seen, applied = twin("rules").rms(v, seen, c, 0.8, 3.0)
        theta = theta - LR * applied * z
        bench.step(step)
    agree(bench, theta, start)


@pytest.mark.parametrize("name", ["mezo-sign", "qzo"])
def test_rules_on_coefficients(twin: Twin, name: str) -> None:
    """Rules on projected gradients: their sign, and a clip that some of the steps meet."""
    bench, clipped = bench_of({"method.name": name, "method.clip": 0.5}), 0
    theta = start = bench.space.theta.double().numpy().copy()
    for step in range(STEPS):
        c, z = mezo_gradient(bench, theta, step)
        clipped += abs(c) > 0.5
        theta = theta - LR * (twin("rules").sign(c) if name == "mezo-sign" else twin("rules").clip(c, 0.5)) * z
        bench.step(step)
    assert 0 < clipped < STEPS
    agree(bench, theta, start)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_momentum(twin: Twin, clip: float) -> None:
    """Momentum, alone and after a clip; the moment is the twin's too."""
    rule = {"method.rule": "clip,momentum", "method.clip": clip} if clip else {"method.name": "mezo-momentum"}
    bench, m = bench_of(rule | {"method.beta": 0.8}), np.zeros(1)
    theta = start = bench.space.theta.double().numpy().copy()
    for step in range(STEPS):
        c, z = mezo_gradient(bench, theta, step)
        m = twin("rules").momentum(m, (twin("rules").clip(c, clip) if clip else c) * z, 0.8)
        theta = theta - LR * m
        bench.step(step)
    agree(bench, theta, start)


def test_adam(twin: Twin) -> None:
    """Adam, whose first steps are signs."""
    bench = bench_of({"method.name": "mezo-adam", "method.beta": 0.8, "method.beta2": 0.95})
    theta = start = bench.space.theta.double().numpy().copy()
    m = v = np.zeros_like(theta)
    for step in range(STEPS):
        c, z = mezo_gradient(bench, theta, step)
        m, v, applied = twin("rules").adam(m, v, c * z, step + 1, 0.8, 0.95)
        theta = theta - LR * applied
        bench.step(step)
    agree(bench, theta, start)


def test_decay(twin: Twin) -> None:
    """Weight decay of matrices, and of no vector, by theta as it was before the step."""
    bench = bench_of({"method.decay": 0.5})
    start = theta = blocks(bench, bench.space.theta)
    for step in range(STEPS):
        c, _ = mezo_gradient(bench, whole(theta), step)
        g = {name: c * z for name, z in gaussian(bench, Key(SEED, step)).items()}
        g |= {name: twin("rules").decay(theta[name], g[name], 0.5) for name in MATRICES}
        theta = {name: w - LR * g[name] for name, w in theta.items()}
        bench.step(step)
    agree(bench, theta, start)


def lozo_numbers(bench: Bench, step: int, i: int = 0) -> tuple[Blocks, Blocks, Blocks]:
    """U of a step, V of its window's first step, and the vectors' z."""
    key = Key(SEED, step).fold("u", i)
    v = factors(bench, Key(SEED, step - step % EVERY, ("v",)), right(2))
    return factors(bench, key, left(2)), v, ones(bench, key)


def test_lozo(twin: Twin) -> None:
    bench = bench_of({"method.name": "lozo"})
    start = theta = blocks(bench, bench.space.theta)
    for step in range(STEPS):
        theta, c = twin("lozo").step(theta, loss_at, *lozo_numbers(bench, step), EPS, LR)
        assert float(bench.step(step).estimate.coefs) == pytest.approx(c, abs=2e-5, rel=1e-5)
    agree(bench, theta, start)


@pytest.mark.parametrize("beta", [0.9, 0.5])
def test_lozo_m(twin: Twin, beta: float) -> None:
    bench = bench_of({"method.name": "lozo-m", "method.beta": beta})
    start = theta = blocks(bench, bench.space.theta)
    n: Blocks = {}
    m: Blocks = {}
    old: Blocks = {}
    for step in range(STEPS):
        u, v, z = lozo_numbers(bench, step)
        c = twin("lozo").projected_gradient(theta, loss_at, twin("lozo").directions(u, v, z), EPS)
        n = twin("lozo_m").momenta(n, c, u, old or v, v, beta, first=step == 0)
        m = twin("lozo_m").vectors(m, c, z, beta, first=step == 0)
        theta, old = twin("lozo_m").apply(theta, n, v, m, LR), v
        bench.step(step)
    agree(bench, theta, start)


def test_pgap(twin: Twin) -> None:
    """Probes, subspace, aligned numbers and step. A singular vector's rounding is a loss's over the values' gaps."""
    bench = bench_of({"method.name": "pgap", "method.probes": 3, "method.rank": 3, "method.delta": 1.5})
    start = theta = blocks(bench, bench.space.theta)
    pgap, basis = twin("pgap"), {}
    for step in range(STEPS):
        key = Key(SEED, step)
        if step % EVERY == 0:
            g = pgap.probe(theta, loss_at, [gaussian(bench, key.fold("probe", j)) for j in range(3)], EPS)
            basis = {name: pgap.subspace(g[name], 3) for name in MATRICES}
        z0 = factors(bench, key.fold("z", 0), core(3))
        order = [block.name for group in groups(bench.space) for block in group.blocks]
        xi = dict(zip(order, noise.numbers(key.fold("z", 0, "xi"), 3, CPU, noise.rademacher).tolist(), strict=True))
        delta = 1.5 * (1 - step / STEPS)
        d = {name: pgap.direction(*basis[name], z0[name], xi[name], delta) for name in MATRICES}
        d |= ones(bench, key.fold("z", 0))
        c = twin("lozo").projected_gradient(theta, loss_at, d, EPS)
        theta = {name: w - LR * c * d[name] for name, w in theta.items()}
        bench.step(step)
    agree(bench, theta, start, amplified=20)


@pytest.mark.parametrize(("name", "pool", "share"), [("mezo-gv", 4, 0.5), ("mezo-gv", 5, 0.3), ("mezo-greedy", 4, 0.0)])
def test_guided(twin: Twin, name: str, pool: int, share: float) -> None:
    bench = bench_of({"method.name": name, "method.pool": pool, "method.share": share})
    theta = start = bench.space.theta.double().numpy().copy()
    for step in range(STEPS):
        key = Key(SEED, step).fold("pool", 0)
        candidates = [whole(gaussian(bench, key.fold(i) if i else key)) for i in range(pool)]
        if name == "mezo-greedy":
            v = twin("gv").greedy(theta, loss_at, candidates, EPS)
        else:
            v = twin("gv").guiding(theta, loss_at, candidates, EPS, share)
        theta, _ = twin("mezo").step(theta, loss_at, [v], EPS, LR)
        bench.step(step)
    agree(bench, theta, start)


def test_zo_finetuner(twin: Twin) -> None:
    bench = bench_of({"method.name": "zo-finetuner"})
    start = theta = blocks(bench, bench.space.theta)
    nets, plus, minus = {}, 0.0, 0.0
    for block, numbers in zip(bench.space.blocks, networks(bench.space).double().numpy(), strict=True):
        w1, b1, w2, b2 = np.split(numbers, np.cumsum([NET * INPUTS, NET, NET]))
        nets[block.name] = (w1.reshape(NET, INPUTS), b1, w2, float(b2[0]))
    sigma = dict.fromkeys(theta, 1.0)
    for step in range(STEPS):
        tuner = twin("zo_finetuner")
        sigma = {name: tuner.scale(nets[name], theta[name], plus, minus, sigma[name]) for name in theta}
        theta, plus, minus = tuner.step(theta, loss_at, gaussian(bench, Key(SEED, step)), sigma, EPS, LR)
        bench.step(step)
        assert bench.state["estimator"]["sigma"].tolist() == pytest.approx([sigma[n] for n in sorted(sigma)], rel=1e-4)
    agree(bench, theta, start)


def test_hizoo(twin: Twin) -> None:
    """A tenth of H a step, so that it is far from 1 at the end. A second difference is rounded by 2⁻²² / ε²."""
    bench = bench_of({"method.name": "hizoo", "method.smooth": 0.1})
    theta = start = bench.space.theta.double().numpy().copy()
    h = np.ones_like(theta)
    for step in range(STEPS):
        z = whole(gaussian(bench, Key(SEED, step)))
        theta, h, _ = twin("hizoo").step(theta, h, loss_at, z, EPS, LR, 0.1)
        bench.step(step)
    assert abs(bench.state["estimator"]["h"].double().numpy() - h).max() < 1e-3 < 0.1 * abs(h - 1).max()
    agree(bench, theta, start, amplified=10)


def test_subzero(twin: Twin) -> None:
    bench, basis = bench_of({"method.name": "subzero", "method.rank": 3}), {}
    start = theta = blocks(bench, bench.space.theta)
    shapes = {name: twin("subzero").near_square(*SHAPES[name]) for name in MATRICES}
    assert shapes["z"] == (4, 6) and shapes["m"] == (5, 7)
    for step in range(STEPS):
        key = Key(SEED, step)
        if step % EVERY == 0:
            drawn = [factors(bench, key.fold("basis", n), f(3), square=True) for n, f in (("u", left), ("v", right))]
            basis = {name: tuple(twin("subzero").orthonormal(x[name]) for x in drawn) for name in MATRICES}
        z0 = factors(bench, key.fold("z", 0), core(3), square=True)
        d = {name: twin("subzero").direction(*basis[name], z0[name], SHAPES[name]) for name in MATRICES}
        d |= ones(bench, key.fold("z", 0))
        c = twin("lozo").projected_gradient(theta, loss_at, d, EPS)
        theta = {name: w - LR * c * d[name] for name, w in theta.items()}
        bench.step(step)
    agree(bench, theta, start)


def test_fzoo(twin: Twin) -> None:
    """The projected gradients over their standard deviation are the losses' differences over theirs."""
    bench = bench_of({"method.name": "fzoo", "train.queries": 5})
    theta = start = bench.space.theta.double().numpy().copy()
    for step in range(STEPS):
        keys = [Key(SEED, step).fold(i) if i else Key(SEED, step) for i in range(5)]
        signs = [whole(gaussian(bench, key, noise.rademacher)) for key in keys]
        theta, steps = twin("fzoo").step(theta, loss_at, signs, EPS, LR)
        update = bench.step(step).update
        assert [float(c) / -LR for c, _ in update.terms] == pytest.approx(steps, abs=1e-4)
    agree(bench, theta, start)


def test_es(twin: Twin) -> None:
    bench = bench_of({"method.name": "es", "train.queries": 5})
    theta = start = bench.space.theta.double().numpy().copy()
    for step in range(STEPS):
        keys = [Key(SEED, step).fold(i) if i else Key(SEED, step) for i in range(5)]
        drawn = [whole(gaussian(bench, key)) for key in keys]
        theta, steps = twin("es").step(theta, loss_at, drawn, EPS, LR)
        update = bench.step(step).update
        assert [float(c) / -LR for c, _ in update.terms] == pytest.approx(steps, abs=1e-4)
    agree(bench, theta, start)


def test_grzo(twin: Twin) -> None:
    bench = bench_of({"method.name": "grzo"})
    start = theta = blocks(bench, bench.space.theta)
    targets = [blocks(bench, shift) for shift in shifts(BATCH, bench.space.size)]
    losses = [lambda x, t=t: loss_at({name: w + t[name] for name, w in x.items()}) for t in targets]
    found = groups(bench.space)
    counts = [(b.name, g.m, g.n) for g in found for b in g.blocks] + [("a", 3, 0), ("c", 2, 0)]
    for step in range(STEPS):
        key, signs = Key(SEED, step), []
        for i in range(BATCH):
            drawn = noise.numbers(key.fold("signs", i), sum(m + n for _, m, n in counts), CPU, noise.rademacher)
            parts = torch.split(drawn, [length for _, m, n in counts for length in (m, n)])
            r, s = ([part.double().numpy() for part in parts[k::2]] for k in (0, 1))
            signs.append({c[0]: (r[k], s[k] if c[2] else None) for k, c in enumerate(counts)})
        theta, coefs = twin("grzo").step(theta, losses, gaussian(bench, key.fold("shared")), signs, EPS, LR)
        assert bench.step(step).estimate.coefs.tolist() == pytest.approx(coefs, abs=1e-4)
    agree(bench, theta, start, amplified=2)


def test_agzo(twin: Twin) -> None:
    """The inputs' direction is what it is once θ is measured; one-sided differences are rounded twice as much."""
    bench = bench_of({"method.name": "agzo"})
    start = theta = blocks(bench, bench.space.theta)
    for step in range(STEPS):
        bench.step(step)
        inputs = bench.estimator.sampler.inputs(bench.state["estimator"], bench.space)
        a = {name: inputs[name].double().numpy().copy() for name in MATRICES}
        key = Key(SEED, step).fold("r", 0)
        r = {name: factor[:, 0] for name, factor in factors(bench, key, left(1)).items()}
        theta, _ = twin("agzo").step(theta, loss_at, r, a, ones(bench, key), EPS, LR)
    agree(bench, theta, start, amplified=2)
