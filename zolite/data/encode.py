"""All rows of a split as examples, or every row that cannot be one, with its line."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zolite.common.errors import UsageError, listed
from zolite.data.examples import Example, Fault, Following, Made, Rendered
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.data.token_cache import entry
from zolite.data.token_store import TokenStore, Writer, numbers_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from zolite.data.rows import Dataset


CHUNK = 1024  # rows that are rendered at once
THREADS = 2  # that render them where there are many: tokenizers let go of Python's lock


@dataclass(frozen=True)
class Encoded:
    examples: Sequence[Example]
    cut: int
    """rows whose end was cut off at the context"""
    notes: tuple[str, ...] = ()
    """what a person should know of the rows and of how they became tokens, each once"""
    origins: Sequence[int] = field(default=(), compare=False)
    """which row each example is of: one may become several"""


def encode(
    rows: Sequence[Row],
    kind: str,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    context: int,
    file: str = "",
    table: int = 0,
    writer: Writer | None = None,
) -> Encoded:
    """The rows in order, each of at most `context` tokens with its answer, all below `table` unless that is 0.

    The examples are in memory, or where `writer` puts them.
    Raises UsageError with every row that cannot be encoded, or where the tokenizer cannot serve the kind.
    """
    made = _Made(writer or Writer(None))

    def render(part: Sequence[Row]) -> list[Rendered]:
        results = KINDS[kind].render(part, labels, tokenizer, template, context)
        return [_within(each, table, tokenizer) for each in results] if table else list(results)

    for part, results in _in_order(render, _parts(rows)):
        for row, result in zip(part, results, strict=True):
            made.add(row, result)
    return made.encoded(file)


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    every = iter(rows)
    while part := list(itertools.islice(every, CHUNK)):
        yield part


def _in_order(
    render: Callable[[Sequence[Row]], list[Rendered]], parts: Iterator[list[Row]]
) -> Iterator[tuple[list[Row], list[Rendered]]]:
    """Each part with what it became; where there are several, some are rendered ahead."""
    first = list(itertools.islice(parts, 2))
    if len(first) < 2:
        yield from ((part, render(part)) for part in first)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        ahead: deque[tuple[list[Row], Future[list[Rendered]]]] = deque()
        try:
            for part in itertools.chain(first, parts):
                ahead.append((part, pool.submit(render, part)))
                if len(ahead) > 2 * THREADS:
                    done, result = ahead.popleft()
                    yield done, result.result()
            while ahead:
                done, result = ahead.popleft()
                yield done, result.result()
        finally:
            for _, result in ahead:
                result.cancel()


class _Made:
    """What rows became, one after the other."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.rows = self.cut = self.examples = 0
        self.faults: list[tuple[int, Fault]] = []
        self.notes = Counter[str]()
        self.remarks: dict[str, tuple[int, int]] = {}  # how often, and the first line

    def add(self, row: Row, result: Rendered) -> None:
        number, self.rows = self.rows, self.rows + 1
        if isinstance(result, Fault):
            self.faults.append((row.line, result))
        if isinstance(result, Fault) or self.faults:
            return
        made = result if isinstance(result, Made) else Made((result[0],), result[1])
        self.cut += made.cut
        self.notes.update(made.notes)
        for example in made.examples:
            self.writer.add(example, number)
            self.examples += 1
            if example.remark:
                count, line = self.remarks.get(example.remark, (0, row.line))
                self.remarks[example.remark] = count + 1, line

    def encoded(self, file: str) -> Encoded:
        """Raises UsageError with every row that cannot be encoded."""
        if self.faults:
            where = f"{file}: " if file else ""
            lines = listed([f"{where}line {line}: {fault.text}" for line, fault in self.faults])
            what = f"{len(self.faults)} of {self.rows} rows cannot be used:\n{lines}"
            raise UsageError(what, _remedy([fault for _, fault in self.faults]))
        told = tuple(f"{count} of {self.rows} rows {note}" for note, count in self.notes.items())
        said = (f"in {n} of {self.examples} rows, line {at} first, {what}" for what, (n, at) in self.remarks.items())
        store = self.writer.done()
        return Encoded(store, self.cut, (*told, *said), store.origins)


def _within(result: Rendered, table: int, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """A fault where the model has no embedding for one of the tokens."""
    if isinstance(result, Fault):
        return result
    examples = result.examples if isinstance(result, Made) else result[:1]
    last = max(max(_tokens(example)) for example in examples)
    if last < table:
        return result
    name = tokenizer.convert_ids_to_tokens(last)
    return Fault(
        f"token {last}, {name!r}, is beyond the model's embedding table of {table} rows",
        "resize the model's embeddings to its tokenizer, or leave such tokens out of the rows",
    )


def _tokens(example: Example) -> Iterable[int]:
    """Every token that the model reads or predicts."""
    if isinstance(example.queries, Following) and len(example.sequences) == 1:
        return example.text
    return itertools.chain(*example.sequences, (query.token for query in example.queries), example.text)


@dataclass(frozen=True)
class Coded:
    """A data set as tokens."""

    examples: dict[str, Sequence[Example]]
    """by split"""
    cut: dict[str, int]
    """rows of each split whose end was cut off at the context"""
    notes: tuple[str, ...]
    """what should be known of the rows of the first split of which there is something to be known"""
    fingerprint: str
    """of `examples`"""


def encode_all(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, template: str, context: int, table: int = 0
) -> Coded:
    """Every split, from the cache where a large data set was encoded before. Raises with the problems of all splits."""
    kept = entry(dataset, tokenizer, template, context, table)
    if kept and (found := kept.read()):
        stores, told = found
        return Coded(dict(stores), told["cut"], tuple(told["notes"]), told["fingerprint"])
    with kept.making() if kept else nullcontext() as folder:
        made = _every_split(dataset, tokenizer, template, context, table, folder)
        examples = {split: encoded.examples for split, encoded in made.items()}
        notes = next((encoded.notes for encoded in made.values() if encoded.notes), ())
        coded = Coded(examples, {split: each.cut for split, each in made.items()}, notes, fingerprint(examples))
        if kept and folder:
            told = {"cut": coded.cut, "notes": coded.notes, "fingerprint": coded.fingerprint}
            kept.finish(folder, {s: each for s, each in examples.items() if isinstance(each, TokenStore)}, told)
    return coded


def _every_split(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, template: str, context: int, table: int, folder: Path | None
) -> dict[str, Encoded]:
    made, problems = dict[str, Encoded](), list[UsageError]()
    for split, rows in dataset.splits.items():
        asked = (dataset.kind, dataset.labels, tokenizer, template, context, dataset.files[split], table)
        try:
            made[split] = encode(rows, *asked, Writer(folder, split))
        except UsageError as error:
            problems.append(error)
    if problems:
        raise UsageError("\n".join(error.message for error in problems), problems[0].hint)
    return made


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """sha256 of all that a model reads and predicts of rows: it tells another template, tokenizer or date."""
    digest = hashlib.sha256()
    for split, examples in splits.items():
        digest.update(f"{split}:{len(examples)};".encode())
        for part in numbers_of(examples):
            digest.update(part)
    return digest.hexdigest()


def _remedy(faults: Sequence[Fault]) -> str:
    need = max(fault.context for fault in faults)
    room = [f"--set data.context={need} would do, or shorten these rows"] if need else []
    return "; ".join(room + list(dict.fromkeys(fault.hint for fault in faults if fault.hint)))
