"""Rows with labels: the columns of a template. The answer is one of the labels found in train.

The candidates are compared by what their tokens score together: a row has one query per token of every label.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError, listed
from zolite.data.examples import Rendered, Tokens, ended, no_room
from zolite.data.in_place import in_place
from zolite.data.kinds.candidates import Compared, compared
from zolite.data.kinds.kind import Names, Piece, Prompt, Row
from zolite.data.kinds.template import labelled
from zolite.data.problems import as_text, noun, some
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Label:
    name = "label"
    title = "rows with labels: it learns to choose one"
    label_column = "label"
    metric = "accuracy"
    names = Names(
        spellings={
            "text": ("sentence", "review", "body", "message", "comment", "tweet", "utterance", "content", "document"),
            "label": ("category", "class", "sentiment", "intent", "topic", "labels", "target"),
        },
        answer=("label",),
    )

    def columns(self, template: str) -> tuple[str, ...]:
        """Those that the template names, each once, label last; UsageError as of `labelled`."""
        return (*labelled(template).columns, "label")

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        faults = ((name, _cell_fault(_only(record[name]) if name == "label" else record[name])) for name in columns)
        return [f"column {name!r} is {fault}" for name, fault in faults if fault]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        texts = {name: as_text(_only(record[name]) if name == "label" else record[name]) for name in columns}
        return Row(line, texts | {"label": texts["label"].strip()})  # with a space around it, it would be another label

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        prompts = [prompt_of(row, template) for row in rows]
        answers = [answer_of(label, template) for label in labels]
        asked_of = functools.cache(functools.partial(_compared, tuple(labels)))
        for row, placed in zip(rows, in_place(tokenizer, prompts, [answers] * len(rows)), strict=True):
            prompt, asked = placed.prompt, asked_of(placed.answers)
            if fault := no_room(prompt, asked.longest, context):
                yield fault
                continue
            answer = labels.index(row.columns["label"])
            text = prompt + ended(placed.answers[answer], tokenizer)
            yield asked.example(prompt, answer, self.metric, text, len(prompt), placed.remark), False

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        yield Piece(prompt_of(row, template), False)
        yield Piece(answer_of(row.columns["label"], template), True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return count(row.columns["label"]) + 1

    def prompt(self, template: str) -> Prompt:
        """With one column the prompt is the column; with several it has to be typed as a whole."""
        (before, column), *others = labelled(template).before
        if others:
            return Prompt(template=template)
        return Prompt(before, labelled(template).end, column=column, template=template)


KIND = Label()


def prompt_of(row: Row, template: str) -> str:
    """The template filled in up to {label}, without the whitespace before it, which belongs to the answer."""
    return labelled(template).prompt(row.columns)


def answer_of(label: str, template: str) -> str:
    """The label as it follows the prompt: with the whitespace that the template has before it."""
    return labelled(template).gap + label


# ---- checks


def _only(value: Any) -> Any:
    """Of a list of labels the one that is in it, as programs write them that allow several."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _cell_fault(value: Any) -> str:
    if isinstance(value, list) and len(value) > 1 and not any(isinstance(each, list | dict) for each in value):
        return f"{len(value)} labels ({some(map(as_text, value))}): a row has one"
    if value is None or isinstance(value, list | dict):
        return noun(value)
    return "" if as_text(value).strip() else "blank"


def _compared(labels: Sequence[str], answers: tuple[Tokens, ...]) -> Compared:
    """Raises UsageError where they cannot be told apart."""
    _check_answers(labels, answers)
    return compared(answers)


def _check_answers(labels: Sequence[str], answers: Sequence[Tokens]) -> None:
    first = {answer: label for label, answer in reversed(list(zip(labels, answers, strict=True)))}
    problems = [f"label {label!r} has no tokens" for label, answer in zip(labels, answers, strict=True) if not answer]
    problems += [
        f"labels {first[answer]!r} and {label!r} have the same tokens"
        for label, answer in zip(labels, answers, strict=True)
        if answer and first[answer] != label
    ]
    if problems:
        raise UsageError(f"this tokenizer cannot tell the labels apart:\n{listed(problems)}", "rename these labels")
