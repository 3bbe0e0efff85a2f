"""Small windows over a screen: something went wrong, are you sure, what name."""

import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from zolite.common.events import Working, from_json
from zolite.monitor.log import working_text
from zolite.monitor.plots import bar

from ..paint import content

if TYPE_CHECKING:
    from ..context import Context

CLOSE: list[BindingType] = [Binding("escape", "close", "Close", id="close")]


class Trouble(ModalScreen[None]):
    """What went wrong, what to do about it, and a button that leads on."""

    AUTO_FOCUS = "Button"
    BINDINGS: ClassVar = CLOSE

    def __init__(self, message: str, hint: str = "", title: str = "") -> None:
        super().__init__(classes="dialog")
        self.message, self.hint, self.heading = message, hint, title or "That did not work"

    def compose(self) -> ComposeResult:
        with Vertical(classes="window -error"):
            yield Static(f"✗ {self.heading}", classes="heading", markup=False)
            with VerticalScroll(classes="body"):
                yield Static(self.message, markup=False)
                if self.hint:
                    yield Static(f"→ {self.hint}", classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("OK", variant="primary")

    @on(Button.Pressed)
    def action_close(self) -> None:
        self.dismiss(None)


class Confirm(ModalScreen[bool]):
    """A question with two answers; the safe one has the focus."""

    BINDINGS: ClassVar = [*CLOSE, Binding("y", "yes", "Yes", id="yes"), Binding("n", "close", "No", id="no")]

    def __init__(self, question: str, detail: str = "", yes: str = "Yes", no: str = "No") -> None:
        super().__init__(classes="dialog")
        self.question, self.detail, self.yes, self.no = question, detail, yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(self.question, classes="heading", markup=False)
            if self.detail:
                yield Static(self.detail, markup=False)
            with Horizontal(classes="buttons"):
                yield Button(self.no, id="no")
                yield Button(self.yes, id="yes", variant="error")

    @on(Button.Pressed, "#yes")
    def action_yes(self) -> None:
        self.dismiss(True)

    @on(Button.Pressed, "#no")
    def action_close(self) -> None:
        self.dismiss(False)


class Choose(ModalScreen[str]):
    """A question with several answers, each with a word for what it is; the first is safe, and what Escape says."""

    BINDINGS: ClassVar = CLOSE

    def __init__(self, question: str, detail: str, answers: dict[str, str]) -> None:
        super().__init__(classes="dialog")
        self.question, self.detail, self.answers = question, detail, answers

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(self.question, classes="heading", markup=False)
            yield Static(self.detail, markup=False)
            with Horizontal(classes="buttons"):
                for answer, words in self.answers.items():
                    yield Button(words, id=answer)

    @on(Button.Pressed)
    def choose(self, event: Button.Pressed) -> None:
        self.dismiss(str(event.button.id))

    def action_close(self) -> None:
        self.dismiss(next(iter(self.answers)))


class Ask(ModalScreen[str | None]):
    """A line of text; `wrong` says what is the matter with one, or nothing."""

    BINDINGS: ClassVar = CLOSE

    def __init__(
        self, question: str, value: str = "", detail: str = "", wrong: Callable[[str], str] = lambda _: ""
    ) -> None:
        super().__init__(classes="dialog")
        self.question, self.value, self.detail, self.wrong = question, value, detail, wrong

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(self.question, classes="heading", markup=False)
            if self.detail:
                yield Static(self.detail, markup=False)
            yield Input(self.value)
            yield Static("", id="wrong", classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("OK", id="ok", variant="primary")

    @on(Input.Submitted)
    @on(Button.Pressed, "#ok")
    def accept(self) -> None:
        value = self.query_one(Input).value.strip()
        problem = self.wrong(value)
        self.query_one("#wrong", Static).update(Content(f"✗ {problem}") if problem else "")
        if not problem:
            self.dismiss(value)

    @on(Button.Pressed, "#cancel")
    def action_close(self) -> None:
        self.dismiss(None)


class Preparing(ModalScreen[str | None]):
    """A run that has not begun: what is being done, how far it is, and how long the rest takes."""

    BINDINGS: ClassVar = CLOSE
    app: "Context"

    class Heard(Message):
        def __init__(self, event: Working) -> None:
            super().__init__()
            self.event = event

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(classes="dialog")
        self.what, self.detail = what, detail

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(self.what, classes="heading", markup=False)
            if self.detail:
                yield Static(self.detail, markup=False)
            yield Static("Preparing …\n", id="doing")
            with Horizontal(classes="buttons"):
                yield Button("Cancel")

    def hear(self, document: Any) -> None:
        """An event in JSON, from any thread."""
        with contextlib.suppress(ValueError):
            event = from_json(json.dumps(document))
            if isinstance(event, Working):
                self.post_message(self.Heard(event))

    @on(Heard)
    def show(self, message: Heard) -> None:
        """A line, and below it a bar where it counts."""
        event, doing = message.event, self.query_one("#doing", Static)
        width = max(10, doing.size.width)
        done = bar(event.done / event.total, width, self.app.config.chart) if event.total else []
        words = Content(f"Preparing: {working_text(event)}").truncate(width, ellipsis=True)
        doing.update(Content("\n").join([words, content(done)]))

    @on(Button.Pressed)
    def action_close(self) -> None:
        self.dismiss(None)
