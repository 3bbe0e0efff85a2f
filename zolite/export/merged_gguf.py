"""Whole models for llama.cpp: the base model's GGUF file with the adapter added to its weights."""

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zolite.common.errors import UsageError, ZoliteError, listed
from zolite.export import llama_cpp, uses
from zolite.export.gguf import architecture, converted
from zolite.export.readers import Opened, Reader, in_float32, of_transformers
from zolite.export.source import Trained, delta
from zolite.export.writer import Card, Writer

MODEL = "model.gguf"


def write(trained: Trained, folder: Path, dtype: str) -> None:
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
    """What `write` will write, about."""
    from gguf import GGUFReader

    each = {"f16": 2.0, "q8_0": 34 / 32}[dtype]
    return int(sum(int(t.n_elements) for t in GGUFReader(trained.gguf).tensors) * each) if trained.gguf else 0


def _by_llama_cpp(trained: Trained, dtype: str) -> str:
    return (
        f"`zolite export {trained.name} --to DIR --format merged`, then llama.cpp's "
        f"`python convert_hf_to_gguf.py DIR --outfile {MODEL} --outtype {dtype}`"
    )


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


def _open(trained: Trained, folder: Path, device: torch.device) -> Opened:
    from transformers import GgufConfig

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar heeds no setting
        expanded = GgufConfig(dequantize=True)
        return of_transformers(in_float32(folder, device, gguf_file=MODEL, quantization_config=expanded))


WRITER = Writer(
    write,
    Card("{base} with a LoRA adapter merged into its weights, for llama.cpp", uses.MERGED_GGUF),
    {"f16": 1e-2, "q8_0": 1e-1},
    (Reader(("transformers", "gguf"), False, _open), llama_cpp.reader(lambda _, folder: (folder / MODEL, None))),
    size=bytes_of,
    ollama=lambda _: ([f"FROM ./{MODEL}"], []),
)
