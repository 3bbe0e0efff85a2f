"""The laws that every row of the table of methods obeys."""

import gc
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from zolite.core.direction import Combo, Direction, Noise
from zolite.core.estimator import Estimate
from zolite.core.key import TILE, Key
from zolite.core.methods import METHODS, method
from zolite.core.rule import schedule
from zolite.core.space import Space, make_space
from zolite.core.state import State, restore_state, split_state
from zolite.errors import UsageError
from zolite.recipe import SPACES, TrainPart
from zolite.replay import catch_up_
from zolite.session import Session

CPU = torch.device("cpu")
BIG: dict[str, tuple[int, ...]] = {"m.b": (37, 31), "a": (3,), "z.b": (53, 61)}  # 4,383 numbers: odd, over a tile
SMALL: dict[str, tuple[int, ...]] = {"w": (5, 5), "b": (3,), "c": (3, 1)}  # 31
STEPS, CUT = 25, 13
SEED = 2**40 + 3

every_method = pytest.mark.parametrize("name", METHODS)
every_count = pytest.mark.parametrize("queries", [1, 3])


def half_square(x: Tensor) -> Tensor:
    """½ |x|², whose gradient is x."""
    return x.double().square().sum() / 2


class Bench:
    """A method at work on a small space, and what it measured."""

    def __init__(
        self,
        name: str,
        queries: int,
        shapes: Mapping[str, tuple[int, ...]] = BIG,
        loss: Callable[[Tensor], Tensor] = half_square,
        **settings: Any,
    ) -> None:
        defaults = {"steps": STEPS, "lr": 1e-4, "eps": 1e-2, "seed": SEED}
        self.train = TrainPart(method=name, queries=queries, **(defaults | settings))
        self.space = make_space(shapes, 1, torch.float32, CPU)
        Noise(Key(77, 0, ("theta",))).add_to(self.space.theta, 1.0, self.space)
        self.estimator, self.rule = method(name).build(self.train)
        self.state: dict[str, State] = {
            "estimator": self.estimator.init(self.space),
            "rule": self.rule.init(self.space),
        }
        self.loss = loss
        self.measured: list[Tensor] = []  # offsets from theta at which the last step wanted the loss
        self.spoilt: dict[int, float] = {}  # losses to report instead, by the point's number in the step

    def objective(self, points: Sequence[Combo]) -> Tensor:
        losses = []
        for point in points:
            self.measured.append(read(point, self.space))
            self.space.fill_([point])
            spoilt = self.spoilt.get(len(self.measured) - 1)
            losses.append(self.loss(self.space.slots[0]).float() if spoilt is None else torch.tensor(spoilt))
        return torch.stack(losses)

    def step(self, step: int) -> tuple[Estimate, Combo]:
        """As the loop takes it: the estimate, and what was added to theta."""
        self.measured.clear()
        estimate = self.estimator.estimate(
            self.objective, Key(self.train.seed, step), self.state["estimator"], self.space
        )
        update = self.rule.update(estimate, step, self.state["rule"], self.space).grad
        self.space.add_(update)
        return estimate, update

    def directions(self, step: int, seed: int = SEED) -> list[Direction]:
        ones = torch.ones(self.train.queries)
        estimate = self.estimator.replay(ones, Key(seed, step), self.state["estimator"], self.space)
        return [direction for _, direction in estimate.grad.terms]


def read(direction: Direction, space: Space) -> Tensor:
    out = torch.zeros(space.size)
    direction.add_to(out, 1.0, space)
    return out


def by_block(direction: Direction, space: Space) -> dict[str, Tensor]:
    z = read(direction, space)
    return {block.name: block.of(z) for block in space.blocks}


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.fixture(autouse=True)
def as_the_loop_does() -> Iterator[None]:
    """Steps run under inference mode."""
    with torch.inference_mode():
        yield


@every_method
@every_count
def test_measured_is_applied(name: str, queries: int) -> None:
    """Each direction applied is one measured, bit for bit, and theta moves by coefficient · direction and no more."""
    bench = Bench(name, queries)
    for step in range(STEPS):
        expected = bench.space.theta.clone()
        estimate, update = bench.step(step)
        assert len(update.terms) == len(estimate.coefs) == queries and estimate.coefs.any()
        for coefficient, direction in update.terms:
            z = read(direction, bench.space)
            assert any(torch.equal(z * bench.train.eps, offset) for offset in bench.measured)
            expected += z * coefficient
        assert same_bits(bench.space.theta, expected)


