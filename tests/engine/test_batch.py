"""Claims about batches: which rows a step sees, and what they become."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.data.examples import Example, Query
from zolite.engine import batch as batches
from zolite.engine.batch import Batch, Order, bucket, buckets, collate, edges, length, longest, sample, weigh
from zolite.model.loss import Tokens

seeds = st.integers(0, 2**63 - 1)


def lengths(count: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(1, 100), k=count))


def steps_of(order: Order, epoch: int) -> list[tuple[int, ...]]:
    """An epoch's batches, by the definition of how many there are."""
    count = len(order.lengths) // min(order.batch, len(order.lengths))
    return [order.batch_at(epoch * count + i) for i in range(count)]


@given(rows=st.integers(1, 200), size=st.integers(1, 40), seed=seeds, shuffle=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_step_names_its_rows_by_itself(rows: int, size: int, seed: int, shuffle: random.Random) -> None:
    """batch_at follows from (seed, step) alone: in any order of asking, whatever else draws random numbers."""
    order = Order(lengths(rows, 1), size, seed)
    steps = [*range(12), 10**6]
    first = {step: order.batch_at(step) for step in steps}
    shuffle.shuffle(steps)
    for step in steps:
        random.seed(step)
        torch.manual_seed(step)
        numpy.random.seed(step)
        batches._epoch.cache_clear()
        assert Order(lengths(rows, 1), size, seed).batch_at(step) == first[step]


@given(rows=st.integers(1, 300), size=st.integers(1, 400), seed=seeds, epoch=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_an_epoch_sees_every_row_once_but_the_rest(rows: int, size: int, seed: int, epoch: int) -> None:
    """Full batches of different rows; N mod B rows are left out, none where the batch is larger than the data."""
    size_now = min(size, rows)
    seen = steps_of(Order(lengths(rows, 2), size, seed), epoch)
    assert all(len(batch) == size_now for batch in seen)
    flat = [row for batch in seen for row in batch]
    assert len(set(flat)) == len(flat) == rows - rows % size_now
    assert set(flat) <= set(range(rows))


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_epochs_and_seeds_differ(seed: int) -> None:
    """Another epoch and another seed put other rows together; the rows left out differ too, in the long run."""
    order = Order(lengths(101, 3), 4, seed)
    once, again, other = steps_of(order, 0), steps_of(order, 1), steps_of(Order(lengths(101, 3), 4, seed ^ 1), 0)
    groups = [{frozenset(batch) for batch in epoch} for epoch in (once, again, other)]
    assert len(groups[0] & groups[1]) <= 5 and len(groups[0] & groups[2]) <= 5
    left_out = {min(set(range(101)) - {r for b in steps_of(order, e) for r in b}) for e in range(6)}
    assert len(left_out) > 1


def test_batches_are_not_in_order_of_length() -> None:
    """Rows are sorted within groups, yet an epoch does not go from short rows to long ones."""
    order = Order(tuple(range(1, 129)), 4, 7)
    means = [sum(order.lengths[r] for r in batch) / 4 for batch in steps_of(order, 0)]
    rises = sum(b > a for a, b in itertools.pairwise(means))
    assert 8 <= rises <= 23  # of 31


def test_rows_of_like_length_share_batches() -> None:
    """Padding is less than half of what it is in batches of rows at random, over several seeds."""
    padded = {"grouped": 0, "random": 0}
    for seed in range(5):
        order = Order(lengths(320, seed), 8, seed)
        shuffled = random.Random(seed).sample(range(320), 320)
        plain = [shuffled[i : i + 8] for i in range(0, 320, 8)]
        for name, epoch in (("grouped", steps_of(order, 0)), ("random", plain)):
            padded[name] += sum(8 * max(order.lengths[r] for r in b) - sum(order.lengths[r] for r in b) for b in epoch)
    assert padded["grouped"] < padded["random"] / 2


def test_an_order_knows_its_epochs() -> None:
    """A batch is never larger than the data, and an epoch has the batches that are full."""
    order = Order(lengths(10, 1), 4, 0)
    assert (order.size, order.per_epoch) == (4, 2)
    assert (Order(lengths(3, 1), 4, 0).size, Order(lengths(3, 1), 4, 0).per_epoch) == (3, 1)


# Rows to a buffer


@st.composite
def example_lists(draw: st.DrawFn) -> tuple[list[Example], int]:
    """Rows of a few sequences with queries anywhere in them, every candidate asked; and groups that divide them."""
    candidates, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    words, asked_for = st.integers(1, 299), st.integers(0, 299)

    def one() -> Example:
        sequences = draw(st.lists(st.lists(words, min_size=1, max_size=6).map(tuple), min_size=1, max_size=3))
        queries = []
        for candidate in range(candidates):
            sequence = draw(st.integers(0, len(sequences) - 1))
            places = st.integers(0, len(sequences[sequence]) - 1)
            asked = sorted(draw(st.sets(places, min_size=1)))
            queries += [Query(sequence, position, draw(asked_for), candidate) for position in asked]
        shuffled = draw(st.permutations(queries))
        return Example(tuple(sequences), tuple(shuffled), draw(st.integers(0, candidates - 1)), candidates)

    return [one() for _ in range(groups * draw(st.integers(1, 3)))], groups


def views(batch: Batch) -> Tokens:
    return Tokens.of(batch.layout, batch.flat)


@given(drawn=example_lists(), more=st.integers(0, 9), step=st.integers(0, 2**40))
@settings(max_examples=200, deadline=None)
def test_collate_keeps_every_token_and_query(drawn: tuple[list[Example], int], more: int, step: int) -> None:
    """The buffer says, group for group, sequence for sequence and query for query, what the rows say."""
    examples, groups = drawn
    room = max(longest(e) for e in examples) + more
    batch, rows = collate(examples, groups, room, step), len(examples) // groups
    layout, tokens = batch.layout, views(batch)
    assert batch.flat.dtype == torch.int64 and batch.flat.shape == (layout.size,)
    assert (layout.groups, layout.rows, layout.tokens) == (groups, rows, room)
    assert int(tokens.step) == int(batch.flat[0]) == step
    used = {"sequences": 0, "positions": 0, "queries": 0}
    for g in range(groups):
        found = said(tokens, g)
        assert found == wanted(examples[g * rows : (g + 1) * rows])
        used["sequences"] = max(used["sequences"], len(found["sequences"]))
        used["queries"] = max(used["queries"], sum(map(len, found["candidates"])))
        used["positions"] = max(used["positions"], len({place[:2] for c in found["candidates"] for place in c}))
    real = sum(len(s) for e in examples for s in e.sequences)
    assert batch.padding == pytest.approx(1 - real / tokens.ids.numel())
    assert layout.sequences == used["sequences"]
    alike = len({len(e.queries) for e in examples}) == 1  # as labelled rows of one data set are
    if examples[0].candidates > 1 and alike:  # no room is left over
        assert (layout.positions, layout.queries) == (used["positions"], used["queries"])
        assert layout.width == int(tokens.lengths.max())


def said(tokens: Tokens, g: int) -> dict[str, Any]:
    """A group of a buffer, with its padding checked and taken off."""
    room, count = tokens.layout.tokens, tokens.layout.queries
    positions, owners, asked = tokens.positions[g].tolist(), tokens.owners[g].tolist(), tokens.tokens[g].tolist()
    candidates, queries = [], 0
    for members, size in zip(tokens.gather[g].tolist(), tokens.lengths[g].tolist(), strict=True):
        real = [m for m in members if m < count]
        assert len(real) == size and all(m == count for m in members[len(real) :])  # it reads the appended zero
        candidates.append(sorted((*divmod(positions[owners[m]], room), asked[m]) for m in real))
        queries += len(real)
    places = len({owners[m] for m in range(queries)})
    assert positions[:places] == sorted(set(positions[:places]))
    assert set(positions[places:]) <= {positions[0]}
    assert not any(asked[queries:]) and not any(owners[queries:])
    lines = [[word for word in line if word] for line in tokens.ids[g].tolist()]  # no row has a token 0
    assert tokens.ids[g].tolist() == [[*line, *[0] * (room - len(line))] for line in lines]
    return {
        "sequences": [line for line in lines if line],  # another group may have more
        "candidates": candidates,
        "answers": tokens.answers[g].tolist(),
        "weight": int(tokens.weight[g]),
    }


def wanted(examples: Sequence[Example]) -> dict[str, Any]:
    sequences, candidates = list[list[int]](), list[list[tuple[int, int, int]]]()
    for e in examples:
        for candidate in range(e.candidates):
            own = [q for q in e.queries if q.candidate == candidate]
            candidates.append(sorted((len(sequences) + q.sequence, q.position, q.token) for q in own))
        sequences += map(list, e.sequences)
    weight = len(examples) if examples[0].candidates > 1 else sum(len(c) for c in candidates)
    answers = [e.answer for e in examples]
    return {"sequences": sequences, "candidates": candidates, "answers": answers, "weight": weight}


def row(length: int, answer: int, candidates: int = 1, tokens: int = 1, right: int = 0) -> Example:
    """A row of `length` tokens in all: an answer's, or several candidates' of some tokens each, at its end."""
    if candidates == 1:
        asked = [Query(0, position, 5, 0) for position in range(length - answer, length)]
        return Example((tuple(range(1, length + 1)),), tuple(asked), 0, 1)
    ends = [(c + 1,) * (tokens - 1) for c in range(candidates)] if tokens > 1 else [()]
    last = length - tokens
    sequences = tuple((*range(1, last + 2), *end) for end in ends)
    asked = [Query(c if tokens > 1 else 0, last + i, 5 + c, c) for c in range(candidates) for i in range(tokens)]
    return Example(sequences, tuple(asked), right, candidates)


@pytest.mark.parametrize(("candidates", "tokens"), [(2, 1), (10, 1), (3, 4)])
def test_labelled_batches_of_a_bucket_share_a_layout(candidates: int, tokens: int) -> None:
    """Whatever the lengths and the right answers of their rows; only one token a candidate makes a layout single."""
    layouts = set()
    for seed in range(6):
        lengths = random.Random(seed).choices(range(tokens, 41), k=6)
        rows = [row(n, 1, candidates, tokens, right=(seed + i) % candidates) for i, n in enumerate(lengths)]
        layouts.add(collate(rows, groups=2, tokens=40).layout)
    (layout,) = layouts
    assert layout.single == (tokens == 1)
    assert collate(rows, groups=2, tokens=48).layout != layout
    assert layout.positions == 3 * (1 if tokens == 1 else candidates * tokens)
    assert layout.queries == 3 * candidates * tokens and layout.width == tokens


def test_a_candidate_asked_elsewhere_is_not_single() -> None:
    """The log-sum-exp cancels only between candidates of one position and one token each."""
    one, other = Query(0, 1, 5, 0), Query(0, 1, 6, 1)
    apart = Example(((1, 2, 3),), (one, Query(0, 2, 6, 1)), 0, 2)
    longer = Example(((1, 2, 3),), (one, other, Query(0, 1, 7, 1)), 0, 2)
    assert collate([Example(((1, 2, 3),), (one, other), 0, 2)]).layout.single
    for last in (apart, longer):
        assert not collate([Example(((1, 2, 3),), (one, other), 0, 2), last]).layout.single
    assert not collate([Example(((1, 2, 3),), (one,), 0, 1)]).layout.single


@given(data=st.data(), rows=st.integers(1, 6), tokens=st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_free_answers_share_few_layouts(data: st.DataObject, rows: int, tokens: int) -> None:
    """Answers take the smallest share of the room that holds them: an eighth, a quarter, a half, all of it."""
    examples = []
    for _ in range(rows):
        length = data.draw(st.integers(1, tokens))
        examples.append(row(length, data.draw(st.integers(1, length))))
    layout, count = collate(examples, tokens=tokens).layout, sum(len(e.queries) for e in examples)
    room = rows * tokens
    enough = [n for n in (math.ceil(room / 8), math.ceil(room / 4), math.ceil(room / 2), room) if n >= count]
    assert layout.positions == layout.queries == enough[0]
    assert layout.width == tokens and not layout.single


def test_collate_refuses_what_does_not_fit() -> None:
    """Rows that the groups do not divide, and sequences longer than asked for."""
    rows = [row(n, 1) for n in (3, 5, 4)]
    with pytest.raises(ValueError, match="3 rows do not divide into 2 groups"):
        collate(rows, groups=2)
    with pytest.raises(ValueError, match="5 tokens, more than 4"):
        collate(rows, tokens=4)
    assert collate(rows, tokens=5).layout == collate(rows).layout


def test_a_part_carries_the_weight_of_the_whole() -> None:
    """Weights are answer tokens, or rows with labels, of each group, unless the whole batch's are given."""
    answers, labels = [row(5, n) for n in (1, 2, 3, 4)], [row(5, 1, 2) for _ in range(4)]
    assert views(collate(answers, groups=2)).weight.tolist() == [3, 7] == list(weigh(answers, 2))
    assert views(collate(labels, groups=2)).weight.tolist() == [2, 2] == list(weigh(labels, 2))
    assert views(collate(answers[:2], groups=2, weights=weigh(answers, 2))).weight.tolist() == [3, 7]


def test_lengths_of_a_row() -> None:
    """Two sequences of two and five tokens are ten tokens of a forward, five of them the longest."""
    lone = Example(((1, 2), (1, 2, 3, 4, 5)), (Query(0, 1, 9, 0), Query(1, 4, 9, 1)), 0, 2)
    assert length(lone) == 10 == views(collate([lone])).ids.numel()
    assert longest(lone) == 5
    assert collate([lone]).padding == pytest.approx(0.3)


# Few layouts


def cost(ends: Sequence[int], lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """Tokens that a sequence of every batch is padded to, all batches together."""
    return sum(min(end for end in ends if end >= max(lengths[r] for r in batch)) for batch in batches)


@given(data=st.data(), lengths=st.lists(st.integers(1, 90), min_size=1, max_size=12), most=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_edges_pad_least(data: st.DataObject, lengths: list[int], most: int) -> None:
    """No other choice of as many multiples of 8 pads batches less; none of the chosen ones is in vain."""
    rows = st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=4)
    batches = data.draw(st.lists(rows, min_size=1, max_size=12))
    found = edges(lengths, batches, most)
    assert found == tuple(sorted(set(found))) and 1 <= len(found) <= most
    assert all(end % 8 == 0 for end in found) and max(lengths) <= found[-1] < max(lengths) + 8
    multiples = range(8, found[-1], 8)

    def least(count: int) -> int:
        fewer = itertools.chain(*(itertools.combinations(multiples, n) for n in range(min(count, len(multiples) + 1))))
        return min(cost((*some, found[-1]), lengths, batches) for some in fewer)

    assert cost(found, lengths, batches) == least(most)
    assert len(found) == 1 or least(len(found) - 1) > least(most)


def test_edges_of_many_lengths() -> None:
    """Two crowds of lengths and two edges: an edge behind each. With eight, padding nearly vanishes."""
    lengths = [*range(17, 25)] * 50 + [*range(193, 201)] * 50
    alone = [[i] for i in range(len(lengths))]
    assert edges(lengths, alone, 2) == edges(lengths, alone) == (24, 200)
    spread = list(range(1, 1025))
    assert len(edges(spread, [[i] for i in range(1024)])) == 8
    assert edges(spread, [[0]]) == (8, 1024)  # rows that no batch had yet fit as well


def test_the_bucket_is_the_first_that_holds_a_sequence() -> None:
    assert [bucket((16, 40), n) for n in (1, 16, 17, 40)] == [16, 16, 40, 40]
    assert [bucket((16, 40), n) for n in (41, 48, 49)] == [48, 48, 56]


def test_buckets_are_of_the_batches_to_come() -> None:
    """They follow from the order's batches and the rows' longest sequences, not from the rows' tokens in all."""
    examples = [row(1 + i % 37, 1, 2, tokens=1) for i in range(60)] + [row(60, 1, 4, tokens=3)]
    order = Order(tuple(length(e) for e in examples), 8, 3)
    found = buckets(order, examples)
    batches = [order.batch_at(step) for step in range(256)]
    assert found == edges([longest(e) for e in examples], batches)
    assert found[-1] == 64 and len(found) <= 8
    few = Order(order.lengths, 61, 3)
    assert buckets(few, examples) == (64,)


def marked(count: int) -> list[Example]:
    return [Example(((i,),), (Query(0, 0, 1, 0),), 0, 1) for i in range(count)]


@given(count=st.integers(1, 300), most=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_a_sample_is_always_the_same(count: int, most: int) -> None:
    """As many different rows as wanted, in file order; the same ones every time, and all of them where they are few."""
    rows = marked(count)
    chosen = [e.sequences[0][0] for e in sample(rows, most)]
    random.seed(0)
    assert chosen == [e.sequences[0][0] for e in sample(rows, most)]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, most)


def test_a_sample_is_spread_over_the_file() -> None:
    """A file sorted by label is not sampled from its head alone, and a larger sample holds the smaller one."""
    chosen = [e.sequences[0][0] for e in sample(marked(1000), 100)]
    assert 25 <= sum(i < 500 for i in chosen) <= 75
    more = [e.sequences[0][0] for e in sample(marked(1000), 200)]
    assert set(chosen) < set(more)


def test_rows_of_encode_survive_collate(folder: Callable[..., Any], tokenizer: Any) -> None:
    """Conversations with two answers are scored on both, by the tokens that encode asked for."""
    from zolite.data import rows as tables
    from zolite.data.encode import encode

    data = tables.load(folder("messages"), "{text}{label}")
    examples = encode(data.splits["train"], "messages", (), tokenizer, "", 128).examples
    tokens = views(collate(examples))
    count = sum(len(e.queries) for e in examples)
    assert sorted(tokens.tokens[0, :count].tolist()) == sorted(q.token for e in examples for q in e.queries)
    assert tokens.weight.tolist() == [count]
