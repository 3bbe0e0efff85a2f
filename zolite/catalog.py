"""What profiles/*.toml know: models by their short names."""

import tomllib
from dataclasses import dataclass
from importlib import resources

from zolite.errors import UsageError


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


def builtins() -> dict[str, Builtin]:
    """Every profiles/models/*.toml with a [builtin] table, by short name."""
    found = {}
    for entry in sorted((resources.files("zolite.profiles") / "models").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            facts = tomllib.loads(entry.read_text(encoding="utf-8"))
            name = entry.name.removesuffix(".toml")
            if "builtin" in facts:
                found[name] = Builtin(name, facts["title"], facts["hub"], facts["licence"], **facts["builtin"])
    return found


def builtin(name: str) -> Builtin:
    """One by its short name."""
    known = builtins()
    if name not in known:
        raise UsageError(f"no built-in model {name!r}", f"built in: {', '.join('builtin:' + n for n in known)}")
    return known[name]
