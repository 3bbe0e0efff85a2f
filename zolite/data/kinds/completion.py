"""Rows of prompt and completion: one query per token of the completion and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from zolite.data.examples import Fault, Rendered, ended, no_room, one_sequence
from zolite.data.in_place import in_place
from zolite.data.kinds.kind import Piece, Prompt, Row
from zolite.data.problems import noun
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Completion:
    name = "completion"
    title = "prompts and completions: it learns to complete"
    label_column = ""
    metric = "loss"

    def columns(self, template: str) -> tuple[str, ...]:
        return "prompt", "completion"

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        faults = [f"column {n!r} is {noun(record[n])}, not text" for n in columns if not isinstance(record[n], str)]
        return faults or ([] if record["completion"].strip() else ["column 'completion' is blank"])

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        return Row(line, {name: record[name] for name in columns})

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        prompts = [row.columns["prompt"] for row in rows]
        for placed in in_place(tokenizer, prompts, [(row.columns["completion"],) for row in rows]):
            prompt, (answer,) = placed.prompt, placed.answers
            if not answer:
                yield Fault("the completion has no tokens", "correct these completions")
            elif fault := no_room(prompt, 1, context):
                yield fault
            else:
                whole = prompt + ended(answer, tokenizer)
                example = one_sequence(whole[:context], range(len(prompt), len(whole)))
                yield replace(example, remark=placed.remark), len(whole) > context

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        yield Piece(row.columns["prompt"], False)
        yield Piece(row.columns["completion"], True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return count(row.columns["completion"]) + 1

    def prompt(self, template: str) -> Prompt:
        return Prompt()


KIND = Completion()
