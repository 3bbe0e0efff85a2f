"""The frames of space lora-core: the main directions of every adapted weight, found once and kept in the cache.

    found = frames(loaded, names, recipe)      of a model that is there
    found = recorded(session, names)           of a session, as a rule without its model

ΔW = scale · unit · U C V. U (out, r) and V (r, in) are the first singular vectors of the weight as it is multiplied,
C (r, r) is what a run trains; all points share U and V. Both are orthonormal, and `unit` is the root mean square of the
r singular values between them: C = 1 then adds as much as the weight itself has there, whatever a layer's size, so one
ε and one learning rate mean the same relative change in every layer. The singular values are not spread over C: its
r² coordinates are to be equally long, for isotropic directions would hardly look along the short ones.

The vectors come from a randomised SVD (Halko, Martinsson and Tropp 2011, arXiv 0909.4061), layer by layer, in float32
on the model's device: the same bits for the same weights on one machine, but not on every one. Sessions therefore hold
a digest. Kept in float16, which is what they are multiplied and exported in: any numbers near those would do, as long
as they stay the same.

r rank, or a layer's smaller side where that is less.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import pad

from zolite import disk
from zolite.engine import probe
from zolite.errors import ZoliteError
from zolite.model import load as models
from zolite.model.quant import weight16
from zolite.paths import paths
from zolite.recipe import Recipe
from zolite.session import Session

FORMAT = 1
OVERSAMPLED, ROUNDS = 8, 2  # columns more than asked for, and power iterations


@dataclass(frozen=True)
class Frame:
    """Of one layer, on the CPU."""

    u: Tensor  # (out, r) float16, orthonormal columns
    s: Tensor  # (r,) float32, the singular values, largest first
    v: Tensor  # (r, in) float16, orthonormal rows

    @property
    def unit(self) -> float:
        return float(self.s.square().mean().sqrt())


@dataclass(frozen=True)
class Frames:
    layers: dict[str, Frame]  # by the layer's full name
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
            frame, missing = self.layers[layer], self.rank - len(core)
            a, b = frame.v.to(core), frame.u.to(core) @ core * frame.unit
            made[f"{layer}.a"], made[f"{layer}.b"] = pad(a, (0, 0, 0, missing)), pad(b, (0, missing))
        return made


def frames(loaded: models.Loaded, names: Iterable[str], recipe: Recipe) -> Frames:
    """From the cache, or found now and put there. The model must not carry adapters yet."""
    ordered, rank = sorted(names), recipe.adapter.rank
    file = place(loaded.fingerprint, recipe, ordered)
    if (kept := read(file)) is not None:
        return kept
    layers = {name: frame(weight16(loaded.model.get_submodule(name), torch.float32), rank) for name in ordered}
    made = Frames(layers, rank, probe.device_name(loaded.device), digest(layers))
    data = save(_tensors(layers), {"about": json.dumps({**made.facts, "rank": rank})})
    with disk.saving("the frames", file, len(data)):
        file.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(file, data)
    return made


def recorded(session: Session, names: Iterable[str]) -> Frames:
    """Those that a session was trained with: from the cache, or found again in its model's weights."""
    recipe, known, ordered = session.recipe, session.facts["model"], sorted(names)
    found = read(place(known, recipe, ordered))
    if found is None:
        source, device = models.resolve(recipe.model.name), models.pick_device(recipe.model.device)
        found = frames(models.load(source, recipe.model.quant, device, paths()["cache"]), ordered, recipe)
    ensure_same(session, found)
    return found


def ensure_same(session: Session, found: Frames | None) -> None:
    """A session's cores mean nothing between other frames."""
    noted = session.facts.get("frames")
    if found is None or noted == found.facts or (noted or {}).get("digest") == found.digest:
        return
    was = f"{noted['digest'][:16]}, found on {noted['device']}" if noted else "none"
    raise ZoliteError(
        f"session {session.name} was trained between other frames: they were {was}; "
        f"now they are {found.digest[:16]}, found on {found.device}",
        f"go on where it was trained, or copy {paths()['cache'] / 'frames'} from there: another device, or another "
        "version of torch, rounds them differently",
    )


def place(fingerprint: str, recipe: Recipe, names: list[str]) -> Path:
    """The file of the cache that such frames are in."""
    key = json.dumps([FORMAT, fingerprint, recipe.model.quant, recipe.adapter.rank, names])
    return paths()["cache"] / "frames" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


@torch.no_grad()
def frame(weight: Tensor, rank: int) -> Frame:
    """Of a weight (out, in), from fixed random numbers: asked again it gives the same bits."""
    weight, r = weight.float(), min(rank, *weight.shape)
    with torch.random.fork_rng(devices=[weight.device] if weight.device.type == "cuda" else []):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(weight, min(r + OVERSAMPLED, *weight.shape), ROUNDS)
    half = [t[:, :r].to(torch.float16).cpu() for t in (u, v)]
    return Frame(half[0].contiguous(), s[:r].cpu(), half[1].mT.contiguous())


def read(file: Path) -> Frames | None:
    """A file of the cache; None where there is none, or not all that was written."""
    try:
        with safe_open(file, "pt") as opened:
            about: dict[str, Any] = json.loads(opened.metadata()["about"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        names = {name.rpartition(".")[0] for name in tensors}
        layers = {name: Frame(*(tensors[f"{name}.{part}"] for part in "usv")) for name in names}
        if digest(layers) != about["digest"]:
            return None
        return Frames(layers, about["rank"], about["device"], about["digest"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def digest(layers: Mapping[str, Frame]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(_tensors(layers).items()):
        found.update(f"{name} {tuple(tensor.shape)} ".encode())
        found.update(tensor.numpy().data)
    return found.hexdigest()


def _tensors(layers: Mapping[str, Frame]) -> dict[str, Tensor]:
    return {f"{name}.{part}": getattr(frame, part) for name, frame in layers.items() for part in "usv"}
