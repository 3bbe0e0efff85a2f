"""The settings of a recipe as fields, made from the recipe itself: a name, a value, what it means."""

from collections.abc import Mapping
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.message import Message
from textual.widgets import Collapsible, Input, Label, Select

from zolite.config.fields import Meaning, Setting
from zolite.config.recipe import SETTINGS

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
    "train.copies": "copies",
}
# The other tabs have them; for epochs the number of rows would have to be known to price a run.
ELSEWHERE = ("model.name", "data.path", "data.template", "data.columns", "train.epochs")
NAME = Setting("name", str, True, None, Meaning("the session's name; dated if left out"))


def ident(path: str) -> str:
    return f"set-{path.replace('.', '-')}"


def options_of(setting: Setting) -> list[tuple[str, str]]:
    """(as it is shown, as a field's value) of what a setting may be; [] where it is typed."""
    named = ("true", "false") if setting.kind is bool else setting.meaning.choices
    return [("auto", "")] * setting.open + [(choice, choice) for choice in named] if named else []


class Field(Horizontal):
    """One setting. Empty means: left to zolite, which shows as auto."""

    DEFAULT_CSS = """
    Field { height: 1; width: 1fr; }
    Field Label { width: 12; color: $text-muted; }
    Field Input, Field Select { width: 1fr; }
    """

    def __init__(self, setting: Setting, label: str, about: str) -> None:
        super().__init__()
        self.setting, self.path, self.label, self.about = setting, setting.path, label, about

    def compose(self) -> ComposeResult:
        label = Label(self.label, markup=False)
        label.tooltip = self.about
        yield label
        default = self.setting.default
        value = "" if default is None else self.setting.spelled(default)
        if options := options_of(self.setting):
            yield Select(options, value=value, allow_blank=False, compact=True, id=ident(self.path))
        else:
            placeholder = "auto" if default is None else ""
            yield Input(value, placeholder=placeholder, compact=True, id=ident(self.path))


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
        with Container(id="main"):
            for path, label in MAIN.items():
                yield Field(SETTINGS[path], label, SETTINGS[path].meaning.help)
            yield Field(NAME, "name", NAME.meaning.help)
        with Collapsible(title="more settings", collapsed=True):
            yield Container(id="more")

    @on(Collapsible.Expanded)
    async def fill(self) -> None:
        """The other settings, when they are first asked for: the screen opens at once without them."""
        more = self.query_one("#more")
        if not more.children:
            others = [each for path, each in SETTINGS.items() if path not in (*MAIN, *ELSEWHERE)]
            await more.mount_all(
                Field(each, each.path.partition(".")[2], f"{each.path}: {each.meaning.help}") for each in others
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
