"""Conversations that end with the assistant's one message, as tokens, where the chat template is literal text around
the messages and the tokenizer's words are known: nothing is rendered, and no token becomes an object.

What comes of it is what data/turns.py makes of the same conversation. It is None wherever that is not certain: where
the template is not followed (data/renderings.py), where a message has a letter with which special tokens begin, where a
prompt's tokens are not those that the whole begins with, and where the context has no room for an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from zolite.data.examples import Packed, words_of
from zolite.data.renderings import Part, Plan, Renderings, Text
from zolite.data.words import BYTES, Words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEYS = {"role", "content"}
Stretch = tuple[Part, ...]
"""What stands between two special tokens, or one of these."""


@dataclass(frozen=True)
class _Layout:
    """How conversations of one order of roles are rendered."""

    whole: Plan
    prompt: Plan
    before: tuple[Stretch | bytes, ...]
    """of the whole, up to the stretch in which the prompt ends; without messages as tokens"""
    behind: tuple[Stretch | bytes, ...]
    """from there on"""
    end: Stretch | bytes
    """what the prompt has of the first of them"""

    def fits(self, contents: Sequence[str]) -> bool:
        return self.whole.fits(contents) and self.prompt.fits(contents)


def answered_of(tokenizer: PreTrainedTokenizerBase) -> Answered | None:
    """Of a tokenizer with a memory (examples.quick); None where its words are not known."""
    words = words_of(tokenizer)
    renderings = vars(tokenizer).get("apply_chat_template")
    if words is None or not isinstance(renderings, Renderings):
        return None
    known: Answered = vars(tokenizer).setdefault("answered", Answered(renderings, words))
    return known


class Answered:
    """Of one tokenizer, with what it has found out about the chat template."""

    def __init__(self, renderings: Renderings, words: Words) -> None:
        self._renderings, self._words = renderings, words
        self._layouts: dict[tuple[str, ...], list[_Layout]] = {}
        self._unsuited: set[tuple[int, int]] = set()  # pairs of plans, by their identity: renderings keep them
        self._firsts = {name[0] for name in words.special}

    def example(self, messages: Sequence[Mapping[str, Any]], context: int) -> Packed | None:
        """Of at most `context` tokens."""
        roles, contents = [], []
        for message in messages:
            content = message.get("content")
            if message.keys() != KEYS or type(content) is not str or any(map(content.__contains__, self._firsts)):
                return None
            roles.append(message["role"])
            contents.append(content)
        layout = self._layout(tuple(roles), contents)
        if layout is None:
            return None
        before = b"".join([self._coded(stretch, contents) for stretch in layout.before])
        end, *behind = (self._coded(stretch, contents) for stretch in (layout.end, *layout.behind))
        tokens = b"".join((before, *behind))
        begins, count = (len(before) + len(end)) // BYTES, len(tokens) // BYTES
        if not behind[0].startswith(end) or not 0 < begins < min(count, context):
            return None
        return Packed(tokens[: BYTES * context], begins, count > context)

    def _coded(self, stretch: Stretch | bytes, contents: Sequence[str]) -> bytes:
        if isinstance(stretch, bytes):
            return stretch
        text = "".join([part if isinstance(part, str) else part.of(contents) for part in stretch])
        return self._words.between(text) if text else b""

    def _layout(self, roles: tuple[str, ...], contents: Sequence[str]) -> _Layout | None:
        for layout in self._layouts.get(roles, ()):
            if layout.fits(contents):
                return layout
        if len(roles) < 2 or "assistant" in roles[:-1] or roles[-1] != "assistant":
            return None
        whole = self._renderings.plan(roles, contents, prompt=False)
        prompt = self._renderings.plan(roles[:-1], contents, prompt=True)
        if not whole or not prompt or (id(whole), id(prompt)) in self._unsuited:
            return None
        made = self._laid_out(whole, prompt, len(roles) - 1)
        if made:
            self._layouts.setdefault(roles, []).append(made)
        else:
            self._unsuited.add((id(whole), id(prompt)))
        return made

    def _laid_out(self, whole: Plan, prompt: Plan, last: int) -> _Layout | None:
        """None where the prompt is not what the whole begins with, or the message `last` may not be in the answer."""
        if self._may_join(whole) or self._may_join(prompt):
            return None
        every, ahead = list(self._stretches(whole.parts)), list(self._stretches(prompt.parts))
        at = len(ahead) - 1
        if at < 0 or at >= len(every) or every[:at] != ahead[:at] or not _begins(every[at], ahead[at]):
            return None
        said = (part for stretch in every for part in stretch if isinstance(part, Text) and part.message == last)
        if not any(all(letters is None for _, letters in part.strips) for part in said):
            return None
        (end,) = self._settled([ahead[at]])
        behind = (*self._settled(every[at : at + 1]), *self._settled(every[at + 1 :]))
        return _Layout(whole, prompt, self._settled(every[:at]), behind, end)

    def _settled(self, stretches: Sequence[Stretch]) -> tuple[Stretch | bytes, ...]:
        """Those without messages as tokens, several that follow one another as one."""
        found: list[Stretch | bytes] = []
        for literal, several in groupby(stretches, lambda each: all(isinstance(part, str) for part in each)):
            parts = list(several)
            texts = [part for stretch in parts for part in stretch if isinstance(part, str)]
            found += [self._words.packed("".join(texts))] if literal else parts
        return tuple(found)

    def _may_join(self, plan: Plan) -> bool:
        """Does literal text end as special tokens begin, so that a message may make one of it?"""
        starts = tuple(name[:i] for name in self._words.special for i in range(1, len(name)))
        return any(isinstance(part, str) and part.endswith(starts) for part in plan.parts[:-1])

    def _stretches(self, parts: Sequence[Part]) -> Iterator[Stretch]:
        found: list[Part] = []
        for part in parts:
            for piece in self._words.stretches(part) if isinstance(part, str) else (part,):
                if piece in self._words.special:
                    if found:
                        yield tuple(found)
                    yield (piece,)
                    found = []
                else:
                    found.append(piece)
        if found:
            yield tuple(found)


def _begins(stretch: Stretch, start: Stretch) -> bool:
    """Is what `start` says what a stretch begins with, whatever the messages are?"""
    *before, last = start
    if list(stretch[: len(before)]) != before or len(stretch) < len(start):
        return False
    there = stretch[len(before)]
    return there.startswith(last) if isinstance(there, str) and isinstance(last, str) else there == last
