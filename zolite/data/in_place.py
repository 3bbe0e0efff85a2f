"""Tokens of answers where they stand: behind their prompts, in one text.

A text's tokens are not those of its parts, since a token may hold the space before a word, or letters on both sides of
a border. So the tokens of an answer are read off prompt + answer, tokenized as one text. Of the prompt only its last
word is tokenized again with every answer: where the two have tokens in common with the prompt, the tokens before do not
change either. That is so of BPE, where a sequence of tokens is a text's own if every pair of neighbours is, and of
tokenizers that split at spaces first. Where there is no such token, more words are taken, and at last the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zolite.data.examples import Tokens, frame, tokenized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSIDE = (
    "the prompt ends within a token of prompt and answer as one text, often because of white space at its end: it is "
    "trained as tools send it, and the answer in tokens that go on from there"
)
MOVED = (
    "the prompt ends within a token of prompt and answer as one text, and no tokens go on from there: what is trained "
    "is the prompt up to that token, so end the prompts of these rows before it"
)
CHUNK = 512  # rows whose texts are tokenized at once
WORDS = (1, 3)  # at a prompt's end that are tokenized again with each answer; more where fewer do not settle it
TAIL = 64  # letters at a prompt's end in which they are looked for first
_BEFORE_WORD = re.compile(r"(?<=\S)\s")
_STARTS = ("", "\n", ".", "a", "1")  # behind which an answer may be tokenized as behind its prompt


@dataclass(frozen=True)
class Placed:
    """A prompt as tools send it, with what the tokenizer puts in front of a text, and its answers behind it."""

    prompt: Tokens
    answers: tuple[Tokens, ...]
    remark: str = ""


@dataclass(frozen=True)
class _Joined:
    """Prompt and answer as one text: the first `kept` of the prompt's tokens, then `rest`."""

    kept: int
    rest: Tokens


@dataclass(frozen=True)
class _Border:
    """A prompt that ends within a token, from the last token before that one: alone, and with its answer."""

    prompt: Tokens
    whole: Tokens
    answer: str


def in_place(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: Sequence[Sequence[str]]
) -> Iterator[Placed]:
    """Of each prompt, in order, with all its answers."""
    lead, _ = frame(tokenizer)
    for i in range(0, len(prompts), CHUNK):
        texts, own = answers[i : i + CHUNK], tokenized(tokenizer, list(prompts[i : i + CHUNK]), special=False)
        joined = _joined(tokenizer, prompts[i : i + CHUNK], own, texts)
        known = _going_on(tokenizer, {b for row in zip(own, joined, texts, strict=True) for b in _borders(*row)})
        for row in zip(own, joined, texts, strict=True):
            yield _placed(lead, *row, known)


def _placed(
    lead: Tokens, prompt: Tokens, joined: Sequence[_Joined], texts: Sequence[str], known: dict[_Border, Tokens]
) -> Placed:
    borders = list(_borders(prompt, joined, texts))
    if not borders:
        return Placed(lead + prompt, tuple(each.rest for each in joined))
    if all(border in known for border in borders):
        behind = iter([known[border] for border in borders])
        answers = (each.rest if each.kept == len(prompt) else next(behind) for each in joined)
        return Placed(lead + prompt, tuple(answers), INSIDE)
    kept = min(each.kept for each in joined)
    moved = tuple(prompt[kept : each.kept] + each.rest for each in joined)
    return Placed(lead + prompt[:kept], moved, MOVED)


# ---- as one text


def _joined(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], own: Sequence[Tokens], answers: Sequence[Sequence[str]]
) -> list[list[_Joined]]:
    found: dict[int, list[_Joined]] = {}
    for words in WORDS:
        tails = {i: _last_words(prompts[i], words) for i in range(len(prompts)) if i not in found}
        coded = _coded(tokenizer, (text for i, tail in tails.items() for text in (tail, *_behind(tail, answers[i]))))
        for i, tail in tails.items():
            spliced = [_spliced(own[i], coded[tail], coded[text]) for text in _behind(tail, answers[i])]
            if known := [each for each in spliced if each]:
                found |= {i: known} if len(known) == len(spliced) else {}
    left = [i for i in range(len(prompts)) if i not in found]
    whole = _coded(tokenizer, (text for i in left for text in _behind(prompts[i], answers[i])))
    found |= {i: [_split(own[i], whole[text]) for text in _behind(prompts[i], answers[i])] for i in left}
    return [found[i] for i in range(len(prompts))]


def _behind(prompt: str, answers: Sequence[str]) -> Iterator[str]:
    return (prompt + answer for answer in answers)


def _last_words(prompt: str, words: int) -> str:
    """From the white space behind a word on."""
    for start in (max(0, len(prompt) - TAIL), 0):
        spaces = [match.start() for match in _BEFORE_WORD.finditer(prompt, start)]
        if len(spaces) >= words:
            return prompt[spaces[-words] :]
    return prompt


def _coded(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, Tokens]:
    """Each different text's tokens."""
    different = list(dict.fromkeys(texts))
    return dict(zip(different, tokenized(tokenizer, different, special=False), strict=True))


def _spliced(prompt: Tokens, tail: Tokens, longer: Tokens) -> _Joined | None:
    """From the tokens of a prompt, of its tail, and of the tail with an answer; None where they have none in common."""
    same = _shared(tail, longer)
    if len(tail) - _shared(tail[::-1], prompt[: -len(tail) - 1 : -1]) < same:
        return _Joined(len(prompt) - len(tail) + same, longer[same:])
    return None


def _split(prompt: Tokens, whole: Tokens) -> _Joined:
    kept = _shared(prompt, whole)
    return _Joined(kept, whole[kept:])


def _shared(a: Tokens, b: Tokens) -> int:
    """How many of the first tokens are the same."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


# ---- prompts that end within a token


def _borders(prompt: Tokens, joined: Sequence[_Joined], texts: Sequence[str]) -> Iterator[_Border]:
    for each, text in zip(joined, texts, strict=True):
        if each.kept < len(prompt):
            start = max(0, each.kept - 1)
            yield _Border(prompt[start:], prompt[start : each.kept] + each.rest, text)


def _going_on(tokenizer: PreTrainedTokenizerBase, borders: Iterable[_Border]) -> dict[_Border, Tokens]:
    """What behind the prompt's tokens says what prompt and answer say as one text, where there is such a thing."""
    found: dict[_Border, Tokens] = {}
    borders = list(borders)
    for start in _STARTS:
        left = [border for border in borders if border not in found]
        if not left:
            break
        before, *after = tokenized(tokenizer, [start, *(start + border.answer for border in left)], special=False)
        behind = [tokens[len(before) :] if tokens[: len(before)] == before else () for tokens in after]
        said = _decoded(tokenizer, [b.prompt + tokens for b, tokens in zip(left, behind, strict=True)])
        wanted = _decoded(tokenizer, [border.whole for border in left])
        results = zip(left, behind, said, wanted, strict=True)
        found |= {border: tokens for border, tokens, text, right in results if tokens and text == right}
    return found


def _decoded(tokenizer: PreTrainedTokenizerBase, sequences: Sequence[Tokens]) -> list[str]:
    return [str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)) for ids in sequences]
