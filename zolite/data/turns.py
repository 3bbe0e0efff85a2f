"""A conversation as examples: what the assistant says in each turn, behind the prompt that leads to it.

The prompt of a turn is what a user's tool sends: the rendering of the messages before it, with the generation prompt.
Where each prompt is also how the rendering of the whole conversation begins, the conversation is one sequence. Where
it is not, every turn is an example of its own: Qwen3's template drops think blocks from earlier turns, Mistral's moves
tools and system text to the last question, and that of DeepSeek's R1 distills opens <think> in the generation prompt
and renders no think block at all.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zolite.data.chat_template import assistant_mask, marked, rendered, template_of
from zolite.data.examples import Example, Fault, Made, Tokens, before, one_sequence, tokenized
from zolite.data.kinds.kind import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>"))
"""What opens and closes the thoughts before an answer."""

THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Keys under which data sets have them; as transformers does, the first one stands in for the others."""

REFUSED = (
    "the template decides which roles it takes, and in which order: use rows of prompt + completion or another model"
)
APART = "became one example a turn: the model's chat template renders a turn differently once others follow it"
BORDER = (
    "have an answer whose first token would begin in its prompt: every turn became an example, behind the tokens that "
    "the prompt has by itself"
)
CLOSED = (
    "have answers that begin by closing {}, which the model's chat template opens in the generation prompt and leaves "
    "out of what it renders: a tool that sends that prompt shows everything before {} as thoughts"
)


class UnsuitedError(Exception):
    """What a chat template does to a conversation that nothing can be trained of."""


@dataclass(frozen=True)
class Turn:
    """An assistant's turn as text."""

    prompt: str
    answer: str  # what the model is to write behind the prompt, with its end
    after: str  # the conversation up to and with this turn, as the template renders it
    count: int  # messages of it
    note: str = ""

    @property
    def appended(self) -> bool:
        """Does the template render the turn as its prompt with more behind it?"""
        return self.prompt + self.answer == self.after


@dataclass(frozen=True)
class Talk:
    """A conversation with what renders it."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    tokenizer: PreTrainedTokenizerBase

    def text(self, count: int, prompt: bool = False, last: dict[str, Any] | None = None) -> str:
        """The first so many messages, the last of them exchanged for another one where that is given."""
        messages = self.messages[:count] if last is None else (*self.messages[: count - 1], last)
        return rendered(self.tokenizer, messages, self.tools, prompt)


def examples_of(row: Row, tokenizer: PreTrainedTokenizerBase, context: int) -> Made | Fault:
    """A conversation as one example, or as one for each turn of the assistant's that is trained."""
    said = [i for i, message in enumerate(row.messages) if message["role"] == "assistant" and message.get("weight", 1)]
    if said[0] == 0:
        hint = 'put a message before it, or give it "weight": 0: it is read then, and not trained'
        return Fault("the assistant's message comes first, and no prompt stands before it", hint)
    try:
        talk, whole = _talk(row, tokenizer)
        turns = [_turn(talk, i, whole) for i in said]
    except UnsuitedError as error:
        return Fault(f"the model's chat template {error}", REFUSED)
    except Exception as error:  # noqa: BLE001 - the template is a program from elsewhere: it may raise anything
        return Fault(f"the model's chat template refuses it: {error}", REFUSED)
    together = all(turn.appended and whole.startswith(turn.after) for turn in turns)
    if together:
        tokens, trained = _as_one(talk, whole, turns)
        if trained is not None:
            return _cut([(tokens, trained)], context)
    made = _cut([_alone(talk, turn) for turn in turns], context)
    if isinstance(made, Fault):
        return made
    apart = [BORDER] if together else [APART] if len(turns) > 1 else []
    return replace(made, notes=tuple(dict.fromkeys([*apart, *(turn.note for turn in turns if turn.note)])))


def _cut(sequences: Sequence[tuple[Tokens, Sequence[int]]], context: int) -> Made | Fault:
    """(tokens, which of them are trained) as examples; those that the context leaves nothing of are left out."""
    whole = [(tokens, trained) for tokens, trained in sequences if trained]
    if not whole:
        return Fault("the model's chat template leaves nothing of the assistant's messages", REFUSED)
    room = [(tokens, trained) for tokens, trained in whole if trained[0] < context]
    if not room:
        least = min(trained[0] for _, trained in whole)
        text = f"{least} tokens before the assistant's first leave it no room at context {context}"
        return Fault(text, context=least + 1)
    examples: tuple[Example, ...] = tuple(one_sequence(tokens[:context], trained) for tokens, trained in room)
    return Made(examples, cut=len(room) < len(whole) or any(len(tokens) > context for tokens, _ in room))


# ---- text


def _talk(row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[Talk, str]:
    """(the conversation in the first form that the template takes, its rendering); raises what it raises of the first.

    Templates differ in whether arguments of a call are to be an object or its JSON, and in what they make of a message
    without content.
    """
    first: Exception | None = None
    for messages in _forms([_given(message) for message in row.messages]):
        talk = Talk(messages, row.tools, tokenizer)
        try:
            return talk, talk.text(len(messages))
        except Exception as error:  # noqa: BLE001 - as above
            first = first or error
    assert first is not None
    raise first


def _given(message: dict[str, Any]) -> dict[str, Any]:
    """What the template gets of a message: its thoughts under the name that most templates know."""
    thoughts = next((message[key] for key in THOUGHTS if key in message), None)
    named = {} if thoughts is None else {THOUGHTS[0]: thoughts}
    return {key: value for key, value in message.items() if key != "weight"} | named


def _forms(messages: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], ...]]:
    """The messages as they are, and where there are calls of tools, in other spellings of the same."""
    if not any("tool_calls" in message for message in messages):
        yield tuple(messages)
        return
    for as_json, content in itertools.product((False, True), ({}, {"content": ""})):
        yield tuple(content | _with_arguments(m, as_json) if "tool_calls" in m else m for m in messages)


