"""Colours of the theme: for pieces of text as monitor/ makes them, and for the cells of a table, drawn by Rich."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import App
from textual.color import Color, ColorParseError
from textual.content import Content
from textual.filter import LineFilter

from zolite.common.text import unobeyed, visible
from zolite.monitor.plots import Piece, flowing

MUTED, FAINT = "$foreground 60%", "$foreground 30%"
STYLES = {
    "strong": "bold", "muted": MUTED, "full": "$primary", "empty": FAINT,
    "success": "$text-success", "warning": "$text-warning", "error": "$text-error", "accent": "$text-accent",
}  # fmt: skip
"""What the names of styles in monitor/ are in the app."""


class Unobeyed(LineFilter):
    """The last thing before the terminal: whatever text comes from a file or a model, nothing in it is obeyed."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [s if s.control or s.text.isprintable() else Segment(unobeyed(s.text), s.style) for s in segments]


def content(pieces: Iterable[Piece], **own: str) -> Content:
    """Text in the theme's colours; `own` are other styles for some names."""
    named = STYLES | own
    return Content.assemble(
        *((text, " ".join(named[word] for word in style.split(" "))) if style else text for text, style in pieces)
    )


def flow(parts: Sequence[Content], width: int) -> list[Content]:
    """Side by side, going on below where there is no more room."""
    lines = flowing([part.cell_length for part in parts], width)
    return [Content("   ").join(parts[i] for i in places) for places in lines]


def cell(app: App[Any], *pieces: str | tuple[str, str]) -> Text:
    """Text from pieces; a pair is text and a colour of the theme, such as success."""
    made = Text(no_wrap=True)
    for piece in pieces:
        text, colour = piece if isinstance(piece, tuple) else (piece, "")
        made.append(visible(text), style(app, colour) if colour else "")
    return made


def style(app: App[Any], colour: str) -> Style:
    found = app.theme_variables.get(colour, "")
    try:
        return Style(color=Color.parse(found).rich_color)
    except ColorParseError:  # such as "auto 60%"
        return Style(dim=colour.endswith("muted"))
