"""LoRA as llama.cpp reads it, and whole models merged in a GGUF file's own order: with the gguf package alone.

What llama.cpp calls a layer, and in which order it keeps its rows, is a property of the architecture.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zolite.common.errors import UsageError, ZoliteError, listed
from zolite.export.source import Trained, delta

ADAPTER, MODEL = "adapter.gguf", "model.gguf"

Order = Callable[[dict[str, Any], int], Tensor]
"""A config and a layer's number of rows to the places (out,) that llama.cpp takes its rows from."""


def _halves(heads: str) -> Order:
    """transformers rotates numbers i and i + width/2 of a head together, llama.cpp 2i and 2i + 1."""
    return lambda config, rows: torch.arange(rows).view(config[heads], 2, -1).transpose(1, 2).flatten()


def _thirds(config: dict[str, Any], rows: int) -> Tensor:
    """q, k and v of each head in turn, to all of q, all of k, all of v."""
    return torch.arange(rows).view(config["num_attention_heads"], 3, -1).transpose(0, 1).flatten()


@dataclass(frozen=True)
class Architecture:
    name: str  # what llama.cpp calls it
    orders: dict[str, Order]  # of the layers whose rows it keeps in another order, by the last part of their names


ROTATED = {"q_proj": _halves("num_attention_heads"), "k_proj": _halves("num_key_value_heads")}
ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", ROTATED),
    "MistralForCausalLM": Architecture("llama", ROTATED),
    "SmolLM3ForCausalLM": Architecture("smollm3", ROTATED),
    "Qwen2ForCausalLM": Architecture("qwen2", {}),
    "Qwen3ForCausalLM": Architecture("qwen3", {}),
    "GemmaForCausalLM": Architecture("gemma", {}),
    "Gemma2ForCausalLM": Architecture("gemma2", {}),
    "Gemma3ForCausalLM": Architecture("gemma3", {}),
    "PhiForCausalLM": Architecture("phi2", {}),
    "Phi3ForCausalLM": Architecture("phi3", {}),
    "GPTNeoXForCausalLM": Architecture("gptneox", {"query_key_value": _thirds}),
}


def architecture(trained: Trained) -> Architecture:
    known = ARCHITECTURES.get(trained.architecture)
    if known is None:
        raise UsageError(
            f"zolite does not know how llama.cpp names the layers of {trained.architecture}; it knows "
            f"{', '.join(a.removesuffix('ForCausalLM') for a in ARCHITECTURES)}",
            "--format merged works with any architecture; llama.cpp's convert_hf_to_gguf.py may know more",
        )
    return known


def converted(trained: Trained) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every layer by llama.cpp's name for its weight, B's rows in llama.cpp's order."""
    here, config = architecture(trained), trained.config
    names = {layer: _name(here, config["num_hidden_layers"], layer) for layer in trained.layers}
    if unknown := [layer for layer, name in names.items() if name is None]:
        raise UsageError(
            f"llama.cpp's {here.name} has no adapters on {', '.join(unknown[:8])}",
            "export --format merged, or train other layers (--targets)",
        )
    return {str(names[layer]): (a, b[_order(here, config, layer, len(b))]) for layer, (a, b) in trained.layers.items()}


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

    reader, here = GGUFReader(file), architecture(trained)
    stored = {t.name: torch.from_numpy(np.array(t.data, dtype=np.float32)) for t in reader.tensors}
    alpha = reader.get_field(Keys.Adapter.LORA_ALPHA)
    assert alpha is not None
    factors = {}
    for layer in trained.layers:
        name = _name(here, trained.config["num_hidden_layers"], layer)
        b = stored[f"{name}.lora_b"]
        factors[f"{layer}.a"] = stored[f"{name}.lora_a"]
        factors[f"{layer}.b"] = b[torch.argsort(_order(here, trained.config, layer, len(b)))]
    return float(alpha.contents()), factors


