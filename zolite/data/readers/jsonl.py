"""JSON Lines: an object a line, in UTF-8 or, with a byte order mark, UTF-16."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from zolite.data.problems import noun
from zolite.data.readers.encoding import Encoding, encoding_of, lines, notes
from zolite.data.readers.reader import Opened, Read, Record

# NaN is how some writers spell a missing value.
DECODER = json.JSONDecoder(parse_constant=lambda _: None)

TOO_DEEP = "not usable JSON: it is nested too deeply"


def opened(file: Path) -> Opened:
    encoding = encoding_of(file, western=False)
    return Opened(partial(_rows, file, encoding), notes(encoding))


def _rows(file: Path, encoding: Encoding) -> Iterator[Read]:
    for number, line in enumerate(lines(file, encoding, "\n"), 1):  # no other ends: U+2028 may stand inside a string
        if line.strip():
            yield number, _object(line)


def _object(line: str) -> Record | str:
    try:
        value = DECODER.decode(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.colno}"
    except RecursionError:
        return TOO_DEEP
    except ValueError as error:
        return f"not usable JSON: {error}"
    return checked(value, line)


def checked(value: object, text: str) -> Record | str:
    """A value of JSON as a record, or why it is none; `text` is how it was spelled."""
    if not isinstance(value, dict):
        return f"not a JSON object but {noun(value)}"
    if "\\ud" in text or "\\uD" in text:  # half a surrogate pair is JSON, but no tokenizer takes it
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return f"not usable JSON: {error}"
    return value
