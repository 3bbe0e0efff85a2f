"""Files that may come from anywhere: opened as what they should be, and read within limits.

A session may be a folder that somebody sent. What has the name of a file in it can be a pipe, a device or a link to
another place, and a text can be made to take all memory. Whatever is wrong is a ValueError or an OSError in words.
"""

import io
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from zolite.common.text import human_bytes, many

MOST_DEPTH = 32  # values within values
MOST_TABLES = 2000  # of a TOML file
MOST_PARTS = 16  # of a TOML key: tomllib's time grows with the square of them
LARGEST = 2**63  # SQLite's numbers end here, and so do those of everything that counts
FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def ensure_file(path: Path) -> None:
    """ValueError unless it is a file itself; FileNotFoundError where nothing is there."""
    _ensure(path, path.lstat(), stat.S_IFREG)


def ensure_folder(path: Path) -> None:
    """The same for a folder."""
    _ensure(path, path.lstat(), stat.S_IFDIR)


def opened(path: Path) -> io.BufferedReader:
    """A file for reading: never a link, a pipe or a device, neither now nor by the time that it is open."""
    ensure_file(path)  # before it is opened: to open some devices is to use them
    file = open(os.open(path, FLAGS), "rb")  # noqa: SIM115 - the caller closes it
    try:
        _ensure(path, os.fstat(file.fileno()), stat.S_IFREG)
    except ValueError:
        file.close()
        raise
    return file


def read(path: Path, most: int) -> bytes:
    """All of a file that may have up to `most` bytes."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if max(size, len(data)) > most:
        what = f"{path.name} has {human_bytes(max(size, len(data)))}"
        raise ValueError(f"{what}, more than the {human_bytes(most)} that it may have")
    return data


def tail(path: Path, most: int) -> str:
    """The end of a file of text, up to `most` bytes."""
    with opened(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most).decode("utf-8", "replace")


def json_of(path: Path, most: int) -> Any:
    """What a JSON file of up to `most` bytes holds, within the limits of `bounded`."""
    try:
        return bounded(json.loads(read(path, most)))
    except RecursionError:
        raise _too_deep() from None


def toml_of(path: Path, most: int) -> dict[str, Any]:
    """The same of a TOML file."""
    text = read(path, most).decode("utf-8")
    bare = STRINGS.sub('""', text)
    if (tables := len(TABLE.findall(bare))) > MOST_TABLES:
        raise ValueError(f"it has {many(tables, 'table')}, more than {MOST_TABLES:,}")
    if LONG_KEY.search(bare):
        raise ValueError(f"a key of it has more than {MOST_PARTS} parts")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise _too_deep() from None
    bounded(values)
    return values


# Strings and comments of TOML; one without an end goes to the end of its line or of the file.
STRINGS = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:""")?|\'\'\'(?:[^\']|\'(?!\'\'))*+(?:\'\'\')?'
    r'|"(?:[^"\\\n]|\\.)*+"?|\'[^\'\n]*+\'?|#[^\n]*+',
    re.DOTALL,
)
TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
LONG_KEY = re.compile(rf'(?:[\w"-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}')


def bounded(value: Any) -> Any:
    """A value from a file, unless it is nested more than MOST_DEPTH deep or has an integer of more than 64 bits."""
    level = [value]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, int) and not -LARGEST <= item < LARGEST:
                raise ValueError(f"a number of {item.bit_length():,} bits is too large")
        if not below:
            return value
        level = below
    raise _too_deep()


def _ensure(path: Path, found: os.stat_result, kind: int) -> None:
    if (is_ := stat.S_IFMT(found.st_mode)) != kind:
        raise ValueError(f"{path.name} is {KINDS.get(is_, 'something else')}, not {KINDS[kind]}")


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MOST_DEPTH} deep")
