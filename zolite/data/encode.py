"""All rows of a split as examples, or every row that cannot be one, with its line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zolite.common.errors import UsageError, listed
from zolite.data.examples import Example, Fault, Rendered
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    examples: tuple[Example, ...]
    cut: int
    """rows whose end was cut off at the context"""
    notes: tuple[str, ...] = ()
    """what should be known of how rows became tokens, each once with the number of rows"""


def encode(
    rows: Sequence[Row],
    kind: str,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    context: int,
    file: str = "",
    table: int = 0,
) -> Encoded:
    """The rows in order, each of at most `context` tokens with its answer, all below `table` unless that is 0.

    Raises UsageError with every row that cannot be encoded, or where the tokenizer cannot serve the kind.
    """
    if not rows:
        return Encoded((), 0)
    results = KINDS[kind].render(rows, labels, tokenizer, template, context)
    return _collect(rows, (_within(each, table, tokenizer) for each in results) if table else results, file)


def remarks(examples: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """Of (line, remark) of every row: each remark once, with the number of rows and the first of them."""
    every = list(examples)
    lines: dict[str, list[int]] = {}
    for line, remark in every:
        lines.setdefault(remark, []).append(line)
    lines.pop("", None)
    return tuple(f"in {len(at)} of {len(every)} rows, line {at[0]} first, {remark}" for remark, at in lines.items())


def _within(result: Rendered, table: int, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """A fault where the model has no embedding for one of the tokens."""
    if isinstance(result, Fault):
        return result
    example, _ = result
    last = max(*map(max, example.sequences), *(query.token for query in example.queries), *example.text)
    if last < table:
        return result
    name = tokenizer.convert_ids_to_tokens(last)
    return Fault(
        f"token {last}, {name!r}, is beyond the model's embedding table of {table} rows",
        "resize the model's embeddings to its tokenizer, or leave such tokens out of the rows",
    )


def _collect(rows: Sequence[Row], results: Iterator[Rendered], file: str) -> Encoded:
    done: list[tuple[Example, bool]] = []
    faults: list[tuple[int, Fault]] = []
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Fault):
            faults.append((row.line, result))
        else:
            done.append(result)
    if faults:
        where = f"{file}: " if file else ""
        lines = listed([f"{where}line {line}: {fault.text}" for line, fault in faults])
        raise UsageError(f"{len(faults)} of {len(rows)} rows cannot be used:\n{lines}", _remedy([f for _, f in faults]))
    examples = tuple(example for example, _ in done)
    said = remarks((row.line, example.remark) for row, example in zip(rows, examples, strict=True))
    return Encoded(examples, sum(cut for _, cut in done), said)


def _remedy(faults: Sequence[Fault]) -> str:
    need = max(fault.context for fault in faults)
    room = [f"--set data.context={need} would do, or shorten these rows"] if need else []
    return "; ".join(room + list(dict.fromkeys(fault.hint for fault in faults if fault.hint)))
