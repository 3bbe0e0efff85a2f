"""Rows with examples from train in front of their prompts, as GPT-3 was asked (Brown et al., 2020).

Every row gets the same examples, drawn by a seed, in the form that its kind gives to rows: conversations as earlier
turns, others as text with an empty line between. From the left, whole examples are left out until a row fits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from zolite.common.errors import UsageError
from zolite.data.examples import Example, Fault, Made, Packed, Tokens, frame
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS

BETWEEN = "\n\n"
SEED = 0
NO_EXAMPLES = "leave out --few-shot"


@dataclass(frozen=True)
class Shots:
    """Examples, as many as were asked for, and how many of them each row had room for."""

    examples: tuple[Example, ...]
    origins: tuple[int, ...]  # which row each example is of
    fitted: tuple[int, ...]  # a row each


@dataclass(frozen=True)
class Rendering:
    """What rows are rendered with; `context` is the most that a row with its examples may take, in tokens."""

    kind: str
    labels: tuple[str, ...]
    template: str
    tokenizer: Any
    context: int


def chosen(train: Sequence[Row], count: int, asked: Sequence[Row] = ()) -> tuple[Row, ...]:
    """Rows of train, none of which is among those that are asked; UsageError where there are too few."""
    known = {row.content() for row in asked}
    free = {content: row for row in train if (content := row.content()) not in known}
    if len(free) < count:
        what = f"{count} examples were asked for, and train has {len(free):,} rows that are not evaluated"
        raise UsageError(what, f"give --few-shot {len(free)}, or a folder with more train rows")
    drawn = sorted(free, key=lambda content: sha256(b"%d" % SEED + content).digest())
    return tuple(free[content] for content in drawn[:count])


def with_shots(rows: Sequence[Row], examples: Sequence[Example], origins: Sequence[int], shots: Sequence[Row],
               how: Rendering) -> Shots:  # fmt: skip
    """`examples` are of the rows as they are."""
    if not all(example.text for example in examples):
        raise UsageError(f"{how.kind} rows are compared and not answered, so none can be an example", NO_EXAMPLES)
    if any(row.messages for row in rows):
        return _gathered(_as_turns(rows, shots, how))
    if not all(_text(row, how).strip() for row in rows):
        raise UsageError(f"{how.kind} rows have no prompt that examples could stand before", NO_EXAMPLES)
    return _gathered(_as_text(rows, examples, origins, shots, how))


Fitted = tuple[int, tuple[Example, ...], int]
"""(row, its examples, how many of train stand before each)."""


def _gathered(found: Iterator[Fitted]) -> Shots:
    every = list(found)
    return Shots(
        tuple(example for _, examples, _ in every for example in examples),
        tuple(row for row, examples, _ in every for _ in examples),
        tuple(count for _, _, count in every),
    )


# --- as earlier turns -------------------------------------------------------------------------------------------------


def _as_turns(rows: Sequence[Row], shots: Sequence[Row], how: Rendering) -> Iterator[Fitted]:
    for i, row in enumerate(rows):
        tries = (
            (count, _rendered(_behind(row, shots[len(shots) - count :]), how)) for count in range(len(shots), -1, -1)
        )
        count, made = next((count, made) for count, made in tries if count == 0 or (made and not made.cut))
        assert made is not None  # without examples the row has become one before
        yield i, made.examples, count


def _behind(row: Row, shots: Sequence[Row]) -> Row:
    """The row's system message, the conversations of the examples without theirs, and the rest of it."""
    begins = 1 if row.messages[0]["role"] == "system" else 0
    earlier = [message | {"weight": 0} for shot in shots for message in shot.messages if message["role"] != "system"]
    return replace(row, messages=(*row.messages[:begins], *earlier, *row.messages[begins:]))


def _rendered(row: Row, how: Rendering) -> Made | None:
    (found,) = KINDS[how.kind].render((row,), how.labels, how.tokenizer, how.template, how.context)
    if isinstance(found, Fault):
        return None
    if isinstance(found, Packed):
        return found.made()
    return found if isinstance(found, Made) else Made((found[0],), found[1])


# --- as text ----------------------------------------------------------------------------------------------------------


def _as_text(rows: Sequence[Row], examples: Sequence[Example], origins: Sequence[int], shots: Sequence[Row],
             how: Rendering) -> Iterator[Fitted]:  # fmt: skip
    texts = [_text(shot, how, trained=True) + BETWEEN for shot in shots]
    lengths = [len(_coded(how.tokenizer, text)) + 1 for text in texts]
    lead = len(frame(how.tokenizer)[0])
    for i, example in zip(origins, examples, strict=True):
        room = how.context - max(map(len, (*example.sequences, example.text)))
        count = next(n for n in range(len(shots), -1, -1) if sum(lengths[len(shots) - n :]) <= room)
        head = _head(
            how, "".join(texts[len(shots) - count :]), _text(rows[i], how), example.text[lead : example.begins]
        )
        yield i, (_in_front(example, head, lead),), count


def _text(row: Row, how: Rendering, trained: bool = False) -> str:
    """A row's prompt; with its answer where that is wanted."""
    pieces = KINDS[how.kind].pieces(row, how.template)
    text = "".join(piece.text for piece in pieces if trained or not piece.trained)
    return text.rstrip() if trained else text


def _head(how: Rendering, head: str, prompt: str, tokens: Tokens) -> Tokens:
    """The tokens of the examples in one text with the prompt, where the prompt keeps its own behind them."""
    whole = _coded(how.tokenizer, head + prompt)
    return whole[: -len(tokens)] if whole[-len(tokens) :] == tokens else _coded(how.tokenizer, head)


def _coded(tokenizer: Any, text: str) -> Tokens:
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else ()


def _in_front(example: Example, head: Tokens, lead: int) -> Example:
    """Behind the tokens that begin any text, and before the prompt."""
    return replace(
        example,
        sequences=tuple((*each[:lead], *head, *each[lead:]) for each in example.sequences),
        queries=tuple(replace(query, position=query.position + len(head)) for query in example.queries),
        text=(*example.text[:lead], *head, *example.text[lead:]),
        begins=example.begins + len(head),
    )
