"""The settings of a recipe as fields, made from the recipe itself: a name, a value, what it means."""

from collections.abc import Mapping, Sequence
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.message import Message
from textual.widgets import Collapsible, Input, Label, Select

from zolite.config import recipe as recipes
from zolite.config.composition import ROWS

# What is always in sight: setting and its short name. The others are under "more settings".
MAIN = {
    "model.quant": "weights",
    "adapter.space": "space",
    "adapter.rank": "rank",
    "method.name": "method",
    "train.batch": "batch",
    "train.microbatch": "microbatch",
    "data.context": "context",
    "train.steps": "steps",
    "train.lr": "rate",
    "train.eps": "epsilon",
    "train.seed": "seed",
    "train.copies": "points",
}
ELSEWHERE = ("model.name", "data.path", "data.template")  # the other tabs have them
CHOICES: Mapping[str, Sequence[str]] = {
    "model.quant": recipes.QUANTS,
    "adapter.space": ("", *recipes.SPACES),
    "method.name": tuple(ROWS),
    "train.schedule": recipes.SCHEDULES,
    "method.unit": ("false", "true"),
}


def ident(path: str) -> str:
    return f"set-{path.replace('.', '-')}"


def spelled(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, bool):
        return str(value).lower()
    return (
        ",".join(value) if isinstance(value, list | tuple) else f"{value:g}" if isinstance(value, float) else str(value)
    )


class Field(Horizontal):
    """One setting. Empty means: left to zolite."""

    DEFAULT_CSS = """
    Field { height: 1; width: 1fr; }
    Field Label { width: 12; color: $text-muted; }
    Field Input, Field Select { width: 1fr; }
    """

    def __init__(self, path: str, label: str, default: Any, meaning: str) -> None:
        super().__init__()
        self.path, self.label, self.default, self.meaning = path, label, default, meaning

    def compose(self) -> ComposeResult:
        label = Label(self.label, markup=False)
        label.tooltip = self.meaning
        yield label
        if self.path in CHOICES:
            options = [(choice or "auto", choice) for choice in CHOICES[self.path]]
            yield Select(options, value=spelled(self.default), allow_blank=False, compact=True, id=ident(self.path))
        else:
            value = "" if self.open else spelled(self.default)
            yield Input(value, placeholder="auto" if self.open else "", compact=True, id=ident(self.path))

    @property
    def open(self) -> bool:
        """Is its default to leave it to zolite?"""
        return self.default in (0, 0.0, "", ()) and self.path != "train.seed" and not isinstance(self.default, bool)


class Form(Container):
    """All settings, and the session's name."""

    DEFAULT_CSS = """
    Form { height: auto; }
    Form #main { layout: grid; grid-size: 2; grid-gutter: 0 2; grid-rows: 1; height: auto; }
    Form Collapsible { height: auto; padding: 0; border: none; background: $background; margin-top: 1; }
    Form Collapsible Contents { padding: 0 1; height: auto; }
    Form #more { height: auto; }
    """

    class Changed(Message):
        """Something was typed or chosen."""

        def __init__(self, paths: set[str]) -> None:
            super().__init__()
            self.paths = paths

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.quiet: dict[str, str] = {}  # what was put in by `put`, not by a person

    def compose(self) -> ComposeResult:
        known = {path: (default, meaning) for path, _, default, meaning in recipes.settings()}
        with Container(id="main"):
            for path, label in MAIN.items():
                yield Field(path, label, *known[path])
            yield Field("name", "name", "", "the session's name; dated if left out")
        with Collapsible(title="more settings", collapsed=True):
            yield Container(id="more")

    @on(Collapsible.Expanded)
    async def fill(self) -> None:
        """The other settings, when they are first asked for: the screen opens at once without them."""
        more = self.query_one("#more")
        if not more.children:
            known = [setting for setting in recipes.settings() if setting[0] not in (*MAIN, *ELSEWHERE)]
            await more.mount_all(
                Field(path, path.partition(".")[2], default, f"{path}: {meaning}")
                for path, _, default, meaning in known
            )

    def values(self) -> dict[str, str]:
        """What stands in the fields of the recipe; what was never shown is as it was."""
        return {field.path: self.value(field.path) for field in self.query(Field) if field.path != "name"}

    def value(self, path: str) -> str:
        widget: Any = self.query_one(f"#{ident(path)}")
        return str(widget.value).strip()

    def put(self, values: Mapping[str, Any]) -> None:
        """Values that were chosen for the person; `Changed` does not tell of them."""
        for path, value in values.items():
            widget: Any = self.query_one(f"#{ident(path)}")
            if widget.value != value:
                self.quiet[path] = value
                widget.value = value

    @on(Input.Changed)
    @on(Select.Changed)
    def tell(self, event: Any) -> None:
        event.stop()
        field = next(each for each in self.query(Field) if ident(each.path) == event.control.id)
        if self.quiet.pop(field.path, None) != str(event.value):
            self.post_message(self.Changed({field.path}))
