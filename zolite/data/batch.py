"""Which rows a step sees, as a pure function of (seed, step), and how they become tensors."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zolite.data.template import Example
from zolite.model.loss import Tokens

GROUP = 16  # batches whose rows are sorted by length together: less padding, and still random from epoch to epoch


@dataclass(frozen=True)
class Order:
    """The order of a data set's rows over all epochs. Each epoch leaves out the rows that fill no batch."""

    lengths: tuple[int, ...]  # tokens of each row
    batch: int
    seed: int

    def batch_at(self, step: int) -> tuple[int, ...]:
        """Row numbers of a step, counted from 0."""
        size = min(self.batch, len(self.lengths))
        per_epoch = len(self.lengths) // size
        return _epoch(self, size, step // per_epoch)[step % per_epoch]


@functools.lru_cache(maxsize=2)
def _epoch(order: Order, size: int, epoch: int) -> tuple[tuple[int, ...], ...]:
    """An epoch's batches: rows shuffled, sorted by length within groups of batches, batches shuffled."""

    def shuffled(count: int, what: str) -> list[int]:
        return sorted(range(count), key=lambda i: _hash(order.seed, epoch, what, i))

    rows = shuffled(len(order.lengths), "row")
    rows = rows[: len(rows) // size * size]
    groups = [rows[i : i + GROUP * size] for i in range(0, len(rows), GROUP * size)]
    rows = [row for group in groups for row in sorted(group, key=lambda r: order.lengths[r])]
    batches = [tuple(rows[i : i + size]) for i in range(0, len(rows), size)]
    return tuple(batches[i] for i in shuffled(len(batches), "batch"))


def _hash(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()


def length(example: Example) -> int:
    """Tokens that a row's forward reads when it is alone."""
    return len(example.sequences) * max(len(s) for s in example.sequences)


def collate(examples: Sequence[Example], device: torch.device) -> Tokens:
    """Rows to one padded batch on the device."""
    sequences = [s for e in examples for s in e.sequences]
    longest = max(map(len, sequences))
    ids = torch.tensor([[*s, *(0,) * (longest - len(s))] for s in sequences])
    queries = sorted(_queries(examples, longest))  # by position, then candidate, then order within the answer
    positions = sorted({position for position, *_ in queries})
    place = {position: i for i, position in enumerate(positions)}
    owners = [place[position] for position, *_ in queries]
    members = _members(queries, sum(e.candidates for e in examples))
    most = max(map(len, members))

    def put(values: object) -> torch.Tensor:
        tensor = values if isinstance(values, torch.Tensor) else torch.tensor(values)
        return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

    return Tokens(
        ids=put(ids),
        positions=put(positions),
        tokens=put([token for *_, token in queries]),
        owners=put(owners),
        spans=tuple(_starts(owners, len(positions))),
        gather=put([[*m, *(len(queries),) * (most - len(m))] for m in members]),
        lengths=put([float(len(m)) for m in members]),
        answers=put([e.answer for e in examples]),
        candidates=examples[0].candidates,
    )


def _queries(examples: Sequence[Example], longest: int) -> list[tuple[int, int, int, int]]:
    """(position in the flattened batch, candidate in the batch, order, token) of every query."""
    found, sequence, candidate = [], 0, 0
    for e in examples:
        for order, q in enumerate(e.queries):
            where = (sequence + q.sequence) * longest + q.position
            found.append((where, candidate + q.candidate, order, q.token))
        sequence += len(e.sequences)
        candidate += e.candidates
    return found


def _members(queries: Sequence[tuple[int, int, int, int]], candidates: int) -> list[list[int]]:
    """The queries of every candidate, by their place in the sorted list."""
    members: list[list[int]] = [[] for _ in range(candidates)]
    for i, (_, candidate, _, _) in enumerate(queries):
        members[candidate].append(i)
    return members


def _starts(owners: Sequence[int], positions: int) -> list[int]:
    """Where each position's queries begin, and where the last end."""
    counts = [0] * positions
    for owner in owners:
        counts[owner] += 1
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts


def sample(rows: Sequence[Example], most: int) -> list[Example]:
    """At most so many rows, always the same ones, wherever in the file they stand."""
    chosen = sorted(range(len(rows)), key=lambda i: _hash("sample", i))[:most]
    return [rows[i] for i in sorted(chosen)]
