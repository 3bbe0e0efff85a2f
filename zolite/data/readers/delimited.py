"""Tables as text: CSV and TSV, whatever separates and quotes their cells."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from zolite.data.problems import some
from zolite.data.readers.encoding import Encoding, encoding_of, lines
from zolite.data.readers.reader import MOST_COLUMNS, MOST_LETTERS, Opened, Read, Record, Unreadable

csv.field_size_limit(MOST_LETTERS)  # of the whole process; csv's own is 131,072, less than many a document

SAMPLED = 2**20  # letters, and
MOST_SAMPLED = 2000  # lines, by which the dialect is chosen

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
HINT = re.compile(r"sep=(.)\r?\n")  # what Excel takes as a file's first line


@dataclass(frozen=True)
class Quoting:
    said: str
    """empty for the usual one"""
    options: dict[str, Any]
    """of csv.reader"""
    likely: Callable[[str, str], bool]
    """of a sample and its delimiter: may cells be quoted so?"""


def _mostly_text(sample: str, delimiter: str) -> bool:
    """Are quotes at cells' edges text in a file of tabs, which often knows no quoting?"""
    cells = [cell for line in sample.splitlines() for cell in line.split(delimiter) if '"' in (cell[:1], cell[-1:])]
    return delimiter == "\t" and sum(len(c) > 1 and c[0] == c[-1] for c in cells) * 2 <= len(cells)


# The usual one first: it is taken wherever it explains the file as well as another.
QUOTINGS = (
    Quoting("", {"quotechar": '"'}, lambda sample, delimiter: True),
    Quoting(
        'quotes inside quotes as \\"',
        {"quotechar": '"', "escapechar": "\\"},
        lambda sample, delimiter: '\\"' in sample,
    ),
    Quoting(
        "cells quoted with '",
        {"quotechar": "'"},
        lambda sample, delimiter: '"' not in sample and bool(re.search(rf"(^|[{delimiter}])'", sample, re.M)),
    ),
    Quoting('" is text', {"quoting": csv.QUOTE_NONE}, _mostly_text),
)


@dataclass(frozen=True)
class Dialect:
    delimiter: str
    quoting: Quoting
    padded: bool = False
    """is there a space behind each delimiter?"""
    skipped: int = 0
    """lines before the header"""

    def reader(self, text: Iterator[str]) -> Any:
        # csv.reader and not DictReader: a ragged row and the line where a record starts are lost in the latter.
        return csv.reader(
            text, delimiter=self.delimiter, skipinitialspace=self.padded, strict=True, **self.quoting.options
        )


def opened(file: Path, usual: str) -> Opened:
    """`usual` separates the cells of files with that suffix."""
    encoding = encoding_of(file, western=True)
    sample, whole = _sample(file, encoding)
    dialect = _dialect(sample, whole, usual)
    said = [f"read as {encoding.said}"] if encoding.said else []
    said += [f"cells separated by {DELIMITERS.get(dialect.delimiter, dialect.delimiter)}"] * (
        dialect.delimiter != usual
    )
    said += [dialect.quoting.said] if dialect.quoting.said else []
    return Opened(partial(_rows, file, encoding, dialect), (", ".join(said),) if said else ())


def _sample(file: Path, encoding: Encoding) -> tuple[list[str], bool]:
    """(the first lines, are they all?)"""
    found: list[str] = []
    letters = 0
    for line in lines(file, encoding):
        if letters > SAMPLED or len(found) == MOST_SAMPLED:
            return found, False
        found.append(line)
        letters += len(line)
    return found, True


# ---- the dialect


def _dialect(sample: Sequence[str], whole: bool, usual: str) -> Dialect:
    """The one under which most rows have as many cells as the header; the usual one where several are as good."""
    if sample and (hint := HINT.fullmatch(sample[0])):
        return Dialect(hint[1], QUOTINGS[0], skipped=1)
    header, text = next((line for line in sample if line.strip()), ""), "".join(sample)
    order = [usual, *(delimiter for delimiter in DELIMITERS if delimiter != usual)]
    likely = [
        Dialect(delimiter, quoting, padded=header.count(delimiter) == header.count(f"{delimiter} "))
        for delimiter in order
        if delimiter in header
        for quoting in QUOTINGS
        if quoting.likely(text, delimiter)
    ]
    return max(likely, key=lambda dialect: _agreement(dialect, sample, whole), default=Dialect(usual, QUOTINGS[0]))


def _agreement(dialect: Dialect, sample: Sequence[str], whole: bool) -> tuple[float, int]:
    """(the share of the sample in rows that have as many cells as the header, these cells' number)."""
    reader, widths, last = dialect.reader(iter(sample)), [], 0
    try:
        for cells in reader:
            widths += [len(cells)] if cells else []
            last = reader.line_num
    except csv.Error:
        if not whole and reader.line_num == len(sample):  # the sample ends inside a cell
            last = len(sample)
    header, *rows = widths or [0]
    if header < 2:
        return 0.0, header
    agree = sum(width == header for width in rows) / len(rows) if rows else 1.0
    return agree * last / len(sample), header


# ---- its rows


def _rows(file: Path, encoding: Encoding, dialect: Dialect) -> Iterator[Read]:
    text = lines(file, encoding)
    skipped = len(list(islice(text, dialect.skipped)))
    reader = dialect.reader(text)
    header: list[str] = []
    start = skipped + 1
    try:
        for cells in reader:
            if cells and not header:
                header = _header(cells, start)
            elif cells:
                yield start, _record(header, cells)
            start = skipped + reader.line_num + 1
    except csv.Error as error:
        what = (
            f"a cell of more than {MOST_LETTERS:,} letters: is a quote not closed?" if "limit" in str(error) else error
        )
        raise Unreadable(f"not CSV from here on: {what}", start) from error


def _header(cells: list[str], line: int) -> list[str]:
    if len(cells) > MOST_COLUMNS:
        raise Unreadable(f"the header has {len(cells):,} columns; at most {MOST_COLUMNS:,} are read", line)
    header = [cell.strip() for cell in cells]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise Unreadable(f"the header has {some(twice)} more than once", line)
    return header


def _record(header: list[str], cells: list[str]) -> Record | str:
    if len(cells) != len(header):
        return f"{len(cells)} cells where the header has {len(header)}"
    return dict(zip(header, cells, strict=True))
