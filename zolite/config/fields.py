"""Settings as dataclass fields that say what they mean: one source for checks, help texts, forms and flags.

    lr: float | None = setting(None, "first learning rate", flags=("--lr", "--learning-rate"))

None leaves a choice to zolite ("auto" as text); math.inf is "no limit", where a field has a word for it.
"""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, TypeVar, Union, get_args, get_type_hints

T = TypeVar("T")
AUTO = "auto"
UNLIMITED = ("inf", "off", "never", "none")
KEY = "meaning"


@dataclass(frozen=True)
class Meaning:
    """What a setting is, beside its type and default."""

    help: str
    flags: tuple[str, ...] = ()  # on the command line, the first one as help names it; without one it has --set
    was: str = ""  # the name that it had before, as PART.KEY: still read, for one version
    choices: tuple[str, ...] = ()
    unlimited: str = ""  # the word for math.inf, where that may be given


def setting(
    default: T,
    help: str,
    *,
    flags: tuple[str, ...] = (),
    was: str = "",
    choices: tuple[str, ...] = (),
    unlimited: str = "",
) -> T:
    """A field of a part of the recipe. A default of None leaves the choice to zolite."""
    meaning = Meaning(help, flags, was, choices, unlimited)
    made: T = dataclasses.field(default=default, metadata={KEY: meaning})
    return made


@dataclass(frozen=True)
class Setting:
    """A field of a part: where it is, what it takes and what it means."""

    path: str  # PART.KEY
    kind: Any  # its type, without None
    open: bool  # may it be left to zolite?
    default: Any
    meaning: Meaning

    def read(self, value: Any) -> Any:
        """A value from TOML or text as one of the field's type; ValueError says what it is not."""
        word = value.strip().lower() if isinstance(value, str) else value
        if self.open and (word is None or word == AUTO):
            return None
        if self.meaning.unlimited and word in (*UNLIMITED, math.inf):
            return math.inf
        return CONVERTERS[self.kind](value)

    def spelled(self, value: Any) -> str:
        """A value as a person types it; the inverse of `read`."""
        if value is None:
            return AUTO
        if value == math.inf:
            return self.meaning.unlimited
        if isinstance(value, bool):
            return str(value).lower()
        return ",".join(value) if isinstance(value, list | tuple) else str(value)

    def renewed(self, value: Any) -> Any:
        """What 0, "" or [] meant before there were None and inf, as it is written now; any other value as it is."""
        word = AUTO if self.open else self.meaning.unlimited
        return word if word and _nothing(value) else value


def settings_of(name: str, part: type) -> Iterator[Setting]:
    """Every field of a part, in its order."""
    kinds = get_type_hints(part)
    for field in dataclasses.fields(part):
        options = get_args(kinds[field.name])
        is_open = NoneType in options
        rest = tuple(option for option in options if option is not NoneType)
        kind = Union[rest] if is_open else kinds[field.name]  # noqa: UP007
        yield Setting(f"{name}.{field.name}", kind, is_open, field.default, field.metadata[KEY])


def _nothing(value: Any) -> bool:
    if isinstance(value, str) and value.strip():
        with contextlib.suppress(ValueError):
            return float(value) == 0
        return False
    return not isinstance(value, bool) and not value and value is not None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool | str) or str(value).lower() not in ("true", "false"):
        raise ValueError(f"{value!r} is not true or false")
    return str(value).lower() == "true"


def _whole(value: Any) -> int:
    if not isinstance(value, bool) and not (isinstance(value, float) and not value.is_integer()):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return int(value)
    raise ValueError(f"{value!r} is not a whole number")


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _names(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"{value!r} is not a list of names")
    return tuple(str(item).strip() for item in items if str(item).strip())


CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    str: _text,
    bool: _truth,
    int: _whole,
    int | float: _whole,  # a count that may be math.inf
    float: _number,
    tuple[str, ...]: _names,
}
"""A value from TOML or text, by the type of its field."""


def arguments(text: str) -> dict[str, Any]:
    """Named values as a person types them: a JSON object, or name=value with commas between; ValueError where neither.

    A value is JSON where it can be read as such (false, 3, "a"), and text as it stands elsewhere.
    """
    if text.lstrip().startswith("{"):
        found = json.loads(text)  # its error is a ValueError
    else:
        pairs = (item.partition("=") for item in text.split(",") if item.strip())
        found = {
            name.strip(): _json_or_text(value.strip()) if equals else _no_value(name) for name, equals, value in pairs
        }
    if wrong := [name for name in found if not name.isidentifier() or name in GIVEN]:
        raise ValueError(f"{wrong[0]!r} cannot be set")
    return dict(found)


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE with commas between, in which double quotes keep commas, = and the spaces at the ends: a="x, y",b=z.

    A quote inside of quotes is written \\". ValueError where a part is no pair.
    """
    found = [re.fullmatch(rf"\s*({_WORD})\s*=\s*({_WORD})\s*", part) for part in _parts(text)]
    if wrong := [part for part, match in zip(_parts(text), found, strict=True) if not match]:
        raise ValueError(f"{wrong[0].strip()!r} is not NAME=VALUE")
    return tuple((_unquoted(match[1]), _unquoted(match[2])) for match in found if match)


def pair(name: str, value: str) -> str:
    """As `pairs` reads it."""
    return f"{_quoted(name)}={_quoted(value)}"


_QUOTED = r'"(?:[^"\\]|\\.)*"'
_WORD = rf"{_QUOTED}|[^\s=\"][^=\"]*?|"


def _parts(text: str) -> list[str]:
    return [part[0] for part in re.finditer(rf"(?:{_QUOTED}|[^,\"]|\")+", text) if part[0].strip()]


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL) if word.startswith('"') else word


def _quoted(word: str) -> str:
    if word and word == word.strip() and not set(word) & set(',="'):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


GIVEN = {
    "messages", "conversation", "tools", "chat_template", "add_generation_prompt", "continue_final_message",
    "tokenize", "return_dict", "return_assistant_tokens_mask", "strftime_now",
}  # fmt: skip
"""What a chat template gets from zolite alone."""


def _json_or_text(value: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(value)
    return value


def _no_value(name: str) -> Any:
    raise ValueError(f"{name.strip()!r} has no value: write name=value")
