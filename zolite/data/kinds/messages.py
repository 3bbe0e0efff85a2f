"""Conversations: one query per token of the assistant's messages, as the model's chat template spells them.

A record has `messages`, and `tools` where the assistant may call some. A message has a role and content, as a text or
as parts that are texts, or an assistant's calls of tools in the place of content; an assistant's with "weight": 0 is
read and not trained. What else messages have (names, ids of calls, reasoning_content) goes to the template as it is.

`Conversations` is every shape that becomes one: what differs is how messages are made of a record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError
from zolite.data.answered import answered_of
from zolite.data.chat_template import reads, template_of
from zolite.data.examples import Fault, Made, Rendered
from zolite.data.kinds.completion import completed
from zolite.data.kinds.kind import Names, Piece, Prompt, Row
from zolite.data.problems import noun, some
from zolite.data.readers.reader import Record
from zolite.data.turns import THOUGHTS, examples_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALWAYS = ("role", "content", "weight")  # keys of messages that are read, whatever the template does
OTHER = "use rows of prompt + completion, or another model"


class MessagesError(ValueError):
    """Why a record has no messages, as a person is told."""


@dataclass(frozen=True)
class Plain:
    """How a conversation of one question is a text, for models without a chat template."""

    prompt: Callable[[Row], str]
    answer: Callable[[Row], str]
    around: tuple[str, str]
    """what stands before and after a question"""


@dataclass(frozen=True)
class Conversations:
    name: str
    title: str
    needed: tuple[str, ...]
    names: Names
    messages: Callable[[Record], Any]
    """of a record: a list of objects with role and content; MessagesError where there are none"""
    sound: bool = False
    """are its messages made of texts here, so that nothing else can be wrong with them?"""
    plain: Plain | None = None
    label_column: str = ""
    metric: str = "loss"

    def columns(self, template: str) -> tuple[str, ...]:
        return self.needed

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        try:
            messages = self.messages(record)
        except MessagesError as error:
            return [str(error)]
        if self.sound:
            return []
        faults = [f"message {i}: {fault}" for i, m in enumerate(messages, 1) for fault in message_faults(m)]
        faults += _objects(record.get("tools"), "column 'tools'")[1]
        if faults or any(_trained(m) and (m.get("tool_calls") or text_of(m).strip()) for m in messages):
            return faults
        return [f"none of {len(messages)} messages is an assistant's with content that is to be trained"]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        if self.sound:
            return Row(line, {}, tuple(self.messages(record)))
        messages = tuple(_with_calls(present(message)) for message in self.messages(record))
        return Row(line, {}, messages, tuple(_objects(record.get("tools"), "")[0]))

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        if self.plain and not tokenizer.chat_template:
            answers = [self.plain.answer(row) for row in rows]
            return completed(tokenizer, [self.plain.prompt(row) for row in rows], answers, context)
        check_template(tokenizer)
        answered = answered_of(tokenizer)
        known = (answered.example(row.messages, context) if answered and not row.tools else None for row in rows)
        return (each or _rendered(row, tokenizer, context) for row, each in zip(rows, known, strict=True))

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        if row.tools:
            yield Piece(f"[tools] {json.dumps(row.tools, ensure_ascii=False)}\n", False)
        for message in row.messages:
            yield Piece(f"[{message['role']}] ", False)
            yield Piece(f"{_text(message)}\n", _trained(message))

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        return count("\n".join(_text(m) for m in row.messages if _trained(m))) + len(row.messages)

    def prompt(self, template: str) -> Prompt:
        return Prompt(chat=True, plain=self.plain.around if self.plain else None)


def _messages(record: Record) -> Any:
    return listed_messages(record["messages"], "messages")


def listed_messages(value: Any, column: str) -> list[Any]:
    """A list in a cell, or its JSON; MessagesError where it is something else."""
    found = _parsed(value)
    if not isinstance(found, list):
        what = f"column {column!r} is {noun(found)}, not a list"
        raise MessagesError(what + (" or its JSON" if isinstance(found, str) else ""))
    return found


KIND = Conversations(
    name="messages",
    title="conversations: it learns what the assistant says",
    needed=("messages",),
    names=Names(optional=("tools",)),
    messages=_messages,
)


def _both(record: Record) -> Any:
    return [*listed_messages(record["prompt"], "prompt"), *listed_messages(record["completion"], "completion")]


PAIR = Conversations(
    name="completion-messages",
    title="prompts and completions that are messages: it learns what the assistant says",
    needed=("prompt", "completion"),
    names=Names(
        optional=("tools",),
        becomes="conversations in the model's chat template",
        answer=("completion",),
        fits=lambda record: isinstance(record["prompt"], list) and isinstance(record["completion"], list),
    ),
    messages=_both,
)


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """UsageError where a tokenizer cannot render conversations."""
    if not tokenizer.chat_template:
        raise UsageError("the data is conversations, but the model has no chat template", OTHER)
    if not tokenizer.is_fast:
        raise UsageError("the model's tokenizer does not say which text a token stands for", OTHER)


def _trained(message: Record) -> bool:
    return message["role"] == "assistant" and message.get("weight") != 0


def _text(message: Record) -> str:
    """What a message says, its calls as JSON."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join([text for text in (text_of(message),) if text] + calls)


