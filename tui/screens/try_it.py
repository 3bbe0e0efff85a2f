"""Try it: a prompt, answered by the base model and by the tuned one."""

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Button, Footer, Input, Label, Select, Static

from zolite.common.errors import ZoliteError
from zolite.data.problems import some

from ..client import Talk
from ..sessions import choices

if TYPE_CHECKING:
    from ..context import Context

SIDES = {"base": "base model, without the adapter", "tuned": "tuned"}
SHOWN = 3  # labels, the likeliest first
HINT = "Ask as the rows do that it was trained on: the template around them is put there."


class Exchange(Vertical):
    """A prompt, and both answers below it side by side, with what is told of them."""

    DEFAULT_CSS = """
    Exchange { height: auto; margin-bottom: 1; }
    Exchange .prompt { height: auto; text-style: bold; color: $primary; }
    Exchange Horizontal { height: auto; }
    Exchange .answer { width: 1fr; height: auto; padding: 0 1; border-left: outer $panel; }
    Exchange .tuned { border-left: outer $primary; }
    """

    def __init__(self, prompt: str, classes: str) -> None:
        super().__init__(classes=classes)
        self.prompt = prompt
        self.texts = dict.fromkeys(SIDES, "")
        self.whole: dict[str, Any] = {}  # the answer, once it is there

    def compose(self) -> ComposeResult:
        yield Static(Content(f"› {self.prompt}"), classes="prompt")
        with Horizontal():
            for side in SIDES:
                yield Static("…", classes=f"answer {side}", markup=False)

    def hear(self, side: str, text: str) -> None:
        """More of an answer."""
        self.texts[side] += text
        self.query_one(f".{side}", Static).update(Content(self.texts[side].strip() or "…"))

    def show(self, details: bool) -> None:
        """The answer whole; as details how likely each label is among the labels."""
        for side in SIDES if self.whole else ():
            shares = self.whole["shares"].get(side) if details else None
            told = [self.whole["notes"][side], ranked(shares) if shares else ""]
            lines = [self.whole[side].strip(), *((line, "dim italic") for line in told)]
            shown = [Content.assemble(line) for line in lines if line and line[0]]
            self.query_one(f".{side}", Static).update(Content("\n").join(shown))


def ranked(shares: dict[str, float]) -> str:
    """The likeliest labels, which come first."""
    return "among the labels: " + ", ".join(f"{label} {share:.0%}" for label, share in list(shares.items())[:SHOWN])


class Entry(Horizontal):
    """A line to type in, with its name before it."""

    DEFAULT_CSS = """
    Entry { height: 1; }
    Entry Label { width: 16; padding-right: 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    Entry Input { width: 1fr; }
    """

    def __init__(self, label: str, kind: str, value: str = "") -> None:
        super().__init__()
        self.label, self.kind, self.value = label, kind, value

    def compose(self) -> ComposeResult:
        yield Label(self.label, markup=False)
        yield Input(self.value, compact=True, classes=self.kind)


class TryScreen(Screen[None]):
    """A prompt, answered by the model without the adapter on the left and with it on the right, at any step; the
    likeliest token each time, so the same prompt has the same answer. Where a template has several columns, each has a
    line. A conversation goes on from question to question, each side with its own answers, until it is cleared or has
    another system message. Details are how likely each label is among the labels. The model is loaded once, in a
    process of its own, which ends with this screen.
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
    TryScreen #given { width: 1fr; height: auto; }
    TryScreen .new { color: $text-muted; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "details", "Details", id="try-details"),
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
        self.columns: tuple[str, ...] = ("prompt",)
        self.system: str | None = None  # of a conversation
        self.busy = self.details = False
        self.early = False  # was it asked before the model was there, which answers then?
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
            yield Static(HINT, id="hint", markup=False)
        with Horizontal(id="ask"):
            with Vertical(id="given"):
                yield Input(placeholder="a prompt, then Enter", id="prompt", classes="column")
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
    async def heard(self, message: Heard) -> None:
        line = message.line
        if line is None:
            self.talk, self.step, self.busy = None, None, False
            if message.error is not None:
                self.app.report(message.error, "Nothing can be tried")
        elif line["event"] == "ready":
            first = self.step is None
            self.step, self.system = int(line["step"]), line["system"] if line["chat"] else None
            if first:
                await self.fit(line)
        elif line["event"] == "error":
            await self.query(Exchange).filter(".asked").remove()
            self.busy = False
            self.app.report(ZoliteError(line["message"], line["hint"]))
        else:
            self.answered(line)
        self.say()

    async def fit(self, line: dict[str, Any]) -> None:
        """A line to type in for each column of the session's rows, and for a conversation's system message."""
        self.columns, given = tuple(line["columns"]), self.query_one("#given")
        if line["chat"]:
            await given.mount(Entry("system message", "system", line["system"]), before=0)
        if len(self.columns) > 1:
            typed = self.query_one("#prompt", Input).value
            await given.remove_children()
            await given.mount(*(Entry(name, "column", "" if i else typed) for i, name in enumerate(self.columns)))
            given.query(Input).first().focus()
        labels = f"It was trained to say one of {len(line['labels'])} labels: {some(line['labels'])}."
        told = [HINT, line["note"], labels if line["labels"] else ""]
        for hint in self.query("#hint").results(Static):
            hint.update("\n".join(filter(None, told)))
        if self.early:
            await self.ask()

    def answered(self, line: dict[str, Any]) -> None:
        """A piece of an answer, or both whole."""
        exchange = self.query(Exchange).last()
        if line["event"] == "piece":
            exchange.hear(line["side"], line["text"])
        else:
            exchange.whole, self.busy = line, False
            exchange.remove_class("asked")
            exchange.show(self.details)
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
        """What was typed, once every line of it was."""
        entries = list(self.query(".column").results(Input))
        blank = [entry for entry in entries if not entry.value.strip()]
        if blank:
            blank[0].focus()
        self.early = self.step is None
        if blank or self.busy or self.early or self.talk is None:
            return
        given = {name: entry.value for name, entry in zip(self.columns, entries, strict=True)}
        for entry in entries:
            entry.value = ""
        entries[0].focus()
        self.busy = True
        await self.put(given)
        self.say()

    async def put(self, given: dict[str, str]) -> None:
        """On the screen and to the process."""
        text, *others = given.values()
        asked: dict[str, Any] = {"columns": given} if others else {"prompt": text}
        asked["shares"] = True
        for entry in self.query(".system").results(Input):
            asked["system"] = entry.value
        self.query("#hint").remove()
        box = self.query_one("#talk", VerticalScroll)
        if self.system != asked.get("system") and self.query(Exchange):
            await box.mount(Static("another conversation, with another system message", classes="new"))
        lines = [f"{name}: {value}" for name, value in given.items()]
        await box.mount(Exchange("\n  ".join(lines) if others else text, classes="asked"))
        box.scroll_end(animate=False)
        self.send(asked)

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

    def action_details(self) -> None:
        self.details = not self.details
        for exchange in self.query(Exchange):
            exchange.show(self.details)

    async def action_clear(self) -> None:
        """A conversation begins again with it."""
        await self.query_one("#talk", VerticalScroll).remove_children()
        if self.system is not None:
            self.send({"new": True})