def write_merged(trained: Trained, folder: Path, dtype: str) -> None:
    """The base model's GGUF file with the adapter added to its weights, which are expanded and rounded once to `dtype`.

    One weight at a time is in memory.
    """
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize, quantize

    if trained.gguf is None:
        raise UsageError(
            f"{trained.source.name} is not a GGUF file, from which a merged one takes its tokenizer and settings",
            _by_llama_cpp(trained, dtype),
        )
    reader, here = GGUFReader(trained.gguf), architecture(trained)
    gains = converted(trained)
    kind = GGMLQuantizationType[dtype.upper()]
    kinds = {t.name: GGMLQuantizationType.F32 if len(t.shape) < 2 else _fitting(t, kind) for t in reader.tensors}
    if missing := gains.keys() - kinds.keys():
        raise ZoliteError(f"{trained.gguf} lacks {listed(sorted(missing))}", "it is not the file that was trained on")
    writer = GGUFWriter(folder / MODEL, here.name)
    _copy_fields(reader, writer, LlamaFileType[f"MOSTLY_{dtype.upper()}"])
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        writer.add_tensor_info(t.name, shape, np.dtype(np.float32), _bytes(shape, kinds[t.name]), kinds[t.name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for t in reader.tensors:
        values = dequantize(t.data, t.tensor_type)
        if t.name in gains:
            values = values + delta(*gains[t.name], trained.scale).numpy()
        writer.write_tensor_data(quantize(np.ascontiguousarray(values, dtype=np.float32), kinds[t.name]))
    writer.close()


def bytes_of(trained: Trained, dtype: str) -> int:
    """What `write_merged` will write, about."""
    from gguf import GGUFReader

    each = {"f16": 2.0, "q8_0": 34 / 32}[dtype]
    return int(sum(int(t.n_elements) for t in GGUFReader(trained.gguf).tensors) * each) if trained.gguf else 0


def _by_llama_cpp(trained: Trained, dtype: str) -> str:
    return (
        f"`zolite export {trained.name} --to DIR --format merged`, then llama.cpp's "
        f"`python convert_hf_to_gguf.py DIR --outfile {MODEL} --outtype {dtype}`"
    )


def _name(here: Architecture, blocks: int, layer: str) -> str | None:
    """llama.cpp's name for a layer's weight; None where an adapter on it would not be read."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == here.name)
    name = get_tensor_name_map(kind, blocks).get_name(f"{layer}.weight", try_suffixes=(".weight",))
    # Embeddings and heads may share one tensor, to which an adapter of either would then be added.
    return name if name and name.startswith("blk.") else None


def _order(here: Architecture, config: dict[str, Any], layer: str, rows: int) -> Tensor:
    order = here.orders.get(layer.rpartition(".")[2])
    # Configs leave out the number of key heads where it is that of the others.
    full = {"num_key_value_heads": config["num_attention_heads"], **config}
    return torch.arange(rows) if order is None else order(full, rows)


def _rounded(layers: dict[str, tuple[Tensor, Tensor]], dtype: str) -> dict[str, Any]:
    """Arrays by tensor name."""
    kind = {"f16": torch.float16, "f32": torch.float32}[dtype]
    both = {f"{name}.lora_{f}": t for name, pair in layers.items() for f, t in zip("ab", pair, strict=True)}
    rounded = {name: t.to(kind).contiguous().numpy() for name, t in both.items()}
    if large := [name for name, values in rounded.items() if not np.isfinite(values).all()]:
        raise UsageError(f"{large[0]} has numbers that {dtype} cannot hold", "export with --dtype f32")
    return rounded


def _fitting(tensor: Any, kind: Any) -> Any:
    """Rows that a block format does not divide are kept in 16 bits."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return kind if int(tensor.shape[0]) % GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16


def _bytes(shape: list[int], kind: Any) -> int:
    from gguf import GGML_QUANT_SIZES

    block, size = (int(n) for n in GGML_QUANT_SIZES[kind])
    return math.prod(shape) // block * size


def _copy_fields(reader: Any, writer: Any, file_type: int) -> None:
    """Everything a GGUF file says of its model, but for how its weights are stored."""
    for name, value, kind, inner in _fields(reader):
        if name != "general.file_type":
            writer.add_key_value(name, value, kind, sub_type=inner)
    writer.add_file_type(file_type)


def _fields(reader: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    from gguf import GGUFValueType

    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":  # which the writer writes
            kind = field.types[0]
            yield field.name, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None
