"""Checkpoints: a folder each, whole or not there. `checkpoints/000500/` holds the numbers after step 500."""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zolite.common import guarded
from zolite.common.files import DAMAGE, fsync_folder, reading, remove_tree, saving, size, write_new

if TYPE_CHECKING:
    import torch

PARAMS, STATE, MANIFEST = "params.safetensors", "state.json", "manifest.json"
NEWEST_KEPT = 3
MOST_MANIFEST, MOST_STATE, MOST_HEADER = 64 << 10, 8 << 20, 16 << 20  # bytes; the header is that of the tensors


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was whole when it was looked at."""

    step: int
    path: Path
    digest: str  # sha256 over the digests of its files

    def tensors(self) -> dict[str, "torch.Tensor"]:
        """On the CPU."""
        from safetensors.torch import load_file

        with reading(f"checkpoint {self.step}", self.path):
            return load_file(self.path / PARAMS)

    def state(self) -> dict[str, Any]:
        """Whatever was saved beside the tensors."""
        with reading(f"checkpoint {self.step}", self.path):
            state: dict[str, Any] = guarded.json_of(self.path / STATE, MOST_STATE)
        return state


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, "torch.Tensor"],
    state: Mapping[str, Any],
    keep: Collection[int] = (),
    budget: float = inf,
) -> Checkpoint:
    """Saves beside and renames, so the name appears with everything under it. Then old ones go, but for `keep`.

    Of the newest three those go too that would take the folder over `budget` bytes; the very newest stays.
    """
    target, partial = folder / f"{step:06d}", folder / f".{step:06d}.partial-{os.getpid()}"
    files = packed(tensors, state)
    with saving(f"step {step}", folder, sum(map(len, files.values()))):
        if isinstance(found := inspect(target), Checkpoint):
            fsync_folder(folder)  # an attempt that failed last of all may not have
            return found
        if os.path.lexists(target):
            target.rename(folder / f"{target.name}.broken-{time.time_ns()}")
        try:
            made = _build(partial, step, files)
            partial.rename(target)
        except BaseException:
            _discard(partial)
            raise
        fsync_folder(folder)
    remove(folder, unwanted(folder, keep, budget))
    return Checkpoint(step, target, made)


def unwanted(folder: Path, keep: Collection[int], budget: float) -> list[int]:
    """The steps whose checkpoints may go."""
    newest, *others = steps(folder)
    sizes = {step: size(folder / f"{step:06d}") for step in (newest, *others)}
    left = budget - sum(sizes[step] for step in {newest, *keep} & sizes.keys())
    gone = []
    for place, step in enumerate(s for s in others if s not in keep):
        left -= sizes[step]
        if left < 0 or place >= NEWEST_KEPT - 1:
            gone.append(step)
    return gone


def newest(folder: Path, upto: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint (not after `upto`), and what is wrong with those that are newer."""
    problems: list[str] = []
    for step in steps(folder):
        if upto is not None and step > upto:
            continue
        found = inspect(folder / f"{step:06d}")
        if isinstance(found, Checkpoint):
            return found, problems
        problems.append(found)
    return None, problems


def at(folder: Path, step: int) -> Checkpoint | None:
    """The checkpoint of that step, if there is one and it is whole."""
    found = inspect(folder / f"{step:06d}")
    return found if isinstance(found, Checkpoint) else None


