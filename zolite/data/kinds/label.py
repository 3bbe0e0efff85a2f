"""Rows with labels: the columns of a template. The answer is one of the labels found in train.

The candidates are compared by what their tokens score together: a row has one query per token of every label. An
encoder, which reads what stands behind a place too, has masks where the label stands (PET, arXiv 2001.07676): as many
as the label has tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError, listed
from zolite.data.examples import PADDING, Fault, Rendered, Tokens, ended, fills_masks, frame, no_room, tokenized
from zolite.data.in_place import in_place
from zolite.data.kinds import together
from zolite.data.kinds.candidates import Compared, compared, masked
from zolite.data.kinds.kind import Names, Piece, Prompt, Row
from zolite.data.kinds.template import HINT, labelled
from zolite.data.problems import as_text, noun, some
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_PAIRS = tuple(
    together.beside_one_another(text=texts, label=label)
    for texts in (
        ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"),
        ("question", "sentence"), ("title", "description"), ("headline", "short_description"), ("title", "abstract"),
    )
    for label in ("label", "category", "class", "class_index", "topic", "gold_label", "is_duplicate")
)  # fmt: skip
"""Two texts that one label is of, as lines."""


class Label:
    name = "label"
    title = "rows with labels: it learns to choose one"
    label_column = "label"
    metric = "accuracy"
    names = Names(
        spellings={
            "text": (
                "sentence",
                "review",
                "body",
                "message",
                "comment",
                "tweet",
                "utterance",
                "content",
                "document",
                "review_body",
                "review_text",
                "reviewtext",
            ),
            "label": ("category", "class", "sentiment", "intent", "topic", "labels", "target", "stars", "star_rating"),
        },
        answer=("label",),
        together=(*_PAIRS, together.first_few),
        joined=frozenset({"text"}),
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
        if fills_masks(tokenizer):
            yield from _masked(rows, labels, tokenizer, template, context)
            return
        if labelled(template).around:
            what = f"data.template {template!r} has text behind {{label}}, which only an encoder reads"
            raise UsageError(what, f"let {{label}} be its end, {HINT}")
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
        if behind := labelled(template).behind(row.columns):
            yield Piece(behind, False)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return count(row.columns["label"]) + 1

    def prompt(self, template: str) -> Prompt:
        """With one column the prompt is the column; with several it has to be typed as a whole."""
        parts = labelled(template)
        column, *others = parts.columns
        if others or len(parts.before) > 1:
            return Prompt(template=template)
        if parts.around:
            return Prompt(column=column, template=template)
        return Prompt(parts.before[0][0], parts.end, column=column, template=template)


KIND = Label()


def prompt_of(row: Row, template: str) -> str:
    """The template filled in up to {label}, without the whitespace before it, which belongs to the answer."""
    return labelled(template).prompt(row.columns)


def answer_of(label: str, template: str) -> str:
    """The label as it follows the prompt: with the whitespace that the template has before it."""
    return labelled(template).gap + label


def masked_text(row: Row, template: str, mask: str) -> str:
    """The template filled in, with an encoder's mask token in the place of {label}."""
    parts = labelled(template)
    return parts.prompt(row.columns) + parts.gap + mask + parts.behind(row.columns)


# ---- for encoders


def _masked(
    rows: Sequence[Row], labels: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: str, context: int
) -> Iterator[Rendered]:
    """The text as `tokenizer` makes tokens of it with its mask in the label's place."""
    parts, mask = labelled(template), int(tokenizer.mask_token_id)
    prompts, answers = [parts.prompt(row.columns) for row in rows], [parts.gap + label for label in labels]
    behind = _behind(tokenizer, [parts.behind(row.columns) for row in rows])

    @functools.cache
    def asked_of(tokens: tuple[Tokens, ...], tail: Tokens) -> Compared:
        _check_answers(labels, tokens)
        return masked(tokens, mask, tail)

    for row, placed, tail in zip(rows, in_place(tokenizer, prompts, [answers] * len(rows)), behind, strict=True):
        asked = asked_of(placed.answers, tail)
        if asked.inputs[0][-1] == PADDING:
            yield Fault(f"it ends with token {PADDING}, which stands for padding", "end the template with a dot")
        elif fault := no_room(placed.prompt, asked.longest, context):
            yield fault
        else:
            answer = labels.index(row.columns["label"])
            yield asked.example(placed.prompt, answer, KIND.metric, remark=placed.remark), False


def _behind(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens]:
    """Tokens of texts behind a mask, and those that end any text."""
    different = list(dict.fromkeys(texts))
    coded = tokenized(tokenizer, [f"{tokenizer.mask_token}{text}" for text in different], special=False)
    trail, mask = frame(tokenizer)[1], int(tokenizer.mask_token_id)
    found = {text: ids[ids.index(mask) + 1 :] + trail for text, ids in zip(different, coded, strict=True)}
    return [found[text] for text in texts]


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
