"""Elements of HTML and SVG. All text and every attribute is escaped here, and nowhere else.

tag("td", name, class_="name")     <td class="name">…</td>
"""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from zolite.common.text import visible


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content]"
VOID = ("meta", "line", "path", "circle", "rect", "br")


def text(foreign: str) -> Markup:
    """What anybody may have written, as text: control characters as their escapes."""
    return Markup(escape(visible(foreign)))


def tag(name: str, /, *content: Content, **attributes: object) -> Markup:
    """An element. Attributes end in an underscore where Python has the word, and have dashes for other underscores."""
    opened = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{opened}/>")
    return Markup(f"<{name}{opened}>{joined(*content)}</{name}>")


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def joined(*content: Content) -> Markup:
    return Markup("".join(map(_piece, content)))


def _piece(content: Content) -> str:
    if isinstance(content, str):
        return content if isinstance(content, Markup) else text(content)
    return "".join(map(_piece, content))


def table(head: Iterable[str], rows: Iterable[Iterable[Content]]) -> Markup:
    body = tag("tbody", (tag("tr", (tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", tag("thead", tag("tr", (tag("th", name) for name in head))), body), class_="wide")
