"""What the small files of a model claim, looked at before a library believes them: they come from anywhere.

check(folder)      a config of 10⁹ layers, 300,000 added tokens: refused in the time that it takes to read the files
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zolite.common.errors import ZoliteError
from zolite.common.weight_headers import Header

MOST = (
    (re.compile(r"layers?$|^block_count$|^depth$"), 4096),
    (re.compile(r"experts"), 2**16),
    (re.compile(r"position|n_ctx|^context_length$"), 2**27),
    (re.compile(r""), 2**31),
)
"""The first that a number's name matches is its bound: each some ten times what any published model has."""
MOST_LISTED = 2**16  # entries of a list in a config
MOST_ADDED = 100_000  # tokens beside a vocabulary: a library takes 7 s for so many
MOST_BYTES = {"config.json": 16 << 20, "tokenizer.json": 256 << 20, "tokenizer_config.json": 64 << 20}
PACKED = 16  # weights in one number of a file, at most
SHARED = 4  # layers that share their weights, about: of architectures that do


def check(folder: Path) -> None:
    """Raises ZoliteError where a config or a tokenizer would take a library's time or memory without end."""
    for name, most in MOST_BYTES.items():
        if (folder / name).is_file() and (size := (folder / name).stat().st_size) > most:
            raise ZoliteError(f"{folder / name} has {size >> 20} MiB, and {most >> 20} are the most", ELSEWHERE)
    refuse_absurd(str(folder / "config.json"), _config(folder))
    added = max(_added(folder))
    if added > MOST_ADDED:
        what = f"the tokenizer of {folder} has {added:,} added tokens, and {MOST_ADDED:,} are the most"
        raise ZoliteError(what, "put them into its vocabulary: a library searches for each one of them in every text")


ELSEWHERE = "take the model from where it was published"


def refuse_absurd(name: str, config: Mapping[str, Any]) -> None:
    """Raises ZoliteError with every number of a config that no model has."""
    if absurd := list(_absurd(config)):
        raise ZoliteError(f"{name} makes no sense: {', '.join(absurd[:5])}", ELSEWHERE)


def refuse_hollow(folder: Path, header: Header) -> None:
    """Raises ZoliteError where a config describes a far larger model than the files of weights hold."""
    config = _config(folder)
    text = {**config, **(config.get("text_config") or {})}
    layers, width, words = (_first(text, *names) for names in (LAYERS, WIDTHS, ("vocab_size",)))
    least = layers * width * width // SHARED
    held = 0
    for shape in header.tensors.values():
        count = 1
        for side in shape:
            count *= side
        held += count
    if least > PACKED * held:
        raise ZoliteError(
            f"{folder / 'config.json'} describes {layers:,} layers of width {width:,} and {words:,} words, which "
            f"{held:,} numbers in its files cannot be",
            ELSEWHERE,
        )


LAYERS, WIDTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers"), ("hidden_size", "n_embd", "d_model")


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((value for name in names if isinstance(value := config.get(name), int)), 0)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # a library says what is wrong with it
    return found if isinstance(found, dict) else {}


def _absurd(table: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, Mapping) and depth < 8:
            yield from _absurd(value, depth + 1)
        elif isinstance(value, list) and len(value) > MOST_LISTED:
            yield f"{name} lists {len(value):,} entries"
        elif isinstance(value, int) and value > (most := next(most for like, most in MOST if like.search(str(name)))):
            yield f"{name} is {value:,}, and {most:,} is the most"


def _added(folder: Path) -> Iterator[int]:
    """By each of the files that list them: counted in the text, which takes a hundredth of the time of reading it."""
    yield 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            yield (folder / name).read_bytes().count(b'"single_word"')
    if (folder / "added_tokens.json").is_file():
        yield (folder / "added_tokens.json").read_bytes().count(b'":')
