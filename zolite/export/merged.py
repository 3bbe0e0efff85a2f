"""The model with the adapter in its weights: 16-bit safetensors, shard by shard, from the original 16-bit weights.

A GGUF file's are unpacked to 16 bits for it, all at once; a model whose files have other names for its layers than
transformers has is loaded whole, too.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError
from zolite.common.paths import paths
from zolite.common.text import human_bytes
from zolite.common.weight_headers import TOWERS
from zolite.export import ollama, uses
from zolite.export.readers import Opened, Reader, in_float32, of_transformers
from zolite.export.source import Trained, delta
from zolite.export.writer import Card, Writer
from zolite.model import load as models

INDEX = "model.safetensors.index.json"
BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*")  # config, tokenizer, chat template, licence
CODE = ("*.py",)  # of the model's own, where it is trusted
SHARD = "5GB"  # of a GGUF file's weights
HALVES = (torch.float16, torch.bfloat16)


def write(trained: Trained, folder: Path, dtype: str) -> None:
    """At most one shard and one layer's sum are in memory, where files name layers as transformers does."""
    if packed := trained.config.get("quantization_config"):
        raise UsageError(
            f"the weights of {trained.source.name} are stored quantized by {packed.get('quant_method')}: an adapter is "
            "added to 16-bit weights only",
            "export --format peft, whose adapter loads on this model and on its original in 16 bits",
        )
    shards = {} if trained.gguf else shards_of(trained.origin)
    places = _places(trained, shards)
    if None in places:
        _write_whole(trained, folder)
        return
    _check_memory(trained, max((trained.origin / shard).stat().st_size for shard in shards))
    total = 0
    for shard in shards:
        gains = {name: trained.layers[layer] for name, layer in places.items() if name and name in shards[shard]}
        total += _write_shard(trained, shard, folder, gains)
    _copy_rest(trained.origin, folder, CODE if trained.source.trusted else ())
    if (trained.origin / INDEX).is_file():
        index = json.loads((trained.origin / INDEX).read_bytes())
        index["metadata"] = index.get("metadata", {}) | {"total_size": total}
        (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _write_whole(trained: Trained, folder: Path) -> None:
    """By transformers, which reads names of files and writes them."""
    _check_memory(trained, trained.base_bytes)
    model = models.in_16_bits(trained.source, paths()["cache"])
    for name, (a, b) in trained.layers.items():
        weight = model.get_submodule(name).weight
        gain = delta(a, b, trained.scale)
        weight.data = _merged(f"{name}.weight", weight.data, gain.mT.contiguous() if trained.turned else gain)
    with models.quiet():
        model.save_pretrained(folder, max_shard_size=SHARD)
    _copy_rest(trained.origin, folder, CODE if trained.source.trusted else ())


def shards_of(origin: Path) -> dict[str, list[str]]:
    """Names of the tensors in each safetensors file of a model."""
    index = origin / INDEX
    files = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    if strange := sorted(file for file in files if Path(file).name != file):
        raise UsageError(f"{index} names a file elsewhere, {strange[0]!r}", "this model's index is not to be trusted")
    if missing := sorted(file for file in files if not (origin / file).is_file()):
        raise UsageError(
            f"{origin} has no {missing[0]}: merging reads the original weights as safetensors",
            "get the model's folder whole, in safetensors; --format peft and gguf need no weights",
        )
    shards = {}
    for file in sorted(files):
        with safe_open(origin / file, "pt") as opened:
            shards[file] = list(opened.keys())
    return shards


def bytes_of(trained: Trained) -> int:
    """What `write` will write, about: files of float32 become half as large."""
    if trained.gguf:
        return trained.base_bytes
    return sum((trained.origin / shard).stat().st_size for shard in shards_of(trained.origin))


def _places(trained: Trained, shards: dict[str, list[str]]) -> dict[str | None, str]:
    """The layer that each stored weight belongs to, for those with an adapter; under None one that is not found.

    A file may leave out the first parts of a layer's name, or have others there: the longest ending that only one
    tensor has decides, towers' for pictures and sound apart, and later the check of the export.
    """
    stored = [name for names in shards.values() for name in names if not any(tower in name for tower in TOWERS)]
    return {_ending(f"{layer}.weight", stored): layer for layer in trained.layers}


def _ending(wanted: str, stored: Iterable[str]) -> str | None:
    while wanted.count("."):
        hits = [name for name in stored if name == wanted or name.endswith("." + wanted)]
        if hits:
            return hits[0] if len(hits) == 1 else None
        wanted = wanted.partition(".")[2]
    return None


def _check_memory(trained: Trained, largest: int) -> None:
    """The largest shard, and of the largest layer its sum in float32 with what it takes to form it."""
    layer = max(a.shape[1] * b.shape[0] for a, b in trained.layers.values())
    needed, free = largest + 3 * 4 * layer, psutil.virtual_memory().available
    if needed > free:
        raise DoesNotFit(
            f"merging needs {human_bytes(needed)} of memory, one shard and one layer; {human_bytes(free)} are free",
            "close other programs, or export --format peft, which needs next to none",
        )


def _write_shard(trained: Trained, shard: str, folder: Path, gains: dict[str, tuple[Tensor, Tensor]]) -> int:
    """Bytes of weights written."""
    tensors = {}
    with safe_open(trained.origin / shard, "pt") as opened:
        metadata = opened.metadata()
        for name in opened.keys():  # noqa: SIM118 - not a dict
            gain = delta(*gains[name], trained.scale) if name in gains else None
            if gain is not None and trained.turned:
                gain = gain.mT.contiguous()
            tensors[name] = _merged(name, opened.get_tensor(name), gain)
    save_file(tensors, folder / shard, metadata=metadata or {"format": "pt"})
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _merged(name: str, weight: Tensor, gain: Tensor | None) -> Tensor:
    """In the weight's own 16 bits; bfloat16 where it has 32. The sum is made in float32 and rounded once."""
    if gain is not None and weight.dtype not in (*HALVES, torch.float32):
        raise UsageError(
            f"{name} is stored in {weight.dtype}: an adapter is added to 16-bit weights only",
            "merge with the original of this model, or export --format peft",
        )
    dtype = torch.bfloat16 if weight.dtype == torch.float32 else weight.dtype
    if gain is None:
        return weight.to(dtype)
    merged = gain.add_(weight).to(dtype)
    if not torch.isfinite(merged).all():
        raise ZoliteError(f"{name} with its adapter has numbers that {dtype} cannot hold", "export --format peft")
    return merged


def _copy_rest(origin: Path, folder: Path, more: tuple[str, ...]) -> None:
    for pattern in (*BESIDE, *more):
        for file in sorted(origin.glob(pattern)):
            if file.is_file() and not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)
    config = folder / "config.json"
    settings: dict[str, Any] = json.loads(config.read_bytes())
    for key in ("dtype", "torch_dtype"):
        if settings.get(key) == "float32":
            settings[key] = "bfloat16"
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _open(trained: Trained, folder: Path, device: torch.device) -> Opened:
    return of_transformers(in_float32(folder, device, trained.source.trusted))


WRITER = Writer(
    write,
    Card("{base} with a LoRA adapter merged into its weights", uses.MERGED, "library_name: transformers\n"),
    {"16-bit": 5e-2},
    (Reader(("transformers",), False, _open),),
    size=lambda trained, _: bytes_of(trained),
    ollama=lambda trained: (["FROM ."], ollama.doubts(trained)),
)
