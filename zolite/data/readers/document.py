"""Plain text: a file is a document, one record with the column `text`."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from zolite.data.readers.encoding import Encoding, encoding_of, lines, notes
from zolite.data.readers.reader import MOST_LETTERS, Opened, Read, Unreadable


def opened(file: Path) -> Opened:
    encoding = encoding_of(file, western=True)
    return Opened(partial(_rows, file, encoding), notes(encoding))


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
