"""How faults of rows are worded, and the one error that lists them all."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError, listed

CORRECT = "correct these places; nothing was started"


class FaultyRowsError(UsageError):
    """Says the first problems of rows, each with its line, and how many more there are; `problems` are all of them."""

    def __init__(self, what: str, problems: Sequence[str], hint: str) -> None:
        super().__init__(f"{what}:\n{listed(problems)}", hint)
        self.problems = tuple(problems)


def faulty(problems: Sequence[str], hint: str = CORRECT) -> FaultyRowsError:
    return FaultyRowsError("the data has problems", problems, hint)


def refuse(problems: Sequence[str], hint: str = CORRECT) -> None:
    """Raises UsageError if there are problems."""
    if problems:
        raise faulty(problems, hint)


def repair(path: Path | str) -> str:
    """The command that writes a copy of rows without what is wrong with them."""
    return f"zolite data check {shlex.quote(str(path))} --fix OUT"


def noun(value: Any) -> str:
    """What a JSON value is: null, text, a list, …"""
    names = {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def as_text(value: Any) -> str:
    """A value as the text that a prompt gets: a number or a boolean as JSON has it."""
    return value if isinstance(value, str) else json.dumps(value)


def some(names: Iterable[str], limit: int = 12) -> str:
    """The first few names in a line."""
    known = list(names)
    return ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "")


def has(record: Mapping[str, Any]) -> str:
    """Which columns a record has, in brackets' words."""
    return f"it has: {some(map(str, record))}" if record else "it has no columns"
