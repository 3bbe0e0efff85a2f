"""LoRA as llama.cpp reads it, written with the gguf package alone.

What llama.cpp calls a layer, and in which order it keeps its rows, is in the architecture's record.
"""

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zolite.common.errors import UsageError, ZoliteError
from zolite.config.architectures import ARCHITECTURES, Config, LlamaCpp, numbers
from zolite.export import llama_cpp, ollama, peft, uses
from zolite.export.readers import Opened, Reader
from zolite.export.source import Trained
from zolite.export.writer import Card, Writer

ADAPTER = "adapter.gguf"


def architecture(trained: Trained) -> LlamaCpp:
    if trained.llama_cpp is None:
        known = ", ".join(name for name, each in ARCHITECTURES.items() if each.llama_cpp)
        raise UsageError(
            f"zolite does not know how llama.cpp names the layers of {trained.architecture}; it knows {known}",
            "--format merged works with any architecture; llama.cpp's convert_hf_to_gguf.py may know more",
        )
    return trained.llama_cpp


def converted(trained: Trained) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every layer by llama.cpp's name for its weight, B's rows in llama.cpp's order."""
    here, config = architecture(trained), numbers(trained.config)
    names = {layer: _name(here, config.layers, layer) for layer in trained.layers}
    if unknown := [layer for layer, name in names.items() if name is None]:
        raise UsageError(
            f"llama.cpp's {here.name} has no adapters on {', '.join(unknown[:8])}",
            "export --format merged, or train other layers (--targets)",
        )
    return {str(names[layer]): (a, b[order(here, config, layer, len(b))]) for layer, (a, b) in trained.layers.items()}


def write(trained: Trained, folder: Path, dtype: str) -> None:
    """The adapter as one GGUF file."""
    from gguf import GGUFType, GGUFWriter, Keys, LlamaFileType

    numbers = _rounded(converted(trained), dtype)
    writer = GGUFWriter(folder / ADAPTER, architecture(trained).name)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_name(trained.name)
    writer.add_file_type(LlamaFileType.MOSTLY_F16 if dtype == "f16" else LlamaFileType.ALL_F32)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, trained.recipe.adapter.alpha)
    for name, values in numbers.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(trained: Trained, file: Path) -> tuple[float, dict[str, Tensor]]:
    """(alpha, every factor by its block's name) of a file that `write` made, by the gguf package's reader."""
    from gguf import GGUFReader, Keys

    reader, here, config = GGUFReader(file), architecture(trained), numbers(trained.config)
    stored = {t.name: torch.from_numpy(np.array(t.data, dtype=np.float32)) for t in reader.tensors}
    alpha = reader.get_field(Keys.Adapter.LORA_ALPHA)
    assert alpha is not None
    factors = {}
    for layer in trained.layers:
        name = _name(here, config.layers, layer)
        b = stored[f"{name}.lora_b"]
        factors[f"{layer}.a"] = stored[f"{name}.lora_a"]
        factors[f"{layer}.b"] = b[torch.argsort(order(here, config, layer, len(b)))]
    return float(alpha.contents()), factors


def _name(here: LlamaCpp, blocks: int, layer: str) -> str | None:
    """llama.cpp's name for a layer's weight; None where an adapter on it would not be read."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == here.name)
    alone = layer.replace(".language_model.", ".")  # llama.cpp has a tower for pictures in a file of its own
    name = get_tensor_name_map(kind, blocks).get_name(f"{alone}.weight", try_suffixes=(".weight",))
    # Embeddings and heads may share one tensor, to which an adapter of either would then be added.
    return name if name and name.startswith("blk.") else None


def order(here: LlamaCpp, config: Config, layer: str, rows: int) -> Tensor:
    """Places (rows,) that llama.cpp takes a layer's rows from."""
    known = here.orders.get(layer.rpartition(".")[2])
    return torch.arange(rows) if known is None else torch.tensor(known(config, rows))


def _rounded(layers: dict[str, tuple[Tensor, Tensor]], dtype: str) -> dict[str, Any]:
    """Arrays by tensor name."""
    kind = {"f16": torch.float16, "f32": torch.float32}[dtype]
    both = {f"{name}.lora_{f}": t for name, pair in layers.items() for f, t in zip("ab", pair, strict=True)}
    rounded = {name: t.to(kind).contiguous().numpy() for name, t in both.items()}
    if large := [name for name, values in rounded.items() if not np.isfinite(values).all()]:
        raise UsageError(f"{large[0]} has numbers that {dtype} cannot hold", "export with --dtype f32")
    return rounded


def _open(trained: Trained, folder: Path, device: torch.device) -> Opened:
    """What the gguf package reads, put on by peft."""
    alpha, factors = read(trained, folder / ADAPTER)
    if not math.isclose(alpha, trained.recipe.adapter.alpha, rel_tol=1e-6):  # it is stored in float32
        raise ZoliteError(f"{ADAPTER} says alpha {alpha:g}", "nothing was written; please report this")
    with tempfile.TemporaryDirectory() as again:
        peft.write(replace(trained, factors=factors), Path(again), "f32")
        return peft.open_(trained, Path(again), device)


def _files(trained: Trained, folder: Path) -> tuple[Path, Path]:
    assert trained.gguf is not None
    return trained.gguf, folder / ADAPTER


WRITER = Writer(
    write,
    Card("A LoRA adapter for {base}, for llama.cpp", uses.GGUF),
    {"f32": 0.0, "f16": 1e-2},
    (Reader(("gguf", "peft"), True, _open), llama_cpp.reader(_files)),
    ollama=lambda trained: ollama.with_adapter(trained, f"./{ADAPTER}"),
)
