"""Tokens of large data sets, kept in the cache from one run to the next.

    kept = entry(dataset, tokenizer, template, context, limits)      None where the rows are few
    kept.read(), or with kept.making() as made: … ; made.finish(about)

An entry is a folder of the files of token_store.Writer and about.json, which has the sha256 of each. Its name is a hash
of all that the tokens depend on. It is written under another name and renamed when it is whole; one that is not what
was written is made again. The entries that were not used for the longest time are removed where all take more than
MOST_BYTES.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zolite.common import files
from zolite.common.paths import paths
from zolite.data.chat_template import told
from zolite.data.kinds.registry import KINDS
from zolite.data.token_store import ARRAYS, TokenStore, opened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from zolite.data.rows import Dataset

MOST_BYTES = 8 * 2**30  # of all entries
ABANDONED = 24 * 3600  # seconds after which a folder that is still being made is one of a killed process
ABOUT = "about.json"
LIBRARIES = ("tokenizers", "transformers")


@dataclass(frozen=True)
class Entry:
    folder: Path
    splits: tuple[str, ...]

    def read(self) -> tuple[dict[str, TokenStore], dict[str, Any]] | None:
        """(split to examples, what `finish` was given); None where there is nothing, or not all that was written."""
        try:
            about = json.loads((self.folder / ABOUT).read_bytes())
            if any(_digest(self.folder / name) != digest for name, digest in about["sha256"].items()):
                return None
            stores = {split: _opened(self.folder, split, about["words"][split]) for split in self.splits}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(self.folder / ABOUT)  # when it was used last
        return stores, about["told"]

    @contextmanager
    def making(self) -> Iterator[Path]:
        """A folder for the files of every split, that `finish` gives its name; removed where that does not happen."""
        where: dict[str, Any] = {"dir": self.folder.parent, "prefix": ".partial-", "ignore_cleanup_errors": True}
        with files.caching("tokens"):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            tidy(self.folder.parent)
            with tempfile.TemporaryDirectory(**where) as made:
                yield Path(made)

    def finish(self, made: Path, stores: dict[str, TokenStore], told: dict[str, Any]) -> None:
        """Writes about.json and renames the folder; nothing where another process was first."""
        names = [f"{split}.{part}" for split in self.splits for part in ARRAYS]
        about = {
            "told": told,
            "words": {split: list(stores[split].words) for split in self.splits},
            "sha256": {name: _digest(made / name) for name in names},
        }
        files.write_new(made / ABOUT, json.dumps(about).encode())
        files.fsync_folder(made)
        for _ in range(2):
            with contextlib.suppress(OSError):
                os.rename(made, self.folder)
                made.mkdir()  # for `making` to remove
                break
            if self.read() is not None:
                break
            _remove(self.folder)  # damaged
        files.fsync_folder(self.folder.parent)


def entry(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, template: str, context: int, limits: tuple[int, int]
) -> Entry | None:
    """Where the tokens of these rows are kept; None where they are few, or the tokenizer cannot be told by its data."""
    if all(rows.in_memory for rows in dataset.splits.values()) or not tokenizer.is_fast:
        return None
    chat = told(tokenizer) if KINDS[dataset.kind].prompt(template).chat else ""
    backend: Any = tokenizer
    parts = (
        dataset.fingerprint,
        *(f"{split}: {len(rows)}" for split, rows in dataset.splits.items()),
        json.dumps([dataset.labels, template, context, limits, chat, str(tokenizer.eos_token_id), _code()]),
        *(f"{name} {version(name)}" for name in LIBRARIES),
        backend.backend_tokenizer.to_str(),
    )
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return Entry(paths()["cache"] / "tokens" / name, tuple(dataset.splits))


def clear() -> tuple[int, int]:
    """Removes every entry, and what killed processes left: how many, and their bytes."""
    folder, count, freed = paths()["cache"] / "tokens", 0, 0
    for each in folder.iterdir() if folder.is_dir() else ():
        if not each.name.startswith(".partial-") or time.time() - each.stat().st_mtime > ABANDONED:
            count, freed = count + 1, freed + files.size(each)
            _remove(each)
    return count, freed


def tidy(folder: Path) -> None:
    """Removes what killed processes left, and the entries used longest ago where all take more than MOST_BYTES."""
    entries: list[tuple[float, int, Path]] = []
    for each in folder.iterdir():
        with contextlib.suppress(OSError):
            if each.name.startswith("."):
                if time.time() - each.stat().st_mtime > ABANDONED:
                    _remove(each)
            else:
                entries.append(((each / ABOUT).stat().st_mtime, files.size(each), each))
    total = sum(size for _, size, _ in entries)
    for _, size, each in sorted(entries):
        if total <= MOST_BYTES:
            return
        _remove(each)
        total -= size


def _remove(folder: Path) -> None:
    """At once for readers: what has them open goes on with them."""
    gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        os.rename(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _opened(folder: Path, split: str, words: list[str]) -> TokenStore:
    return opened({part: folder / f"{split}.{part}" for part in ARRAYS}, words)


def _digest(file: Path) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


@functools.cache
def _code() -> str:
    """Of the modules that make tokens of rows: a change of any of them makes other entries."""
    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()
