"""All rows of a split as examples, or every row that cannot be one, with its line."""

from __future__ import annotations

import array
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zolite.config.sizes import BUCKET_TOKENS
from zolite.data.examples import Example, Fault, Made, Rendered
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.data.problems import FaultyRowsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    examples: tuple[Example, ...]
    cut: int
    """rows whose end was cut off at the context"""
    notes: tuple[str, ...] = ()
    """what a person should know of the rows and of how they became tokens, each once"""
    origins: tuple[int, ...] = field(default=(), compare=False)
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
    positions: int = 0,
) -> Encoded:
    """The rows in order, each of at most `context` tokens with its answer.

    `table` and `positions`: how many tokens and places the model has an embedding for; 0 where nothing limits them.

    Raises UsageError with every row that cannot be encoded, or where the tokenizer cannot serve the kind.
    """
    if not rows:
        return Encoded((), 0)
    results = KINDS[kind].render(rows, labels, tokenizer, template, context)
    return _collect(rows, (_within(each, table, positions, tokenizer) for each in results), file)


def remarks(examples: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """Of (line, remark) of every row: each remark once, with the number of rows and the first of them."""
    every = list(examples)
    lines: dict[str, list[int]] = {}
    for line, remark in every:
        lines.setdefault(remark, []).append(line)
    lines.pop("", None)
    return tuple(f"in {len(at)} of {len(every)} rows, line {at[0]} first, {remark}" for remark, at in lines.items())


def _within(result: Rendered, table: int, positions: int, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """A fault where the model has no embedding for one of the tokens, or for one of their positions."""
    if isinstance(result, Fault) or not (table or positions):
        return result
    examples = result.examples if isinstance(result, Made) else result[:1]
    last = max(token for example in examples for token in _tokens(example))
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
        text = f"{longest + 1} tokens are beyond the model's {positions} positions{padded}"
        return Fault(text, f"--set data.context={room} cuts such rows, or shorten them")
    return result


def _tokens(example: Example) -> Iterator[int]:
    """Every token that the model reads or predicts."""
    yield from itertools.chain(*example.sequences, (query.token for query in example.queries), example.text)


def _collect(rows: Sequence[Row], results: Iterator[Rendered], file: str) -> Encoded:
    done: list[tuple[int, Made]] = []
    faults: list[tuple[int, Fault]] = []
    for i, (row, result) in enumerate(zip(rows, results, strict=True)):
        if isinstance(result, Fault):
            faults.append((row.line, result))
        else:
            done.append((i, result if isinstance(result, Made) else Made((result[0],), result[1])))
    if faults:
        where = f"{file}: " if file else ""
        lines = [f"{where}line {line}: {fault.text}" for line, fault in faults]
        what = f"{len(faults)} of {len(rows)} rows cannot be used"
        raise FaultyRowsError(what, lines, _remedy([f for _, f in faults]))
    counts = Counter(note for _, made in done for note in made.notes)
    told = tuple(f"{count} of {len(rows)} rows {note}" for note, count in counts.items())
    examples = tuple(example for _, made in done for example in made.examples)
    origins = tuple(i for i, made in done for _ in made.examples)
    said = remarks((rows[i].line, example.remark) for i, example in zip(origins, examples, strict=True))
    return Encoded(examples, sum(made.cut for _, made in done), told + said, origins)


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """sha256 of all that a model reads and predicts of rows: it tells another template, tokenizer or date."""
    digest = hashlib.sha256()
    for split, examples in splits.items():
        digest.update(f"{split}:{len(examples)};".encode())
        for example in examples:
            digest.update(array.array("i", _numbers(example)).tobytes())
    return digest.hexdigest()


def _numbers(example: Example) -> Iterable[int]:
    yield from (example.answer, example.candidates, example.begins, len(example.text), *example.text)
    for sequence in example.sequences:
        yield from (len(sequence), *sequence)
    for query in example.queries:
        yield from (query.sequence, query.position, query.token, query.candidate)


def _remedy(faults: Sequence[Fault]) -> str:
    need = max(fault.context for fault in faults)
    room = [f"--set data.context={need} would do, or shorten these rows"] if need else []
    return "; ".join(room + list(dict.fromkeys(fault.hint for fault in faults if fault.hint)))
