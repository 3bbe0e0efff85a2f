"""Rows of the Hugging Face hub, hf:NAME[:CONFIG][:SPLIT], by the library `datasets`: the files of its cache."""

from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError
from zolite.data.problems import some
from zolite.data.split_names import NAMES, SPLITS, split_in

PREFIX = "hf:"


def is_meant(spec: str) -> bool:
    return spec.startswith(PREFIX)


def look(spec: str) -> tuple[dict[str, tuple[Path, ...]], tuple[str, ...]]:
    """(split to the files of its rows, what a person should know of the choice). UsageError where there are none."""
    name, config, wanted = parts(spec)
    table = _loaded(spec, name, config)
    if wanted:
        if wanted not in table:
            raise UsageError(f"{name} has no split {wanted}", f"it has: {some(table)}")
        return {"train": _files(table[wanted])}, ()
    assigned = {NAMES.get(split) or split_in(split): split for split in reversed(list(table))}
    found = {split: _files(table[assigned[split]]) for split in SPLITS if split in assigned}
    if not found:
        found, assigned = {"train": _files(table[next(iter(table))])}, {"train": next(iter(table))}
    others = [split for split in table if split not in assigned.values()]
    return found, (f"splits that are not read: {some(others)}",) if others else ()


def parts(spec: str) -> tuple[str, str, str]:
    """(name, configuration, split) of hf:NAME[:CONFIG][:SPLIT], empty where they are left out; UsageError."""
    name, *rest = spec.removeprefix(PREFIX).split(":")
    if not name or len(rest) > 2:
        raise UsageError(f"data {spec} names no rows of the hub", "as hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT")
    if len(rest) == 1 and rest[0] in NAMES:
        return name, "", rest[0]
    config, split = [*rest, "", ""][:2]
    return name, config, split


def _loaded(spec: str, name: str, config: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        hint = "install it with `pip install datasets`, or give a file"
        raise UsageError(f"data {spec} is of the hub, which needs the library datasets", hint) from error
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config or None)
    except Exception as error:
        what = " ".join(str(error).split())[:300]
        hint = f"with a network: `hf download {name} --repo-type dataset --local-dir rows`, then `--data rows`"
        raise UsageError(f"data {spec} cannot be loaded: {what}", hint) from error


def _files(table: Any) -> tuple[Path, ...]:
    return tuple(Path(each["filename"]) for each in table.cache_files)