def _with_arguments(message: dict[str, Any], as_json: bool) -> dict[str, Any]:
    calls = []
    for call in message["tool_calls"]:
        given = call["function"]["arguments"]
        spelled = json.dumps(given, ensure_ascii=False) if as_json else given
        calls.append(call | {"function": call["function"] | {"arguments": spelled}})
    return message | {"tool_calls": calls}


def _turn(talk: Talk, i: int, whole: str) -> Turn:
    """Message i, an assistant's, of a conversation that is rendered as `whole`."""
    prompt, after = talk.text(i, prompt=True), whole if i + 1 == len(talk.messages) else talk.text(i + 1)
    if after.startswith(prompt):
        answer = after[len(prompt) :]
        if _said(talk.messages[i]) not in answer:
            _heading(talk, i, after)  # is it only spelled in another way?
        return Turn(prompt, answer, after, i + 1)
    heading = _heading(talk, i, after)
    rest = after[len(heading) :]
    opened = prompt[_shared(prompt, heading) :]
    for start, end in THINK:
        if opened.rfind(start) > opened.rfind(end):
            return Turn(prompt, _closing(talk.messages[i], rest, start, end), after, i + 1, CLOSED.format(start, end))
    note = "have answers that stand behind the generation prompt, which the model's chat template renders differently"
    return Turn(prompt, rest, after, i + 1, note)


def _said(message: dict[str, Any]) -> str:
    """Of a message's content what no template leaves out of the answer."""
    text = message.get("content", "")
    for _, end in THINK:
        text = text.rpartition(end)[2]
    return str(text).strip()


def _heading(talk: Talk, i: int, after: str) -> str:
    """What stands before the text of message i in the rendering `after` of the messages up to it.

    It is where two renderings part that differ in that text alone.
    """
    one, other = (talk.text(i + 1, last={"role": "assistant", "content": letter}) for letter in "AB")
    heading = one[: _shared(one, other)]
    if one == other:
        raise UnsuitedError(f"leaves out what the assistant says in message {i + 1}")
    if not after.startswith(heading):
        raise UnsuitedError(f"renders message {i + 1} in a way that does not show where the answer begins")
    return heading


def _closing(message: dict[str, Any], rest: str, start: str, end: str) -> str:
    """An answer behind a prompt that has opened the thoughts: the thoughts, if there are any, their end, and the rest.

    Without that end vLLM, llama.cpp and others would take the whole answer for thoughts.
    """
    if end in rest:  # they are rendered, but not as the prompt begins them
        return rest.partition(start)[2].lstrip("\n") if start in rest else rest
    content = message.get("content", "")
    thoughts = message.get(THOUGHTS[0]) or (content.rpartition(end)[0].rpartition(start)[2])
    thoughts = thoughts.strip("\n")
    gap = "" if rest.startswith("\n") else "\n\n"
    return f"{thoughts}\n{end}{gap}{rest}" if thoughts else f"{end}{gap}{rest}"


def _shared(one: str, other: str) -> int:
    """How many letters two texts begin with alike."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)


# ---- tokens


def _as_one(talk: Talk, whole: str, turns: Sequence[Turn]) -> tuple[Tokens, Sequence[int] | None]:
    """(tokens of the conversation, those of the turns); None where a turn's prompt has other tokens by itself."""
    tokens = _coded(talk.tokenizer, whole)
    trained: list[range] = []
    for turn in turns:
        prompt = _coded(talk.tokenizer, turn.prompt)
        if tokens[: len(prompt)] != prompt:
            return tokens, None
        end = len(turn.after)
        last = before(talk.tokenizer, whole, end) if end < len(whole) else len(tokens)
        trained.append(range(max(len(prompt), 1), last))
    every = trained[0] if len(trained) == 1 else tuple(itertools.chain(*trained))
    return tokens, _marked(talk, len(talk.messages), every)


def _alone(talk: Talk, turn: Turn) -> tuple[Tokens, Sequence[int]]:
    """(a turn's prompt and answer, which of them are the answer's). The prompt has the tokens that it has by itself."""
    prompt = _coded(talk.tokenizer, turn.prompt)
    tokens = _coded(talk.tokenizer, turn.prompt + turn.answer)
    if tokens[: len(prompt)] == prompt:
        trained = range(max(len(prompt), 1), len(tokens))
        return tokens, _marked(talk, turn.count, trained) if turn.appended else trained
    tokens = prompt + _continued(talk.tokenizer, turn.answer)
    return tokens, range(len(prompt), len(tokens))


def _coded(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    return tokenized(tokenizer, [text], special=False)[0]


def _continued(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    """A text's tokens as they are behind another text, where none reaches over the border: some begin with a space."""
    for ahead in ("\n", "a", "."):
        first, tokens = _coded(tokenizer, ahead), _coded(tokenizer, ahead + text)
        if tokens[: len(first)] == first:
            return tokens[len(first) :]
    return _coded(tokenizer, text)


def _marked(talk: Talk, count: int, trained: Sequence[int]) -> Sequence[int]:
    """Of these tokens those that the template marks as the assistant's, where it marks any."""
    if not marked(template_of(talk.tokenizer, talk.tools)):
        return trained
    mask = assistant_mask(talk.tokenizer, talk.messages[:count], talk.tools)
    return [i for i in trained if mask[i]]
