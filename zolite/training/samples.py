"""Sample answers while a run goes on: what the model writes for three rows of dev, before training and now.

They say little of how good a model is, and much of what it has learned. When they are taken: sampling.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zolite.data.examples import Example, Tokens
from zolite.engine.batch import sample
from zolite.engine.engine import Engine
from zolite.model.special_tokens import ends_of
from zolite.training.generate import write
from zolite.training.questions import decoded, last_answer

ROWS = 3
MOST = 48  # new tokens of an answer
TAIL = 200  # letters of a prompt that are shown, from its end


@dataclass(frozen=True)
class Samples:
    """Rows of dev that are answered, always the same ones."""

    prompts: tuple[Tokens, ...]
    tails: tuple[str, ...]  # of the prompts
    references: tuple[str, ...]
    most: int  # new tokens of the longest right answer and an end
    ends: frozenset[int]
    decode: Callable[[Sequence[int]], str]

    @classmethod
    def of(cls, dev: Sequence[Example], tokenizer: Any, model: Any) -> "Samples | None":
        """None where rows are compared and never written."""
        rows = [_parts(row) for row in sample(dev, ROWS) if row.text]  # all rows of a kind have text, or none
        if not rows:
            return None
        ends = ends_of(model, tokenizer)
        tails = tuple(decoded(prompt, tokenizer)[-TAIL:] for prompt, _ in rows)
        references = tuple(decoded(_before(answer, ends), tokenizer) for _, answer in rows)
        most = min(MOST, max(len(answer) for _, answer in rows))
        prompts = tuple(prompt for prompt, _ in rows)
        return cls(prompts, tails, references, most, ends, lambda ids: decoded(ids, tokenizer))

    def answers(self, engine: Engine, most: int) -> list[str]:
        """At theta; "…" stands where one was cut."""
        found = write(engine, self.prompts, most, self.ends)
        return [self.decode(each.ids) + ("" if each.ended else " …") for each in found]

    def before(self, engine: Engine, most: int) -> list[str]:
        """Of the model without its adapter."""
        with engine.as_base():
            return self.answers(engine, most)


def _parts(row: Example) -> tuple[Tokens, Tokens]:
    """(prompt, answer); of plain text its two halves."""
    prompt, answer = last_answer(row)
    half = len(row.text) // 2
    return (prompt, answer) if len(prompt) > 1 or half == 0 else (row.text[:half], row.text[half:])


def _before(ids: Tokens, ends: frozenset[int]) -> Tokens:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), None)]
