"""What a model is asked to write: prompts of rows with the answers that they should have.

A row is asked once, for its last answer: of a conversation that is the last turn that is trained, behind all before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from zolite.data.examples import Example, Tokens
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS

MOST_TOKENS = 256  # of an answer, however long the references are


@dataclass(frozen=True)
class Question:
    """`row` is its place among the rows that were asked for."""

    row: int
    prompt: Tokens
    references: tuple[str, ...]


def questions(
    rows: Sequence[Row],
    examples: Sequence[Example],
    origins: Sequence[int],
    kind: str,
    template: str,
    tokenizer: Any,
    ends: frozenset[int],
) -> Iterator[Question]:
    """One for each row that is answered in text: none of plain text, none of choices. `origins`: each one's row."""
    last = dict(zip(origins, examples, strict=True))  # of a row with several examples, the last one
    for i, example in last.items():
        prompt, answer = last_answer(example)
        if example.candidates == 1 and any(
            piece.text.strip() for piece in KINDS[kind].pieces(rows[i], template) if not piece.trained
        ):
            yield Question(i, prompt, references(rows[i], kind, template, _text(answer, tokenizer, ends)))


def last_answer(example: Example) -> tuple[Tokens, Tokens]:
    """(what stands before the last answer, the answer with its end), of a row that can be said."""
    if example.candidates > 1:
        return example.text[: example.begins], example.text[example.begins :]
    trained = sorted(query.position + 1 for query in example.queries)
    start = max([trained[0], *(b for a, b in pairwise(trained) if b > a + 1)])
    return example.text[:start], example.text[start:]


def references(row: Row, kind: str, template: str, spelled: str) -> tuple[str, ...]:
    """Answers that count as right. `spelled` is what the row's tokens say, which may have been cut at the context."""
    whole = [piece.text for piece in KINDS[kind].pieces(row, template) if piece.trained][-1].strip()
    return tuple(dict.fromkeys((whole if whole.startswith(spelled) else spelled, *map(str.strip, row.references))))


def most_tokens(asked: Sequence[Question], tokenizer: Any) -> int:
    """New tokens that an answer may take: those of the longest reference and an end, at most MOST_TOKENS."""
    texts = [text for question in asked for text in question.references]
    lengths = map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    return min(MOST_TOKENS, max(lengths) + 1)


def _text(ids: Sequence[int], tokenizer: Any, ends: frozenset[int]) -> str:
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    return decoded(ids[:end], tokenizer)


def decoded(ids: Sequence[int], tokenizer: Any) -> str:
    """Text as a program shows it, without special tokens and white space around it."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
