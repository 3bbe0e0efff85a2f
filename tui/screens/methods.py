"""Methods: the estimators that zolite has, and what each costs."""

from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from zolite.common.errors import ZoliteError

from ..widgets.table import Table

if TYPE_CHECKING:
    from ..context import Context


class MethodsScreen(Screen[None]):
    """Every published estimator that zolite has, as a row of sampler, estimator and rule, with its forwards a step and
    the bytes that it keeps. mezo is the default: nothing measured so far beats it at equal forwards.
    """

    TITLE = "Methods"
    DEFAULT_CSS = """
    MethodsScreen #list { height: 1fr; }
    MethodsScreen #about { height: 6; }
    """
    app: "Context"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Table(id="list", cursor_type="row")
            yield Static("◐ reading …", id="about", classes="panel", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        table.add_columns("method", "sampler", "estimator", "rule", "forwards", "bytes kept")
        table.focus()
        self.ask()

    @work(thread=True, group="pages")
    def ask(self) -> None:
        try:
            rows = self.app.client.ask("methods")
        except ZoliteError as error:
            self.app.call_from_thread(self.app.report, error)
        else:
            self.app.call_from_thread(self.show, rows)

    def show(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        for row in rows:
            self.query_one(DataTable).add_row(
                row["name"], row["sampler"], row["estimator"], " ".join(row["rule"]) or "–",
                f"{row['forwards_per_step']:g}", row["state_bytes"],
            )  # fmt: skip

    @on(DataTable.RowHighlighted)
    def describe(self, event: DataTable.RowHighlighted) -> None:
        if not 0 <= event.cursor_row < len(self.rows):
            return
        row = self.rows[event.cursor_row]
        replays = "its journal replays it" if row["deterministic"] else "it goes back only to checkpoints"
        self.query_one("#about", Static).update(
            Content.assemble(
                (row["name"], "bold"),
                f"  {row['summary']}\n",
                (f"{row['paper']}\n", "$text-muted"),
                f"trains {', '.join(row['spaces'])}; {replays}",
            )
        )
