"""Which rows a step sees, as a pure function of (seed, step), and how they become one buffer of numbers."""

import bisect
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zolite.config import sizes
from zolite.data.examples import Arrays, Example, sizes_of
from zolite.model.loss import Layout

Ints = NDArray[np.int64]
T = TypeVar("T")

GROUP = 16  # batches whose rows are sorted by length together: less padding, and still random from epoch to epoch
STEP = sizes.BUCKET_TOKENS  # tokens: buckets end at multiples of it
FORESEEN = 256  # batches, at least, whose lengths the buckets are chosen by
SHARES = (8, 4, 2, 1)  # a free answer's tokens take up to an eighth, a quarter, a half or all of the room there is


@dataclass(frozen=True, eq=False)
class Order:
    """The order of a data set's rows over all epochs. Each epoch leaves out the rows that fill no batch."""

    lengths: Sequence[int] | NDArray[np.integer]  # tokens of each row
    batch: int
    seed: int

    def batch_at(self, step: int) -> tuple[int, ...]:
        """Row numbers of a step, counted from 0."""
        return tuple(_epoch(self, step // self.per_epoch)[step % self.per_epoch].tolist())

    @property
    def size(self) -> int:
        """Rows of a batch."""
        return min(self.batch, len(self.lengths))

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.lengths) // self.size


@functools.lru_cache(maxsize=2)
def _epoch(order: Order, epoch: int) -> Ints:
    """Batches (batches, rows): rows shuffled, sorted by length within groups of batches, batches shuffled."""
    size, lengths = order.size, np.asarray(order.lengths)
    rows = _shuffled(len(lengths), order.seed, epoch, "row")[: order.per_epoch * size]
    group = np.arange(len(rows)) // (GROUP * size)
    rows = rows[np.lexsort((lengths[rows], group))]  # stable: of one length, as they were shuffled
    return rows.reshape(-1, size)[_shuffled(order.per_epoch, order.seed, epoch, "batch")]


def _shuffled(count: int, *about: object) -> Ints:
    """The numbers below `count`, by their hashes."""
    hashes = np.fromiter((int.from_bytes(_hash(*about, i)) for i in range(count)), np.uint64, count)
    return hashes.argsort(kind="stable")


def _hash(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()


def length(example: Example) -> int:
    """Tokens that a row's forward reads when it is alone."""
    return len(example.sequences) * max(len(s) for s in example.sequences)


def longest(example: Example) -> int:
    """Tokens of a row's longest sequence."""
    return max(map(len, example.sequences))


def by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Row numbers in batches of at most so many padded tokens, longest first, so that the peak comes first."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


@dataclass(frozen=True)
class Batch:
    """Rows as one buffer on the host. Batches of one layout may take each other's place on the device."""

    layout: Layout
    flat: Tensor  # (layout.size,) int64; Tokens.of(layout, flat) says what is where
    padding: float  # share of the tokens that only fill up the sequences


def collate(
    examples: Sequence[Example],
    groups: int = 1,
    tokens: int | None = None,
    step: int = 0,
    weights: Sequence[int] | None = None,
) -> Batch:
    """Rows to a padded batch: the first rows are group 0's, as many the next group's, and so on.

    Sequences get `tokens` tokens, or as many as the longest has. `weights` (G,) are those of the whole batch where this
    is a part of one. ValueError where the rows do not divide into groups or a sequence has more than `tokens`.
    """
    weights = weigh(examples, groups) if weights is None else weights
    rows = [e.arrays for e in examples]
    counts = np.array([(len(r.lengths), len(r.positions), len(r.tokens)) for r in rows]).reshape(groups, -1, 3)
    layout = _layout(rows, counts, tokens)
    numbers = _positions(layout, rows, counts) | _answers(layout, rows, counts)
    numbers |= {
        "step": np.array(step),
        "ids": _ids(layout, rows, counts),
        "answers": np.array([e.answer for e in examples]),
        "weight": np.array(weights),
    }
    flat = np.concatenate([numbers[name].ravel() for name in layout.shapes])
    real, room = sum(len(r.ids) for r in rows), groups * layout.sequences * layout.tokens
    return Batch(layout, torch.from_numpy(flat), 1 - real / room)


def weigh(examples: Sequence[Example], groups: int = 1) -> tuple[int, ...]:
    """What each group's sum of losses is divided by: its rows where candidates compete, else its answers' tokens."""
    each, rest = divmod(len(examples), groups)
    if rest:
        raise ValueError(f"{len(examples)} rows do not divide into {groups} groups")
    if examples[0].candidates > 1:
        return (each,) * groups
    return tuple(sum(len(e.queries) for e in examples[g * each : (g + 1) * each]) for g in range(groups))


def _layout(rows: Sequence[Arrays], counts: Ints, tokens: int | None) -> Layout:
    """Room for every group. counts (G, R, 3): sequences, positions and queries of each row.

    Labelled rows of one data set differ in nothing but their length; others' answers do, and get rounded room. Rows
    with choices of their own may have different numbers of them.
    """
    most = max(int(r.lengths.max()) for r in rows)
    tokens = most if tokens is None else tokens
    if tokens < most:
        raise ValueError(f"a sequence has {most} tokens, more than {tokens}")
    sequences, positions, queries = counts.sum(axis=1).max(axis=0).tolist()
    candidates, width = max(len(r.counts) for r in rows), max(int(r.counts.max()) for r in rows)
    if candidates == 1 or any(len(r.tokens) != len(rows[0].tokens) for r in rows):
        positions, queries = (_rounded(count, sequences * tokens) for count in (positions, queries))
        width = max(width, tokens)
    single = candidates > 1 and all(len(r.positions) == 1 and len(r.tokens) == candidates for r in rows)
    return Layout(len(counts), sequences, tokens, positions, queries, candidates, counts.shape[1], width, single)


def _rounded(count: int, room: int) -> int:
    """The smallest share of the room that holds so many; more than the room only if they are more."""
    return next((-(-room // share) for share in SHARES if -(-room // share) >= count), count)


def _ids(layout: Layout, rows: Sequence[Arrays], counts: Ints) -> Ints:
    lengths = _padded([r.lengths for r in rows], counts[..., 0].sum(axis=1), layout.sequences, 0)
    return _padded([r.ids for r in rows], lengths.ravel(), layout.tokens, 0)


def _positions(layout: Layout, rows: Sequence[Arrays], counts: Ints) -> dict[str, Ints]:
    """Where something is predicted, and which place predicts which query."""
    before = counts.cumsum(axis=1) - counts  # a group's sequences, positions and queries before each row's
    base = np.repeat(before[..., 0].ravel(), counts[..., 1].ravel()) * layout.tokens
    places = [r.sequences * layout.tokens + r.positions for r in rows]
    owners = np.concatenate([r.owners for r in rows]) + np.repeat(before[..., 1].ravel(), counts[..., 2].ravel())
    first = np.array([places[g * layout.rows][0] for g in range(layout.groups)])  # sequence 0 is the group's first
    _, sizes, asked = counts.sum(axis=1).T
    return {
        "positions": _padded([np.concatenate(places) + base], sizes, layout.positions, first[:, None]),
        "tokens": _padded([r.tokens for r in rows], asked, layout.queries, 0),
        "owners": _padded([owners], asked, layout.queries, 0),
    }


def _answers(layout: Layout, rows: Sequence[Arrays], counts: Ints) -> dict[str, Ints]:
    """Which queries make up each candidate: they stand one behind the other. A row without some has none of them."""
    every = [np.pad(r.counts, (0, layout.candidates - len(r.counts))) for r in rows]
    lengths = np.concatenate(every).reshape(layout.groups, -1)
    first = lengths.cumsum(axis=1) - lengths
    nth = np.arange(layout.width)
    gather = np.where(nth < lengths[..., None], first[..., None] + nth, layout.queries)
    return {"lengths": lengths, "gather": gather}


def _padded(parts: Sequence[NDArray[np.integer]], lengths: Ints, width: int, fill: Ints | int) -> Ints:
    """Numbers one behind the other to lines (n, width) of the given lengths (n,)."""
    lines = np.full((len(lengths), width), fill, dtype=np.int64)
    lines[np.arange(width) < lengths[:, None]] = np.concatenate(parts)
    return lines


# ---- few layouts


def buckets(order: Order, examples: Sequence[Example]) -> tuple[int, ...]:
    """Lengths that a step's sequences are padded to, chosen by its first batches, an epoch of them or more."""
    batches = [order.batch_at(step) for step in range(max(order.per_epoch, FORESEEN))]
    return edges(sizes_of(examples).longest.tolist(), batches)


def bucket(sizes: Sequence[int], tokens: int) -> int:
    """Which of the buckets so long a sequence is padded to; beyond the last, the next multiple of STEP."""
    i = bisect.bisect_left(sizes, tokens)
    return sizes[i] if i < len(sizes) else _up(tokens)


def edges(lengths: Sequence[int], batches: Sequence[Sequence[int]], most: int = 8) -> tuple[int, ...]:
    """At most so many multiples of STEP, ascending, the last no shorter than any row: those that pad batches least.

    lengths: each row's longest sequence. batches: their rows. The cost of edges is the sum over batches of the first
    edge that holds the batch's longest sequence; dynamic programming over (edges used, last edge) finds its minimum.
    """
    wanted = [_up(max(lengths[row] for row in batch)) for batch in batches]
    ends = np.array(sorted({*wanted, _up(max(lengths))}))
    below = np.concatenate([[0], np.searchsorted(np.sort(wanted), ends, side="right")])  # batches that fit each end
    # cost[i, j]: of the batches longer than end i − 1 and no longer than end j, padded to end j
    cost = np.where(
        np.arange(len(ends))[:, None] <= np.arange(len(ends)), ends * (below[1:] - below[:-1, None]), _NEVER
    )
    best, back = cost[0], list[Ints]()
    for _ in range(min(most, len(ends)) - 1):  # one more always pays: every end but the last is some batch's own
        further = cost + np.concatenate([[_NEVER], best[:-1]])[:, None]
        best, back = further.min(axis=0), [*back, further.argmin(axis=0)]
    chosen = [len(ends) - 1]
    for first in reversed(back):
        chosen.append(int(first[chosen[-1]]) - 1)
    return tuple(int(ends[i]) for i in reversed(chosen))


_NEVER = 2**60  # more than any cost, and small enough to add to one


def _up(length: int) -> int:
    return -(-length // STEP) * STEP


def sample(rows: Sequence[T], most: int) -> list[T]:
    """At most so many rows, always the same ones, wherever in the file they stand."""
    return [rows[i] for i in sorted(_shuffled(len(rows), "sample")[:most].tolist())]