def text_of(message: Mapping[str, Any]) -> str:
    """A message's content as text. Parts are lines, as vLLM hands them to templates that take text alone."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part if isinstance(part, str) else str(part["text"]) for part in content)
    return content or ""


def _rendered(row: Row, tokenizer: PreTrainedTokenizerBase, context: int) -> Made | Fault:
    template = template_of(tokenizer, row.tools)
    keys = dict.fromkeys(key for message in row.messages for key in message if key not in ALWAYS)
    unread = [key for key in keys if not any(reads(template, k) for k in (THOUGHTS if key in THOUGHTS else (key,)))]
    lost = ["tools"] if row.tools and not reads(template, "tools") else []
    if lost := lost + [key for key in unread if key == "tool_calls"]:
        text = f"the model's chat template does not read {' and '.join(map(repr, lost))}"
        return Fault(text, "use a model whose template takes tools, or write them into the messages' content")
    made = examples_of(row, tokenizer, context)
    if isinstance(made, Fault):
        return made
    notes = tuple(f"have {key!r} in messages, which the model's chat template does not read" for key in unread)
    return Made(made.examples, made.cut, (*made.notes, *notes))


# ---- records


def message_faults(message: Any) -> list[str]:
    if not isinstance(message, dict):
        return [f"{noun(message)}, not an object with role and content"]
    calls, faults = _objects(message.get("tool_calls"), "'tool_calls'")
    faults += [f"'tool_calls' {i}: {fault}" for i, call in enumerate(calls, 1) for fault in _call_faults(call)]
    asked = ("role",) if calls and message.get("content") is None else ("role", "content")
    texts = {key: message.get(key) for key in asked}
    if isinstance(parts := texts.get("content"), list):
        del texts["content"]
        faults += _part_faults(parts)
    faults += [f"{key!r} is {noun(value)}, not text" for key, value in texts.items() if not isinstance(value, str)]
    if message.get("role") == "":
        faults.append("'role' is blank")
    if message.get("weight", 1) not in (0, 1, None):
        faults.append(f"'weight' is {message['weight']!r}, not 0 or 1")
    return faults


def _part_faults(parts: list[Any]) -> list[str]:
    """Of content in parts, as the APIs of OpenAI and others have it: texts alone can be trained."""
    kinds = ("a text" if _is_text(part) else _kind_of_part(part) for part in parts)
    others = dict.fromkeys(kind for kind in kinds if kind != "a text")
    return [f"'content' has {some(others)}, and zolite trains on text alone"] if others else []


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("text"), str))


def _kind_of_part(part: Any) -> str:
    return f"a part of type {part['type']!r}" if isinstance(part, dict) and part.get("type") else noun(part)


def _call_faults(call: Record) -> list[str]:
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return ["it has no function with a name"]
    given = _object(function.get("arguments"))
    return [] if isinstance(given, dict) else [f"'arguments' is {noun(given)}, not an object or its JSON"]


def _object(value: Any) -> Any:
    """The arguments of a call: an object, or its JSON as the API of OpenAI has it."""
    if value is None or value == "":
        return {}
    return _parsed(value)


def _parsed(value: Any) -> Any:
    """JSON in a text, where it is that, and any other value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _objects(value: Any, what: str) -> tuple[list[Record], list[str]]:
    """(a list of objects, or of its JSON, what is wrong with it); null and "" are the empty one."""
    found = [] if value in (None, "") else _parsed(value)
    if not isinstance(found, list):
        return [], [f"{what} is {noun(found)}, not a list of objects or its JSON"]
    wrong = [f"{what} has {noun(each)}, not an object" for each in found if not isinstance(each, dict)]
    return ([], wrong[:1]) if wrong else (found, [])


def _with_calls(message: Record) -> Record:
    """A message with its calls in one form: objects with a function that has a name and an object of arguments."""
    calls = _objects(message.get("tool_calls"), "")[0]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return rest | {"tool_calls": [_call(call) for call in calls]} if calls else rest


def _call(call: Record) -> Record:
    function = call.get("function", call)
    about = {key: value for key, value in call.items() if key in ("id", "type")} if "function" in call else {}
    return {"type": "function"} | about | {"function": function | {"arguments": _object(function.get("arguments"))}}


def present(message: Record) -> Record:
    """A message without its nulls, which some writers put for every key that any message has; its parts as a text."""
    found = {key: value for key, value in message.items() if value is not None}
    return found | ({"content": text_of(message)} if isinstance(message.get("content"), list) else {})
