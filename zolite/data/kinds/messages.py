"""Conversations: one query per token of the assistant's messages, as the model's chat template spells them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError
from zolite.data.examples import Fault, Rendered, Tokens, one_sequence
from zolite.data.kinds.kind import Piece, Prompt, Row
from zolite.data.problems import noun
from zolite.data.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Messages:
    name = "messages"
    title = "conversations: it learns what the assistant says"
    label_column = ""
    metric = "loss"

    def columns(self, template: str) -> tuple[str, ...]:
        return ("messages",)

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        messages = record["messages"]
        if not isinstance(messages, list):
            return [f"column 'messages' is {noun(messages)}, not a list (conversations need a .jsonl file)"]
        faults = [f"message {i}: {fault}" for i, m in enumerate(messages, 1) for fault in _message_faults(m)]
        if faults or any(m["role"] == "assistant" and m["content"].strip() for m in messages):
            return faults
        return [f"none of {len(messages)} messages is an assistant's with content"]

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        return Row(line, {}, tuple(_present(message) for message in record["messages"]))

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        other = "use rows of prompt + completion, or another model"
        if not tokenizer.chat_template:
            raise UsageError("the data is conversations, but the model has no chat template", other)
        if not tokenizer.is_fast:
            raise UsageError("the model's tokenizer does not say which text a token stands for", other)
        return (_conversation(row.messages, tokenizer, context) for row in rows)

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        for message in row.messages:
            yield Piece(f"[{message['role']}] ", False)
            yield Piece(f"{message['content']}\n", message["role"] == "assistant")

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        answers = (m["content"] for m in row.messages if m["role"] == "assistant")
        return count("\n".join(answers)) + len(row.messages)

    def prompt(self, template: str) -> Prompt:
        return Prompt(chat=True)


KIND = Messages()


# ---- records


def _message_faults(message: Any) -> list[str]:
    if not isinstance(message, dict):
        return [f"{noun(message)}, not an object with role and content"]
    texts = {"role": None, "content": None} | _present(message)
    faults = [f"{key!r} is {noun(value)}, not text" for key, value in texts.items() if not isinstance(value, str)]
    return faults or ([] if texts["role"] else ["'role' is blank"])


def _present(message: Record) -> Record:
    """A message without its nulls, which some writers put for every key that any message has."""
    return {key: value for key, value in message.items() if value is not None}


# ---- tokens


def _conversation(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, context: int) -> Rendered:
    try:
        text, spans = _spelled(messages, tokenizer)
    except Exception as error:  # noqa: BLE001 - the template is a program from elsewhere: it may raise anything
        return Fault(f"the chat template does not suit it: {error}", "correct these rows or use prompt + completion")
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens: Tokens = tuple(coded["input_ids"])
    offsets = enumerate(coded["offset_mapping"])
    asked = [i for i, (at, _) in offsets if i and any(start <= at < end for start, end in spans)]
    if not asked:
        return Fault("the assistant's messages have no tokens", "correct these rows")
    if asked[0] >= context:
        text = f"{asked[0]} tokens before the assistant's first leave it no room at context {context}"
        return Fault(text, context=asked[0] + 1)
    return one_sequence(tokens[:context], asked), len(tokens) > context


def _spelled(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase
) -> tuple[str, list[tuple[int, int]]]:
    """(the conversation as text, where the assistant's messages start and end); ValueError where they cannot be found.

    A message is what its rendering adds to the rendering, with the generation prompt, of those before it.
    """

    def render(count: int, prompt: bool = False) -> str:
        turns = [dict(message) for message in messages[:count]]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))

    whole = render(len(messages))
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            if i == 0:
                raise ValueError("the assistant's message comes first")
            before, after = render(i, prompt=True), render(i + 1)
            if not after.startswith(before) or not whole.startswith(after):
                raise ValueError(f"message {i + 1} is rendered differently by itself and with what stands around it")
            spans.append((len(before), len(after)))
    return whole, spans
