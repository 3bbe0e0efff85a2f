"""What the module of a format has: WRITER, which writes files and says how they are read back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from zolite.export.readers import Reader
from zolite.export.source import Trained
from zolite.export.uses import Use


@dataclass(frozen=True)
class Card:
    """A format's part of the model card."""

    what: str  # beginning of the first sentence, in which {base} stands for the base model's name
    uses: tuple[Use, ...]  # how it is loaded, a program each
    library: str = ""  # a line of the card's header


@dataclass(frozen=True)
class Writer:
    write: Callable[[Trained, Path, str], None]  # into an empty folder, in a dtype
    card: Card
    rounding: Mapping[str, float]  # by dtype: nats a token that rounding to it may move a row's loss by (docs/log.md)
    readers: tuple[Reader, ...] = ()  # () leaves an export unchecked
    size: Callable[[Trained, str], int] = lambda trained, _: trained.adapter_bytes  # on the disk, about
    ollama: Callable[[Trained], tuple[list[str], list[str]]] = lambda _: ([], [])  # a Modelfile's files, and notes
