"""Claims about examples in arrays: they are the examples that were put there, and their numbers are the old ones."""

import array
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zolite.data import token_store
from zolite.data.encode import fingerprint
from zolite.data.examples import Example, Query, Spoken, can_be_said, one_sequence, size_of, sizes_of, spoken
from zolite.data.token_store import TokenStore, Writer

tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5).map(tuple)


@st.composite
def texts(draw: st.DrawFn) -> Example:
    """One answer: all from somewhere on, or several stretches; cut or not."""
    text = draw(st.lists(st.integers(0, 60000), min_size=2, max_size=12).map(tuple))
    some = draw(st.sets(st.integers(1, len(text) + 2), min_size=1).filter(lambda s: min(s) < len(text)))
    predicted: Sequence[int] = draw(st.sampled_from([sorted(some), range(min(some), len(text) + 3)]))
    return one_sequence(text, predicted)


@st.composite
def candidates(draw: st.DrawFn) -> Example:
    """Any sequences and queries at all, of which some begin alike, with and without a text."""
    prompt = draw(st.lists(st.integers(0, 9), max_size=4).map(tuple))
    sequences = tuple(prompt + tail for tail in draw(st.lists(tokens, min_size=1, max_size=3)))
    places = st.integers(0, len(sequences) - 1).flatmap(
        lambda s: st.tuples(st.just(s), st.integers(0, len(sequences[s]) - 1))
    )
    asked = draw(st.lists(st.tuples(places, st.integers(0, 99)), min_size=2, max_size=6))
    queries = tuple(Query(s, at, token, i % 2) for i, ((s, at), token) in enumerate(asked))
    text = draw(st.sampled_from([(), (*sequences[0], 7), (5, 6, 7)]))
    begins = draw(st.integers(1, len(text) - 1)) if len(text) > 1 else 0
    metric, remark = draw(st.sampled_from(["loss", "accuracy"])), draw(st.sampled_from(["", "a remark", "é"]))
    return Example(sequences, queries, draw(st.integers(0, 1)), 2, metric, text, begins, remark)


examples = st.lists(st.one_of(texts(), candidates()), max_size=10)


def stored(rows: Sequence[Example], folder: Path | None = None, name: str = "train") -> TokenStore:
    writer = Writer(folder, name)
    for i, row in enumerate(rows):
        writer.add(row, i // 2)
    return writer.done()


def plain_numbers(example: Example) -> Iterator[int]:
    """As versions without a store put them, one by one."""
    yield from (example.answer, example.candidates, example.begins, len(example.text), *example.text)
    for sequence in example.sequences:
        yield from (len(sequence), *sequence)
    for query in example.queries:
        yield from (query.sequence, query.position, query.token, query.candidate)


def plain_fingerprint(splits: dict[str, list[Example]]) -> str:
    digest = hashlib.sha256()
    for split, rows in splits.items():
        digest.update(f"{split}:{len(rows)};".encode())
        for row in rows:
            digest.update(array.array("i", plain_numbers(row)).tobytes())
    return digest.hexdigest()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "PART", 3)
    monkeypatch.setattr(token_store, "WRITTEN", 10)
    monkeypatch.setattr(token_store, "REMEMBERED", 4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=examples, in_files=st.booleans())
def test_a_store_is_its_examples(
    tmp_path_factory: pytest.TempPathFactory, small_parts: None, rows: list[Example], in_files: bool
) -> None:
    """Every field, in memory and in files; sizes as of each example; origins as they were given."""
    store = stored(rows, tmp_path_factory.mktemp("store") if in_files else None)
    assert store == rows and list(store) == rows and [store[i] for i in range(-len(rows), 0)] == rows
    assert store[1:3] == tuple(rows[1:3]) and tuple(store.origins) == tuple(i // 2 for i in range(len(rows)))
    sizes = sizes_of(store)
    found = zip(sizes.sequences, sizes.longest, sizes.places, sizes.queries, strict=True)
    assert list(found) == [size_of(row) for row in rows]
    assert np.array_equal(sizes_of(tuple(rows)).lengths, sizes.lengths)
    for made, row in zip(store, rows, strict=True):
        plain = Example(row.sequences, tuple(row.queries), row.answer, row.candidates).arrays
        assert all(np.array_equal(vars(made.arrays)[name], each) for name, each in vars(plain).items())
        assert all(each.dtype == np.int32 for each in vars(made.arrays).values())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.one_of(examples, st.lists(texts(), max_size=10)), others=examples)
def test_the_fingerprint_is_the_one_of_old_sessions(
    small_parts: None, rows: list[Example], others: list[Example]
) -> None:
    """Whether examples lie in a store or not."""
    expected = plain_fingerprint({"train": rows, "dev": others})
    assert fingerprint({"train": stored(rows), "dev": stored(others)}) == expected
    assert fingerprint({"train": rows, "dev": stored(others)}) == expected


@settings(deadline=None)
@given(rows=st.lists(candidates().filter(can_be_said), min_size=1, max_size=6))
def test_rows_that_are_to_be_said_are_made_when_they_are_asked_for(rows: list[Example]) -> None:
    """And are measured without being made."""
    for view in (Spoken(stored(rows)), Spoken(rows)):
        assert list(view) == [spoken(row) for row in rows] and len(view) == len(rows)
        sizes = view.sizes
        found = zip(sizes.sequences, sizes.longest, sizes.places, sizes.queries, strict=True)
        assert list(found) == [size_of(spoken(row)) for row in rows]
        assert list(view[1:]) == [spoken(row) for row in rows[1:]]


def test_candidates_of_one_data_set_share_their_forms() -> None:
    """What rows with labels keep of their own is the prompt."""
    queries = [Query(0, i, 7 + c, c) for c in range(2) for i in range(3, 5)]
    rows = [Example(((n, n, n, n, 8),), tuple(queries), n % 2, 2, "accuracy", (n, n, n, n, 8, 9), 4) for n in range(50)]
    store = stored(rows)
    assert store == rows and len(store.arrays["tokens"]) == 4 * 50
    assert len(set(store.arrays["starts"][:-1, 1].tolist())) == 2


def test_an_index_beyond_the_end_is_no_example() -> None:
    store = stored([one_sequence((1, 2), [1])])
    for i in itertools.chain(range(1, 3), range(-3, -1)):
        with pytest.raises(IndexError):
            store[i]
