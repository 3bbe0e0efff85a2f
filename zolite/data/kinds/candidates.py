"""Answers that are compared behind one prompt: what is run for them, and what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zolite.data.examples import Example, Query, Tokens


@dataclass(frozen=True)
class Compared:
    """A row's answers: what is run behind its prompt, and what is asked there."""

    inputs: tuple[Tokens, ...]
    queries: tuple[tuple[int, int, int, int], ...]
    """as in `Query`, with places from the prompt's end"""
    longest: int
    """tokens of the longest behind the prompt"""
    candidates: int

    def example(
        self, prompt: Tokens, answer: int, metric: str, text: Tokens = (), begins: int = 0, remark: str = ""
    ) -> Example:
        """Behind a prompt. `answer`: which of them is right."""
        return Example(
            sequences=tuple(prompt + tail for tail in self.inputs),
            queries=tuple(Query(s, len(prompt) + at, token, c) for s, at, token, c in self.queries),
            answer=answer,
            candidates=self.candidates,
            metric=metric,
            text=text,
            begins=begins,
            remark=remark,
        )


def compared(answers: Sequence[Tokens]) -> Compared:
    """Of answers that have tokens: an input that another one extends is not run by itself."""
    inputs, home = _maximal([answer[:-1] for answer in answers])
    queries = tuple((home[c], j - 1, token, c) for c, answer in enumerate(answers) for j, token in enumerate(answer))
    return Compared(tuple(inputs), queries, max(map(len, answers)), len(answers))


def masked(answers: Sequence[Tokens], mask: int, behind: Tokens) -> Compared:
    """Of answers that have tokens, in the place of as many masks before what stands behind them.

    Each number of tokens has an input of its own, and each token is asked for at its own mask.
    """
    counts = sorted(set(map(len, answers)))
    queries = tuple(
        (counts.index(len(answer)), j, token, c) for c, answer in enumerate(answers) for j, token in enumerate(answer)
    )
    inputs = tuple((mask,) * count + behind for count in counts)
    return Compared(inputs, queries, len(inputs[-1]), len(answers))


def _maximal(inputs: Sequence[Tokens]) -> tuple[list[Tokens], list[int]]:
    """(the inputs that no other one extends, for each input the index of one that starts with it)."""
    ordered = sorted(set(inputs))  # whatever extends an input comes directly after it
    kept = [a for a, b in zip(ordered, [*ordered[1:], None], strict=True) if b is None or b[: len(a)] != a]
    return kept, [next(i for i, whole in enumerate(kept) if whole[: len(a)] == a) for a in inputs]
