"""Claim: merging a model takes the memory of one shard and one layer, whatever the model's size.

A Llama of SmolLM2-1.7B's shape at random bfloat16 weights in four shards, an adapter of rank 16 on every linear layer.
The peak is of a process of its own that does nothing else, imports and adapter included; pages of a mapped shard count.

python benchmarks/merge.py [OUT]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write
from safetensors.torch import save_file

WIDTH, INNER, LAYERS, HEADS, VOCABULARY, RANK = 2048, 8192, 24, 32, 49152, 16
SHARDS = 4
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH, WIDTH), "self_attn.v_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}  # fmt: skip


def make(folder: Path) -> None:
    """The model's folder, a shard at a time."""
    weight_map = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {}
        for layer in range(shard * LAYERS // SHARDS, (shard + 1) * LAYERS // SHARDS):
            tensors |= {f"model.layers.{layer}.{part}.weight": noise(*shape) for part, shape in SHAPES.items()}
        if shard == 0:
            tensors["model.embed_tokens.weight"] = noise(VOCABULARY, WIDTH)
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}))


def noise(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)


def merge(origin: Path, target: Path) -> dict[str, Any]:
    """In a process of its own: seconds and peak bytes."""
    from zolite.config import recipe as recipes
    from zolite.export import merged
    from zolite.export.source import Trained
    from zolite.model.load import resolve

    names = [f"model.layers.{i}.{part}" for i in range(LAYERS) for part in SHAPES]
    factors = {f"{n}.a": torch.randn(RANK, SHAPES[n.split(".", 3)[3]][1]) for n in names}
    factors |= {f"{n}.b": torch.randn(SHAPES[n.split(".", 3)[3]][0], RANK) for n in names}
    recipe = recipes.resolve(recipes.Recipe(adapter=recipes.AdapterPart(rank=RANK, alpha=2.0 * RANK)))
    chosen = Trained("merge", recipe, {"labels": []}, [], (1,), factors, resolve(str(origin)), origin)
    before, began = peak(), time.monotonic()
    merged.write(chosen, target, "16-bit")
    return {"seconds": round(time.monotonic() - began, 1), "peak_bytes": peak(), "before_bytes": before}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as where:
        origin, target = Path(where) / "model", Path(where) / "merged"
        origin.mkdir()
        target.mkdir()
        make(origin)
        command = [sys.executable, __file__, "--merge", str(origin), str(target)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        sizes = [file.stat().st_size for file in origin.glob("*.safetensors")]
    mib = {name: found[name] >> 20 for name in ("peak_bytes", "before_bytes")}
    return {
        "shape": "1.7B",
        "shards": len(sizes),
        "model_mib": sum(sizes) >> 20,
        "largest_shard_mib": max(sizes) >> 20,
        "resident_before_mib": mib["before_bytes"],
        "peak_mib": mib["peak_bytes"],
        "peak_over_before_mib": mib["peak_bytes"] - mib["before_bytes"],
        "peak_over_largest_shard_mib": mib["peak_bytes"] - (max(sizes) >> 20),
        "seconds": found["seconds"],
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--merge"]:
        print(json.dumps(merge(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        write("merge", [measure()], Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
