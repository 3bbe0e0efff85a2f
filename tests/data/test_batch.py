"""Claims about batches: which rows a step sees, and what they become."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.data import batch as batches
from zolite.data.batch import Order, collate, length, sample
from zolite.data.template import Example, Query

CPU = torch.device("cpu")
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


# Rows to tensors


@st.composite
def example_lists(draw: st.DrawFn) -> list[Example]:
    """Rows of a few sequences with queries anywhere in them, every candidate asked at least once."""
    candidates = draw(st.integers(1, 3))
    tokens = st.integers(0, 299)

    def one() -> Example:
        sequences = draw(st.lists(st.lists(tokens, min_size=1, max_size=6).map(tuple), min_size=1, max_size=3))
        queries = []
        for candidate in range(candidates):
            sequence = draw(st.integers(0, len(sequences) - 1))
            places = st.integers(0, len(sequences[sequence]) - 1)
            asked = sorted(draw(st.sets(places, min_size=1)))
            queries += [Query(sequence, position, draw(tokens), candidate) for position in asked]
        return Example(tuple(sequences), tuple(queries), draw(st.integers(0, candidates - 1)), candidates)

    return [one() for _ in range(draw(st.integers(1, 4)))]


@given(examples=example_lists())
@settings(max_examples=100, deadline=None)
def test_collate_keeps_every_token_and_query(examples: list[Example]) -> None:
    """The tensors say, sequence for sequence and query for query, what the rows say."""
    batch = collate(examples, CPU)
    sequences = [s for e in examples for s in e.sequences]
    longest = max(map(len, sequences))
    assert batch.ids.shape == (len(sequences), longest)
    assert [tuple(row[: len(s)].tolist()) for row, s in zip(batch.ids, sequences, strict=True)] == sequences
    assert batch.answers.tolist() == [e.answer for e in examples]
    assert batch.candidates == examples[0].candidates
    positions = batch.positions.tolist()
    assert positions == sorted(set(positions))
    # Each candidate's queries, as (sequence in the batch, position, token), by way of gather.
    wanted, first = [], 0
    for e in examples:
        for candidate in range(e.candidates):
            own = [q for q in e.queries if q.candidate == candidate]
            wanted.append([(first + q.sequence, q.position, q.token) for q in own])
        first += len(e.sequences)
    found = []
    for members in batch.gather.tolist():
        real = [m for m in members if m < len(batch.tokens)]
        assert all(m == len(batch.tokens) for m in members[len(real) :])  # padding reads the zero behind the last
        places = [(positions[batch.owners[m]], int(batch.tokens[m])) for m in real]
        found.append([(place // longest, place % longest, token) for place, token in places])
    assert [sorted(f) for f in found] == [sorted(w) for w in wanted]
    assert batch.lengths.tolist() == [float(len(w)) for w in wanted]
    for p, (low, high) in enumerate(zip(batch.spans, batch.spans[1:], strict=False)):
        assert high > low and batch.owners[low:high].tolist() == [p] * (high - low)
    assert batch.spans[-1] == len(batch.tokens) == len(batch.owners)


def test_length_counts_what_a_lone_row_pads_to() -> None:
    """Two sequences of two and five tokens are ten tokens of a forward."""
    row = Example(((1, 2), (1, 2, 3, 4, 5)), (Query(0, 1, 9, 0), Query(1, 4, 9, 1)), 0, 2)
    assert length(row) == 10 == collate([row], CPU).ids.numel()


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
    from zolite.data.template import encode

    data = tables.load(folder("messages"), "{text}{label}")
    examples = encode(data.splits["train"], "messages", (), tokenizer, "", 128).examples
    batch = collate(examples, CPU)
    assert sorted(batch.tokens.tolist()) == sorted(q.token for e in examples for q in e.queries)
    assert batch.weight == sum(len(e.queries) for e in examples)
