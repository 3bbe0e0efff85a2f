"""What is said of a file that fits no shape of rows: its columns, the nearest shapes, and the command that reads it."""

from __future__ import annotations

import difflib
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from zolite.common.errors import UsageError, listed
from zolite.config.fields import pair
from zolite.data.columns import Asked, plain, recognised
from zolite.data.kinds.kind import Kind
from zolite.data.kinds.template import spelled
from zolite.data.kinds.together import ABOUT
from zolite.data.problems import as_text, has
from zolite.data.readers.reader import Record

SHOWN = 12  # columns in a message
MOST = 64  # columns that are looked at
EXAMPLE = 60  # letters
NEAREST = 3  # shapes
TAKEN = "--columns says which column is which, in train and eval too; docs/rows.md shows every shape"
HEADLESS = "a column's name is a number: if the file has no header, write one above its first line, such as text,label"
_NUMBER = re.compile(r"-?\d+([.,]\d+)?")
LONG = 24  # letters of a text; what is shorter may be a label
FEW = 0.5  # of the rows: a label has fewer different values than that


class NoShapeError(UsageError):
    """`examples`: the file's columns with a value each; `guess`: settings under which its rows would be read."""

    def __init__(self, message: str, hint: str, examples: Mapping[str, str], guess: Mapping[str, str]) -> None:
        super().__init__(message, hint)
        self.examples, self.guess = examples, guess


def refusal(
    path: Path | str, where: str, sample: Sequence[Record], asked: Asked, unread: Sequence[str]
) -> NoShapeError:
    """For a file whose first records are `sample`; `unread` are the problems of other records."""
    columns = dict.fromkeys(itertools.islice(dict.fromkeys(name for record in sample for name in record), MOST))
    examples = {name: _example(sample, name) for name in columns}
    shown = [f"{name!r}: {value}" for name, value in list(examples.items())[:SHOWN]]
    rest = len(sample[0]) - SHOWN
    shown += [f"… and {rest:,} more columns"] if rest > 0 else []
    shown += [HEADLESS] if any(_NUMBER.fullmatch(name) for name in columns) else []
    guess, kind = guessed(sample, asked) if columns else ({}, None)
    kinds = list({each.name: each for each in ([kind] if kind else []) + nearest(columns, asked)}.values())[:NEAREST]
    near = " · ".join(f"{each.name}: {' + '.join(each.columns(asked.template))}" for each in kinds)
    what = f"{where}: fits no shape of rows ({has(sample[0])})"
    return NoShapeError(
        "the data has problems:\n" + listed([what, *shown, f"the nearest shapes need {near}", TAKEN, *unread]),
        _hint(path, guess),
        examples,
        guess,
    )


def _hint(path: Path | str, guess: Mapping[str, str]) -> str:
    if not guess:
        return "docs/rows.md shows every shape of rows; --columns NAME=COLUMN says which column of a file is which"
    flags = " ".join(f"--{name} {shlex.quote(value)}" for name, value in guess.items())
    return f"zolite data check {shlex.quote(str(path))} {flags}"


def _example(sample: Sequence[Record], name: str) -> str:
    """The first value that says something, in one line, as it would be printed."""
    texts = (as_text(record[name]) for record in sample if record.get(name) not in (None, "", [], {}))
    text = "".join(c if c.isprintable() else " " for c in next(texts, "").strip()[: 4 * EXAMPLE])
    line = " ".join(text.split())
    return (line[:EXAMPLE].rstrip() + " …" if len(line) > EXAMPLE else line) or "(blank)"


def nearest(columns: Mapping[str, object], asked: Asked) -> list[Kind]:
    """The kinds whose columns are spelled most like those of a file."""
    names = [plain(name) for name in columns]

    def likeness(kind: Kind) -> float:
        return fmean(_likeness(name, kind, names) for name in kind.columns(asked.template))

    return sorted(asked.offered(), key=lambda kind: -likeness(kind))[:NEAREST]


def _likeness(name: str, kind: Kind, names: Sequence[str]) -> float:
    known = [name, *(each for each in kind.names.spellings.get(name, ()) if isinstance(each, str))]
    pairs_ = ((plain(one), other) for one in known for other in names)
    return max((difflib.SequenceMatcher(None, one, other).ratio() for one, other in pairs_), default=0.0)


# ---- a guess


@dataclass(frozen=True)
class _Column:
    name: str
    letters: float
    """of a value, in the middle"""
    different: int
    rows: int

    @property
    def is_text(self) -> bool:
        return self.letters >= LONG

    @property
    def may_be_label(self) -> bool:
        few = self.different > 1 and self.different <= max(2, self.rows * FEW)
        return self.letters < LONG and (few or self.rows < 4)


def guessed(sample: Sequence[Record], asked: Asked) -> tuple[dict[str, str], Kind | None]:
    """(settings, columns and template, under which these records have a shape, its kind); none where none is likely."""
    found = [column for name in itertools.islice(sample[0], MOST) if (column := _column(sample, name))]
    found = [column for column in found if plain(column.name) not in ABOUT] or found
    for settings in _guesses(found):
        try:
            tried = Asked.of(settings.get("template", asked.template).replace("\\n", "\n"), settings.get("columns", ""))
            if shape := recognised(sample, replace(tried, words=asked.words)):
                return settings, shape.kind
        except UsageError:
            continue
    return {}, None


def _column(sample: Sequence[Record], name: str) -> _Column | None:
    values = [record.get(name) for record in sample]
    if any(isinstance(value, list | dict) for value in values):
        return None
    texts = [as_text(value).strip() for value in values if value is not None]
    return _Column(name, fmean(map(len, texts)), len(set(texts)), len(sample)) if any(texts) else None


def _guesses(found: Sequence[_Column]) -> Iterator[dict[str, str]]:
    """The likeliest first."""
    labels = sorted((c for c in found if c.may_be_label), key=_as_label)
    texts = [column for column in found if column.is_text]
    for label in labels[:1]:
        others = texts or sorted((c for c in found if c is not label), key=lambda c: -c.letters)[:1]
        named = [] if label.name == "label" else [pair("label", label.name)]
        if len(others) == 1:
            yield {"columns": ",".join([pair("text", others[0].name), *named])}
        elif others:
            lines = "".join(spelled(column.name).replace("\n", " ") + "\\n" for column in others)
            columns = {"columns": ",".join(named)} if named else {}
            yield {"template": lines + "Answer: {label}", **columns}
    ordered = texts if len(texts) > 1 else list(found)
    if len(ordered) > 1:
        yield {"columns": f"{pair('prompt', ordered[0].name)},{pair('completion', ordered[1].name)}"}
    for column in (texts or list(found))[:1]:
        yield {"columns": pair("text", column.name)}


def _as_label(column: _Column) -> tuple[bool, int]:
    """Names that labels have come first, then those with the fewest values."""
    likely = ("label", "categ", "class", "topic", "sentiment", "intent", "type", "tag", "status", "rating", "stars")
    return not any(word in plain(column.name) for word in likely), column.different
