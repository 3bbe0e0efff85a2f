"""What a model says after a row's prompt, greedily: is it a label and nothing else, and the right one?

Without a key-value cache. A label that is likely is put behind the prompt, and one forward tells whether each of its
tokens, and then an end, is what the model itself would have said. Text that leaves a label's tokens goes on from there,
and text that can become no label any more is given up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zolite.common.progress import counted
from zolite.data.examples import Example, Tokens, answers_of
from zolite.engine.batch import by_length
from zolite.engine.engine import Engine
from zolite.model.special_tokens import ends_of

Ids = Sequence[int]
HALF = "\ufffd"  # in the place of a character whose bytes are not all there


@dataclass(frozen=True)
class Verbalizer:
    """Which texts are labels: those of a label and, around it, nothing but white space."""

    labels: tuple[str, ...]
    ends: frozenset[int]  # tokens that end a text
    decode: Callable[[Ids], str]

    @classmethod
    def of(cls, labels: Sequence[str], tokenizer: Any, model: Any) -> "Verbalizer":
        """By the end tokens of the tokenizer and of the model's generation settings."""
        return cls(tuple(labels), ends_of(model, tokenizer), lambda ids: str(tokenizer.decode(list(ids))))

    def number(self, text: str) -> int | None:
        """Of the label that a text is."""
        found = text.strip()
        return self.labels.index(found) if found in self.labels else None

    def may_become_label(self, text: str) -> bool:
        """Could more text make a label of it? White space does not count, which some tokenizers mend as text grows."""
        begun = "".join(text.split())
        return HALF in begun or any("".join(label.split()).startswith(begun) for label in self.labels)


@dataclass(frozen=True)
class Said:
    """Text up to its end or to where it could be no label any more; the number of the label that it is, if it is."""

    text: str
    label: int | None


@dataclass
class _Talk:
    """What is said after a prompt so far."""

    prompt: Tokens
    drafts: Sequence[Tokens]  # labels, the likeliest first
    said: list[int] = field(default_factory=list)
    ended: bool = False

    def draft(self) -> Tokens:
        """What may come next: the rest of the likeliest label that begins with what was said."""
        count = len(self.said)
        return next((d[count:] for d in self.drafts if d[:count] == tuple(self.said)), ())

    def hear(self, draft: Tokens, best: Ids, ends: frozenset[int]) -> None:
        """Take in the likeliest tokens behind the text so far and behind each token of the draft, while they agree."""
        for token, guess in zip(best, [*draft, None], strict=True):
            self.ended = token in ends
            if not self.ended:
                self.said.append(token)
            if token != guess or self.ended:
                return


def say(engine: Engine, rows: Sequence[Example], ranks: Sequence[Ids], known: Verbalizer, tokens: int) -> list[Said]:
    """Greedy text after each row's prompt, of at most the longest label's tokens and an end.

    ranks: each row's candidates, the likeliest first, which are what is tried first and decide nothing. `tokens` a
    forward, or a row's where it has more.
    """
    answers = [answers_of(row) for row in rows]
    longest = max(len(answer) for each in answers for answer in each)
    talks = [
        _Talk(row.text[: row.begins], [each[c] for c in rank])
        for row, each, rank in zip(rows, answers, ranks, strict=True)
    ]
    while going := [talk for talk in talks if _goes_on(talk, longest, known)]:
        batches = by_length([len(talk.prompt) + longest for talk in going], tokens)
        for batch in counted(batches, "letting the model answer", len(going), len):
            _hear_all(engine, [going[i] for i in batch], known.ends)
    return [_judged(talk, known) for talk in talks]


def _goes_on(talk: _Talk, longest: int, known: Verbalizer) -> bool:
    return not talk.ended and len(talk.said) <= longest and known.may_become_label(known.decode(talk.said))


def _hear_all(engine: Engine, talks: Sequence[_Talk], ends: frozenset[int]) -> None:
    drafts = [talk.draft() for talk in talks]
    begun = [(*talk.prompt, *talk.said) for talk in talks]
    sequences = [(*ids, *draft) for ids, draft in zip(begun, drafts, strict=True)]
    found = engine.next_tokens(sequences, [len(ids) - 1 for ids in begun])
    for talk, draft, best in zip(talks, drafts, found, strict=True):
        talk.hear(draft, best, ends)


def _judged(talk: _Talk, known: Verbalizer) -> Said:
    text = known.decode(talk.said)
    return Said(text, known.number(text) if talk.ended else None)
