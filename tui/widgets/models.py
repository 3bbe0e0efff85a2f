"""The list of models: what fits this machine, what is here already, and any other by its name."""

from collections.abc import Sequence
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from zolite.common.text import human_bytes

from ..paint import cell
from ..planning import Offer
from .table import Table

CHOOSES = "let zolite choose"
COLUMNS = ("", "model", "size", "here", "download", "memory from", "context", "licence")


class Models(Vertical):
    """A row is chosen by Enter or a click; what is typed filters, or is a model by itself."""

    DEFAULT_CSS = """
    Models { height: 1fr; }
    Models Input { margin: 0 0 1 0; }
    Models DataTable { height: 1fr; }
    Models #model-note { height: auto; color: $text-muted; padding: 0 1; }
    """

    class Chosen(Message):
        """`name` as MODEL; empty leaves it to the planner."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.offers: tuple[Offer, ...] = ()
        self.chosen = ""

    def compose(self) -> ComposeResult:
        yield Input(placeholder="filter, or any hub id, model folder or .gguf file", id="model-text")
        yield Table(id="model-list", cursor_type="row")
        yield Static("checking this machine …", id="model-note", markup=False)

    def on_resize(self) -> None:
        """As many columns as there is room for."""
        columns = COLUMNS if self.size.width >= 100 else COLUMNS[:-3]
        if len(self.table.columns) != len(columns):
            self.table.clear(columns=True)
            self.table.add_columns(*columns)
            self.fill()

    @property
    def table(self) -> "DataTable[Any]":
        return self.query_one(DataTable)

    def show(self, offers: Sequence[Offer]) -> None:
        self.offers = tuple(offers)
        self.fill()

    def choose(self, name: str) -> None:
        self.chosen = name
        self.fill()
        self.post_message(self.Chosen(name))

    @on(Input.Changed)
    def fill(self) -> None:
        """The rows that the text leaves, under the cursor where it was."""
        text, row = self.query_one(Input).value.strip(), self.table.cursor_row
        self.table.clear()
        found = [each for each in self.offers if text.lower() in f"{each.name} {each.title}".lower()]
        if not text:
            self.add("", cell(self.app, (CHOOSES, "accent")), "", "the best that fits")
        for each in found:
            self.offer(each)
        if text and text not in [each.name for each in found]:
            self.add(text, cell(self.app, (text, "accent")), "", "as typed")
        self.table.move_cursor(row=min(row, self.table.row_count - 1))
        self.note()

    def offer(self, each: Offer) -> None:
        fits = ("✓ fits", "success") if each.fits else ("✗ too large", "error")
        here = ("● here", "success") if each.here else (f"↓ {human_bytes(2 * each.parameters)}", "text-muted")
        self.add(
            each.name, cell(self.app, each.title), f"{each.parameters / 1e9:.2g}B",
            cell(self.app, fits, f" {each.quant}" if each.fits else ""), cell(self.app, here),
            human_bytes(each.peak_bytes), f"{each.context:,}", each.licence,
        )  # fmt: skip

    def add(self, name: str, *cells: Any) -> None:
        row = ("◆" if name == self.chosen else " ", *cells, *[""] * len(COLUMNS))
        self.table.add_row(*row[: len(self.table.columns)], key=name)

    def note(self) -> None:
        fitting = sum(each.fits for each in self.offers)
        what = f"{fitting} of {len(self.offers)} fit" if self.offers else "checking this machine …"
        note = f"{what} · ◆ {self.chosen or CHOOSES} · Enter chooses and goes on to your data"
        self.query_one("#model-note", Static).update(note)

    @on(DataTable.RowSelected)
    def take(self, event: DataTable.RowSelected) -> None:
        self.choose(str(event.row_key.value))

    @on(Input.Submitted)
    def take_text(self, event: Input.Submitted) -> None:
        """The text itself where it is a name, else the first row that it leaves."""
        text = event.value.strip()
        named = "/" in text or text.startswith(("builtin:", ".", "~")) or text.endswith(".gguf")
        rows = [row.key.value for row in self.table.ordered_rows]
        self.choose(text if named or not rows else str(rows[0]))
