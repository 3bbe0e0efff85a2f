"""Rows of the Hugging Face hub, hf:NAME[:CONFIG][:SPLIT], by the library `datasets`: the files of its cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError
from zolite.data.problems import some
from zolite.data.split_names import NAMES, SPLITS, split_in

PREFIX = "hf:"
PATIENCE = 10  # seconds for the hub's first answer


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
    known = {split: NAMES.get(split) or split_in(split) for split in reversed(list(table))}
    assigned = {meant: split for split, meant in known.items() if meant}
    found = {split: _files(table[assigned[split]]) for split in SPLITS if split in assigned}
    if not found:
        raise UsageError(f"{name} has no split called train, validation or test", f"name one: {_example(spec, table)}")
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


def _example(spec: str, table: Any) -> str:
    name, config, _ = parts(spec)
    return f"{PREFIX}{name}:{config or 'default'}:{next(iter(table))}"


def _loaded(spec: str, name: str, config: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        hint = "install it with `pip install datasets`, or give a file"
        raise UsageError(f"data {spec} is of the hub, which needs the library datasets", hint) from error
    datasets.disable_progress_bars()
    try:
        with _offline(name):
            return datasets.load_dataset(name, config or None)
    except Exception as error:
        what = " ".join(str(error).split())[:300]
        hint = f"with a network: `hf download {name} --repo-type dataset --local-dir rows`, then `--data rows`"
        if what.startswith("Config name is missing"):
            hint = f"name one, as in {PREFIX}{name}:CONFIG"
        raise UsageError(f"data {spec} cannot be loaded: {what}", hint) from error


@contextmanager
def _offline(name: str) -> Iterator[None]:
    """Where the hub does not answer, its libraries are told so: they would ask it again and again for a minute."""
    from huggingface_hub import HfApi, constants

    before = constants.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info(name, timeout=PATIENCE)
    except Exception:  # noqa: BLE001 - of the libraries for connections; what it was shows in what follows
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _files(table: Any) -> tuple[Path, ...]:
    return tuple(Path(each["filename"]) for each in table.cache_files)
