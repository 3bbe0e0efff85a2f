"""Sessions to report on: a function that writes one, and an HTML parser that says what a page holds."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from zolite.common.events import Event, Started
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.planner import hardware
from zolite.planner.hardware import Hardware
from zolite.sessions import session as sessions
from zolite.sessions.session import MemoryRow, StepRow

GIB = 2**30
DEVICE = "NVIDIA GeForce RTX 3060"


@pytest.fixture
def machine() -> Callable[[], Hardware]:
    return lambda: hardware.published("rtx-3060-12gb")


@pytest.fixture
def made() -> Callable[..., Path]:
    """made("first", steps=40, events=[…], facts={…}, train__batch=8) writes a session; its folder."""

    def write(
        name: str, steps: int = 40, events: tuple[Event, ...] = (), facts: dict[str, Any] | None = None, **settings: Any
    ) -> Path:
        given = {"data.path": "rows"} | {key.replace("__", "."): value for key, value in settings.items()}
        recipe = recipes.resolve(recipes.override(Recipe(), given))
        known = {"device": DEVICE, "labels": ["a", "b"], "base": "org/base", "versions": {"zolite": "1"}}
        with sessions.create(name, recipe, known | (facts or {})) as session:
            journal = session.journal
            journal.event(Started(name, 1, recipe.train.steps, DEVICE, 1_244_160, 11 * GIB))
            for step in range(1, steps + 1):
                losses = struct.pack("<2f", 1.5 * 0.98**step, 1.4 * 0.98**step + 0.1 * (step % 3))
                journal.append([StepRow(step, b"", losses, 1e-2, 3e-3, 0, 1.9e9 + step, 0.5, 300 << 20)])
                if step % 10 == 0:
                    journal.memory(MemoryRow(1.9e9 + step, step, 300 << 20, 310 << 20))
            for event in events:
                journal.event(event)
            return session.path

    return write


@dataclass
class Seen(HTMLParser):
    """Every element with its attributes, and all text."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def seen() -> Callable[[str], Seen]:
    def parse(page: str) -> Seen:
        parser = Seen()
        parser.feed(page)
        parser.close()
        assert not parser.open
        return parser

    return parse