@every_method
@every_count
def test_same_direction(name: str, queries: int) -> None:
    """(seed, step) decides the directions, whatever the order of blocks, however often asked, between which others."""
    bench = Bench(name, queries)
    other = Bench(name, queries, dict(reversed(BIG.items())))
    first = [by_block(d, bench.space) for d in bench.directions(5)]
    for step in (5, 3, 5, 24, 0, 5):
        drawn = other.directions(step)
        if step == 5:
            for blocks, d in zip(first, drawn, strict=True):
                again = by_block(d, other.space)
                assert all(torch.equal(again[name], block) for name, block in blocks.items())


@every_method
@every_count
def test_reading_interleaved(name: str, queries: int) -> None:
    """Directions read turn by turn, or added with another factor between, give the same bits."""
    bench = Bench(name, queries)
    drawn = [d for step in (0, 1) for d in bench.directions(step)]
    once = [read(d, bench.space) for d in drawn]
    for d in drawn:
        d.add_to(torch.zeros(bench.space.size), torch.tensor(-0.3), bench.space)
    assert all(torch.equal(read(d, bench.space), z) for d, z in reversed(list(zip(drawn, once, strict=True))))


@every_method
def test_all_differ(name: str) -> None:
    """Steps, queries and seeds all give different directions."""
    bench = Bench(name, 3)
    drawn = [read(d, bench.space) for step in range(10) for seed in (0, 1, SEED) for d in bench.directions(step, seed)]
    cosines = torch.corrcoef(torch.stack(drawn)).fill_diagonal_(0).abs()
    assert float(cosines.max()) < 5.5 / math.sqrt(bench.space.size)  # 4,005 pairs


@every_method
@every_count
@pytest.mark.parametrize("kind", ["linear", "constant"])
def test_resume(name: str, queries: int, kind: str) -> None:
    """A run cut at a step, with its state through JSON and tensors, ends bitwise where the uncut run ends."""
    straight, cut, resumed = (Bench(name, queries, schedule=kind) for _ in range(3))
    for step in range(STEPS):
        straight.step(step)
    for step in range(CUT):
        cut.step(step)
    plain, tensors = split_state(cut.state)
    restore_state(resumed.state, json.loads(json.dumps(plain)), {k: v.clone() for k, v in tensors.items()})
    resumed.space.theta.copy_(cut.space.theta)
    for step in range(CUT, STEPS):
        resumed.step(step)
    assert same_bits(resumed.space.theta, straight.space.theta)
    assert not torch.equal(cut.space.theta, straight.space.theta)


@pytest.mark.parametrize("name", [m.name for m in METHODS.values() if m.deterministic])
@every_count
@pytest.mark.parametrize("after", [0, CUT])
def test_replay(name: str, queries: int, after: int) -> None:
    """Coefficients through float32 bytes, as the journal keeps them, rebuild theta bitwise without a loss."""
    straight, replayed = Bench(name, queries), Bench(name, queries)
    rows = []
    for step in range(STEPS):
        coefs = straight.step(step)[0].coefs
        if step < after:
            replayed.step(step)
        else:
            rows.append(SimpleNamespace(step=step + 1, coefs=coefs.numpy().tobytes()))
    replayed.measured.clear()
    assert last_of(replayed, rows, after) == STEPS
    assert same_bits(replayed.space.theta, straight.space.theta)
    assert not replayed.measured


def last_of(bench: Bench, rows: list[SimpleNamespace], after: int) -> int:
    """`catch_up_` over rows that stand for a session's journal."""
    journal = SimpleNamespace(steps=lambda after: [row for row in rows if row.step > after])
    session = SimpleNamespace(journal=journal, recipe=SimpleNamespace(train=bench.train))
    return catch_up_(cast(Session, session), after, bench.space, bench.estimator, bench.rule, bench.state)


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


