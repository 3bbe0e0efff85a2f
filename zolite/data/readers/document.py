"""Plain text: a file is a document, one record with the column `text`; fastText's have labels and text a line."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from zolite.data.readers.encoding import Encoding, encoding_of, lines, notes
from zolite.data.readers.reader import MOST_LETTERS, Opened, Read, Unreadable

LABEL = "__label__"


def opened(file: Path) -> Opened:
    encoding = encoding_of(file, western=True)
    if next(iter(lines(file, encoding, None)), "").startswith(LABEL):
        return Opened(partial(_labelled, file, encoding), (*notes(encoding), f"fastText's lines: {LABEL}NAME and text"))
    return Opened(partial(_rows, file, encoding), notes(encoding))


def _labelled(file: Path, encoding: Encoding) -> Iterator[Read]:
    for number, line in enumerate(lines(file, encoding, None), 1):
        labels = list(itertools.takewhile(lambda word: word.startswith(LABEL), line.split()))
        if labels:
            text = "".join(line.split(None, len(labels))[len(labels) :]).strip()
            yield number, {"text": text, "label": [label.removeprefix(LABEL) for label in labels]}
        elif line.strip():
            yield number, f"the line does not begin with {LABEL}NAME, as the first one does"


def _rows(file: Path, encoding: Encoding) -> Iterator[Read]:
    found: list[str] = []
    letters = 0
    for line in lines(file, encoding, None):
        found.append(line)
        letters += len(line)
        if letters > MOST_LETTERS:
            raise Unreadable(f"a document has at most {MOST_LETTERS:,} letters: divide it into several files")
    if any(line.strip() for line in found):
        yield 1, {"text": "".join(found)}
