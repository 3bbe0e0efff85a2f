"""What is said on the terminal: no text from a file, a folder or a model gets there with anything that it obeys."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from zolite.common.text import json_text, visible


def say(text: str, stream: TextIO | None = None) -> None:
    """Lines, flushed, so that whoever reads the other end of a pipe sees them now."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(visible(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def say_json(document: Any, stream: TextIO | None = None) -> None:
    """One document on a line."""
    say(json_text(document), stream)


class Terminal(Console):
    """Rich's console. It draws with control codes of its own, so texts are cleaned as they become segments."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else Segment(visible(segment.text), segment.style)