@every_method
@every_count
def test_no_graph(name: str, queries: int) -> None:
    """With autograd on, a step saves nothing for a backward pass and nothing it makes requires a gradient."""

    def saved(tensor: Tensor) -> Tensor:
        raise AssertionError("a tensor was saved for a backward pass")

    with torch.inference_mode(False), torch.autograd.graph.saved_tensors_hooks(saved, saved):
        assert torch.is_grad_enabled()
        bench = Bench(name, queries)
        estimate, update = bench.step(0)
        made = [bench.space.theta, bench.space.slots, estimate.coefs, estimate.losses, bench.objective([update])]
    made += [c for c, _ in update.terms if isinstance(c, Tensor)]
    assert not any(tensor.requires_grad or tensor.grad_fn for tensor in made)


def live_bytes() -> int:
    """Bytes of every tensor that Python holds, storages that several share counted once."""
    gc.collect()
    tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@every_method
@every_count
def test_memory(name: str, queries: int) -> None:
    """A method holds what the planner was told beside theta and the slots, from its first moment and after steps."""
    before = live_bytes()
    bench = Bench(name, queries)
    n = bench.space.size
    promised = METHODS[name].state_bytes(n)
    for step in range(3):
        held = [v for part in bench.state.values() for v in part.values() if isinstance(v, Tensor)]
        assert sum(t.numel() * t.element_size() for t in held) == promised
        held.clear()
        bench.step(step)
        bench.measured.clear()
    assert live_bytes() - before == 2 * 4 * n + promised


@every_method
@every_count
def test_descends(name: str, queries: int) -> None:
    """½|θ|² falls to a hundredth within 5 (n + q + 1) / q steps at lr q / (n + q + 1).

    With ĝ = 1/q Σ zzᵀθ over q Gaussian z in n dimensions, E|θ − ηĝ|² = |θ|² (1 − 2η + η² (1 + (n + 1)/q)), least at
    η = 1 / (1 + (n + 1)/q), where it is |θ|² (1 − η): a factor e⁻⁵ = 1/148 in 5/η steps. Random signs vary less. The
    expectation is dominated by rare bad luck; the median run is well below it.
    """
    lr = queries / (31 + queries + 1)
    bench = Bench(name, queries, SMALL, lr=lr, eps=1e-2, schedule="constant")
    start = half_square(bench.space.theta)
    for step in range(math.ceil(5 / lr)):
        bench.step(step)
    assert float(half_square(bench.space.theta)) < float(start) / 100


