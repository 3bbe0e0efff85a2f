"""What will be made of rows, before anything is trained: their kind, how long they are, the first of them as the model
will read them with the tokens that are asked for, and every problem with its line.

    report(path, template)                  by letters, in a moment
    report(path, template, NAME, tokenizer) by that model's tokenizer
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError
from zolite.data import rows as tables
from zolite.data.encode import Example, answer_of, encode, prompt_of
from zolite.data.lengths import counter
from zolite.data.rows import Dataset, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 5  # rows
MOST = 5000  # rows of a split that are tokenized
ENDLESS = 2**31  # tokens: nothing is cut, so that the true lengths are known
BINS = 12


@dataclass(frozen=True)
class Piece:
    """Text of a row; `trained` if the model is asked for it."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Shown:
    """A row as the model reads it, with the right answer."""

    line: int
    tokens: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Bin:
    """Rows of at most so many tokens, and of more than the bin before."""

    upto: int
    rows: int


@dataclass(frozen=True)
class Report:
    """`tokens`, `positions` and `lengths` are 0 or empty where there are problems."""

    path: str
    kind: str
    files: dict[str, str]
    rows: dict[str, int]
    labels: dict[str, int]  # rows of train by label
    counted: str  # what counted the tokens: a model's name, or "letters"
    tokens: int  # of the longest row
    typical: int  # of the one in the middle
    positions: int  # the most tokens that a row asks for
    lengths: tuple[Bin, ...]
    first: tuple[Shown, ...]
    problems: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class _Read:
    """A row tokenized."""

    tokens: int
    positions: int
    shown: Shown | None


def report(path: Path, template: str, model: str = "", coder: "PreTrainedTokenizerBase | None" = None) -> Report:
    """Everything about the rows at `path`; their problems are in it, not raised. `coder`: the tokenizer of `model`."""
    try:
        dataset = tables.load(path, template)
        read = list(_by_tokens(dataset, template, coder) if coder else _by_letters(dataset, template))
    except UsageError as error:
        return _refused(path, error)
    lengths = sorted(each.tokens for each in read)
    labels = Counter(row.columns["label"] for row in dataset.splits["train"]) if dataset.kind == "label" else {}
    return Report(
        path=str(path),
        kind=dataset.kind,
        files=dataset.files,
        rows={split: len(rows) for split, rows in dataset.splits.items()},
        labels=dict(labels),
        counted=model or "letters",
        tokens=lengths[-1],
        typical=lengths[len(lengths) // 2],
        positions=max(each.positions for each in read),
        lengths=binned(lengths),
        first=tuple(each.shown for each in read if each.shown),
    )


def _refused(path: Path, error: UsageError) -> Report:
    what, *lines = error.message.splitlines()
    problems = tuple(line.strip() for line in lines) or (what,)
    return Report(str(path), "", {}, {}, {}, "", 0, 0, 0, (), (), problems, error.hint)


def binned(lengths: Sequence[int]) -> tuple[Bin, ...]:
    """At most BINS of one width, a multiple of 8 tokens."""
    width = -(-max(lengths) // BINS)
    width = -(-width // 8) * 8
    counts = Counter((length - 1) // width for length in lengths)
    return tuple(Bin((i + 1) * width, counts[i]) for i in range(max(counts) + 1))


def _sampled(dataset: Dataset) -> Iterator[tuple[str, tuple[Row, ...]]]:
    """(split, rows): at most MOST of each, evenly taken, the first ones among them."""
    for split, rows in dataset.splits.items():
        yield split, rows[:: -(-len(rows) // MOST)] if len(rows) > MOST else rows


# ---- by letters


def _by_letters(dataset: Dataset, template: str) -> Iterator[_Read]:
    count = counter(None)
    for split, rows in _sampled(dataset):
        for i, row in enumerate(rows):
            pieces = tuple(_pieces(dataset.kind, row, template))
            tokens = sum(count(piece.text) for piece in pieces)
            asked = 1 if dataset.kind == "label" else sum(count(piece.text) + 1 for piece in pieces if piece.trained)
            yield _Read(tokens, asked, Shown(row.line, tokens, pieces) if split == "train" and i < SHOWN else None)


def _pieces(kind: str, row: Row, template: str) -> Iterator[Piece]:
    """As far as text alone can say: without what the tokenizer puts around it."""
    if kind == "label":
        yield Piece(prompt_of(row, template), False)
        yield Piece(answer_of(row.columns["label"], template), True)
    elif kind == "completion":
        yield Piece(row.columns["prompt"], False)
        yield Piece(row.columns["completion"], True)
    else:
        for message in row.messages:
            yield Piece(f"[{message['role']}] ", False)
            yield Piece(f"{message['content']}\n", message["role"] == "assistant")


# ---- by a model's tokenizer


def _by_tokens(dataset: Dataset, template: str, coder: "PreTrainedTokenizerBase") -> Iterator[_Read]:
    for split, rows in _sampled(dataset):
        coded = encode(rows, dataset.kind, dataset.labels, coder, template, ENDLESS, dataset.files[split])
        for i, (row, example) in enumerate(zip(rows, coded.examples, strict=True)):
            longest = max(map(len, example.sequences)) + 1  # with the last token, which is only asked for
            places = len({(query.sequence, query.position) for query in example.queries})
            shown = _shown(row.line, example, coder) if split == "train" and i < SHOWN else None
            yield _Read(longest, places, shown)


def _shown(line: int, example: Example, coder: "PreTrainedTokenizerBase") -> Shown:
    """The right answer's tokens and what stands before them."""
    asked = sorted((q for q in example.queries if q.candidate == example.answer), key=lambda q: q.position)
    tokens = [*example.sequences[asked[0].sequence][: asked[-1].position + 1], asked[-1].token]
    trained = {query.position + 1 for query in asked}
    return Shown(line, len(tokens), tuple(_decoded(tokens, lambda i: i in trained, coder)))


def _decoded(tokens: Sequence[int], trained: Callable[[int], bool], coder: Any) -> Iterator[Piece]:
    """Runs of tokens as text. By what each adds to the text before it: a token alone may lose its space."""
    done = ""
    for kind, run in groupby(range(len(tokens)), trained):
        text = str(coder.decode(tokens[: max(run) + 1]))
        yield Piece(text[len(done) :], kind)
        done = text
