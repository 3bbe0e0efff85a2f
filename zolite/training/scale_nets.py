"""Learned optimizers on disk: a small network for every block of an adapter, as `zolite learn-optimizer` makes it.

A FILE (safetensors) has one tensor (WEIGHTS,) float32 a block, by the block's name: w₁ (64, 5) by rows, b₁, w₂, b₂ of
zo/samplers.py. FILE.json beside it says what it was learned on, and holds the sha256 of FILE. It serves any data, but
only the model, the space and the rank that it was learned with.

ZO Fine-tuner, arXiv 2510.00419, publishes networks as pickled modules, one for each of a model's own weights; `convert`
reads those without running anything in them. Departure: a converted file has no networks for adapters, so both factors
of a layer's adapter take the network of the layer's weight ("….q_proj.weight" for "….q_proj.b"), and since such a file
says nothing of its model, only the names are checked.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from zolite.common import files
from zolite.common.errors import UsageError, listed
from zolite.config.recipe import Recipe, override
from zolite.config.spaces import SPACES
from zolite.zo.build import Nets, blank
from zolite.zo.samplers import INPUTS, NET, WEIGHTS
from zolite.zo.space import Block, Space

FORMAT = 1
MAKES_ONE = "`zolite learn-optimizer MODEL --data PATH --out FILE` makes one"
PUBLISHED = (  # of a module, by the order of WEIGHTS: where a tensor is, and its shape
    (0, "weight", (NET, INPUTS)),
    (0, "bias", (NET,)),
    (2, "weight", (1, NET)),
    (2, "bias", (1,)),
)


def fitted(recipe: Recipe) -> Recipe:
    """With the space and the rank that its networks are for, where the recipe leaves them open."""
    part, file = recipe.adapter, recipe.method.optimizer
    if not file or (part.space and part.rank):
        return recipe
    about, _ = open_(Path(file).expanduser())
    space, rank = part.space or about.get("space") or "", part.rank or about.get("rank") or 0
    return override(recipe, {"adapter.space": space, "adapter.rank": rank})


def networks(file: str, fingerprint: str) -> Nets:
    """The networks in a file for a space on the model of that fingerprint; blank ones where the recipe names no file.

    Raises UsageError, once it is given the space, where the file is broken or is for another model, space or rank.
    """
    return (lambda space: read(Path(file).expanduser(), fingerprint, space)) if file else blank


def read(path: Path, fingerprint: str, space: Space) -> Tensor:
    """The networks of a space's blocks, in their order: (blocks, WEIGHTS) float32. Raises UsageError."""
    about, held = open_(path)
    if problems := _differences(about, fingerprint, space):
        raise UsageError(f"{path} is for another adapter:\n{listed(problems)}", f"learn one for this run: {MAKES_ONE}")
    names = {block.name: _network(block, held) for block in space.blocks}
    missing = [block for block, name in names.items() if name not in held or held[name].shape != (WEIGHTS,)]
    if missing:
        raise UsageError(
            f"{path} has no network for {len(missing)} of {len(names)} blocks, {missing[0]} among them",
            "learn one on this model, with the same targets",
        )
    return torch.stack([held[name].float() for name in names.values()])


def open_(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what is beside a file, its tensors by name). Raises UsageError unless the two belong together."""
    try:
        data, about = path.read_bytes(), json.loads(beside(path).read_bytes())
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, not {FORMAT}")
        if about["sha256"] != hashlib.sha256(data).hexdigest():
            raise ValueError(f"its {len(data)} bytes are not those that {beside(path).name} was written with")
        return about, safetensors.load(data)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UsageError(f"{path} is no learned optimizer: {error}", MAKES_ONE) from error


def write(path: Path, nets: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Networks (WEIGHTS,) by name, and what should be known of them. A reader sees the old pair, the new or neither."""
    data = safetensors.save({name: net.detach().float().cpu().clone() for name, net in nets.items()})
    document = {"format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), **about}
    with files.saving("the learned optimizer", path, len(data)):
        files.replace(path, data)
        files.replace(beside(path), json.dumps(document, indent=1, ensure_ascii=False).encode())


def beside(path: Path) -> Path:
    """FILE.json of a FILE."""
    return path.with_name(f"{path.name}.json")


def ensure_free(path: Path) -> None:
    """UsageError if a file could not be written there, or would take another's place."""
    files.ensure_free(path, beside(path))


def convert(source: Path, target: Path) -> int:
    """A checkpoint as the authors of arXiv 2510.00419 publish them to a file; how many networks it has.

    Theirs is torch.save of a dict: name of a weight → nn.Sequential(Linear(5, 64), Tanh(), Linear(64, 1)). It is
    unpickled with those three classes and plain containers alone. Raises UsageError at anything else.
    """
    modules = _unpickled(source)
    if type(modules) is not dict or not modules or any(type(name) is not str for name in modules):
        raise UsageError(f"{source} holds no networks by name", "a published checkpoint is a dict of them")
    nets = {name: _flat(source, name, module) for name, module in modules.items()}
    write(target, nets, {"model": None, "space": None, "rank": None, "converted": source.name})
    return len(nets)


def _unpickled(source: Path) -> Any:
    try:
        with torch.serialization.safe_globals([nn.Sequential, nn.Linear, nn.Tanh, set]):
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle fails in any way it likes
        first = str(error).strip().partition("\n")[0][:300]
        raise UsageError(
            f"{source} was not read: {type(error).__name__}: {first}",
            "only dicts of nn.Sequential(Linear, Tanh, Linear) are, and nothing else in a file is ever run",
        ) from error


def _flat(source: Path, name: str, module: Any) -> Tensor:
    """A published network as (WEIGHTS,) float32."""
    kinds = [type(m) for m in module.children()] if type(module) is nn.Sequential else [type(module)]
    if kinds != [nn.Linear, nn.Tanh, nn.Linear]:
        found = ", ".join(kind.__name__ for kind in kinds)
        raise UsageError(f"{source}: {name} is made of {found}", "a published network is of Linear, Tanh and Linear")
    parts = [(getattr(module[i], which), shape) for i, which, shape in PUBLISHED]
    for part, shape in parts:
        if not isinstance(part, Tensor) or part.shape != shape or not bool(part.isfinite().all()):
            found = f"a {tuple(part.shape)}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
            raise UsageError(
                f"{source}: {name} has {found} for {shape} finite numbers",
                f"a published network is Linear({INPUTS}, {NET}), Tanh(), Linear({NET}, 1)",
            )
    return torch.cat([part.detach().float().flatten() for part, _ in parts])


def _network(block: Block, held: Mapping[str, Tensor]) -> str:
    """The name of a block's network: its own or, in a converted file, that of its layer's weight."""
    return block.name if block.name in held else f"{block.name.rpartition('.')[0]}.weight"


def _differences(about: Mapping[str, Any], fingerprint: str, space: Space) -> list[str]:
    """What keeps a file from serving a space; what a converted file does not know is no difference."""
    trained = {block.name.rpartition(".")[2] for block in space.blocks}
    rank = max(block.shape[block.name.endswith(".b")] for block in space.blocks)
    here = {
        "model": fingerprint,
        "space": next((name for name, row in SPACES.items() if set(row.trained) == trained), "no adapter"),
        "rank": rank,
    }
    return [
        f"its {what} is {str(about[what])[:60]}, this run's is {str(now)[:60]}"
        for what, now in here.items()
        if about.get(what) not in (None, now)
    ]
