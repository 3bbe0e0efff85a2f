"""JSON documents: an array of objects, an object with such an array, an object of columns, or JSON Lines by that name.

Arrays are read an object at a time, so their files may have any length; an object of columns is read whole.
"""

import io
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zolite.data.problems import noun, some
from zolite.data.readers import unpacked
from zolite.data.readers.encoding import Encoding, encoding_of, notes
from zolite.data.readers.jsonl import DECODER, TOO_DEEP, checked
from zolite.data.readers.reader import MOST_LETTERS, Opened, Read, Unreadable

CHUNK = 2**20  # letters
TOKEN = 16  # letters, more than what stands between two places where JSON can be wrong, but for strings
TURN = ("role", "from")  # of a message: a conversation is a record, not an array of records


def opened(file: Path) -> Opened:
    encoding = encoding_of(file, western=False)
    with _Source(file, encoding) as source:
        if source.peek() != "{":
            return Opened(partial(_array, file, encoding), notes(encoding))
        try:
            whole, _ = source.value()
        except _TooLong:
            key = _key_of_array(file, encoding)
            return Opened(partial(_inside, file, encoding, key), (*notes(encoding), f"rows are read from {key!r}"))
        if source.peek():
            said = "several JSON objects behind one another, read as JSON Lines"
            return Opened(partial(_sequence, file, encoding), (*notes(encoding), said))
    return _of_object(whole, file, encoding)


def _of_object(whole: dict[str, Any], file: Path, encoding: Encoding) -> Opened:
    """By what the one object of a file is made of."""
    said = notes(encoding)
    arrays = [key for key, value in whole.items() if _are_records(value)]
    if len(arrays) > 1:
        raise Unreadable(f"it has {len(arrays)} arrays of objects ({some(arrays)}): save each as a file of its own")
    if arrays:
        others = [key for key in whole if key not in arrays]
        said += (f"rows are read from {arrays[0]!r}" + (f", {some(others)} is not read" if others else ""),)
        return Opened(partial(_inside, file, encoding, arrays[0]), said)
    values = list(whole.values())
    if values and all(isinstance(value, dict) for value in values):
        if all(key.isdigit() for value in values for key in value):  # as pandas' to_json writes a table
            columns = {key: [value.get(i) for i in values[0]] for key, value in whole.items()}
            return Opened(partial(_of_columns, columns), (*said, f"columns: {some(whole)}"), "row")
        return Opened(partial(iter, list(enumerate(values, 1))), (*said, "an object of rows, by their keys"), "row")
    if values and all(isinstance(value, list) for value in values) and not _is_conversation(values[0]):
        return Opened(partial(_of_columns, whole), (*said, f"columns: {some(whole)}"), "row")
    return Opened(partial(iter, [(1, checked(whole, json.dumps(whole)))]), said)


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and not _is_conversation(value)


def _is_conversation(value: Any) -> bool:
    return bool(value) and isinstance(value[0], dict) and any(key in value[0] for key in TURN)


def _of_columns(columns: Mapping[str, list[Any]]) -> Iterator[Read]:
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise Unreadable(f"its columns have not as many values: {some(f'{k} {n}' for k, n in lengths.items())}")
    for number, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield number, dict(zip(columns, values, strict=True))


# ---- value by value


class _TooLong(Unreadable):
    """A value has more than MOST_LETTERS."""


class _Source:
    """The values of a JSON text, one behind the other; what was taken is forgotten."""

    def __init__(self, file: Path, encoding: Encoding) -> None:
        self._text = io.TextIOWrapper(unpacked.opened(file), encoding.codec, newline="\n")
        self._buffer, self._at = "", 0
        self.line = 1

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()

    def peek(self) -> str:
        """The next letter that is no space, which comes to stand first; empty at the end."""
        while True:
            start = self._at
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._at += 1
            self.line += self._buffer.count("\n", start, self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def take(self, expected: str) -> str:
        """The next letter, one of `expected`."""
        found = self.peek()
        if not found or found not in expected:
            what = repr(found) if found else "the file's end"
            raise Unreadable(f"not JSON from here on: {what} where {' or '.join(expected)} was expected", self.line)
        self._at += 1
        return found

    def value(self) -> tuple[Any, str]:
        """(the next value, how it was spelled)."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                place = error.pos - self._at
                inside = error.pos < len(self._buffer) - TOKEN and not error.msg.startswith("Unterminated")
                if inside or not self._more():  # else there may be nothing wrong but the buffer's end
                    line = self.line + self._buffer.count("\n", self._at, self._at + place)
                    raise Unreadable(f"not JSON from here on: {error.msg}", line) from error
            except RecursionError as error:
                raise Unreadable(TOO_DEEP, self.line) from error
            else:
                if end < len(self._buffer) or not self._more():  # a number may go on
                    return value, self._taken(end)

    def _taken(self, end: int) -> str:
        spelled = self._buffer[self._at : end]
        self._at = end
        self.line += spelled.count("\n")
        return spelled

    def _more(self) -> bool:
        rest = self._buffer[self._at :]
        if len(rest) > MOST_LETTERS:
            raise _TooLong(f"a value of more than {MOST_LETTERS:,} letters", self.line)
        text = self._text.read(min(max(CHUNK, len(rest)), MOST_LETTERS + 1))
        self._buffer, self._at = rest + text, 0
        return bool(text)


def _array(file: Path, encoding: Encoding) -> Iterator[Read]:
    with _Source(file, encoding) as source:
        if not (first := source.peek()):
            return
        if first != "[":
            value, _ = source.value()
            raise Unreadable(f"not an array of objects but {noun(value)}", source.line)
        yield from _elements(source)
        if source.peek():
            raise Unreadable("more text behind the end of the array", source.line)


def _elements(source: _Source) -> Iterator[Read]:
    source.take("[")
    if source.peek() == "]":
        source.take("]")
        return
    end = ","
    while end == ",":
        source.peek()
        line = source.line
        yield line, checked(*source.value())
        end = source.take(",]")


def _sequence(file: Path, encoding: Encoding) -> Iterator[Read]:
    with _Source(file, encoding) as source:
        while source.peek():
            line = source.line
            yield line, checked(*source.value())


# ---- an array inside of an object


def _key_of_array(file: Path, encoding: Encoding) -> str:
    """The first key of a long object whose value is an array of objects."""
    with _Source(file, encoding) as source:
        for key in _keys(source):
            if source.peek() != "[":
                source.value()
                continue
            source.take("[")
            if source.peek() == "{":
                return key
            break
    raise Unreadable(
        f"an object of columns is read up to {MOST_LETTERS:,} letters: in pandas, "
        f"`pd.read_json({file.name!r}).to_json({file.with_suffix('.jsonl').name!r}, orient='records', lines=True)`"
    )


def _inside(file: Path, encoding: Encoding, wanted: str) -> Iterator[Read]:
    with _Source(file, encoding) as source:
        for key in _keys(source):
            if key == wanted:
                yield from _elements(source)
            elif _are_records(source.value()[0]):
                raise Unreadable(f"another array of objects, {key!r}: save each as a file of its own", source.line)


def _keys(source: _Source) -> Iterator[str]:
    """Each key of an object; whoever asks takes its value before the next one."""
    end = source.take("{")
    while end != "}":
        key, _ = source.value()
        source.take(":")
        yield str(key)
        end = source.take(",}")
