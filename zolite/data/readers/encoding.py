"""Which encoding a text file is in, and its lines."""

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from zolite.data.readers import unpacked
from zolite.data.readers.reader import MOST_LETTERS, Unreadable

# By their first bytes; UTF-32 before UTF-16, whose mark it begins with.
MARKS = {
    codecs.BOM_UTF8: ("utf-8-sig", "UTF-8 with a byte order mark"),
    codecs.BOM_UTF32_LE: ("utf-32", "UTF-32 LE"),
    codecs.BOM_UTF32_BE: ("utf-32", "UTF-32 BE"),
    codecs.BOM_UTF16_LE: ("utf-16", "UTF-16 LE"),
    codecs.BOM_UTF16_BE: ("utf-16", "UTF-16 BE"),
}
ASCII = bytes(range(128))
NO_LETTERS = bytes(b for b in range(128) if not chr(b).isalpha())
UNDEFINED = set(b"\x81\x8d\x8f\x90\x9d")  # in cp1252
CONTROLS = set(range(0x80, 0xA0))  # in latin-1, letters and quotes in cp1252
SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
MOST_ACCENTED = 0.4  # of the letters of a text in a western encoding
TRIED = "tried: UTF-8, UTF-16, cp1252, latin-1; save it as UTF-8, for example `iconv -f ENCODING -t UTF-8`"


@dataclass(frozen=True)
class Encoding:
    codec: str
    """as Python calls it"""
    said: str = ""
    """as a person knows it; empty where it is UTF-8"""


def encoding_of(file: Path, western: bool) -> Encoding:
    """By the whole file, read once. `western`: it may be cp1252 or latin-1 where it is not UTF-8.

    Raises Unreadable with the first line whose bytes no encoding explains.
    """
    with unpacked.opened(file) as data:
        found = _by_head(data.read(unpacked.HEAD))
    if (fault := _fault(file, found.codec)) is None:
        return found
    if fault.nul or not western or found.codec != "utf-8":
        raise Unreadable(fault.text, fault.line)
    return _western(file, fault)


def lines(file: Path, encoding: Encoding, newline: str | None = "") -> Iterator[str]:
    """Each with its end, as `newline` of `open` has it. Raises Unreadable where one is longer than MOST_LETTERS."""
    with io.TextIOWrapper(unpacked.opened(file), encoding.codec, newline=newline) as text:
        for number in count(1):
            line = text.readline(MOST_LETTERS + 1)
            if not line:
                return
            if len(line) > MOST_LETTERS:
                raise Unreadable(f"the line has more than {MOST_LETTERS:,} letters", number)
            yield line


def notes(encoding: Encoding) -> tuple[str, ...]:
    return (f"read as {encoding.said}",) if encoding.said else ()


def _by_head(head: bytes) -> Encoding:
    for mark, (codec, said) in MARKS.items():
        if head.startswith(mark):
            return Encoding(codec, said)
    even, odd = head[::2].count(0), head[1::2].count(0)  # ASCII in UTF-16 is half NUL
    if max(even, odd) > len(head) // 5 and min(even, odd) < max(even, odd) // 4 + 1:
        order = "le" if odd > even else "be"
        return Encoding(f"utf-16-{order}", f"UTF-16 {order.upper()} without a byte order mark")
    return Encoding("utf-8")


@dataclass(frozen=True)
class _Fault:
    line: int
    text: str
    nul: bool


def _fault(file: Path, codec: str) -> _Fault | None:
    """The first place that is not text in this encoding."""
    decoder, line, offset = codecs.getincrementaldecoder(codec)(), 1, 0
    with unpacked.opened(file) as data:
        while True:
            chunk = data.read(unpacked.CHUNK)
            offset += len(chunk)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += _newlines(error.object[: error.start], codec)
                at = offset - len(error.object) + error.start
                return _Fault(line, f"byte {at} of the file is not {codec.upper().removesuffix('-SIG')}", nul=False)
            if (nul := text.find("\0")) >= 0:
                return _Fault(line + text.count("\n", 0, nul), "a NUL byte, which no text has", nul=True)
            if not chunk:
                return None
            line += text.count("\n")


def _newlines(data: bytes, codec: str) -> int:
    return data.decode(codec, "ignore").count("\n")


def _western(file: Path, fault: _Fault) -> Encoding:
    """cp1252 or latin-1, of a file that is not UTF-8; Unreadable where its bytes speak for neither."""
    found: Counter[int] = Counter()
    letters = whole = 0
    with unpacked.opened(file) as data:
        while chunk := data.read(unpacked.CHUNK):
            found.update(chunk.translate(None, ASCII))
            letters += len(chunk.translate(None, NO_LETTERS))
            whole += sum(map(len, SEQUENCE.findall(chunk)))
    high = found.total()
    if whole > high - whole:
        raise Unreadable(f"{fault.text}, while most others are ({TRIED})", fault.line)
    if found.keys() & UNDEFINED or high > MOST_ACCENTED * letters:
        raise Unreadable(f"{fault.text}, and its bytes are no western text either ({TRIED})", fault.line)
    name = "cp1252" if found.keys() & CONTROLS else "latin-1"
    return Encoding(name, f"{name}, since it is not UTF-8")
