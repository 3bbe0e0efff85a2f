"""All rows of a split as examples, or every row that cannot be one, with its line."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zolite.common.errors import UsageError
from zolite.common.progress import counted
from zolite.config.sizes import BUCKET_TOKENS
from zolite.data.examples import Example, Fault, Following, Made, Packed, Rendered, fills_masks, quick, words_of
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.data.problems import FaultyRowsError
from zolite.data.token_cache import entry
from zolite.data.token_store import TokenStore, Writer, numbers_of
from zolite.data.words import BYTES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from zolite.data.rows import Dataset


CHUNK = 1024  # rows that are rendered at once
THREADS = 2  # that render them where there are many


@dataclass(frozen=True)
class Encoded:
    examples: Sequence[Example]
    cut: int
    """rows whose end was cut off at the context"""
    notes: tuple[str, ...] = ()
    """what a person should know of the rows and of how they became tokens, each once"""
    origins: Sequence[int] = field(default=(), compare=False)
    """which row each example is of: one may become several"""
    remarks: tuple[tuple[str, int, int], ...] = ()
    """what the last of `notes` say: what is so, of how many examples, and the number of the first row"""


def encode(
    rows: Sequence[Row],
    kind: str,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    context: int,
    file: str = "",
    table: int = 0,
    positions: int = 0,
    writer: Writer | None = None,
) -> Encoded:
    """The rows in order, each of at most `context` tokens with its answer.

    `table` and `positions`: how many tokens and places the model has an embedding for; 0 where nothing limits them.

    The examples are in memory, or where `writer` puts them.
    Raises UsageError with every row that cannot be encoded, or where the tokenizer cannot serve the kind.
    """
    _refuse_unfillable(kind, tokenizer)
    made, remembering = _Made(writer or Writer(None)), quick(tokenizer)

    def render(part: Sequence[Row]) -> list[Rendered]:
        results = KINDS[kind].render(part, labels, remembering, template, context)
        return [_within(each, table, positions, remembering) for each in results]

    # Where words are remembered it is Python that works, a thread at a time; else tokenizers let go of its lock.
    parts = _in_order(render, _parts(rows), 1 if words_of(remembering) else THREADS)
    for part, results in counted(parts, "tokenizing rows", len(rows), lambda each: len(each[0])):
        for row, result in zip(part, results, strict=True):
            made.add(row, result)
    return made.encoded(rows, file)


def _refuse_unfillable(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UsageError for rows that an encoder cannot be trained on."""
    if fills_masks(tokenizer) and not KINDS[kind].label_column:
        raise UsageError(
            f"{kind} rows are for models that write, and an encoder fills in masks: it learns from rows with labels",
            "take a causal language model, such as Qwen/Qwen3-0.6B, or give rows with a text and a label",
        )


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    every = iter(rows)
    while part := list(itertools.islice(every, CHUNK)):
        yield part


def _in_order(
    render: Callable[[Sequence[Row]], list[Rendered]], parts: Iterator[list[Row]], threads: int
) -> Iterator[tuple[list[Row], list[Rendered]]]:
    """Each part with what it became; where there are several threads, some are rendered ahead."""
    for part in itertools.islice(parts, 1 if threads > 1 else None):
        yield part, render(part)  # before any thread: it settles what a tokenizer changes about itself when it is used
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[list[Row], Future[list[Rendered]]]] = deque()
        try:
            for part in parts:
                ahead.append((part, pool.submit(render, part)))
                if len(ahead) > 2 * threads:
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
        self.remarks: dict[str, tuple[int, int]] = {}  # how often, and the number of the first row

    def add(self, row: Row, result: Rendered) -> None:
        number, self.rows = self.rows, self.rows + 1
        if isinstance(result, Fault):
            self.faults.append((row.line, result))
        if isinstance(result, Fault) or self.faults:
            return
        if isinstance(result, Packed):
            self.writer.add_packed(result, number)
            self.examples, self.cut = self.examples + 1, self.cut + result.cut
            return
        made = result if isinstance(result, Made) else Made((result[0],), result[1])
        self.cut += made.cut
        for note in made.notes:
            self.notes[note] += 1
        for example in made.examples:
            self.writer.add(example, number)
            self.examples += 1
            if example.remark:
                count, first = self.remarks.get(example.remark, (0, number))
                self.remarks[example.remark] = count + 1, first

    def encoded(self, rows: Sequence[Row], file: str) -> Encoded:
        """Raises UsageError with every row that cannot be encoded."""
        if self.faults:
            where = f"{file}: " if file else ""
            lines = [f"{where}line {line}: {fault.text}" for line, fault in self.faults]
            what = f"{len(self.faults)} of {self.rows} rows cannot be used"
            raise FaultyRowsError(what, lines, _remedy([fault for _, fault in self.faults]))
        told = (f"{count} of {self.rows} rows {note}" for note, count in self.notes.items())
        remarks = tuple((what, *found) for what, found in self.remarks.items())
        store = self.writer.done()
        return Encoded(store, self.cut, (*told, *_remarked(remarks, self.examples, rows)), store.origins, remarks)


