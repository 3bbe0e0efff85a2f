"""What profiles/*.toml know: models, cards and published tasks by their short names."""

import difflib
import functools
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from zolite.common.errors import UsageError


@dataclass(frozen=True)
class Builtin:
    """A model whose weights a Python package carries. `hub` is the id that exported adapters name as their base."""

    name: str
    title: str
    hub: str
    licence: str
    package: str
    file: str
    bytes: int


@dataclass(frozen=True)
class Known:
    """A model of the catalogue: what a config.json would say of it, so that planning needs no network."""

    title: str
    hub: str
    licence: str
    parameters: int  # as published; a test counts them from the config
    config: Mapping[str, Any]
    suggested: bool = True  # without being named; OPT is there for comparison with papers
    recipe: Mapping[str, Any] = field(default_factory=dict)  # as a recipe file has it
    tried: str = ""  # what that recipe is known by; empty where nobody has run it


@dataclass(frozen=True)
class Card:
    """A GPU by its published numbers; `tensor16` are dense products of 16-bit numbers with float32 sums."""

    name: str
    title: str
    driver_name: str  # as the driver calls it
    memory_bytes: int
    memory_bytes_per_s: float
    float32_per_s: float
    tensor16_per_s: float
    int8_per_s: float
    capability: tuple[int, int]


@dataclass(frozen=True)
class Task:
    """A published task, so that its protocol is one command. zolite/data/tasks.py makes the columns of its prompt."""

    name: str
    title: str
    hub: str  # where its rows come from; a recipe names those that are on this disk
    metric: str  # that is published: accuracy, or f1
    source: str  # of the prompt
    data: Mapping[str, str]  # settings of the recipe's table of that name


def builtins() -> dict[str, Builtin]:
    """Every profiles/models/*.toml with a [builtin] table, by short name."""
    return {
        name: Builtin(name, facts["title"], facts["hub"], facts["licence"], **facts["builtin"])
        for name, facts in _tables("models")
        if "builtin" in facts
    }


def builtin(name: str) -> Builtin:
    """One by its short name."""
    known = builtins()
    if name not in known:
        raise UsageError(f"no built-in model {name!r}", f"built in: {', '.join('builtin:' + n for n in known)}")
    return known[name]


@functools.cache
def models() -> Mapping[str, Known]:
    """All models, by short name."""
    return {name: _known(facts) for name, facts in _tables("models")}


def _known(facts: dict[str, Any]) -> Known:
    kept = ("title", "hub", "licence", "parameters", "config", "suggested")
    recipe = dict(facts.get("recipe", {}))
    tried = str(recipe.pop("tried", ""))
    return Known(**{key: facts[key] for key in kept if key in facts}, recipe=recipe, tried=tried)


@functools.cache
def cards() -> Mapping[str, Card]:
    """All GPUs, by short name."""
    return {name: _card(name, facts) for name, facts in _tables("hardware")}


def card(name: str) -> Card:
    """One by its short name."""
    if name not in cards():
        raise UsageError(f"no hardware {name!r}", f"nearest: {', '.join(nearest(name.lower(), cards()) or cards())}")
    return cards()[name]


@functools.cache
def tasks() -> Mapping[str, Task]:
    """All published tasks, by short name."""
    return {name: Task(name, **facts) for name, facts in _tables("tasks")}


def task(name: str) -> Task:
    """One by its short name."""
    if name not in tasks():
        raise UsageError(f"no task {name!r}", f"nearest: {', '.join(nearest(name.lower(), tasks()) or tasks())}")
    return tasks()[name]


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Names that begin alike, else that look alike; the nearest first, at most four."""
    ordered = difflib.get_close_matches(name, list(known), 100, 0.0)
    return [n for n in ordered if n.startswith(name)][:4] or difflib.get_close_matches(name, ordered, 4, 0.5)


def _card(name: str, facts: dict[str, Any]) -> Card:
    major, _, minor = facts["capability"].partition(".")
    return Card(
        name=name,
        title=facts["title"],
        driver_name=facts["driver_name"],
        memory_bytes=int(facts["memory_gib"] * 2**30),
        memory_bytes_per_s=facts["memory_gb_per_s"] * 1e9,
        float32_per_s=facts["float32_tflops"] * 1e12,
        tensor16_per_s=facts["tensor16_tflops"] * 1e12,
        int8_per_s=facts["int8_tops"] * 1e12,
        capability=(int(major), int(minor)),
    )


def _tables(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(short name, content) of every profiles/KIND/*.toml."""
    for entry in sorted((resources.files("zolite.profiles") / kind).iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            yield entry.name.removesuffix(".toml"), tomllib.loads(entry.read_text(encoding="utf-8"))
