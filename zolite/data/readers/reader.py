"""What a reader of a format gives. A new one is a function from a file to what it opened, in a file of its own, and a
line in registry.READERS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # column to value
Read = tuple[int, Record | str]  # a line's (or row's) number with the record that starts there, or what is wrong there

MOST_LETTERS = 32 * 2**20  # of one row: a cell may have any length, but a file without line ends is no rows
MOST_COLUMNS = 10_000


@dataclass(frozen=True)
class Opened:
    """A file whose format is known; its rows are read as they are asked for, in bounded memory."""

    rows: Callable[[], Iterator[Read]]
    """from the first on, each time it is called; raises Unreadable where nothing behind a place can be read"""
    notes: tuple[str, ...] = ()
    """how the file was understood, where that is not the usual way"""
    unit: str = "line"
    """what the numbers count: "line", or "row" where a format has no lines"""
    about: int = 0
    """how many rows it has, as far as its first ones and its bytes say; 0 where that is not known"""


class Unreadable(Exception):  # noqa: N818 - reads as what it says
    """Why a file cannot be read, or cannot from `place` on."""

    def __init__(self, text: str, place: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.place = place
