"""All rows of a split as examples, or every row that cannot be one, with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
) -> Encoded:
    """The rows in order, each of at most `context` tokens with its answer.

    Raises UsageError with every row that cannot be encoded, or where the tokenizer cannot serve the kind.
    """
    if not rows:
        return Encoded((), 0)
    return _collect(rows, KINDS[kind].render(rows, labels, tokenizer, template, context), file)


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
    return Encoded(examples, sum(cut for _, cut in done), tuple(_notes(rows, examples)))


def _notes(rows: Sequence[Row], examples: Sequence[Example]) -> Iterator[str]:
    lines: dict[str, list[int]] = {}
    for row, example in zip(rows, examples, strict=True):
        lines.setdefault(example.remark, []).append(row.line)
    lines.pop("", None)
    for remark, where in lines.items():
        yield f"in {len(where)} of {len(rows)} rows, line {where[0]} first, {remark}"


def _remedy(faults: Sequence[Fault]) -> str:
    need = max(fault.context for fault in faults)
    room = [f"--set data.context={need} would do, or shorten these rows"] if need else []
    return "; ".join(room + list(dict.fromkeys(fault.hint for fault in faults if fault.hint)))