@every_method
@every_count
def test_aligns_with_gradient(name: str, queries: int) -> None:
    """The mean of many estimates points along the gradient, and is as long as it.

    Let u be the part of each z along the gradient g, of N draws in all. The mean estimate is, over |g|, a = mean(u²)
    along g and b = mean(u z⊥) across it. Given u, |b|² is a/N · χ² with n − 1 degrees, so cos² = a / (a + χ²/N). Four
    standard errors out, a ≥ 1 − 4√(2/N) and χ² ≤ n − 1 + 4√(2(n − 1)). Signs have lighter tails than Gaussians.
    """
    n, draws = 31, 420
    bench = Bench(name, queries, SMALL, lr=0.0)  # theta stays where it is
    gradient, total = bench.space.theta.clone(), torch.zeros(n)
    for step in range(draws // queries):
        estimate, _ = bench.step(step)
        total += read(estimate.grad, bench.space) / (draws // queries)
    assert torch.equal(bench.space.theta, gradient)
    spread = 4 * math.sqrt(2 / draws)
    least = math.sqrt((1 - spread) / (1 - spread + (n - 1 + 4 * math.sqrt(2 * (n - 1))) / draws))
    assert float(torch.cosine_similarity(total, gradient, dim=0)) > least > 0.9
    assert abs(float(total @ gradient / gradient.square().sum()) - 1) < spread


@every_method
@every_count
def test_forwards_per_step(name: str, queries: int) -> None:
    """A step measures as many points as the table says, and the estimate reports that many losses."""
    bench = Bench(name, queries)
    for step in range(3):
        estimate, _ = bench.step(step)
        assert len(bench.measured) == len(estimate.losses) == METHODS[name].forwards_per_step(bench.train)


@every_method
@every_count
def test_twin(mezo: ModuleType, name: str, queries: int) -> None:
    """Ten steps are those of the naive float64 twin given the same z, within float32 rounding.

    The loss is of fourth order, so that ε matters. A loss is rounded by 2⁻²⁴ L, and its point by 2⁻²⁴ |x| a number.
    """
    lr, eps = 0.05, 0.1

    def quartic(x: Tensor) -> Tensor:
        return (x.double() - 0.5).pow(4).mean()

    bench = Bench(name, queries, loss=quartic, lr=lr, eps=eps, schedule="constant", steps=10)
    theta = start = bench.space.theta.double().numpy()
    for step in range(10):
        estimate, update = bench.step(step)
        z = [read(d, bench.space).double().numpy() for _, d in update.terms]
        theta, coefs = mezo.step(theta, lambda x: float(quartic(torch.from_numpy(x))), z, eps, lr)
        bound = 2.0**-24 * float(estimate.losses.max()) / eps
        assert estimate.coefs.tolist() == pytest.approx(coefs.tolist(), abs=4 * bound, rel=1e-5)
    assert abs(bench.space.theta.double().numpy() - theta).max() < 2e-5 < 1e-2 * abs(theta - start).max()


@every_method
@every_count
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(name: str, queries: int, bad: float) -> None:
    """A loss that is not finite, at any one point, moves nothing, gives zero coefficients, and stays to be seen."""
    points = METHODS[name].forwards_per_step(TrainPart(method=name, queries=queries))
    for spoilt in range(points):
        bench = Bench(name, queries)
        before, bench.spoilt = bench.space.theta.clone(), {spoilt: bad}
        estimate, _ = bench.step(0)
        assert estimate.coefs.tolist() == [0.0] * queries
        assert same_bits(bench.space.theta, before)
        assert estimate.losses.isfinite().logical_not().nonzero().tolist() == [[spoilt]]


@every_method
def test_overflow(name: str) -> None:
    """Finite losses whose difference over 2ε is not move nothing either."""
    bench = Bench(name, 1)
    before, bench.spoilt = bench.space.theta.clone(), {0: 3e38, 1: -3e38}
    estimate, _ = bench.step(0)
    assert estimate.coefs.tolist() == [0.0]
    assert same_bits(bench.space.theta, before)


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_schedules(steps: int) -> None:
    """`linear` falls evenly from lr at the first step to lr / steps at the last, never below 0; `constant` stays."""
    linear, constant = schedule("linear", 0.3, steps), schedule("constant", 0.3, steps)
    rates = [linear(step) for step in range(steps)]
    assert rates[0] == 0.3 and rates[-1] == pytest.approx(0.3 / steps, rel=1e-12)
    assert all(a - b == pytest.approx(0.3 / steps, rel=1e-9) for a, b in pairwise(rates))
    assert linear(steps) == linear(steps + 5) == 0
    assert {constant(step) for step in range(steps)} == {0.3}


@every_method
def test_schedule_is_obeyed(name: str) -> None:
    """The last step of a linear schedule applies lr / steps, that of a constant one lr."""
    for kind, rate in (("linear", 1e-4 / STEPS), ("constant", 1e-4)):
        bench = Bench(name, 1, schedule=kind)
        estimate, update = bench.step(STEPS - 1)
        assert float(update.terms[0][0]) == pytest.approx(-rate * float(estimate.coefs[0]), rel=1e-6)


@every_method
def test_row(name: str) -> None:
    """A row of the table is found by its name, says what it is, and trains spaces that exist."""
    row = method(name)
    assert row.name == name and row.summary and row.paper and row.spaces and set(row.spaces) <= set(SPACES)


def test_unknown_method() -> None:
    """An unknown method is the user's mistake, and the names that exist are told."""
    with pytest.raises(UsageError) as error:
        method("adam")
    assert "'adam'" in error.value.message and all(name in error.value.hint for name in METHODS)


def test_big_space() -> None:
    """The space of these tests is what they need: over a tile, and no multiple of anything that noise is made in."""
    n = sum(map(math.prod, BIG.values()))
    assert n > TILE and n % 2 == 1
