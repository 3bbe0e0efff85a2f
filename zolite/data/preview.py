"""What will be made of rows, before anything is trained: their kind, how long they are, the first of them as the model
will read them with the tokens that are trained, and every problem with its line.

    report(path, template)                  by letters, in a moment
    report(path, template, NAME, tokenizer) by that model's tokenizer
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example
from zolite.data.kinds.kind import Piece, Row
from zolite.data.kinds.registry import KINDS
from zolite.data.lengths import counter
from zolite.data.no_shape import NoShapeError
from zolite.data.rows import Dataset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 5  # rows
MOST = 5000  # rows of a split that are tokenized
ENDLESS = 2**31  # tokens: nothing is cut, so that the true lengths are known
BINS = 12


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
    """Where there are problems, only the path, the problems and the hint are filled in."""

    path: str
    kind: str = ""
    title: str = ""  # what such rows are, and what a model learns of them
    metric: str = ""  # what they are evaluated by
    files: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)  # rows of train by label
    counted: str = ""  # what counted the tokens: a model's name, or "letters"
    tokens: int = 0  # of the longest row
    typical: int = 0  # of the one in the middle
    positions: int = 0  # the most of a row's tokens that are predicted
    lengths: tuple[Bin, ...] = ()
    first: tuple[Shown, ...] = ()
    notes: tuple[str, ...] = ()  # what a person should know of the rows
    problems: tuple[str, ...] = ()
    hint: str = ""
    examples: Mapping[str, str] = field(default_factory=dict)  # where no shape fits: the file's columns, each a value
    guess: Mapping[str, str] = field(default_factory=dict)  # and settings under which one would: columns, template


@dataclass(frozen=True)
class _Read:
    """A row tokenized."""

    tokens: int
    positions: int
    shown: Shown | None


def report(
    path: Path,
    template: str,
    model: str = "",
    coder: "PreTrainedTokenizerBase | None" = None,
    table: int = 0,
    columns: str = "",
    verbalizer: str = "",
) -> Report:
    """Everything about the rows at `path`; their problems are in it, not raised.

    `coder` is the tokenizer of `model`, `table` the rows of that model's embedding table, 0 where they are not known.
    """
    notes: list[str] = []
    try:
        dataset = tables.load(path, template, columns=columns, verbalizer=verbalizer)
        notes += dataset.notes
        read = list(_by_tokens(dataset, template, coder, table, notes) if coder else _by_letters(dataset, template))
    except UsageError as error:
        return _refused(path, error)
    lengths, kind = sorted(each.tokens for each in read), KINDS[dataset.kind]
    return Report(
        path=str(path),
        kind=kind.name,
        title=kind.title,
        metric=kind.metric,
        files=dataset.files,
        rows={split: len(rows) for split, rows in dataset.splits.items()},
        labels=_balance(dataset, kind.label_column),
        counted=model or "letters",
        tokens=lengths[-1],
        typical=lengths[len(lengths) // 2],
        positions=max(each.positions for each in read),
        lengths=binned(lengths),
        first=tuple(each.shown for each in read if each.shown),
        notes=tuple(notes),
    )


def _refused(path: Path, error: UsageError) -> Report:
    what, *lines = error.message.splitlines()
    problems = tuple(line.strip() for line in lines) or (what,)
    if not isinstance(error, NoShapeError):
        return Report(str(path), problems=problems, hint=error.hint)
    return Report(str(path), problems=problems, hint=error.hint, examples=error.examples, guess=error.guess)


def _balance(dataset: Dataset, column: str) -> dict[str, int]:
    """Rows of train by label; empty where rows have none."""
    return dict(Counter(row.columns[column] for row in dataset.splits["train"])) if column else {}


def binned(lengths: Sequence[int]) -> tuple[Bin, ...]:
    """At most BINS of one width, a multiple of 8 tokens."""
    width = -(-max(lengths) // BINS)
    width = -(-width // 8) * 8
    counts = Counter((length - 1) // width for length in lengths)
    return tuple(Bin((i + 1) * width, counts[i]) for i in range(max(counts) + 1))


def _sampled(dataset: Dataset) -> Iterator[tuple[str, Sequence[Row]]]:
    """(split, rows): at most MOST of each, evenly taken, the first ones among them."""
    for split, rows in dataset.splits.items():
        yield split, rows[:: -(-len(rows) // MOST)] if len(rows) > MOST else rows


# ---- by letters


def _by_letters(dataset: Dataset, template: str) -> Iterator[_Read]:
    count, kind = counter(None), KINDS[dataset.kind]
    for split, rows in _sampled(dataset):
        for i, row in enumerate(rows):
            pieces = tuple(kind.pieces(row, template))
            tokens = sum(count(piece.text) for piece in pieces)
            shown = Shown(row.line, tokens, pieces) if split == "train" and i < SHOWN else None
            yield _Read(tokens, kind.predicted(row, count), shown)


# ---- by a model's tokenizer


def _by_tokens(
    dataset: Dataset, template: str, coder: "PreTrainedTokenizerBase", table: int, notes: list[str]
) -> Iterator[_Read]:
    """Adds to the notes, those of one split: what is true of its rows is true of the others'."""
    said: tuple[str, ...] = ()
    for split, rows in _sampled(dataset):
        coded = encode(rows, dataset.kind, dataset.labels, coder, template, ENDLESS, dataset.files[split], table)
        if not said:
            said = tuple(f"{split}: {note}" for note in coded.notes)
            notes += said
        for i, example in zip(coded.origins, coded.examples, strict=True):
            row = rows[i]
            longest = max(map(len, example.sequences)) + 1  # with the last token, which is only predicted
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