def _remarked(remarks: Iterable[tuple[str, int, int]], examples: int, rows: Sequence[Row]) -> Iterator[str]:
    """In words, with the line of the first row in the file that is read now."""
    for what, count, first in remarks:
        yield f"in {count} of {examples} rows, line {rows[first].line} first, {what}"


def _within(result: Rendered, table: int, positions: int, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """A fault where the model has no embedding for one of the tokens, or for one of their positions."""
    if isinstance(result, Fault) or not (table or positions):
        return result
    if isinstance(result, Packed):
        words = words_of(tokenizer)
        small = words and words.largest < (table or math.inf)  # no token is larger than the largest
        if small and len(result.tokens) // BYTES <= (positions or math.inf) - BUCKET_TOKENS:
            return result
        result = result.made()
    examples = result.examples if isinstance(result, Made) else result[:1]
    last = max(max(_tokens(example)) for example in examples)
    if table and last >= table:
        name = tokenizer.convert_ids_to_tokens(last) if last < len(tokenizer) else "in no vocabulary"
        return Fault(
            f"token {last}, {name!r}, is beyond the model's embedding table of {table} rows",
            "resize the model's embeddings to its tokenizer, or leave such tokens out of the rows",
        )
    room = positions - positions % BUCKET_TOKENS  # batches are padded to multiples of it
    longest = max(max(map(len, (*example.sequences, example.text[:-1]))) for example in examples)
    if positions and longest > room:
        padded = f" (they are padded to a multiple of {BUCKET_TOKENS})" if room < positions else ""
        unread = 0 if fills_masks(tokenizer) else 1  # an answer's last token is predicted, and never read
        text = f"{longest + unread} tokens are beyond the model's {positions} positions{padded}"
        return Fault(text, f"--set data.context={room} cuts such rows, or shorten them")
    return result


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
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    context: int,
    table: int = 0,
    positions: int = 0,
) -> Coded:
    """Every split, from the cache where a large data set was encoded before. Raises with the problems of all splits.

    `table` and `positions` as of `encode`.
    """
    asked = (template, context, (table, positions))
    kept = entry(dataset, tokenizer, *asked)
    if kept and (found := kept.read()):
        stores, told = found
        split = told["split"]
        said = _remarked(told["remarks"], len(stores[split]), dataset.splits[split])
        return Coded(dict(stores), told["cut"], (*told["notes"], *said), told["fingerprint"])
    with kept.making() if kept else nullcontext() as folder:
        made = _every_split(dataset, tokenizer, *asked, folder)
        examples = {split: encoded.examples for split, encoded in made.items()}
        first = next((split for split, encoded in made.items() if encoded.notes), next(iter(made)))
        notes, remarks = made[first].notes, made[first].remarks
        coded = Coded(examples, {split: each.cut for split, each in made.items()}, notes, fingerprint(examples))
        if kept and folder:  # the same rows may stand in another file, in other lines
            plain = notes[: len(notes) - len(remarks)]
            told = {
                "cut": coded.cut,
                "split": first,
                "notes": plain,
                "remarks": remarks,
                "fingerprint": coded.fingerprint,
            }
            kept.finish(folder, {s: each for s, each in examples.items() if isinstance(each, TokenStore)}, told)
    return coded


def _every_split(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    context: int,
    limits: tuple[int, int],
    folder: Path | None,
) -> dict[str, Encoded]:
    made, problems = dict[str, Encoded](), list[UsageError]()
    for split, rows in dataset.splits.items():
        asked = (dataset.kind, dataset.labels, tokenizer, template, context, dataset.files[split], *limits)
        try:
            made[split] = encode(rows, *asked, writer=Writer(folder, split))
        except UsageError as error:
            problems.append(error)
    if problems:
        raise _all_of(problems)
    return made


def _all_of(errors: Sequence[UsageError]) -> UsageError:
    """Those of several splits as one."""
    rows = [problem for error in errors if isinstance(error, FaultyRowsError) for problem in error.problems]
    if len(errors) == 1 or not rows:
        return errors[0]
    return FaultyRowsError(f"{len(rows)} rows cannot be used", rows, errors[0].hint)


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
