"""Export: a session's adapter for other programs, and whether it still is what was trained."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, Footer, Input, Select, Static
from textual.worker import get_current_worker

from zolite.common.errors import UsageError, ZoliteError
from zolite.export.registry import FORMATS

from ..sessions import choices

if TYPE_CHECKING:
    from ..context import Context

CHECKS = [("load it as other programs do and compare it with the session", "yes"), ("write it unchecked", "no")]
REPLACES = [("no: the folder must be new or empty", "no"), ("yes, where an earlier export left it", "yes")]


class ExportScreen(Screen[None]):
    """Writes the adapter, or the model with it, for other programs. The export is loaded as those programs do, and its
    losses and texts are compared with the session's; only if they are the same does it appear in the folder.
    """

    DEFAULT_CSS = """
    ExportScreen #form { padding: 0 1; height: 1fr; }
    ExportScreen Grid { grid-size: 2; grid-columns: 12 1fr; grid-rows: auto; height: auto; grid-gutter: 0 1; }
    ExportScreen Grid Static { height: 1; color: $text-muted; }
    ExportScreen #go { margin: 1 0 0 13; }
    ExportScreen #result { height: auto; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "export", "Export", id="export-go"),
    ]
    app: "Context"

    def __init__(self, session: str) -> None:
        super().__init__()
        self.session = session
        self.title = f"export {session}"
        self.seconds = 0
        self.busy = False

    def compose(self) -> ComposeResult:
        steps = self.steps()
        with VerticalScroll(id="form"):
            yield Static(f"Export {self.session}", classes="heading", markup=False)
            with Grid():
                yield Static("format")
                formats = [(f"{name}: {each.title}, for {each.readers}", name) for name, each in FORMATS.items()]
                first = next(iter(FORMATS.values()))
                yield Select(formats, value=first.name, allow_blank=False, id="format", compact=True)
                yield Static("numbers")
                numbers = [(each, each) for each in first.dtypes]
                yield Select(numbers, value=first.dtypes[0], allow_blank=False, id="dtype", compact=True)
                yield Static("step")
                yield Select(steps, value=steps[0][1], allow_blank=False, id="step", compact=True)
                yield Static("folder")
                yield Input(str(self.target(first.name)), id="target", compact=True)
                yield Static("check")
                yield Select(CHECKS, value="yes", allow_blank=False, id="check", compact=True)
                yield Static("overwrite")
                yield Select(REPLACES, value="no", allow_blank=False, id="replace", compact=True)
            yield Button("Export", variant="primary", id="go")
            yield Static("", id="result", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#format").focus()
        self.set_interval(1.0, self.tick)

    def steps(self) -> list[tuple[str, str]]:
        try:
            return choices(self.session)
        except ZoliteError as error:
            self.call_after_refresh(self.app.report, error)
            return [("last", "last")]

    def target(self, format_: str) -> Path:
        return Path.cwd() / f"{self.session}-{format_}"

    @on(Select.Changed, "#format")
    def changed(self, event: Select.Changed) -> None:
        """Other number types, and another folder unless one was typed."""
        format_ = str(event.value)
        types = FORMATS[format_].dtypes
        dtype = self.query_one("#dtype", Select)
        dtype.set_options([(each, each) for each in types])
        dtype.value = types[0]
        target = self.query_one("#target", Input)
        if target.value in {str(self.target(name)) for name in FORMATS}:
            target.value = str(self.target(format_))

    @on(Button.Pressed, "#go")
    def action_export(self) -> None:
        if self.busy:
            return
        folder = self.query_one("#target", Input).value.strip()
        if not folder:
            self.app.report(UsageError("no folder was given", "give a new one, for example ~/adapter"))
            return
        self.busy, self.seconds = True, 0
        self.query_one("#go", Button).disabled = True
        self.tick()
        self.run_export(self.command(folder))

    def command(self, folder: str) -> list[str]:
        """What the form says, for the command line."""
        value = {str(select.id): str(select.value) for select in self.query(Select)}
        words = ["export", self.session, "--to", folder, "--format", value["format"], "--step", value["step"]]
        words += ["--dtype", value["dtype"]] if len(FORMATS[value["format"]].dtypes) > 1 else []
        words += ["--force"] if value["replace"] == "yes" else []
        return words + (["--no-verify"] if value["check"] == "no" else [])

    @work(thread=True, exclusive=True, exit_on_error=False)
    def run_export(self, words: list[str]) -> None:
        worker = get_current_worker()
        try:
            document = self.app.client.ask(*words, gone=lambda: worker.is_cancelled)
        except ZoliteError as error:
            done = partial(self.ended, Content(""), error)
        else:
            done = partial(self.ended, result(document), None)
        if not worker.is_cancelled:
            self.app.call_from_thread(done)

    def ended(self, result: Content, error: ZoliteError | None) -> None:
        self.busy = False
        self.query_one("#go", Button).disabled = False
        self.query_one("#result", Static).update(result)
        if error is not None:
            self.app.report(error, "It was not exported")

    def tick(self) -> None:
        if self.busy:
            self.query_one("#result", Static).update(f"◐ writing, then reading it back: {self.seconds} s …")
            self.seconds += 1


def result(document: dict[str, Any]) -> Content:
    """What became of an export."""
    steps = " and ".join(f"{step:,}" for step in document["steps"])
    lines = [
        Content.styled(f"✓ {document['path']}", "$text-success bold"),
        Content(f"step {steps} as {document['format']} in {document['dtype']}, for {document['base']}"),
        *(line for check in document["checks"] for line in _checked(check)),
        *([] if document["checks"] else [Content.styled("▲ not checked", "$text-warning")]),
        *(Content(f"· {note}") for note in document["notes"]),
    ]
    return Content("\n").join(lines)


def _checked(check: dict[str, Any]) -> list[Content]:
    """The comparison of one reader with the session, and its numbers below."""
    return [
        Content.assemble(
            ("✓ read back ", "$text-success"),
            f"with {check['reader']}: {_said(check)}, the session's losses on {check['rows']} {check['split']} rows",
        ),
        Content.styled(
            f"  mean loss {check['loss_base']:.4g} without the adapter, {check['loss_export']:.4g} with it; rows are "
            f"{check['apart']:.1g} from the session's, {check['allowed']:g} is what rounding explains",
            "$text-muted",
        ),
    ]


def _said(check: dict[str, Any]) -> str:
    ours, theirs = check["said_session"], check["said_export"]
    if theirs is None:
        return f"the same text on {check['same_texts']} of {len(check['texts'])} prompts"
    return (
        f"it says a label and stops on {theirs['label']} of {check['prompts']}, the right one on {theirs['right']} "
        f"(the session {ours['label']} and {ours['right']})"
    )
