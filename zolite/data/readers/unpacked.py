"""The bytes of a file, unpacked where they are packed; what is no data by its first bytes is refused."""

import gzip
import io
import os
import re
import stat
import tempfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from zolite.data.readers.reader import Unreadable

CHUNK = 2**20
HEAD = 4096  # bytes by which a file is known
FREE = 64 * CHUNK  # so much may come out of any packed file
RATIO = 200  # times as much as was read may come out: text packs 3 to 20 times
MOST_UNPACKED = 2**38  # bytes in all

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/.*?\nsize (\d+)", re.S)
HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)\b", re.I)
# By the first bytes, whatever the name.
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook, whatever its name: save it as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file, whatever its name: save it as CSV",
    b"%PDF": "a PDF, whatever its name: save its text as .txt",
    b"SQLite format 3\0": "an SQLite database, whatever its name: export its table as CSV",
    b"BZh": "packed with bzip2: unpack it with `bunzip2`",
    b"\xfd7zXZ\0": "packed with xz: unpack it with `unxz`",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
}
NO_PYARROW = "pyarrow is not installed, which reads {}: install it with `pip install pyarrow`"


def opened(file: Path) -> BinaryIO:
    """Its bytes from the first on. Raises Unreadable where they are no data, and while reading where they are damaged
    or unpack to more than any text would; OSError where the file cannot be read."""
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise Unreadable("it is a pipe or a device; write what it gives to a file first")
    packed = file.open("rb")
    head = packed.read(HEAD)
    packed.seek(0)
    if head.startswith(GZIP):
        stream: Any = gzip.GzipFile(fileobj=packed)
    elif head.startswith(ZSTD):
        stream = _zstd(packed)
    else:
        _check(head)
        return packed
    unpacked = io.BufferedReader(_Unpacked(packed, stream), CHUNK)
    _check(unpacked.peek(HEAD)[:HEAD])
    return unpacked


def seekable(file: Path) -> BinaryIO:
    """As `opened`, for a format that is not read from the first byte to the last: what is packed goes to the disk."""
    found = opened(file)
    if not isinstance(getattr(found, "raw", None), _Unpacked):
        return found
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked closes it
    with found:
        while chunk := found.read(CHUNK):
            copy.write(chunk)
    copy.seek(0)
    return copy


def _check(head: bytes) -> None:
    if pointer := POINTER.match(head):
        size = int(pointer[1])
        raise Unreadable(f"it is a Git LFS pointer to a file of {size:,} bytes, not the file: run `git lfs pull`")
    if HTML.match(head):
        raise Unreadable("it is an HTML page, such as a login or an error, not the data: download the file itself")
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise Unreadable(f"it is {what}")


def _zstd(packed: BinaryIO) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise Unreadable(NO_PYARROW.format(".zst")) from error
    return pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")


class _Unpacked(io.RawIOBase):
    """What comes out of a packed file, counted."""

    def __init__(self, packed: BinaryIO, stream: Any) -> None:
        self._packed, self._stream, self._count = packed, stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(min(len(buffer), CHUNK))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise Unreadable(f"the packed file is damaged or not whole: {error}") from error
        self._count += len(data)
        read = self._packed.tell()
        if self._count > max(FREE, RATIO * read) or self._count > MOST_UNPACKED:
            raise Unreadable(
                f"it unpacks to more than {self._count >> 20:,} MiB from {read:,} bytes, as no text does; "
                "unpack it yourself if it is to be trusted"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._packed.close()
        super().close()
