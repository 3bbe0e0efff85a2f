"""The frozen bases of space lora-core: the main directions of every adapted weight, found once and kept in the cache.

    found = bases(loaded, names, recipe)      of a model that is there
    found = recorded(session, names)           of a session, as a rule without its model

ΔW = scale · unit · U C V. C (r, r) is what a run trains; all points share U (out, r) and V (r, in), orthonormal:
the main directions in which the layer's outputs and its inputs differ from token to token. `unit` is the weight's norm
over √r: C = 1 then adds as much as the weight itself has, whatever a layer's size, so one ε and one learning rate mean
the same relative change everywhere. No spectrum is spread over C: its r² coordinates are to be equally long, for
isotropic directions would hardly look along the short ones.

A gradient is made of inputs and of what flows back through the outputs, so bases of activations hold much of it; the
weight's own first singular vectors, the obvious choice, hold less of it than random bases do (docs/log.md). The tokens
are TOKENS random ones: bases then belong to the model alone, not to anybody's rows, and are found again without them.
A sequence's first token is left out, since attention parks there what means nothing (arXiv 2309.17453).

Directions come from a randomised SVD (Halko, Martinsson and Tropp 2011, arXiv 0909.4061) of each layer's activations as
a forward comes by, in float32 on the model's device: the same bits for the same weights on one machine, but not on
every one. Sessions therefore hold a digest. Kept in float16, of which both products and exports are made: any numbers
near those would do, as long as they stay the same.

r rank, or a layer's smaller side where that is less.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import pad

from zolite.common import files
from zolite.common.errors import ZoliteError
from zolite.common.paths import paths
from zolite.config import sizes
from zolite.config.recipe import ResolvedRecipe
from zolite.engine import device_memory
from zolite.model import devices
from zolite.model import load as models
from zolite.model.loss import generic, own_logits
from zolite.model.quant import weight16
from zolite.sessions.session import Session

FORMAT, PARTS = 1, ("u", "v", "unit")
TOKENS = sizes.BASIS_TOKENS  # sequences and their length: more rows than any rank has columns
OVERSAMPLED, ROUNDS = 8, 2  # columns more than asked for, and power iterations


@dataclass(frozen=True)
class Basis:
    """Of one layer, on the CPU."""

    u: Tensor  # (out, r) float16, orthonormal columns
    v: Tensor  # (r, in) float16, orthonormal rows
    unit: Tensor  # () float32


@dataclass(frozen=True)
class Bases:
    layers: dict[str, Basis]  # by the layer's full name
    rank: int
    device: str  # that they were found on
    digest: str  # sha256 of all their bytes

    @property
    def facts(self) -> dict[str, str]:
        """What a session notes of them."""
        return {"digest": self.digest, "device": self.device}

    def factors(self, cores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cores by block name ("model.layers.0.….c") to the ordinary adapter, float32: A = V and B = unit · U C.

        Thinner ones are filled up with zeros, since an adapter has one rank.
        """
        made = {}
        for name, core in cores.items():
            layer = name.rpartition(".")[0]
            basis, missing = self.layers[layer], self.rank - len(core)
            a, b = basis.v.to(core), basis.u.to(core) @ core * float(basis.unit)
            made[f"{layer}.a"], made[f"{layer}.b"] = pad(a, (0, 0, 0, missing)), pad(b, (0, missing))
        return made


def bases(loaded: models.Loaded, names: Iterable[str], recipe: ResolvedRecipe) -> Bases:
    """From the cache, or found now and put there. The model must not carry adapters yet."""
    ordered, rank = sorted(names), recipe.adapter.rank
    file = place(loaded.fingerprint, recipe, ordered)
    if (kept := read(file)) is not None:
        return kept
    layers = find(loaded, ordered, rank)
    made = Bases(layers, rank, device_memory.device_name(loaded.device), digest(layers))
    data = save(_tensors(layers), {"about": json.dumps({**made.facts, "rank": rank})})
    with files.saving("the frozen bases", file, len(data)):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(file, data)
    return made


def recorded(session: Session, names: Iterable[str]) -> Bases:
    """Those that a session was trained with: from the cache, or found again in its model's weights."""
    recipe, known, ordered = session.recipe, session.facts["model"], sorted(names)
    found = read(place(known, recipe, ordered))
    if found is None:
        source, device = models.source_of(recipe.model), devices.pick(recipe.model.device)
        found = bases(models.load(source, recipe.model.quant, device, paths()["cache"]), ordered, recipe)
    ensure_same(session, found)
    return found


