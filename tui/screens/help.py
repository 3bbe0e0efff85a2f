"""Help: what the screen below is for and which keys it has, with the ids that a keymap names them by."""

import inspect
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static


class HelpScreen(ModalScreen[None]):
    """Of the screen that was open; its class's docstring says what it is for."""

    BINDINGS: ClassVar = [Binding("escape,q,question_mark,f1", "close", "Close", id="close-help", key_display="esc")]

    def __init__(self, about: Screen[Any]) -> None:
        super().__init__(classes="dialog")
        self.about = about

    def compose(self) -> ComposeResult:
        with Vertical(classes="window -help"):
            yield Static(self.about.title or "zolite", classes="heading", markup=False)
            with VerticalScroll(classes="body"):
                yield Static(paragraphs(inspect.getdoc(type(self.about)) or ""), markup=False)
                yield Static(self.keys())
                yield Static(OTHERWISE, classes="dim", markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def keys(self) -> Content:
        """A line a binding of the screen or the app: keys, what they do, and the id."""
        found: dict[str, tuple[list[str], str, str]] = {}
        for active in self.about.active_bindings.values():
            binding = active.binding
            if binding.id and active.enabled and not binding.system:
                keys, _, _ = found.setdefault(binding.action, ([], binding.description, binding.id))
                keys.append(self.app.get_key_display(binding))
        lines = [
            Content.assemble((f"{'  '.join(dict.fromkeys(keys)):<12}", "$footer-key-foreground bold"), f" {what:<28}",
                             (f" {name}", "$text-muted"))
            for keys, what, name in found.values()
        ]  # fmt: skip
        return Content("\n").join(lines)

    def action_close(self) -> None:
        self.dismiss(None)


def paragraphs(text: str) -> str:
    """Lines joined; an empty one parts."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


OTHERWISE = (
    "Tab and Shift+Tab move between the parts of a screen, Enter and a click do what is marked, Ctrl+P searches all "
    "commands. [keymap] in app.toml in the config folder of `zolite paths` gives a key of yours to the ids above."
)
