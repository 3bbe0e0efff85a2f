"""Which rows are train, dev and test: by the names of files, or a tenth of train held out as dev."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from zolite.common.errors import UsageError
from zolite.data.problems import refuse, some
from zolite.data.records import READERS
from zolite.data.table import Table

SPLITS = ("train", "dev", "test")
DEV = ("dev", "validation", "valid", "val", "eval")  # what tools call it
NAMES = {"train": "train", "test": "test"} | dict.fromkeys(DEV, "dev")  # a file's name without extension to its split
HELD_OUT = 200  # most rows taken out of train as dev: enough to see a difference of a few per cent


def files_of(path: Path) -> dict[str, Path]:
    """Split to file, in the order of SPLITS; one file alone counts as train. UsageError with all that is wrong."""
    if path.is_file():
        found = {"train": [path]}
    elif path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file())
        found = {split: [file for file in inside if NAMES.get(file.stem) == split] for split in SPLITS}
    else:
        raise UsageError(f"data {path} is no file and no folder", "give a folder with train.jsonl or .csv, or a file")
    problems = [
        f"{file.name}: {file.suffix or 'a file without extension'} is not supported"
        for files in found.values()
        for file in files
        if file.suffix.lower() not in READERS
    ]
    problems += [
        f"{split}: {len(files)} files ({some(file.name for file in files)})"
        for split, files in found.items()
        if len(files) > 1
    ]
    refuse(problems, "supported are .jsonl and .csv in UTF-8, one file a split")
    return {split: files[0] for split, files in found.items() if files}


def demand(path: Path, files: Mapping[str, Path], required: Iterable[str]) -> None:
    """Raises UsageError with the required splits that have no file."""
    missing = [split for split in SPLITS if split in required and split not in files]
    if missing:
        there = some(sorted(file.name for file in path.iterdir())) if path.is_dir() else f"one file: {path.name}"
        raise UsageError(
            f"data {path} has no {' and no '.join(missing)} file (it has {there})",
            f"give a folder with {' and '.join(f'{split}.jsonl or {split}.csv' for split in missing)}",
        )


def hold_out(rows: Table, file: str) -> tuple[Table, Table]:
    """(train, dev), both in file order: dev is the tenth with the lowest hashes, whatever the order of the rows."""
    if len(rows) < 2:
        refuse([f"{file}: {len(rows)} row; at least 2 are needed to hold one out as dev"], "add rows or a dev file")
    count = min(HELD_OUT, max(1, len(rows) // 10))
    hashes = [hashlib.sha256(content).digest() for content in rows.contents()]
    held = set(sorted(range(len(rows)), key=hashes.__getitem__)[:count])
    return rows.take(i for i in range(len(rows)) if i not in held), rows.take(sorted(held))
