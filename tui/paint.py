"""Colours of the theme for what Textual draws through Rich: the cells of a table."""

from typing import Any

from rich.style import Style
from rich.text import Text
from textual.app import App
from textual.color import Color, ColorParseError


def cell(app: App[Any], *pieces: str | tuple[str, str]) -> Text:
    """Text from pieces; a pair is text and a colour of the theme, such as success."""
    made = Text(no_wrap=True)
    for piece in pieces:
        text, colour = piece if isinstance(piece, tuple) else (piece, "")
        made.append(text, style(app, colour) if colour else "")
    return made


def style(app: App[Any], colour: str) -> Style:
    found = app.theme_variables.get(colour, "")
    try:
        return Style(color=Color.parse(found).rich_color)
    except ColorParseError:  # such as "auto 60%"
        return Style(dim=colour.endswith("muted"))
