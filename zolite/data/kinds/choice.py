"""Questions with choices of their own: they are compared behind the question, and the right one is learned.

`choices` is a list, an object of lists (`text` and `label`, as ARC has it) or several columns. The answer is a text, a
letter, the label or the column of a choice, or its number: from 0 or from 1, as the first rows of the file show.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError
from zolite.data.examples import Fault, Rendered, ended, no_room
from zolite.data.in_place import in_place
from zolite.data.kinds.candidates import compared
from zolite.data.kinds.completion import prompt_around, prompt_faults, prompt_texts, prompting
from zolite.data.kinds.kind import Names, Piece, Prompt, Row, Spelling
from zolite.data.problems import as_text, noun
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST = 10  # columns that are choices
FROM = "answer_from"
"""The column that holds 0 or 1 where answers are numbers: that of the first choice (data/columns.py: --columns)."""


def _families() -> Iterator[Spelling]:
    """Columns that hold a choice each: choice1, choice2, …; the most of them first."""
    letters = string.ascii_uppercase[:MOST]
    for count in range(MOST, 1, -1):
        for stem in ("choice", "option", "ending", "answer", "sol", "choice_", "option_", "ending_", "opt"):
            for first in (0, 1):
                yield tuple(f"{stem}{i}" for i in range(first, first + count))
            yield tuple(f"{stem}{letter}" for letter in letters[:count])
        yield tuple(letters[:count])


def _settled(sample: Sequence[Record]) -> Mapping[str, Any]:
    """From where answers are counted; UsageError where the first rows leave it open."""
    if not sample or FROM in sample[0]:
        return {}
    found = [(number, len(_choices(each)[0])) for each in sample if (number := _number(each)) is not None]
    if not found or any(number == 0 for number, _ in found):
        return {FROM: 0} if found else {}
    if any(number == count for number, count in found):
        return {FROM: 1}
    most = max(number for number, _ in found)
    raise UsageError(
        f"answers are numbers from 1 to {most}, which may count the choices from 0 or from 1",
        "say which by --columns answer_from_0=COLUMN or answer_from_1=COLUMN",
    )


NAMES = Names(
    becomes="a prompt and its right choice; evaluated by which choice scores highest",
    optional=(FROM,),
    spellings={
        "question": ("query", "question_stem", "stem", "prompt", "goal", "ctx", "premise", "sentence"),
        "context": ("passage", "article", "support", "premise"),
        "choices": ("options", "endings", "candidates", *_families()),
        "answer": ("label", "answerkey", "answer_key", "answer_idx", "correct", "correct_answer", "gold", "target"),
    },
    answer=("answer", "choices"),
    templates=True,
    settled=_settled,
)


@dataclass(frozen=True)
class Choice:
    name: str
    title: str
    template: str
    names: Names = NAMES
    label_column: str = ""
    metric: str = "accuracy"

    def columns(self, template: str) -> tuple[str, ...]:
        return (*prompting(self.names, template, self.template).columns, "choices", "answer")

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        faults = prompt_faults(record, [name for name in columns if name not in self.names.answer])
        texts, _ = _choices(record)
        if len(texts) < 2:
            return [*faults, f"{len(texts)} choices in column 'choices', and at least 2 are compared"]
        if blank := [i for i, text in enumerate(texts, 1) if not text.strip()]:
            return [*faults, f"choice {blank[0]} is blank"]
        if twice := [text for text in dict.fromkeys(texts) if texts.count(text) > 1]:
            return [*faults, f"choice {twice[0]!r} is there {texts.count(twice[0])} times"]
        return faults if _right(record) is not None else [*faults, _astray(record, len(texts))]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        texts, right = _choices(record)[0], _right(record)
        assert right is not None  # or it has a fault
        asked = prompt_texts(record, [name for name in columns if name not in self.names.answer])
        return Row(line, asked | {"answer": texts[right]}, choices=tuple(texts))

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        asked = prompting(self.names, template, self.template)
        prompts = [asked.prompt(row.columns) for row in rows]
        answers = [[asked.gap + choice for choice in row.choices] for row in rows]
        for row, placed in zip(rows, in_place(tokenizer, prompts, answers), strict=True):
            prompt, longest = placed.prompt, max(map(len, placed.answers))
            if not all(placed.answers) or len(set(placed.answers)) < len(placed.answers):
                yield Fault("this tokenizer cannot tell the choices apart", "correct these choices")
            elif fault := no_room(prompt, longest, context):
                yield fault
            else:
                right = row.choices.index(row.columns["answer"])
                text = prompt + ended(placed.answers[right], tokenizer)
                each = compared(placed.answers).example(prompt, right, self.metric, text, len(prompt), placed.remark)
                yield each, False

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        asked = prompting(self.names, template, self.template)
        yield Piece(asked.prompt(row.columns), False)
        yield Piece(asked.gap + row.columns["answer"], True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return sum(count(choice) for choice in row.choices) + 1

    def prompt(self, template: str) -> Prompt:
        return prompt_around(self.names, template, self.template)


KIND = Choice(
    "choice",
    "questions with choices: it learns to say the right one",
    "Question: {question}\nAnswer: {answer}",
)
WITH_CONTEXT = Choice(
    "choice-context",
    "questions with choices about a context: it learns to say the right one",
    "Context: {context}\nQuestion: {question}\nAnswer: {answer}",
)


# ---- records


def _choices(record: Record) -> tuple[list[str], list[str]]:
    """(the texts of the choices, other names of them in the same order, where they have some)."""
    found = record["choices"]
    if isinstance(found, dict) and isinstance(found.get("text"), list):
        return _texts(found["text"]), _texts(found.get("label") or [])
    if isinstance(found, dict):  # a choice a column, or an object of letters and texts
        return _texts(list(found.values())), list(map(str, found))
    if isinstance(found, list) and found and all(isinstance(each, dict) and "text" in each for each in found):
        return _texts([each["text"] for each in found]), [as_text(each.get("label", "")) for each in found]
    return _texts(found) if isinstance(found, list) else [], []


def _texts(values: Any) -> list[str]:
    return ["" if each is None else as_text(each) for each in values]


def _right(record: Record) -> int | None:
    """Which choice the answer is; None where it is none."""
    texts = _choices(record)[0]
    if (named := _named(record)) is not None:
        return named
    number = _number(record)
    place = -1 if number is None else number - int(record.get(FROM, 0))
    return place if 0 <= place < len(texts) else None


def _named(record: Record) -> int | None:
    """By what it says: a choice's other name, its text or its letter; an answer's own number never."""
    (texts, names), answer = _choices(record), record["answer"]
    if not isinstance(answer, str):
        return None
    said = answer.strip()
    for among in (names, [text.strip() for text in texts], [name.casefold() for name in names]):
        if said in among:
            return among.index(said)
    letter = said.strip("().:").upper()
    place = string.ascii_uppercase.find(letter) if len(letter) == 1 else -1
    return place if 0 <= place < len(texts) else None


def _number(record: Record) -> int | None:
    """An answer that is a number and nothing else that is known."""
    answer = record["answer"]
    if isinstance(answer, bool) or _named(record) is not None:
        return None
    if isinstance(answer, float) and answer.is_integer():
        return int(answer)
    if isinstance(answer, int):
        return answer
    return int(answer) if isinstance(answer, str) and answer.strip().isdecimal() else None


def _astray(record: Record, count: int) -> str:
    answer = record["answer"]
    if _number(record) is not None:
        first = int(record.get(FROM, 0))
        return f"answer {answer} is none of {count} choices, which are counted from {first}"
    shown = repr(answer) if isinstance(answer, str) else noun(answer)
    return f"answer {shown} is none of {count} choices, their letters or their numbers"