def inspect(path: Path) -> Checkpoint | str:
    """The checkpoint in a folder, every byte checked, or what is wrong with it."""
    try:
        guarded.ensure_folder(path)
        manifest = guarded.json_of(path / MANIFEST, MOST_MANIFEST)
        files = {name: manifest["files"][name] for name in (PARAMS, STATE)}
        if manifest["step"] != int(path.name):
            return f"checkpoint {path.name} is broken: its manifest says step {manifest['step']}"
        for name, noted in files.items():
            if (found := _facts(path / name, noted["bytes"])) != noted:
                sizes = f"{found['bytes']} bytes, {noted['bytes']} were saved"
                return f"checkpoint {path.name} is broken: {name} is not what was saved ({sizes})"
    except DAMAGE as error:
        return f"checkpoint {path.name} is broken: {type(error).__name__}: {error}"
    return Checkpoint(int(path.name), path, _digest(files))


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, whole or not, newest first."""
    names = (path.name for path in folder.glob("*"))
    return sorted((int(n) for n in names if n.isascii() and n.isdigit() and n == f"{int(n):06d}"), reverse=True)


def remove(folder: Path, unwanted: Collection[int]) -> None:
    """Renames first, so that a kill halfway leaves a leftover and not a broken checkpoint.

    What cannot be removed stays: an old checkpoint too many is no reason to stop a run.
    """
    for step in unwanted:
        leftover = folder / f".{step:06d}.partial-{os.getpid()}"
        with contextlib.suppress(OSError):
            (folder / f"{step:06d}").rename(leftover)
        _discard(leftover)
        _discard(folder / f"{step:06d}")  # there may have been no room for another name


def left(folder: Path) -> list[Path]:
    """What killed processes left, which the holder of the session's lock may remove: nobody else is saving then."""
    return [folder / name for name in os.listdir(folder) if name.startswith(".") and ".partial-" in name]


def set_aside(folder: Path, after: int) -> list[int]:
    """Takes the checkpoints after a step, which the journal does not reach, out of use; which those were."""
    ahead = [step for step in steps(folder) if step > after]
    for step in ahead:
        (folder / f"{step:06d}").rename(folder / f"{step:06d}.ahead-{time.time_ns()}")
    return ahead


def out_of_use(folder: Path) -> list[Path]:
    """Broken ones that were set aside."""
    return [path for path in folder.glob("*.broken-*") if path.name.partition(".")[0].isdigit()]


def packed(tensors: Mapping[str, "torch.Tensor"], state: Mapping[str, Any]) -> dict[str, bytes]:
    """A checkpoint's files; the same numbers make the same bytes."""
    import torch
    from safetensors.torch import save as to_bytes

    # A copy of each: views of one buffer, which is what the blocks of a Space are, may not share a file.
    copies = {k: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for k, t in tensors.items()}
    return {PARAMS: to_bytes(copies), STATE: json.dumps(dict(state), indent=1).encode()}


def digest(files: Mapping[str, bytes]) -> str:
    """What tells a checkpoint from another: sha256 over the digests of its files."""
    return _digest({name: _noted(data) for name, data in files.items()})


def copy(found: Checkpoint, folder: Path) -> None:
    """A whole checkpoint into another session: its files and nothing else that may lie there."""
    target = folder / found.path.name
    target.mkdir(mode=0o700)
    for name in (PARAMS, STATE, MANIFEST):
        with guarded.opened(found.path / name) as source, (target / name).open("xb") as copied:
            shutil.copyfileobj(source, copied, 1 << 20)


def _discard(path: Path) -> None:
    """What cannot be removed stays, for the next one to try."""
    with contextlib.suppress(OSError):
        remove_tree(path)


def _build(partial: Path, step: int, files: Mapping[str, bytes]) -> str:
    """Writes the folder, everything in it on the disk when this returns; the manifest last. Returns the digest."""
    _discard(partial)
    partial.mkdir(mode=0o700)  # not its parents: a session that was moved away does not come back as a ghost
    for name, data in files.items():
        write_new(partial / name, data)
    noted = {name: _noted(data) for name, data in files.items()}
    manifest = {"step": step, "zolite": version("zolite"), "files": noted}
    write_new(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
    fsync_folder(partial)
    return _digest(noted)


def _noted(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _facts(path: Path, size: int) -> dict[str, Any]:
    """Of a file that should have that size; the digest of another one is not worth the time that it takes."""
    with guarded.opened(path) as f:
        found = os.fstat(f.fileno()).st_size
        return {"sha256": hashlib.file_digest(f, "sha256").hexdigest() if found == size else "", "bytes": found}


def _digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    return hashlib.sha256("".join(files[name]["sha256"] for name in (PARAMS, STATE)).encode()).hexdigest()
