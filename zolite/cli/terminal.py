"""What is said on the terminal: no text from a file, a folder or a model gets there with anything that it obeys."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from zolite.common.text import json_text, visible

GAP, LEAST_COLUMN = 2, 12  # cells between two columns; a column is not cut to fewer


def say(text: str, stream: TextIO | None = None) -> None:
    """Lines, flushed, so that whoever reads the other end of a pipe sees them now."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(visible(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def say_json(document: Any, stream: TextIO | None = None) -> None:
    """One document on a line."""
    say(json_text(document), stream)


def columns(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lines of texts in columns as wide as their widest; the widest column gives way where `width` cells are too few.

    Rich's own table takes more than a millisecond a row.
    """
    cells = [[visible(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    while sum(widths) + GAP * (len(widths) - 1) > width and max(widths) > LEAST_COLUMN:
        widths[widths.index(max(widths))] -= 1
    gap = " " * GAP
    return [gap.join(map(_fitted, row, widths)).rstrip() for row in cells]


def _fitted(text: str, width: int) -> str:
    return set_cell_size(text, width) if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


class Terminal(Console):
    """Rich's console. It draws with control codes of its own, so texts are cleaned as they become segments."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else Segment(visible(segment.text), segment.style)
