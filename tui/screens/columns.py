"""Which column of a file is which: a shape of rows, and a column for each part of it."""

from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Label, Select, Static

from zolite.config.fields import pair, pairs
from zolite.config.recipe import DataPart
from zolite.data.kinds.registry import KINDS

from .dialogs import CLOSE

TEMPLATE = DataPart.template
NONE = ""  # what an optional part is where no column has it


class Part(Horizontal):
    """A part of a shape, and the column that it is."""

    DEFAULT_CSS = """
    Part { height: 1; width: 1fr; }
    Part Label { color: $text-muted; }
    Part Select { width: 1fr; }
    """

    def __init__(self, name: str, options: list[tuple[str, str]], chosen: str) -> None:
        super().__init__()
        self.part, self.options, self.chosen = name, options, chosen

    def compose(self) -> ComposeResult:
        yield Label(self.part, markup=False)
        yield Select(self.options, value=self.chosen, allow_blank=False, compact=True)

    @property
    def column(self) -> str:
        return str(self.query_one(Select).value)


class ColumnPicker(ModalScreen[str | None]):
    """What the rows are, and which of the file's columns are which. Gives data.columns, as --columns spells it."""

    BINDINGS: ClassVar = CLOSE
    DEFAULT_CSS = """
    ColumnPicker #examples { color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    ColumnPicker .body { max-height: 20vh; margin-bottom: 1; }
    ColumnPicker #parts { height: auto; max-height: 20vh; }
    """

    def __init__(self, examples: Mapping[str, str], guess: Mapping[str, str]) -> None:
        """`examples`: the file's columns with a value each. `guess`: columns that are likely, as a report has them."""
        super().__init__(classes="dialog")
        self.examples = examples
        self.guessed = dict(pairs(guess.get("columns", "")))
        likely = (n for n, k in KINDS.items() if self.guessed and self.guessed.keys() <= set(k.columns(TEMPLATE)))
        self.shape = next(likely, "label")

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static("Which column is which?", classes="heading", markup=False)
            lines = (f"{name}: {value}" for name, value in self.examples.items())
            with VerticalScroll(classes="body"):
                yield Static("\n".join(lines), id="examples", markup=False)
            yield Part("rows are", [(kind.title, name) for name, kind in KINDS.items()], self.shape)
            yield VerticalScroll(*self.parts(), id="parts", can_focus=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("OK", id="ok", variant="primary")

    def parts(self) -> list[Part]:
        """Of the shape that is chosen: what it needs, then what it may have."""
        kind = KINDS[self.shape]
        columns = [(name, name) for name in self.examples]
        needed = [Part(name, columns, self.likely(name)) for name in kind.columns(TEMPLATE)]
        known = [name for name in kind.names.optional if name in kind.names.spellings or name in ("prompt", "tools")]
        return needed + [Part(name, [("none", NONE), *columns], NONE) for name in known]

    def likely(self, part: str) -> str:
        column = self.guessed.get(part, part)
        return column if column in self.examples else next(iter(self.examples))

    @on(Select.Changed)
    async def changed(self, event: Select.Changed) -> None:
        """Another shape has other parts."""
        if event.value in KINDS and event.select is self.query(Select).first() and event.value != self.shape:
            self.shape = str(event.value)
            side = self.query_one("#parts")
            await side.remove_children()
            await side.mount_all(self.parts())

    @on(Button.Pressed, "#ok")
    def accept(self) -> None:
        taken = ((part.part, part.column) for part in self.query("#parts Part").results(Part))
        self.dismiss(",".join(pair(name, column) for name, column in taken if column != NONE))

    @on(Button.Pressed, "#cancel")
    def action_close(self) -> None:
        self.dismiss(None)
