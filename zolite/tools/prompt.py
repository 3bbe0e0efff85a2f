"""How a session's model is prompted: what a person gives, and the text that it becomes, as it was in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zolite.common.errors import UsageError, listed
from zolite.config.recipe import ResolvedRecipe
from zolite.data import rows as tables
from zolite.data.kinds.kind import Kind, Row
from zolite.data.kinds.kind import Prompt as Around
from zolite.data.rows import Dataset
from zolite.export.source import kind_of
from zolite.sessions.session import Session

Message = dict[str, str]
Asked = str | Mapping[str, Any]  # a text, or a row's columns


@dataclass(frozen=True)
class Prompt:
    """Of rows of one kind."""

    kind: Kind
    template: str
    labels: tuple[str, ...] = ()
    system: str = ""  # the message that every row of train began with
    note: str = ""  # what a person should know of it
    chat_template: bool = True  # has the model one?

    @property
    def around(self) -> Around:
        """What stands around a text that somebody types."""
        return self.kind.prompt(self.template).of_model(self.chat_template)

    @property
    def chat(self) -> bool:
        """Is it a conversation, with what was said before?"""
        return self.around.chat

    @property
    def columns(self) -> tuple[str, ...]:
        """What a person gives: the one text that a row's prompt is made of, else all its columns but the answer."""
        if column := self.around.column:
            return (column,)
        if not self.around.template:
            return ("prompt",)
        answer = self.kind.names.answer
        return tuple(name for name in self.kind.columns(self.template) if name not in answer)

    def given(self, asked: Asked) -> dict[str, Any]:
        """Column to value; UsageError with all columns that are missing or that the rows do not have."""
        found = {self.columns[0]: asked} if isinstance(asked, str) and len(self.columns) == 1 else asked
        if isinstance(found, str):
            raise UsageError(f"the prompt is made of columns {self._names}, and a text alone was given", self._hint)
        problems = [f"no column {name!r}" for name in self.columns if name not in found]
        problems += [f"column {name!r} is not among {self._names}" for name in found if name not in self.columns]
        if problems:
            raise UsageError("; ".join(problems), self._hint)
        return dict(found)

    def row(self, given: Mapping[str, Any]) -> Row:
        """A row with a label, whichever; UsageError where the rows of training could not be so."""
        record, columns = {**given, self.kind.label_column: self.labels[0]}, self.kind.columns(self.template)
        if not record.keys() >= set(columns):  # the kind's records have other columns than its rows
            return Row(1, {name: str(value) for name, value in record.items()})
        if faults := self.kind.faults(record, columns):
            raise UsageError(f"this is no row to ask for a label of:\n{listed(faults)}", self._hint)
        return self.kind.row(1, record, columns)

    def text(self, given: Mapping[str, Any]) -> str:
        """What a model continues that is no conversation."""
        around = self.around
        if not self.labels and len(self.columns) == 1:
            return f"{around.before}{given[self.columns[0]]}{around.after}"
        row = self.row(given) if self.labels else self._open(given)
        return "".join(p.text for p in self.kind.pieces(row, self.template) if not p.trained)

    def _open(self, given: Mapping[str, Any]) -> Row:
        """A row without an answer."""
        blank = dict.fromkeys(self.kind.names.answer, "")
        return Row(1, {**blank, **{name: str(value) for name, value in given.items()}})

    def turn(self, tokenizer: Any, system: str, past: Sequence[Message], given: Mapping[str, Any]) -> str:
        """A conversation up to where the assistant's next message begins; UsageError where the template refuses it."""
        begin = [{"role": "system", "content": system}] if system else []
        return _turn(tokenizer, [*begin, *past, {"role": "user", "content": str(given["prompt"])}])

    def check_system(self, tokenizer: Any, system: str) -> None:
        """UsageError where a prompt has no place for a system message."""
        if self.chat:
            self.turn(tokenizer, system, (), {"prompt": "hello"})
            return
        made = f"rows with labels, whose prompt is the template {self.template!r}" if self.labels else "plain prompts"
        what = f"a system message has no place in the prompt: the session was trained on {made}"
        raise UsageError(what, "leave it out, or train on conversations (rows of messages)")

    @property
    def _names(self) -> str:
        return ", ".join(map(repr, self.columns))

    @property
    def _hint(self) -> str:
        return "give " + ", ".join(f'"{name}": "…"' for name in self.columns)


def prompt_of(session: Session, chat_template: bool = True) -> Prompt:
    """By the session's recipe and labels, and its rows where they lie. `chat_template`: has its model one?"""
    recipe, labels = session.recipe, tuple(session.facts["labels"])
    kind, template = kind_of(recipe, labels), recipe.data.template
    if labels:
        return Prompt(kind, template, labels)
    rows = _rows(recipe)
    if rows is None:
        note = f"the rows at {recipe.data.path} cannot be read any more: a prompt is sent as it is typed"
        return Prompt(kind, template, note=note, chat_template=chat_template)
    return Prompt(kind, template, system=system_of(rows.splits["train"]), chat_template=chat_template)


def system_of(rows: Sequence[Row]) -> str:
    """The system message that all conversations begin with, "" where they differ or have none."""
    firsts = {_opening(row.messages) for row in rows}
    return firsts.pop() if len(firsts) == 1 else ""


def _opening(messages: Sequence[Mapping[str, str]]) -> str:
    return messages[0]["content"] if messages and messages[0]["role"] == "system" else ""


def _rows(recipe: ResolvedRecipe) -> Dataset | None:
    try:
        return tables.of(recipe.data)
    except UsageError:  # they are gone, or others
        return None


def _turn(tokenizer: Any, messages: Sequence[Message]) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except Exception as error:  # the template is a program from elsewhere: it may raise anything
        hint = 'say something else, or --system "" where it refuses a system message'
        raise UsageError(f"the model's chat template refuses this: {error}", hint) from error
