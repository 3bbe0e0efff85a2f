"""Rows with labels: the columns of a template. The answer is one of the labels found in train.

The candidates are compared by what their tokens score together: a row has one query per token of every label.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError, listed
from zolite.data.examples import Example, Query, Rendered, Tokens, ended, no_room
from zolite.data.in_place import in_place
from zolite.data.kinds.kind import Piece, Prompt, Row
from zolite.data.problems import as_text, noun
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Label:
    name = "label"
    title = "rows with labels: it learns to choose one"
    label_column = "label"
    metric = "accuracy"

    def columns(self, template: str) -> tuple[str, ...]:
        """Those that the template names, each once, label last; UsageError as of `pieces`."""
        return tuple(dict.fromkeys(name for _, name in pieces(template)))

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        faults = ((name, _cell_fault(record[name])) for name in columns)
        return [f"column {name!r} is {fault}" for name, fault in faults if fault]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        texts = {name: as_text(record[name]) for name in columns}
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
        compared = functools.cache(functools.partial(_compared, tuple(labels)))
        for row, placed in zip(rows, in_place(tokenizer, prompts, [answers] * len(rows)), strict=True):
            prompt, asked = placed.prompt, compared(placed.answers)
            if fault := no_room(prompt, asked.longest, context):
                yield fault
                continue
            answer = labels.index(row.columns["label"])
            yield (
                Example(
                    sequences=tuple(prompt + tail for tail in asked.inputs),
                    queries=tuple(Query(s, len(prompt) + at, token, c) for s, at, token, c in asked.queries),
                    answer=answer,
                    candidates=len(labels),
                    metric=self.metric,
                    text=prompt + ended(placed.answers[answer], tokenizer),
                    begins=len(prompt),
                    remark=placed.remark,
                ),
                False,
            )

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        yield Piece(prompt_of(row, template), False)
        yield Piece(answer_of(row.columns["label"], template), True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return count(row.columns["label"]) + 1

    def prompt(self, template: str) -> Prompt:
        """With one column the prompt is the column; with several it has to be typed as a whole."""
        (before, column), *others, (last, _) = pieces(template)
        if others:
            return Prompt(template=template)
        return Prompt(before, last.rstrip(), column=column, template=template)


KIND = Label()


# ---- the template


def pieces(template: str) -> tuple[tuple[str, str], ...]:
    """The template as (literal text, column after it), the last column being label.

    Raises UsageError where it is not made of text, {column}s and a {label} at its end.
    """
    hint = 'for example --template "{text}\\nCategory: {label}"'
    found: list[tuple[str, str]] = []
    literal = ""
    try:
        for text, name, spec, conversion in Formatter().parse(template):
            literal += text
            if spec or conversion or name == "":
                raise ValueError(f"{{{name}}} is to be a column's name and nothing else")
            if name is not None:
                found.append((literal, name))
                literal = ""
    except ValueError as error:
        raise UsageError(f"data.template {template!r} cannot be filled in: {error}", hint) from error
    names = [name for _, name in found]
    if literal.strip() or names[-1:] != ["label"] or names.count("label") > 1:
        raise UsageError(f"data.template {template!r} does not have {{label}} once, at its end", hint)
    if len(found) == 1:
        raise UsageError(f"data.template {template!r} names no column besides label", hint)
    return tuple(found)


def prompt_of(row: Row, template: str) -> str:
    """The template filled in up to {label}, without the whitespace before it, which belongs to the answer."""
    *before, (last, _) = pieces(template)
    return "".join(text + row.columns[name] for text, name in before) + last.rstrip()


def answer_of(label: str, template: str) -> str:
    """The label as it follows the prompt: with the whitespace that the template has before it."""
    last = pieces(template)[-1][0]
    return last[len(last.rstrip()) :] + label


# ---- checks and candidates


def _cell_fault(value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        return noun(value)
    return "" if as_text(value).strip() else "blank"


@dataclass(frozen=True)
class _Compared:
    """A row's labels: what is run behind its prompt, and what is asked there."""

    inputs: tuple[Tokens, ...]
    queries: tuple[tuple[int, int, int, int], ...]
    """as in `Query`, with places from the prompt's end"""
    longest: int


def _compared(labels: Sequence[str], answers: tuple[Tokens, ...]) -> _Compared:
    """Raises UsageError where they cannot be told apart."""
    _check_answers(labels, answers)
    inputs, home = _maximal([answer[:-1] for answer in answers])
    queries = tuple((home[c], j - 1, token, c) for c, answer in enumerate(answers) for j, token in enumerate(answer))
    return _Compared(tuple(inputs), queries, max(map(len, answers)))


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


def _maximal(inputs: Sequence[Tokens]) -> tuple[list[Tokens], list[int]]:
    """(the inputs that no other one extends, for each input the index of one that starts with it)."""
    ordered = sorted(set(inputs))  # whatever extends an input comes directly after it
    kept = [a for a, b in zip(ordered, [*ordered[1:], None], strict=True) if b is None or b[: len(a)] != a]
    return kept, [next(i for i, whole in enumerate(kept) if whole[: len(a)] == a) for a in inputs]
