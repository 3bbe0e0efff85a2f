"""What a person prefers of the app: app.toml in the config folder that `zolite paths` names.

theme = "zolite-light"
chart = "block"          # or braille, ascii

[keymap]
new = "ctrl+n"           # the id of a binding, as Help shows it, to its keys

A run never depends on it. What cannot be read or used is said once and the rest holds.
"""

import dataclasses
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zolite.common.paths import paths

CHARTS = ("braille", "block", "ascii")
FILE = "app.toml"


@dataclass(frozen=True)
class Config:
    theme: str = "zolite-dark"
    """a name of the palette's themes"""
    chart: str = "braille"
    """what curves are drawn with: braille, block or ascii"""
    keymap: dict[str, str] = field(default_factory=dict)
    """a binding's id to its keys, commas between"""
    problems: tuple[str, ...] = ()
    """what was wrong with the file"""


def path() -> Path:
    return paths()["config"] / FILE


def load(file: Path) -> Config:
    """What the file says, and the defaults where it says nothing that can be used."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError) as error:
        return Config(problems=(f"{file} cannot be read: {error}",))
    return _checked(values, file)


def _checked(values: dict[str, Any], file: Path) -> Config:
    wrong, good = [], {}
    for key, value in values.items():
        check, expected = CHECKS.get(key, UNKNOWN)
        if check(value):
            good[key] = value
        else:
            wrong.append(f"{file}: {key} = {value!r} is not {expected}")
    return Config(**good, problems=tuple(wrong))


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


Check = tuple[Callable[[Any], bool], str]
CHECKS: dict[str, Check] = {
    "theme": (lambda value: isinstance(value, str), "a theme's name"),
    "chart": (lambda value: value in CHARTS, f"one of {', '.join(CHARTS)}"),
    "keymap": (_texts, "a table of binding = keys"),
}


UNKNOWN: Check = (lambda _: False, f"a setting; there are {', '.join(CHECKS)}")


def save(config: Config, file: Path) -> None:
    """Whole or not at all."""
    import tomli_w

    from zolite.common import files

    values = {name: value for name, value in dataclasses.asdict(config).items() if name in CHECKS}
    with files.saving("the app's settings", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(file, tomli_w.dumps(values).encode())
