"""A model's chat template as a session fills it in: with its arguments, and with one date from its start to its end.

tokenizer = filled(tokenizer, chat_of(session.recipe.data, session.facts))
rendered(tokenizer, [{"role": "user", "content": "hello"}])    # what a user's tool sends for the next answer
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError
from zolite.config.fields import arguments
from zolite.config.recipe import DataPart
from zolite.data.problems import some

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Objects = Sequence[Mapping[str, Any]]

MARKS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


@dataclass(frozen=True)
class Chat:
    """What a session gives its model's chat template beside the messages."""

    args: Mapping[str, Any] = field(default_factory=dict)
    """such as enable_thinking, from data.template_args"""
    now: datetime | None = None
    """what the template takes for the time; None: the time that it is"""


def chat_of(data: DataPart, facts: Mapping[str, Any]) -> Chat:
    """That of a session, from its recipe's part and its facts. One that recorded no date has the present one."""
    now = facts.get("now")
    return Chat(arguments(data.template_args), datetime.fromisoformat(now) if now else None)


def filled(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> PreTrainedTokenizerBase:
    """The tokenizer with an `apply_chat_template` that gives the template what the session does.

    Raises UsageError where the template takes no notice of an argument.
    """
    template = template_of(tokenizer) if chat.args and tokenizer.chat_template else ""
    if unread := [name for name in chat.args if not reads(template, name)]:
        what = f"the model's chat template has no argument {some(unread)}"
        raise UsageError(what if template else "the model has no chat template", "leave out data.template_args")
    made: Any = copy.copy(tokenizer)
    made.apply_chat_template = partial(_apply, tokenizer, chat)
    return made


def chat_in(tokenizer: PreTrainedTokenizerBase) -> Chat:
    """What `filled` gave the tokenizer."""
    given = vars(tokenizer).get("apply_chat_template")
    return given.args[1] if isinstance(given, partial) else Chat()


def told(tokenizer: PreTrainedTokenizerBase) -> str:
    """What renderings depend on beside the messages: the template, its arguments, and the date if it is read."""
    chat = chat_in(tokenizer)
    template = str(tokenizer.chat_template)
    dated = str(chat.now or datetime.now()) if reads(template, "strftime_now") else ""
    return "\0".join((template, str(tokenizer.special_tokens_map), str(sorted(chat.args.items())), dated))


def _apply(
    tokenizer: Any, chat: Chat, conversation: Any, tools: list[dict[str, Any]] | None = None, **given: Any
) -> Any:
    with _dated(template_of(tokenizer, tools or ()), chat.now):
        return tokenizer.apply_chat_template(conversation, tools, **{**chat.args, **given})


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Objects, tools: Objects = (), prompt: bool = True) -> str:
    """Messages as the model reads them: with `prompt` what a user's tool sends to get the next answer of the assistant.

    Raises whatever the template raises: it is a program from elsewhere.
    """
    talk: Any = [dict(message) for message in messages]
    given: Any = [dict(tool) for tool in tools] or None
    return str(tokenizer.apply_chat_template(talk, given, tokenize=False, add_generation_prompt=prompt))


def assistant_mask(tokenizer: PreTrainedTokenizerBase, messages: Objects, tools: Objects = ()) -> list[int]:
    """For each token of the rendered messages, 1 where the template's {% generation %} marks stand around it."""
    talk: Any = [dict(message) for message in messages]
    given: Any = [dict(tool) for tool in tools] or None
    coded: Any = tokenizer.apply_chat_template(talk, given, return_dict=True, return_assistant_tokens_mask=True)
    return list(coded["assistant_masks"])


@functools.lru_cache(8)
def marked(template: str) -> bool:
    """Does a template mark what the assistant says?"""
    return MARKS.search(template) is not None


def template_of(tokenizer: PreTrainedTokenizerBase, tools: Objects = ()) -> str:
    """The template as text; a model may have several, of which this is the one for conversations with these tools."""
    given: Any = list(tools) or None
    try:
        return str(tokenizer.get_chat_template(None, given))
    except ValueError as error:
        raise UsageError(str(error).partition("!")[0], "take another model, or give it a default template") from error


def reads(template: str, name: str) -> bool:
    """Does a template speak of that variable or key?"""
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def compiled(template: str) -> Any:
    """A template as transformers compiles it, and keeps it."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template(template)


@contextmanager
def _dated(template: str, now: datetime | None) -> Iterator[None]:
    """Lets the template's `strftime_now` tell another time.

    transformers puts that function among the globals of the compiled template, which it keeps. One that is given as an
    argument would do for its first versions of 5, and is not called by the later ones.
    """
    if now is None or not reads(template, "strftime_now"):
        yield
        return
    known = compiled(template).globals
    own, known["strftime_now"] = known["strftime_now"], now.strftime
    try:
        yield
    finally:
        known["strftime_now"] = own
