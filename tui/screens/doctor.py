"""Doctor: what this machine can do, and what stands in the way."""

import contextlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static
from textual.worker import get_current_worker

from zolite.common.errors import ZoliteError
from zolite.common.events import Working, from_json
from zolite.monitor.log import working_text

from ..paint import cell

if TYPE_CHECKING:
    from ..context import Context

STATES = {"fail": ("✗", "fix", "error"), "warn": ("▲", "check", "warning"), "ok": ("✓", "ok", "success")}
VERDICTS = ("something must be fixed first", "some things could be better", "all is well")


class DoctorScreen(Screen[None]):
    """The checkup of `zolite doctor`: driver, torch, memory, disk. What is wrong comes first, with its remedy."""

    TITLE = "Doctor"
    DEFAULT_CSS = """
    DoctorScreen #checks { height: 1fr; padding: 1 2; }
    DoctorScreen #found { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "again", "Check again", id="doctor-again"),
        Binding("p", "profile", "Measure this machine", id="profile"),
    ]
    app: "Context"

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="checks"):
            yield Static("", id="found")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#checks").focus()
        self.action_again()

    def action_again(self) -> None:
        self.show(Content("◐ looking at driver, torch, memory and disk: some ten seconds …"))
        self.ask("doctor")

    def action_profile(self) -> None:
        """Half a minute of measuring, after which plans know this machine's own rates."""
        self.show(Content("◐ measuring memory and rates: half a minute, best with nothing else running …"))
        self.ask("profile")

    @work(thread=True, exclusive=True, group="pages")
    def ask(self, command: str) -> None:
        worker = get_current_worker()
        answer: Table | Content
        try:
            found = self.app.client.ask(command, gone=lambda: worker.is_cancelled, heard=self.hear)
            answer = rows(self.app, found) if command == "doctor" else measured(found)
        except ZoliteError as error:
            answer = Content(f"✗ {error.message}\n→ {error.hint}")
        if not worker.is_cancelled:
            self.app.call_from_thread(self.show, answer)

    def hear(self, document: Any) -> None:
        """What it does, as an event in JSON: each from the thread that waits for the answer."""
        with contextlib.suppress(ValueError):
            event = from_json(json.dumps(document))
            if isinstance(event, Working) and self.is_attached:
                self.app.call_from_thread(self.show, Content(f"◐ {working_text(event)}"))

    def show(self, what: Table | Content) -> None:
        self.query_one("#found", Static).update(what)


def rows(app: App[Any], checks: list[dict[str, Any]]) -> Table:
    """One a finding, the worst first."""
    order = list(STATES)
    table = Table.grid(padding=(0, 2))
    for check in sorted(checks, key=lambda check: order.index(check["status"])):
        symbol, word, colour = STATES[check["status"]]
        fix = [cell(app, ("→ ", "warning"), check["fix"])] if check["fix"] else []
        for text in fix:
            text.no_wrap = False
        table.add_row(
            cell(app, (f"{symbol} {word}", colour)), Text(check["name"], "bold"), Group(check["detail"], *fix)
        )
    worst = min((order.index(check["status"]) for check in checks), default=len(order) - 1)
    table.add_row()
    table.add_row("", "", Text(VERDICTS[worst], "bold"))
    return table


def measured(document: dict[str, Any]) -> Content:
    done = Content.assemble(("✓ measured; plans count on it from now on", "$text-success bold"))
    return Content("\n").join([done, Content(""), *map(Content, outline(document))])


def outline(value: dict[str, Any], depth: int = 0) -> list[str]:
    """Nested values as indented lines."""
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{'  ' * depth}{key}", *outline(item, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{key}: {f'{item:,.4g}' if isinstance(item, float) else item}")
    return lines