def ensure_same(session: Session, found: Bases | None) -> None:
    """A session's cores mean nothing between other frozen bases."""
    noted = session.facts.get("frames")
    if found is None or noted == found.facts or (noted or {}).get("digest") == found.digest:
        return
    was = f"{noted['digest'][:16]}, found on {noted['device']}" if noted else "none"
    raise ZoliteError(
        f"session {session.name} was trained between other frozen bases: they were {was}; "
        f"now they are {found.digest[:16]}, found on {found.device}",
        f"go on where it was trained, or copy {_folder()} from there: another device, or another "
        "version of torch, rounds them differently",
    )


def place(fingerprint: str, recipe: ResolvedRecipe, names: list[str]) -> Path:
    """The file of the cache that such frozen bases are in."""
    key = json.dumps([FORMAT, fingerprint, recipe.model.quant, recipe.adapter.rank, names])
    return _folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def _folder() -> Path:
    return paths()["cache"] / "frames"  # its name in caches that there are


@torch.no_grad()
def find(loaded: models.Loaded, names: Sequence[str], rank: int) -> dict[str, Basis]:
    """Of every layer, in one forward; where that says too little of one, between its weight's own directions."""
    layers: dict[str, Basis] = {}

    def hook(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, y = varying(inputs[0]), varying(output)
        if len(x) >= rank and bool(x.isfinite().all() & y.isfinite().all()):
            layers[name] = basis(weight_of(module), x, y, rank)

    modules = {name: loaded.model.get_submodule(name) for name in names}
    handles = [module.register_forward_hook(partial(hook, name)) for name, module in modules.items()]
    words = loaded.model.get_input_embeddings().num_embeddings
    ids = torch.randint(words, TOKENS, generator=torch.Generator().manual_seed(0)).to(loaded.device)
    try:
        (own_logits if loaded.own_logits else generic)(loaded.model)(ids, ids.new_zeros(1))
    finally:
        for handle in handles:
            handle.remove()
    for name in modules.keys() - layers.keys():
        weight = weight_of(modules[name])
        layers[name] = basis(weight, weight, weight.mT, rank)
    return layers


def weight_of(layer: nn.Module) -> Tensor:
    return weight16(layer, torch.float32).float()


def varying(x: Tensor) -> Tensor:
    """Activations (sequences, tokens, width) to what differs between tokens, first ones left out: (rows, width)."""
    rows = (x[:, 1:] if x.dim() == 3 else x).float().flatten(0, -2)
    return rows - rows.mean(dim=0)


def basis(weight: Tensor, inputs: Tensor, outputs: Tensor, rank: int) -> Basis:
    """Between the main directions of a layer's outputs (rows, out) and inputs (rows, in); weight (out, in)."""
    r = min(rank, *weight.shape)
    u, v = (main(x, r).to(torch.float16).cpu() for x in (outputs, inputs))
    return Basis(u.contiguous(), v.mT.contiguous(), (weight.norm() / r**0.5).cpu())


def main(x: Tensor, r: int) -> Tensor:
    """The first r right singular vectors of x (rows, columns), (columns, r), from fixed random numbers."""
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(0)
        return torch.svd_lowrank(x, min(r + OVERSAMPLED, *x.shape), ROUNDS)[2][:, :r]


def read(file: Path) -> Bases | None:
    """A file of the cache; None where there is none, or not all that was written."""
    try:
        with safe_open(file, "pt") as opened:
            about: dict[str, Any] = json.loads(opened.metadata()["about"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        names = {name.rpartition(".")[0] for name in tensors}
        layers = {name: Basis(*(tensors[f"{name}.{part}"] for part in PARTS)) for name in names}
        if digest(layers) != about["digest"]:
            return None
        return Bases(layers, about["rank"], about["device"], about["digest"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def digest(layers: Mapping[str, Basis]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(_tensors(layers).items()):
        found.update(f"{name} {tuple(tensor.shape)} ".encode())
        found.update(tensor.numpy().data)
    return found.hexdigest()


def _tensors(layers: Mapping[str, Basis]) -> dict[str, Tensor]:
    return {f"{name}.{part}": getattr(basis, part) for name, basis in layers.items() for part in PARTS}
