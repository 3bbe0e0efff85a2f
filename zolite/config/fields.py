"""Settings as dataclass fields that say what they mean: one source for checks, help texts, forms and flags."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Meaning:
    """What a setting is, beside its type and default."""

    help: str
    flags: tuple[str, ...] = ()  # of `zolite train`, such as ("--lr", "--learning-rate"); without one it has --set
    was: str = ""  # the name that it had before, as PART.KEY: still read, for one version


def setting(default: Any, help: str, *, flags: tuple[str, ...] = (), was: str = "") -> Any:
    """A field of a part of the recipe. A default of None leaves the choice to zolite."""
    return dataclasses.field(default=default, metadata={"meaning": Meaning(help, flags, was)})


def meaning(field: "dataclasses.Field[Any]") -> Meaning:
    found: Meaning = field.metadata["meaning"]
    return found
