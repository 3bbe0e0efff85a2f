"""Renderings of many conversations by a chat template that is run once for each order of roles.

A template is a program from elsewhere. Here it is run with objects in the place of the messages' texts. They can be
joined to other text, stripped, written out, and asked whether they are empty, equal another text, or have one at an
end or inside; what was asked and answered is noted. Of a conversation of the same roles for which all the answers are
the same, the template would do the same: its rendering is put together from literal text and from the messages'.
Whatever else a template does with a text is not followed: such conversations are rendered by the template itself.
"""

from __future__ import annotations

import functools
import operator
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zolite.data.chat_template import chat_in, compiled, reads, template_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_ORDERS = 4096  # of roles that are remembered
MOST_TRIES = 8  # of one order: so many answers of a template's questions

QUESTIONS: Mapping[str, Callable[[str, str], bool]] = {
    "bool": lambda text, _: bool(text),
    "contains": operator.contains,
    "equals": operator.eq,
    "startswith": str.startswith,
    "endswith": str.endswith,
}
OF_TYPES = ("string", "defined", "undefined", "none", "mapping", "number", "boolean", "iterable", "sequence")
"""Jinja's tests whose answer is the same for every text."""
COMPARING = ("eq", "==", "equalto", "ne", "!=")


@dataclass(frozen=True)
class Text:
    """The text of a message, with what was stripped of it."""

    message: int
    strips: tuple[tuple[str, str | None], ...] = ()

    def of(self, contents: Sequence[str]) -> str:
        text = contents[self.message]
        for how, letters in self.strips:
            text = getattr(text, how)(letters)
        return text


Part = str | Text
"""Literal text of a template, or that of a message."""


@dataclass(frozen=True)
class Plan:
    """What a template makes of all conversations for which its questions are answered in the same way."""

    asked: tuple[tuple[Text, str, str, bool], ...]
    """text, question, the other text of it, its answer"""
    parts: tuple[Part, ...]

    def fits(self, contents: Sequence[str]) -> bool:
        return all(QUESTIONS[how](text.of(contents), other) is answer for text, how, other, answer in self.asked)

    def text(self, contents: Sequence[str]) -> str:
        return "".join([part if isinstance(part, str) else part.of(contents) for part in self.parts])


class Renderings:
    """In the place of a tokenizer's `apply_chat_template`: the same texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._apply = tokenizer.apply_chat_template
        self._tokenizer = tokenizer
        self._plans: dict[tuple[Any, ...], list[Plan]] = {}
        self._tries = Counter[tuple[Any, ...]]()

    @functools.cached_property
    def _program(self) -> _Program | None:
        try:
            return _program(self._tokenizer)
        except Exception:  # noqa: BLE001 - whoever renders a template that cannot be read will hear of it
            return None

    def __call__(self, conversation: Any, tools: Any = None, **given: Any) -> Any:
        order = None if tools or self._program is None else _order(conversation, given)
        if order is None:
            return self._apply(conversation, tools, **given)
        contents = [message["content"] for message in conversation]
        for plan in self._plans.get(order, ()):
            if plan.fits(contents):
                return plan.text(contents)
        whole = self._apply(conversation, tools, **given)
        self._learn(order, conversation, contents, whole)
        return whole

    def plan(self, roles: Sequence[str], contents: Sequence[str], prompt: bool) -> Plan | None:
        """What the template makes of texts in these roles; None where that was not found out yet, or cannot be."""
        return next((plan for plan in self._plans.get((prompt, *roles), ()) if plan.fits(contents)), None)

    def _learn(self, order: tuple[Any, ...], conversation: Any, contents: list[str], whole: str) -> None:
        if self._tries[order] == MOST_TRIES or len(self._tries) == MOST_ORDERS or self._program is None:
            return
        self._tries[order] += 1
        plan = self._program.followed(conversation, contents, prompt=order[0])
        if plan and plan.text(contents) == whole:
            self._plans.setdefault(order, []).append(plan)


def _order(conversation: Any, given: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What tells two conversations apart beside their texts; None where there is more than roles."""
    if given.keys() != {"tokenize", "add_generation_prompt"} or given["tokenize"]:
        return None
    for message in conversation:
        if message.keys() != {"role", "content"} or type(message["content"]) is not str:
            return None
    return (given["add_generation_prompt"], *(message["role"] for message in conversation))


# ---- the template, run with objects that note what is done with them


@dataclass
class _Trace:
    """A rendering while it is followed."""

    contents: Sequence[str]
    asked: dict[tuple[Text, str, str], bool] = field(default_factory=dict)
    written: list[Text] = field(default_factory=list)
    lost: bool = False
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def write(self, parts: Sequence[str | Text]) -> str:
        """Marks in the place of texts."""
        found = []
        for part in parts:
            if isinstance(part, Text):
                self.written.append(part)
            found.append(part if isinstance(part, str) else f"<{self.mark} {len(self.written) - 1}>")
        return "".join(found)

    def plan(self, rendering: str) -> Plan:
        pieces = re.split(f"<{self.mark} ([0-9]+)>", rendering)
        parts = (self.written[int(each)] if i % 2 else each for i, each in enumerate(pieces))
        asked = ((*question, answer) for question, answer in self.asked.items())
        return Plan(tuple(asked), tuple(part for part in parts if part != ""))


