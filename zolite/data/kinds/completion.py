"""Rows of a prompt and an answer that is any text: one query per token of the answer and its end.

`Completion` is every such shape: what differs is the columns, and the template that makes the prompt of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zolite.data.examples import Fault, Rendered, ended, no_room, one_sequence
from zolite.data.in_place import in_place
from zolite.data.kinds import together
from zolite.data.kinds.kind import Names, Piece, Prompt, Row
from zolite.data.kinds.template import Template, answering, of_prompts
from zolite.data.problems import as_text, noun
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Completion:
    name: str
    title: str
    names: Names
    answer: str
    """the column of the answer"""
    template: str
    """where no template of prompts is given"""
    label_column: str = ""
    metric: str = "loss"

    def columns(self, template: str) -> tuple[str, ...]:
        return (*prompting(self.names, template, self.template).columns, self.answer)

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        faults = prompt_faults(record, [name for name in columns if name != self.answer])
        answers = answers_in(record[self.answer])
        if not answers:
            return [*faults, f"column {self.answer!r} is {_empty(record[self.answer])}"]
        return faults if answers[0].strip() else [*faults, f"column {self.answer!r} is blank"]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        first, *others = (*answers_in(record[self.answer]), *answers_in(record.get("answers")))
        more = tuple(text for text in dict.fromkeys(others) if text != first)
        return Row(line, prompt_texts(record, columns) | {self.answer: first}, references=more)

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        texts = [[piece.text for piece in self.pieces(row, template)] for row in rows]
        return completed(tokenizer, [prompt for prompt, _ in texts], [answer for _, answer in texts], context)

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        asked = prompting(self.names, template, self.template)
        yield Piece(asked.prompt(row.columns), False)
        yield Piece(asked.gap + row.columns[self.answer], True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return count(row.columns[self.answer]) + 1

    def prompt(self, template: str) -> Prompt:
        return prompt_around(self.names, template, self.template)


_PAIRS = (
    ("document", "summary"), ("article", "summary"), ("article", "highlights"), ("dialogue", "summary"),
    ("text", "summary"), ("source", "target"), ("src", "tgt"), ("source_text", "target_text"),
    ("input_text", "target_text"),
)  # fmt: skip

KIND = Completion(
    name="completion",
    title="prompts and completions: it learns to complete",
    names=Names(
        spellings={
            "prompt": ("input", "query"),
            "completion": ("response", "output", "target", "answer", "reply"),
        },
        answer=("completion",),
        templates=True,
        together=tuple(
            together.alone(find)
            for find in (
                *(together.beside_one_another(prompt=one, completion=other) for one, other in _PAIRS),
                together.languages,
            )
        ),
        joined=frozenset({"prompt"}),
    ),
    answer="completion",
    template="{prompt}",
)


# ---- what kinds with a template of prompts have in common


def prompting(names: Names, template: str, own: str) -> Template:
    """The given template, or a kind's own where that is one of rows with labels, as the default is."""
    spelled = [each for name in names.answer for each in (name, *names.spellings.get(name, ()))]
    return answering(template if of_prompts(template) else own, frozenset(s for s in spelled if isinstance(s, str)))


def prompt_around(names: Names, template: str, own: str) -> Prompt:
    """With one column what is typed stands in its place; with several it has to be typed as a whole."""
    asked, shown = prompting(names, template, own), template if of_prompts(template) else own
    (before, column), *others = asked.before
    if others:
        return Prompt(template=shown)
    plain = not (before or asked.end)
    return Prompt() if plain else Prompt(before, asked.end, column=column, template=shown)


def prompt_texts(record: Record, columns: Sequence[str]) -> dict[str, str]:
    """Columns of a prompt as text; null is how files spell an empty cell."""
    return {name: "" if record[name] is None else as_text(record[name]) for name in columns}


def prompt_faults(record: Record, columns: Sequence[str]) -> list[str]:
    faults = [f"column {n!r} is {noun(record[n])}, not text" for n in columns if isinstance(record[n], list | dict)]
    if not faults and all(record[name] is None for name in columns):
        faults = [f"column {name!r} is null" for name in columns]
    return faults


def completed(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: Sequence[str], context: int
) -> Iterator[Rendered]:
    """Each answer behind its prompt, with its end."""
    for placed in in_place(tokenizer, prompts, [(answer,) for answer in answers]):
        prompt, (answer,) = placed.prompt, placed.answers
        if not answer:
            yield Fault("the completion has no tokens", "correct these completions")
        elif fault := no_room(prompt, 1, context):
            yield fault
        else:
            whole = prompt + ended(answer, tokenizer)
            example = one_sequence(whole[:context], range(len(prompt), len(whole)))
            yield replace(example, remark=placed.remark), len(whole) > context


# ---- answers


def answers_in(value: Any) -> list[str]:
    """Every answer in a cell: a text or number, a list of them, or an object that has them, as those of SQuAD do."""
    if isinstance(value, dict):
        found = next((value[key] for key in ("text", "spans", "value", "answer") if key in value), None)
        return [*answers_in(found), *answers_in(value.get("aliases"))]
    if isinstance(value, list):
        return [text for each in value for text in answers_in(each)]
    return [] if value is None else [as_text(value)]


def _empty(value: Any) -> str:
    return "null" if value is None else f"{noun(value)} without an answer"
