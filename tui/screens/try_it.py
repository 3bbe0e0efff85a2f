"""Try it: a prompt, answered by the base model and by the tuned one."""

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Button, Footer, Input, Select, Static

from zolite.common.errors import ZoliteError

from ..client import Talk
from ..sessions import choices

if TYPE_CHECKING:
    from ..context import Context

SIDES = {"base": "base model, without the adapter", "tuned": "tuned"}


class Exchange(Vertical):
    """A prompt, and both answers below it side by side."""

    DEFAULT_CSS = """
    Exchange { height: auto; margin-bottom: 1; }
    Exchange .prompt { height: auto; text-style: bold; color: $primary; }
    Exchange Horizontal { height: auto; }
    Exchange .answer { width: 1fr; height: auto; padding: 0 1; border-left: outer $panel; }
    Exchange .tuned { border-left: outer $primary; }
    """

    def __init__(self, prompt: str, step: int) -> None:
        super().__init__()
        self.prompt, self.step = prompt, step
        self.texts = dict.fromkeys(SIDES, "")

    def compose(self) -> ComposeResult:
        yield Static(Content(f"› {self.prompt}"), classes="prompt")
        with Horizontal():
            for side in SIDES:
                yield Static("…", classes=f"answer {side}", markup=False)

    def show(self, side: str, text: str, more: bool) -> None:
        self.texts[side] = self.texts[side] + text if more else text
        shown = self.texts[side].strip() or ("…" if more else "(nothing)")
        self.query_one(f".{side}", Static).update(Content(shown))


class TryScreen(Screen[None]):
    """A prompt, answered by the model without the adapter on the left and with it on the right, at any step; the
    likeliest token each time, so the same prompt has the same answer. The model is loaded once, in a process of its
    own, which ends with this screen.
    """

    DEFAULT_CSS = """
    TryScreen #top { height: auto; padding: 0 1; }
    TryScreen #status { width: 1fr; height: 1; }
    TryScreen #step { width: 34; }
    TryScreen #sides { height: 1; padding: 0 1; }
    TryScreen #sides Static { width: 1fr; text-style: bold; padding: 0 2; color: $text-muted; }
    TryScreen #talk { height: 1fr; padding: 0 1; }
    TryScreen #hint { color: $text-muted; height: auto; padding: 1 2; }
    TryScreen #ask { height: auto; padding: 0 1; }
    TryScreen #prompt { width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+l", "clear", "Clear", id="try-clear"),
    ]
    app: "Context"

    class Heard(Message):
        """A line of the process that answers; None once it has ended."""

        def __init__(self, line: dict[str, Any] | None, error: ZoliteError | None = None) -> None:
            super().__init__()
            self.line, self.error = line, error

    def __init__(self, session: str, step: int | None = None) -> None:
        super().__init__()
        self.session, self.asked_step = session, step
        self.title = f"try {session}"
        self.talk: Talk | None = None
        self.step: int | None = None  # of the adapter that answers; None until the model is loaded
        self.busy = False
        self.seconds = 0

    def compose(self) -> ComposeResult:
        choices = self.choices()
        with Horizontal(id="top"):
            yield Static("", id="status", markup=False)
            yield Select(choices, value=self.first(choices), allow_blank=False, id="step", compact=True)
        with Horizontal(id="sides"):
            for side in SIDES.values():
                yield Static(side)
        with VerticalScroll(id="talk"):
            yield Static("Ask as the rows do that it was trained on: the template around them is put there.", id="hint")
        with Horizontal(id="ask"):
            yield Input(placeholder="a prompt, then Enter", id="prompt")
            yield Button("Ask", variant="primary", id="send")
        yield Footer()

    def choices(self) -> list[tuple[str, str]]:
        try:
            found = choices(self.session)
        except ZoliteError as error:
            self.call_after_refresh(self.app.report, error)
            found = [("last", "last")]
        if self.asked_step is not None and str(self.asked_step) not in (key for _, key in found):
            found.append((f"step {self.asked_step:,}", str(self.asked_step)))
        return found

    def first(self, choices: list[tuple[str, str]]) -> str:
        return str(self.asked_step) if self.asked_step is not None else choices[0][1]

    def on_mount(self) -> None:
        self.query_one("#prompt", Input).focus()
        self.say()
        self.set_interval(1.0, self.tick)
        self.begin(str(self.query_one("#step", Select).value))

    def on_unmount(self) -> None:
        if self.talk is not None:
            self.talk.close()

    @work(thread=True, group="talk", exit_on_error=False)
    def begin(self, step: str) -> None:
        """The process that answers, from its start to its end."""
        with self.app.client.converse("chat", self.session, "--step", step) as talk:
            self.talk = talk
            try:
                for line in talk.hear():
                    self.post_message(self.Heard(line))
            except ZoliteError as error:
                self.post_message(self.Heard(None, error))
            else:
                self.post_message(self.Heard(None))

    @on(Heard)
    def heard(self, message: Heard) -> None:
        line = message.line
        if line is None:
            self.talk, self.step, self.busy = None, None, False
            if message.error is not None:
                self.app.report(message.error, "Nothing can be tried")
        elif line["event"] == "ready":
            self.step = int(line["step"])
        elif line["event"] == "error":
            self.busy = False
            self.app.report(ZoliteError(line["message"], line["hint"]))
        else:
            self.answered(line)
        self.say()

    def answered(self, line: dict[str, Any]) -> None:
        """A piece of an answer, or both whole."""
        exchange = self.query(Exchange).last()
        if line["event"] == "piece":
            exchange.show(line["side"], line["text"], more=True)
        else:
            for side in SIDES:
                exchange.show(side, line[side], more=False)
            self.busy = False
        self.query_one("#talk", VerticalScroll).scroll_end(animate=False)

    def tick(self) -> None:
        self.seconds += 1
        self.say()

    def say(self) -> None:
        """What it is doing, in a line."""
        if self.talk is None and self.seconds > 1 and self.step is None:
            text = "✗ the model is not loaded"
        elif self.step is None:
            text = f"◐ loading the model, {self.seconds} s …"
        else:
            text = f"◐ step {self.step:,}, answering …" if self.busy else f"✓ step {self.step:,}, ready"
        self.query_one("#status", Static).update(f"{self.session}  {text}")

    @on(Input.Submitted)
    @on(Button.Pressed, "#send")
    async def ask(self) -> None:
        entry = self.query_one("#prompt", Input)
        prompt = entry.value.strip()
        if not prompt or self.busy or self.talk is None:
            return
        entry.value = ""
        self.busy = True
        self.query("#hint").remove()
        box = self.query_one("#talk", VerticalScroll)
        await box.mount(Exchange(prompt, self.step or 0))
        box.scroll_end(animate=False)
        self.send({"prompt": prompt})
        self.say()

    @on(Select.Changed, "#step")
    def turn(self, event: Select.Changed) -> None:
        """Another step's adapter, for what is asked from here on."""
        if self.step is not None:
            self.send({"step": str(event.value)})

    def send(self, document: dict[str, Any]) -> None:
        if self.talk is None:
            return
        try:
            self.talk.say(document)
        except ZoliteError as error:
            self.post_message(self.Heard(None, error))

    async def action_clear(self) -> None:
        await self.query(Exchange).remove()
