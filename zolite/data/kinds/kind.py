"""What zolite asks of a shape of rows. A new one is a class of these members, in a file of its own, and a line in
registry.KINDS; nothing else names a shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from zolite.data.examples import Rendered
from zolite.data.kinds.together import Finder
from zolite.data.readers.reader import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_JSON = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class Row:
    """What its kind uses of a record, and the line of the file where it starts."""

    line: int
    columns: dict[str, str]
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    unread: tuple[str, ...] = ()
    """columns that its kind does not know, where they may have been meant for it"""
    choices: tuple[str, ...] = ()
    """answers of its own that are compared, where a row has such; the right one is in `columns`"""
    references: tuple[str, ...] = ()
    """answers that are right too, beside the one that is trained"""
    group: str = ""
    """its value in the column of data.group_by"""
    part: str = ""
    """its value in the column of data.split_by"""

    def content(self) -> bytes:
        """All that is used, without its line: one line of JSON, the same for every order of keys."""
        tools = [self.tools] if self.tools else []
        more = {"choices": self.choices} if self.choices else {}
        more |= {"references": self.references} if self.references else {}
        return _JSON.encode([self.columns, self.messages, *tools, *([more] if more else [])]).encode()


@dataclass(frozen=True)
class Piece:
    """Text of a row; `trained` if the model learns to write it."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Prompt:
    """What stands around a text that somebody types, so that the model is prompted as it was in training."""

    before: str = ""
    after: str = ""
    chat: bool = False
    """the model's own chat template stands around it"""
    column: str = ""
    """the column that such a text is, where a template has one column; empty where it is any text"""
    template: str = ""
    """as a model card shows it; empty where there is nothing to show"""
    plain: tuple[str, str] | None = None
    """of a chat, what stands before and after the text for models without a chat template, where they can learn it"""

    def of_model(self, has_chat_template: bool) -> Prompt:
        """For a model with or without a chat template."""
        return self if has_chat_template or self.plain is None else Prompt(*self.plain)


Spelling = str | tuple[str, ...]
"""Another name of a column in data that people have; several columns of a file are a list of their values."""


def _any(column: str) -> bool:
    return True


def _always(record: Record) -> bool:
    return True


def _nothing(sample: Sequence[Record]) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Names:
    """How a kind's columns are found in a file, beside by their own names (data/columns.py)."""

    optional: tuple[str, ...] = ()
    """columns that are read where a record has them"""
    spellings: Mapping[str, tuple[Spelling, ...]] = field(default_factory=dict)
    """column to its other names, the likeliest first"""
    becomes: str = ""
    """what is made of such rows, where that is said of every file"""
    answer: tuple[str, ...] = ()
    """columns that are no part of a prompt"""
    templates: bool = False
    """do rows take a template of prompts, one without {label}?"""
    beside: Callable[[str], bool] = _any
    """may a file have such a column too? If not, what is meant is not clear, and has to be asked for (--columns)"""
    fits: Callable[[Record], bool] = _always
    """is a file of this kind, by its first record?"""
    together: tuple[Finder, ...] = ()
    """other names that are clear beside one another alone"""
    joined: frozenset[str] = frozenset()
    """columns that are text: several columns of a file in their place are lines of it"""
    settled: Callable[[Sequence[Record]], Mapping[str, Any]] = _nothing
    """from the first records of a file what holds for all of them, as more columns; UsageError where it is not clear"""


class Kind(Protocol):
    """A shape of rows. Members have no state; `columns` are always those that `columns(template)` gave."""

    @property
    def name(self) -> str:
        """In the table, in messages and in JSON."""

    @property
    def title(self) -> str:
        """What such rows are, and what a model learns of them: "rows of …: it learns to …"."""

    @property
    def label_column(self) -> str:
        """The column whose values are the labels, which all splits share; empty where rows have none."""

    @property
    def metric(self) -> str:
        """What they are evaluated by, a row of training/evaluate.py: METRICS."""

    @property
    def names(self) -> Names:
        """How its columns are found in a file: Names() where by their own names alone."""

    def columns(self, template: str) -> tuple[str, ...]:
        """The columns by which a record is recognised: it has all of them. UsageError where `template` is faulty."""

    def faults(self, record: Record, columns: Sequence[str]) -> list[str]:
        """What is wrong with a record that has all columns."""

    def row(self, line: int, record: Record, columns: Sequence[str]) -> Row:
        """Of a record without faults."""

    def render(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        context: int,
    ) -> Iterator[Rendered]:
        """What becomes of each row, in order, in examples of at most `context` tokens, or why nothing can.

        Raises UsageError where the tokenizer cannot serve any of them.
        """

    def pieces(self, row: Row, template: str) -> Iterator[Piece]:
        """The row as text with its answer, without what a tokenizer puts around it."""

    def predicted(self, row: Row, count: Callable[[str], int]) -> int:
        """About how many tokens of a row are predicted; `count` gives a text's tokens."""

    def prompt(self, template: str) -> Prompt:
        """How the model is prompted after training, by exports and by `zolite chat`."""
