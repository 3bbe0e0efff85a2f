"""Pairs of answers to one prompt, of which one was preferred: it learns to rank that one higher.

The two are compared as candidates are: the loss of a pair is -log σ(c − r), where c and r are the mean
log-probabilities of the tokens of the chosen and of the rejected answer, their ends included. There is no reference
model. As texts they are continued as they stand; as messages they are rendered by the model's chat template.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zolite.data.examples import Example, Fault, Made, Rendered, Tokens, ended, no_room
from zolite.data.in_place import in_place
from zolite.data.kinds.candidates import compared
from zolite.data.kinds.kind import Names, Piece, Prompt, Row
from zolite.data.kinds.messages import check_template, message_faults, present
from zolite.data.problems import noun
from zolite.data.readers.reader import Record
from zolite.data.turns import examples_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDES = ("chosen", "rejected")
ENDLESS = 2**31  # tokens: nothing is cut before the two are compared
TURN = "\n\nAssistant:"  # where the last turn begins in texts that are conversations, as Anthropic's are


@dataclass(frozen=True)
class Preference:
    name: str
    title: str
    messages: bool
    """are they messages?"""
    names: Names
    label_column: str = ""
    metric: str = "accuracy"

    def columns(self, template: str) -> tuple[str, ...]:
        return SIDES

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        (prompt, _, _), faults = _read(record)
        if not faults and isinstance(prompt, tuple) != self.messages:
            return ["messages among texts" if prompt and not self.messages else "a text among messages"]
        return faults

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        (prompt, chosen, rejected), _ = _read(record)
        sides = {"chosen": chosen, "rejected": rejected}
        return Row(line, sides, prompt) if isinstance(prompt, tuple) else Row(line, {"prompt": prompt, **sides})

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        if not self.messages:
            return _as_texts(rows, tokenizer, context)
        check_template(tokenizer)
        return (_as_messages(row, tokenizer, context) for row in rows)

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        before = "".join(f"[{m['role']}] {m['content']}\n" for m in row.messages)
        yield Piece(before + "[assistant] " if before else row.columns["prompt"], False)
        yield Piece(row.columns["chosen"], True)

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return sum(count(row.columns[side]) + 1 for side in SIDES)

    def prompt(self, template: str) -> Prompt:
        return Prompt(chat=self.messages)


def _names(fits: Callable[[Record], bool]) -> Names:
    return Names(
        optional=("prompt",),
        spellings={"prompt": ("question", "instruction", "input", "query"), "chosen": ("preferred",)},
        becomes="two answers that are compared: the chosen one is to score higher",
        answer=SIDES,
        fits=fits,
    )


def _are_messages(record: Record) -> bool:
    return any(isinstance(record.get(name), list) for name in ("prompt", *SIDES))


TITLE = "preferred and rejected {}: it learns to rank the preferred one higher"
KIND = Preference("preference", TITLE.format("answers"), False, _names(lambda record: not _are_messages(record)))
MESSAGES = Preference("preference-messages", TITLE.format("answers in chats"), True, _names(_are_messages))


# ---- records

Pair = tuple[Any, str, str]  # the prompt, as text or messages, and both answers
NONE: Pair = ("", "", "")


def _read(record: Record) -> tuple[Pair, list[str]]:
    """(prompt, chosen and rejected, what is wrong)."""
    sides = [record[side] for side in SIDES]
    kinds = {noun(value) for value in sides}
    if kinds not in ({"text"}, {"a list"}):
        return NONE, [f"columns 'chosen' and 'rejected' are {' and '.join(map(noun, sides))}, not two texts or lists"]
    prompt = record.get("prompt")
    (asked, chosen, rejected), faults = (_texts if kinds == {"text"} else _lists)(prompt, *sides)
    if not faults and chosen == rejected:
        faults = ["'chosen' and 'rejected' are the same"]
    if not faults and not (chosen.strip() and rejected.strip()):
        faults = [f"{'rejected' if chosen.strip() else 'chosen'!r} is blank"]
    return (asked, chosen, rejected), faults


def _texts(prompt: Any, chosen: str, rejected: str) -> tuple[Pair, list[str]]:
    if isinstance(prompt, list):
        return _lists(prompt, *([{"role": "assistant", "content": text}] for text in (chosen, rejected)))
    if prompt is not None and not isinstance(prompt, str):
        return NONE, [f"column 'prompt' is {noun(prompt)}, not text or a list of messages"]
    if prompt:
        return (prompt, chosen.removeprefix(prompt), rejected.removeprefix(prompt)), []
    shared = _shared(chosen, rejected)
    last_word = re.search(r"\s*\S*\Z", shared)
    assert last_word is not None  # it may be nothing
    cut = shared.rfind(TURN) + len(TURN) if TURN in shared else last_word.start()
    return (shared[:cut], chosen[cut:], rejected[cut:]), []


def _shared(one: str, other: str) -> str:
    """What two texts begin with."""
    pairs = zip(one, other, strict=False)
    return "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _lists(prompt: Any, chosen: list[Any], rejected: list[Any]) -> tuple[Pair, list[str]]:
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) and prompt else prompt or []
    faults = [
        f"message {i} of {name!r}: {fault}"
        for name, messages in (("prompt", before), ("chosen", chosen), ("rejected", rejected))
        for i, message in enumerate(messages, 1)
        for fault in message_faults(message)
    ]
    if faults:
        return NONE, faults
    talks = [[present(m) for m in messages] for messages in (before, chosen, rejected)]
    before, sides = talks[0], talks[1:]
    if min(map(len, sides)) > 1:  # each is the whole conversation
        before, sides = sides[0][:-1], [side if side[:-1] == sides[0][:-1] else [] for side in sides]
    if not before or any(not side or side[-1]["role"] != "assistant" for side in sides):
        return NONE, ["'chosen' and 'rejected' are not one conversation up to its last message, an assistant's"]
    chosen_text, rejected_text = (str(side[-1]["content"]) for side in sides)
    return (tuple(before), chosen_text, rejected_text), []


# ---- tokens


def _as_texts(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, context: int) -> Iterator[Rendered]:
    answers = [[row.columns[side] for side in SIDES] for row in rows]
    for placed in in_place(tokenizer, [row.columns["prompt"] for row in rows], answers):
        if all(placed.answers):
            yield _pair(placed.prompt, [ended(answer, tokenizer) for answer in placed.answers], context, placed.remark)
        else:
            yield Fault("an answer has no tokens", "correct these answers")


def _pair(prompt: Tokens, answers: Sequence[Tokens], context: int, remark: str = "") -> tuple[Example, bool] | Fault:
    if fault := no_room(prompt, 1, context):
        return fault
    room = context - len(prompt)
    short = [answer[:room] for answer in answers]
    if short[0] == short[1]:
        return Fault(f"both answers are the same up to context {context}", context=len(prompt) + max(map(len, answers)))
    return compared(short).example(prompt, 0, KIND.metric, remark=remark), short != list(answers)


def _as_messages(row: Row, tokenizer: PreTrainedTokenizerBase, context: int) -> Rendered:
    """Both conversations as they are rendered, the last message alone being asked for."""
    before = tuple({**m, "weight": 0} if m["role"] == "assistant" else m for m in row.messages)
    made: list[Made] = []
    for side in SIDES:
        found = examples_of(
            Row(row.line, {}, (*before, {"role": "assistant", "content": row.columns[side]})), tokenizer, 2**31
        )
        if isinstance(found, Fault):
            return found
        made.append(found)
    texts = [(each.examples[-1].text, each.examples[-1].begins) for each in made]
    begins = min(begins for _, begins in texts)
    prompt = texts[0][0][:begins]
    pair = _pair(prompt, [text[begins:] for text, _ in texts], context)
    notes = tuple(dict.fromkeys(note for each in made for note in each.notes))
    return pair if isinstance(pair, Fault) else Made((pair[0],), pair[1], notes)
