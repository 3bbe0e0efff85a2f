"""What will be made of rows, before anything is trained: whether they can be used, every problem with its line, their
labels, how long they are, what is there twice, and the first of them as the model will read them.

    of(DataPart(path))                              by letters, in a moment
    of(DataPart(path), Coder(NAME, tokenizer, …))   by that model's tokenizer, and against its limits
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError
from zolite.common.text import many
from zolite.config.recipe import DataPart
from zolite.data import rows as tables
from zolite.data.encode import Encoded, encode
from zolite.data.examples import Example, fills_masks, quick
from zolite.data.kinds.kind import Piece, Row
from zolite.data.kinds.registry import KINDS
from zolite.data.leakage import Leakage, find, warned
from zolite.data.lengths import counter
from zolite.data.no_shape import NoShapeError
from zolite.data.problems import FaultyRowsError, faulty, some
from zolite.data.rows import Dataset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = 2  # of the report as JSON: another number where a field has gone or means something else
SHOWN = 5  # rows
LISTED = 20  # problems
MOST = 5000  # rows of a split whose tokens are counted
CHECKED = 100_000  # rows of a split that are tokenized, whether a model can read them
ENDLESS = 2**31  # tokens: nothing is cut, so that the true lengths are known
BINS = 12


@dataclass(frozen=True)
class Coder:
    """What counts the tokens: a model's tokenizer, with what a row of that model may not exceed (0: not known)."""

    model: str
    tokenizer: "PreTrainedTokenizerBase"
    table: int = 0
    """tokens that have an embedding"""
    positions: int = 0
    """tokens of the longest text that the model was made for"""
    learned: bool = False
    """is there no position beyond the last?"""
    notes: tuple[str, ...] = ()

    def limits(self, context: int) -> tuple[int, int]:
        """(tokens, positions) as `encode` takes them: rows that are cut at a context within the positions are in it."""
        return self.table, self.positions if self.learned and context > self.positions else 0


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
class Long:
    """One of the longest rows."""

    file: str
    line: int
    tokens: int


@dataclass(frozen=True)
class Report:
    """Where there are problems, only path, problems, faults and hint are filled in."""

    path: str
    schema: int = SCHEMA
    sound: bool = True  # can the rows be trained on?
    kind: str = ""
    title: str = ""  # what such rows are, and what a model learns of them
    metric: str = ""  # what they are evaluated by
    files: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)  # rows of train by label, most of them first
    majority: float = 0  # share of the commonest label: the accuracy of always saying it
    counted: str = ""  # what counted the tokens: a model's name, or "letters"
    sampled: int = 0  # rows whose tokens were counted
    tokens: int = 0  # of the longest row
    typical: int = 0  # of the one in the middle
    positions: int = 0  # the most of a row's tokens that are predicted
    lengths: tuple[Bin, ...] = ()
    longest: tuple[Long, ...] = ()
    context: int = 0  # tokens, of what follows
    cut: int = 0  # rows that are longer
    masked: int = 0  # rows of which nothing that is trained is within it; train refuses them
    leakage: Leakage | None = None
    first: tuple[Shown, ...] = ()
    notes: tuple[str, ...] = ()  # what a person should know of the rows
    warnings: tuple[str, ...] = ()  # what is likely wrong with them
    problems: tuple[str, ...] = ()  # the first LISTED
    faults: int = 0  # how many problems there are
    hint: str = ""
    examples: Mapping[str, str] = field(default_factory=dict)  # where no shape fits: the file's columns, each a value
    guess: Mapping[str, str] = field(default_factory=dict)  # and settings under which one would: columns, template

    @property
    def error(self) -> UsageError | None:
        """What a command that cannot use the rows says."""
        if self.sound:
            return None
        more = self.faults - len(self.problems)
        lines = [f"  {problem}" for problem in self.problems] + [f"  … and {more:,} more"] * (more > 0)
        return UsageError("\n".join((f"the rows at {self.path} cannot be used:", *lines)), self.hint)


@dataclass(frozen=True)
class _Read:
    """A row tokenized: its tokens, those predicted, and how many stand before the first of these."""

    file: str
    line: int
    tokens: int
    positions: int
    before: int
    shown: Shown | None


def report(
    path: Path | str,
    template: str,
    model: str = "",
    coder: "PreTrainedTokenizerBase | None" = None,
    table: int = 0,
    columns: str = "",
    verbalizer: str = "",
) -> Report:
    """The same as `of`, with a template, a tokenizer and the rows of the model's embedding table."""
    data = DataPart(str(path), template, columns=columns, verbalizer=verbalizer)
    return of(data, Coder(model, coder, table) if coder else None)


