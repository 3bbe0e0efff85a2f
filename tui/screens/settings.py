"""Settings: colours, what curves are drawn with, and where the keymap lies."""

from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Select, Static

from zolite.common.paths import paths

from ..config import CHARTS

if TYPE_CHECKING:
    from ..context import Context

CHART_WORDS = {
    "braille": "braille ⣀⠤⠒⠉ finest",
    "block": "block ▁▃▅▇ where a font lacks braille",
    "ascii": "ascii .-'* everywhere",
}


class SettingsScreen(Screen[None]):
    """Changes hold at once and are kept in app.toml. Keys are changed there too, under [keymap]: a binding's id, as
    Help shows it beside each key, and the key that you want. NO_COLOR and TEXTUAL_ANIMATIONS=none are heeded.
    """

    TITLE = "Settings"
    DEFAULT_CSS = """
    SettingsScreen {
        VerticalScroll { padding: 1 2; }
        .setting { height: auto; margin-bottom: 1; }
        .setting Static { width: 14; padding: 1 0; }
        .setting Select { width: 46; }
        #where { height: auto; }
    }
    """
    app: "Context"

    def compose(self) -> ComposeResult:
        themes = sorted(self.app.available_themes, key=lambda name: (not name.startswith("zolite"), name))
        with VerticalScroll(can_focus=False):
            with Horizontal(classes="setting"):
                yield Static("colours")
                yield Select([(name, name) for name in themes], value=self.app.theme, allow_blank=False, id="theme")
            with Horizontal(classes="setting"):
                yield Static("curves")
                options = [(CHART_WORDS[name], name) for name in CHARTS]
                yield Select(options, value=self.app.config.chart, allow_blank=False, id="chart")
            yield Static(self.where(), id="where", markup=False)
        yield Footer(show_command_palette=False)

    def where(self) -> str:
        """Where things are kept, as `zolite paths` has it."""
        keys = ", ".join(f"{name} = {key!r}" for name, key in self.app.config.keymap.items()) or "none of your own yet"
        places = "\n".join(f"  {name:<9} {path}" for name, path in paths().items())
        return f"keys         {keys}\nthis file    {self.app.config_path}\n\nwhere things are kept\n{places}"

    @on(Select.Changed, "#theme")
    def recolour(self, event: Select.Changed) -> None:
        self.app.theme = str(event.value)

    @on(Select.Changed, "#chart")
    def redraw(self, event: Select.Changed) -> None:
        self.app.prefer(chart=str(event.value))
