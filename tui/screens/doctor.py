"""Doctor: what this machine can do, and what stands in the way."""

from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static
from textual.worker import get_current_worker

from zolite.errors import ZoliteError

if TYPE_CHECKING:
    from ..app import ZoliteApp

STATES = {
    "ok": ("✓", "ok", "$text-success"),
    "warn": ("▲", "look", "$text-warning"),
    "fail": ("✗", "mend", "$text-error"),
}


class DoctorScreen(Screen[None]):
    """The checkup of `zolite doctor`: driver, torch, memory, disk. What is wrong comes first, with its remedy."""

    TITLE = "Doctor"
    DEFAULT_CSS = """
    DoctorScreen #checks { height: 1fr; padding: 1 2; }
    DoctorScreen #found { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "again", "Look again", id="doctor-again"),
        Binding("p", "profile", "Measure this machine", id="profile"),
    ]
    app: "ZoliteApp"

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="checks"):
            yield Static("", id="found")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#checks").focus()
        self.action_again()

    def action_again(self) -> None:
        self.say(Content("◐ looking at driver, torch, memory and disk: some ten seconds …"))
        self.ask("doctor")

    def action_profile(self) -> None:
        """Half a minute of measuring, after which plans know this machine's own rates."""
        self.say(Content("◐ measuring memory and rates: half a minute, best with nothing else running …"))
        self.ask("profile")

    @work(thread=True, exclusive=True)
    def ask(self, command: str) -> None:
        worker = get_current_worker()
        try:
            found = self.app.client.ask(command, gone=lambda: worker.is_cancelled)
            said = rows(found) if command == "doctor" else measured(found)
        except ZoliteError as error:
            said = Content(f"✗ {error.message}\n→ {error.hint}")
        if not worker.is_cancelled:
            self.app.call_from_thread(self.say, said)

    def say(self, what: Content) -> None:
        self.query_one("#found", Static).update(what)


def rows(checks: list[dict[str, Any]]) -> Content:
    """One a finding, the worst first."""
    order = ["fail", "warn", "ok"]
    width = max(len(check["name"]) for check in checks)
    lines = []
    for check in sorted(checks, key=lambda check: order.index(check["status"])):
        symbol, word, style = STATES[check["status"]]
        lines.append(
            Content.assemble((f"{symbol} {word:<5}", style), (f"{check['name']:<{width}}  ", "bold"), check["detail"])
        )
        if check["fix"]:
            lines.append(Content.assemble(" " * (width + 9), ("→ ", "$text-warning"), check["fix"]))
    worst = min((order.index(check["status"]) for check in checks), default=2)
    verdict = ("something must be mended first", "some things could be better", "all is well")[worst]
    return Content("\n").join([*lines, Content(""), Content.assemble((verdict, "bold"))])


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