def of(data: DataPart, coder: Coder | None = None) -> Report:
    """Everything about the rows of `data`; their problems are in it, not raised."""
    notes: list[str] = list(coder.notes) if coder else []
    try:
        dataset = tables.of(data)
        notes += dataset.notes
        read = list(_by_tokens(dataset, data, coder, notes) if coder else _by_letters(dataset, data.template))
    except UsageError as error:
        return _refused(data.path, error)
    lengths, kind, found = sorted(each.tokens for each in read), KINDS[dataset.kind], find(dataset)
    labels = _balance(dataset, kind.label_column)
    cut, masked = _beyond(read, data.context, bool(labels)) if coder else (0, 0)
    warnings = (*dataset.warnings, *warned(found, dataset, data.group_by), *_too_long(read, coder))
    return Report(
        path=data.path,
        kind=kind.name,
        title=kind.title,
        metric=kind.metric,
        files=dataset.files,
        rows={split: len(rows) for split, rows in dataset.splits.items()},
        labels=labels,
        majority=max(labels.values()) / sum(labels.values()) if labels else 0,
        counted=coder.model if coder else "letters",
        sampled=len(read),
        tokens=lengths[-1],
        typical=lengths[len(lengths) // 2],
        positions=max(each.positions for each in read),
        lengths=binned(lengths),
        longest=tuple(Long(r.file, r.line, r.tokens) for r in heapq.nlargest(SHOWN, read, lambda each: each.tokens)),
        context=data.context,
        cut=cut,
        masked=masked,
        leakage=found,
        first=tuple(each.shown for each in read if each.shown),
        notes=tuple(notes),
        warnings=(*warnings, *_of_context(cut, masked, data.context)),
    )


def _refused(path: str, error: UsageError) -> Report:
    what, *lines = error.message.splitlines()
    every = error.problems if isinstance(error, FaultyRowsError) else tuple(line.strip() for line in lines) or (what,)
    found = Report(path, sound=False, problems=every[:LISTED], faults=len(every), hint=error.hint)
    return replace(found, examples=error.examples, guess=error.guess) if isinstance(error, NoShapeError) else found


def _beyond(read: Sequence[_Read], context: int, labelled: bool) -> tuple[int, int]:
    """(rows that are longer than the context, those that train refuses); a label has to be within it as a whole."""
    longer = [each for each in read if each.tokens > context]
    return len(longer), len(longer) if labelled else sum(each.before >= context for each in longer)


def _of_context(cut: int, masked: int, context: int) -> Iterator[str]:
    if cut > masked:
        yield f"{many(cut - masked, 'row')} longer than the context of {context} tokens, cut there (--context)"
    if masked:
        what = f"{many(masked, 'row')} without an answer in the context of {context} tokens"
        yield f"{what}: train refuses them (--context)"


def _too_long(read: Sequence[_Read], coder: Coder | None) -> Iterator[str]:
    longer = [each for each in read if coder and coder.positions and each.tokens > coder.positions]
    if coder and longer:
        first = some((f"{each.file}: line {each.line} has {each.tokens:,}" for each in longer), 3)
        what = f"{many(len(longer), 'row')} of more tokens than the {coder.positions:,} that {coder.model} was made for"
        yield f"{what}: {first}"


def _balance(dataset: Dataset, column: str) -> dict[str, int]:
    """Rows of train by label; empty where rows have none."""
    return dict(Counter(row.columns[column] for row in dataset.splits["train"]).most_common()) if column else {}


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
            yield _Read(dataset.files[split], row.line, tokens, kind.predicted(row, count), 0, shown)


# ---- by a model's tokenizer


def _by_tokens(dataset: Dataset, data: DataPart, coder: Coder, notes: list[str]) -> Iterator[_Read]:
    """Adds to the notes, those of one split: what is true of its rows is true of the others'.

    Raises FaultyRowsError at the end, with the rows of all splits that the model cannot read.
    """
    said: tuple[str, ...] = ()
    faults: list[FaultyRowsError] = []
    coder = replace(coder, tokenizer=quick(coder.tokenizer))
    for split, rows in _sampled(dataset):
        coded = _coded(dataset, split, rows, data, coder, faults)
        faults += _unreadable(dataset, split, data, coder) if len(rows) < len(dataset.splits[split]) else []
        if not said:
            said = tuple(f"{split}: {note}" for note in coded.notes)
            notes += said
        for i, example in zip(coded.origins, coded.examples, strict=True):
            row = rows[i]
            longest = max(map(len, example.sequences)) + (not fills_masks(coder.tokenizer))  # the last is not read
            places = {(query.sequence, query.position) for query in example.queries}
            before = min(position for _, position in places) + 1
            shown = _shown(row.line, example, coder.tokenizer) if split == "train" and i < SHOWN else None
            yield _Read(dataset.files[split], row.line, longest, len(places), before, shown)
    if faults:
        hints = dict.fromkeys(error.hint for error in faults)
        problems = dict.fromkeys(problem for error in faults for problem in error.problems)
        raise faulty(list(problems), "; ".join(hints))


def _coded(
    dataset: Dataset, split: str, rows: Sequence[Row], data: DataPart, coder: Coder, faults: list[FaultyRowsError]
) -> Encoded:
    """Rows of a split as examples at their whole length; adds to the faults where some cannot be."""
    asked = (data.template, ENDLESS, dataset.files[split], *coder.limits(data.context))
    try:
        return encode(rows, dataset.kind, dataset.labels, coder.tokenizer, *asked)
    except FaultyRowsError as error:
        faults.append(error)
        return Encoded((), 0)


def _unreadable(dataset: Dataset, split: str, data: DataPart, coder: Coder) -> list[FaultyRowsError]:
    """Of a split with more rows than are counted: what the model cannot read of the first CHECKED rows."""
    rows, faults = dataset.splits[split], list[FaultyRowsError]()
    for start in range(0, min(len(rows), CHECKED), MOST):
        _coded(dataset, split, rows[start : start + MOST], data, coder, faults)
    return faults


def _shown(line: int, example: Example, coder: "PreTrainedTokenizerBase") -> Shown:
    """The right answer's tokens and what stands before them."""
    asked = sorted((q for q in example.queries if q.candidate == example.answer), key=lambda q: q.position)
    if fills_masks(coder):
        said = {query.position: query.token for query in asked}
        filled = [said.get(i, token) for i, token in enumerate(example.sequences[asked[0].sequence])]
        return Shown(line, len(filled), tuple(_decoded(filled, lambda i: i in said, coder)))
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
