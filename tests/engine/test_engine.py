"""Claims about the engine: neither copies, microbatches nor the way to the device change what a point's loss is."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example, Query
from zolite.engine.adapter import attach
from zolite.engine.batch import collate
from zolite.engine.engine import Engine, waves
from zolite.model import load as models
from zolite.model.loss import Head, Tokens, generic, loss_sums
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key

Make = Callable[..., Recipe]

POINTS = [Combo(((scale, Noise(Key(9, i))),)) for i, scale in enumerate((0.1, -0.1, 0.2, -0.2, 0.15, -0.15))]
KINDS = ["label", "labels of many tokens", "completion", "messages"]


@dataclass(frozen=True)
class Bench:
    engine: Engine
    rows: tuple[Example, ...]


@pytest.fixture
def bench(recipe: Make, folder: Callable[..., Path], tiny: Path, tokenizer: Any) -> Callable[..., Bench]:
    """bench("completion", copies=3, microbatch=2): the tiny model, with an adapter that does something, and rows."""

    def make(kind: str, copies: int = 1, microbatch: int = 6) -> Bench:
        many = kind == "labels of many tokens"
        where = folder("label", labels=("up", "upwards", "sideways")) if many else folder(kind)
        chosen = recipe(data__path=str(where), train__copies=copies, train__microbatch=microbatch)
        data, template = tables.load(where, chosen.data.template), chosen.data.template
        rows = encode(data.splits["train"], data.kind, data.labels, tokenizer, template, 128).examples
        loaded = models.load(models.resolve(str(tiny)), "float32", torch.device("cpu"), tiny.parent)
        resolved = recipes.resolve(chosen)
        engine = Engine.of(loaded, attach(loaded, resolved), resolved)
        engine.adapter.space.add_(Combo(((0.05, Noise(Key(8, 0))),)))  # B is zero at the start
        return Bench(engine, rows)

    return make


def plain(bench: Bench, points: Sequence[Combo]) -> tuple[list[list[float]], list[int]]:
    """(losses of every point on every row, each a forward of its own; each row's weight)."""
    engine, losses = bench.engine, list[list[float]]()
    decode, head = generic(engine.loaded.model), Head.of(engine.loaded.model)
    for point in points:
        engine.adapter.space.fill_([point])
        engine.adapter.active.copies = 1
        alone = [collate([row]) for row in bench.rows]
        losses.append([float(loss_sums(decode, head, Tokens.of(b.layout, b.flat), 1)) for b in alone])
    return losses, [1 if row.candidates > 1 else len(row.queries) for row in bench.rows]


def of_groups(losses: list[list[float]], weights: list[int], groups: int) -> list[float]:
    """Each point's average over its group's rows."""
    found, each = [], len(weights) // groups
    for i, row in enumerate(losses):
        first = i * groups // len(losses) * each
        found.append(sum(row[first : first + each]) / sum(weights[first : first + each]))
    return found


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_waves_microbatches_and_groups_change_nothing(bench: Callable[..., Bench], kind: str) -> None:
    """Six points in forwards of one to five and rows in parts: each loss is that of its group's rows, one by one."""
    made = bench(kind, copies=5)
    made = Bench(made.engine, made.rows[:6])
    space, (losses, weights) = made.engine.adapter.space, plain(made, POINTS)
    for copies, groups, microbatch in itertools.product((1, 2, 3, 4, 5), (1, 2, 3), (2, 4)):
        fewer = dataclasses.replace(made.engine.adapter, space=dataclasses.replace(space, copies=space.copies[:copies]))
        engine = dataclasses.replace(made.engine, adapter=fewer, microbatch=microbatch)
        got, wanted = engine.bind(made.rows)(POINTS, groups), of_groups(losses, weights, groups)
        assert len(set(wanted)) == 6 and got.shape == (6,) and got.dtype == torch.float32
        assert got.tolist() == pytest.approx(wanted, rel=2e-5), (copies, groups, microbatch)


@given(each=st.integers(1, 9), groups=st.integers(1, 6), copies=st.integers(1, 12))
def test_waves_fill_the_slots(each: int, groups: int, copies: int) -> None:
    """Every point once and in order, with its group and as many points of each, in as few waves as that allows."""
    found = list(waves(each * groups, groups, copies))
    points = [(g, p) for some, cut in found for g, p in spread(some, cut)]
    assert points == [(p // each, p) for p in range(each * groups)]
    assert all(1 <= cut.stop - cut.start <= copies for _, cut in found)
    if each % 2 == 0 and copies > 1:  # pairs are not torn apart
        assert all(cut.start % 2 == 0 and cut.stop % 2 == 0 for _, cut in found)
        copies -= copies % 2
    few = -(-groups // (copies // each)) if each <= copies else groups * -(-each // copies)
    assert len(found) == few


def spread(some: slice, cut: slice) -> list[tuple[int, int]]:
    """(group, point) as a forward lays them out."""
    count, rest = divmod(cut.stop - cut.start, some.stop - some.start)
    assert rest == 0
    return [(some.start + i // count, p) for i, p in enumerate(range(cut.start, cut.stop))]


@torch.inference_mode()
def test_points_and_rows_must_divide(bench: Callable[..., Bench]) -> None:
    """A batch laid out in other groups, points or rows that do not divide into them, and no points, are refused."""
    made = bench("label", 4)
    engine, rows = made.engine, made.rows[:6]
    views = [engine.put(batch) for batch in engine.batch(rows, 0, groups=2)]
    for call in (
        lambda: engine.objective(views)(POINTS[:2]),
        lambda: engine.objective(views)(POINTS[:3], 2),
        lambda: engine.objective(views)([], 2),
        lambda: engine.bind(rows)(POINTS[:4], 4),
    ):
        with pytest.raises(ValueError, match="groups"):
            call()


@torch.inference_mode()
def test_an_objective_reads_its_buffers_anew(bench: Callable[..., Bench]) -> None:
    """What is true of a captured graph: other rows copied into the buffers are what the losses are then of."""
    made = bench("completion", 2, microbatch=2)
    engine, rows = made.engine, made.rows
    first, second = (engine.batch(rows[i : i + 4], i, tokens=96) for i in (0, 6))
    assert [b.layout for b in first] == [b.layout for b in second]
    buffers = [batch.flat.clone() for batch in first]
    views = [Tokens.of(batch.layout, buffer) for batch, buffer in zip(first, buffers, strict=True)]
    objective = engine.objective(views)
    before = objective(POINTS)
    for buffer, batch in zip(buffers, second, strict=True):
        buffer.copy_(batch.flat)
    after = objective(POINTS)
    assert torch.equal(before, engine.bind(rows[:4], tokens=96)(POINTS))
    assert torch.equal(after, engine.bind(rows[6:10], tokens=96)(POINTS))
    assert (before - after).abs().min() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_microbatches_on_the_host(bench: Callable[..., Bench], kind: str) -> None:
    """Each carries the step's number, the weight of the whole batch, and as many rows of every group."""
    made = bench(kind, microbatch=2)
    rows = made.rows[:6]
    batches = [Tokens.of(b.layout, b.flat) for b in made.engine.batch(rows, 41, groups=2, tokens=128)]
    assert [b.layout.rows for b in batches] == [2, 1]
    weights = [sum(len(row.queries) for row in half) if "label" not in kind else 3 for half in (rows[:3], rows[3:])]
    for batch, chosen in zip(batches, ((0, 1, 3, 4), (2, 5)), strict=True):
        assert int(batch.step) == 41 and batch.weight.tolist() == weights
        assert batch.layout.tokens == 128
        found = [[word for word in line if word] for line in batch.ids.flatten(0, 1).tolist()]
        assert found == [[word for word in s if word] for i in chosen for s in rows[i].sequences]


@torch.inference_mode()
def test_the_decoder_can_be_another(bench: Callable[..., Bench]) -> None:
    """Losses and scores come from the decode that the engine was given, one call a wave and microbatch."""
    made = bench("label", 2, microbatch=4)
    rows, calls = made.rows[:6], list[tuple[int, int]]()
    own = generic(made.engine.loaded.model)

    def decode(ids: Tensor, places: Tensor) -> Tensor:
        calls.append((len(ids), len(places)))
        return own(ids, places)

    engine = dataclasses.replace(made.engine, decode=decode)
    assert torch.equal(engine.bind(rows)(POINTS[:3]), made.engine.bind(rows)(POINTS[:3]))
    assert calls == [(8, 8), (4, 4), (4, 4), (2, 2)]
    calls.clear()
    assert torch.equal(engine.scores(rows), made.engine.scores(rows))
    assert calls == [(6, 6)]


@torch.inference_mode()
def test_an_objective_of_the_same_rows_is_laid_out_once(bench: Callable[..., Bench], monkeypatch: Any) -> None:
    """Asked again, bind's objective copies nothing; asked for other groups, it lays the rows out anew."""
    made, puts = bench("label", 2), list[int]()
    real = Engine.put

    def put(self: Engine, batch: Any) -> Tokens:
        puts.append(batch.layout.groups)
        return real(self, batch)

    monkeypatch.setattr(Engine, "put", put)
    objective = made.engine.bind(made.rows[:6])
    results = [objective(POINTS, groups) for groups in (1, 1, 3, 1, 3)]
    assert puts == [1, 3]
    for a, b in itertools.combinations((0, 1, 3), 2):
        assert torch.equal(results[a], results[b])


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_scores_are_log_probabilities(bench: Callable[..., Bench], naive: ModuleType, kind: str) -> None:
    """Of every candidate of every row, however its loss is computed: those of whole logits, at theta.

    Sums are of candidates that are compared alone: one answer has its loss a token.
    """
    made = bench(kind, copies=3)
    made.engine.bind(made.rows[:2])(POINTS)  # leaves points in the copies
    scores = made.engine.scores(made.rows[:5])
    made.engine.adapter.space.fill_([Combo()])
    made.engine.adapter.active.copies = 1
    joint = replace(made.engine, joint=True).scores(made.rows[:5])
    for row, found, sums in zip(made.rows, scores.tolist(), joint.tolist(), strict=False):
        for candidate, (score, whole) in enumerate(zip(found, sums, strict=True)):
            asked = [q for q in row.queries if q.candidate == candidate]
            nats = [token_loss(naive, made.engine.loaded.model, row.sequences[q.sequence], q) for q in asked]
            assert score == pytest.approx(-sum(nats) / len(nats), abs=1e-5)
            assert whole == pytest.approx(score * (len(nats) if row.candidates > 1 else 1), abs=1e-5)


def token_loss(naive: ModuleType, model: Any, sequence: Sequence[int], query: Query) -> float:
    return float(naive.token_losses(model, sequence[: query.position + 1], [query.token]))