class _Followed:
    """In the place of a text. Python's own code in C does not take it for one: what is not followed raises."""

    __slots__ = ("parts", "trace")
    __class__ = property(lambda self: str)  # for isinstance: templates ask whether it is text

    def __init__(self, trace: _Trace, parts: tuple[str | Text, ...]) -> None:
        self.trace, self.parts = trace, parts

    def __add__(self, other: Any) -> Any:
        return self._joined(other, first=True)

    def __radd__(self, other: Any) -> Any:
        return self._joined(other, first=False)

    def __bool__(self) -> bool:
        return self._ask("bool", "")

    def __contains__(self, other: Any) -> bool:
        return self._ask("contains", other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._ask("equals", other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def startswith(self, other: Any) -> bool:
        return self._ask("startswith", other)

    def endswith(self, other: Any) -> bool:
        return self._ask("endswith", other)

    def strip(self, letters: str | None = None) -> _Followed:
        return self._stripped("strip", letters)

    def lstrip(self, letters: str | None = None) -> _Followed:
        return self._stripped("lstrip", letters)

    def rstrip(self, letters: str | None = None) -> _Followed:
        return self._stripped("rstrip", letters)

    def _joined(self, other: Any, first: bool) -> Any:
        if type(other) not in (str, _Followed):
            return NotImplemented
        parts = other.parts if type(other) is _Followed else (other,)
        return _Followed(self.trace, (*self.parts, *parts) if first else (*parts, *self.parts))

    def _alone(self, *others: Any) -> Text:
        """The text that it is; raises where it was joined to others, or the other text is not literal."""
        text, *more = self.parts
        if more or isinstance(text, str) or not all(type(other) in (str, type(None)) for other in others):
            self.lose()
        assert isinstance(text, Text)
        return text

    def _ask(self, how: str, other: Any) -> bool:
        text = self._alone(other)
        answer = QUESTIONS[how](text.of(self.trace.contents), other)
        return self.trace.asked.setdefault((text, how, other), answer)

    def _stripped(self, how: str, letters: Any) -> _Followed:
        text = self._alone(letters)
        return _Followed(self.trace, (Text(text.message, (*text.strips, (how, letters))),))

    def lose(self, *given: Any, **more: Any) -> Any:
        """All that is not followed. It is noted, since Jinja passes over some errors."""
        self.trace.lost = True
        raise TypeError("what is done with this text is not followed")


_OBJECT = ("__class__", "__new__", "__init__", "__getattribute__", "__setattr__", "__delattr__", "__dir__", "__doc__",
           "__init_subclass__", "__subclasshook__")  # fmt: skip
for _name in {*dir(str), "__int__", "__float__", "__index__", "__complex__", "__bytes__", "__html__"}:
    if _name not in vars(_Followed) and _name not in _OBJECT:
        setattr(_Followed, _name, _Followed.lose)
_Followed.__hash__ = _Followed.lose  # type: ignore[assignment]


@dataclass(frozen=True)
class _Program:
    template: Any
    """of Jinja"""
    given: Mapping[str, Any]
    """what it gets beside messages"""

    def followed(self, conversation: Sequence[Mapping[str, str]], contents: Sequence[str], prompt: bool) -> Plan | None:
        """None where something is done with a text that is not followed."""
        trace = _Trace(contents)
        messages = [
            {key: _Followed(trace, (Text(i),)) if key == "content" else value for key, value in message.items()}
            for i, message in enumerate(conversation)
        ]
        try:
            whole = self.template.render(messages=messages, add_generation_prompt=prompt, **self.given)
        except Exception:  # noqa: BLE001 - it is rendered as it is then
            return None
        return None if trace.lost else trace.plan(whole)


def _program(tokenizer: PreTrainedTokenizerBase) -> _Program | None:
    """The tokenizer's template; None where what it writes may be read again before it is written out."""
    from jinja2 import nodes

    source, chat = template_of(tokenizer), chat_in(tokenizer)
    dated = reads(source, "strftime_now")
    if dated and chat.now is None:
        return None  # it may be another day for the next row
    own = compiled(source).environment
    caught = (nodes.AssignBlock, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.Block)
    if any(own.parse(source).find_all(caught)):
        return None
    env = own.overlay(finalize=_written)
    env.filters = {name: _guarded(name, each) for name, each in own.filters.items()} | {"trim": _trim(own)}
    env.tests = {name: _tested(name, each) for name, each in own.tests.items()}
    env.globals = own.globals | ({"strftime_now": chat.now.strftime} if chat.now else {})
    given = {"tools": None, "documents": None, **tokenizer.special_tokens_map, **chat.args}
    return _Program(env.from_string(source), given)


def _written(value: Any) -> Any:
    return value.trace.write(value.parts) if type(value) is _Followed else value


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that takes no text that is followed."""

    @functools.wraps(function)
    def guarded(*given: Any, **more: Any) -> Any:
        for value in (*given, *more.values()):
            if type(value) is _Followed:
                value.lose()
        return function(*given, **more)

    return guarded


def _trim(own: Any) -> Callable[..., Any]:
    known = own.filters["trim"]
    return lambda value, letters=None: value.strip(letters) if type(value) is _Followed else known(value, letters)


def _tested(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if name in COMPARING:
        return function
    if name not in OF_TYPES:
        return _guarded(name, function)

    @functools.wraps(function)
    def tested(value: Any) -> Any:
        return function("" if type(value) is _Followed else value)

    return tested
