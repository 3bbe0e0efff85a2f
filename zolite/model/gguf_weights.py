"""Weights of a GGUF file under transformers' names: each dequantized when it is asked for, into 16 bits.

    checked(file)                   what the file says of itself; raises where it is cut
    tensors(file, model, dtype)     what transformers loads in the place of files of safetensors
    settled(file, model)            the 16 bits that hold all of them

Names, and how llama.cpp lays weights out otherwise, are transformers' own tables of its GGUF loader; the gguf package
dequantizes. Tensor by tensor that is the same as that loader's `dequantize=True`, which holds all of them at once.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zolite.common import weight_headers
from zolite.common.errors import ZoliteError
from zolite.common.weight_headers import Header

HALVES = (torch.float16, torch.bfloat16)
"""float16 holds weights of blocks better than bfloat16 would, where it holds them at all."""
PART = 1 << 22  # numbers that are dequantized at a time: in float32 they are 16 MiB
PLAIN = ("F32", "F16", "BF16")
ANGLES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Factors of rotary angles, which transformers leaves out."""
OTHER = "take another quantization of this model, such as Q4_K_M or Q8_0"
SKIPPED = ("mtp.",)  # a block that predicts further tokens, which transformers does not have


@dataclass(frozen=True)
class Unpacked:
    """A tensor of the model, which is made anew whenever it is taken."""

    make: Callable[[], Tensor]

    def __getitem__(self, _: Any) -> Tensor:
        return self.make()


def checked(file: Path) -> Header:
    """What the file says of itself. Raises ZoliteError where it is cut, or has tensors of an unknown type."""
    from gguf import GGMLQuantizationType

    header = weight_headers.gguf(file)
    if strange := sorted({kind for kind, _ in header.places.values()} - {int(kind) for kind in GGMLQuantizationType}):
        what = f"{file} has tensors of the types {', '.join(map(str, strange))}, which the gguf package does not know"
        raise ZoliteError(what, OTHER)
    ends = {name: start + _bytes(header, name) for name, (_, start) in header.places.items()}
    if lost := sorted(name for name, end in ends.items() if end > header.bytes):
        what = f"{file} is cut: {header.bytes:,} bytes are there, {max(ends.values()):,} should be"
        raise ZoliteError(f"{what}; {len(lost)} of {len(ends)} tensors are lost, {lost[0]} first", "download it again")
    return header


def _bytes(header: Header, name: str) -> int:
    """Of a tensor in the file. Raises ZoliteError where its rows are not whole blocks."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    shape, kind = header.tensors[name], GGMLQuantizationType(header.places[name][0])
    block, size = GGML_QUANT_SIZES[kind]
    if not shape or shape[-1] % block:
        raise ZoliteError(f"{name} is damaged: rows of {shape} in {kind.name}, of {block} numbers", "download it again")
    return int(math.prod(shape) // block * size)


def settled(file: Path, model: Any) -> torch.dtype:
    """Of HALVES the first that holds all weights; each is dequantized once for that."""
    return next((dtype for dtype in HALVES if _finite(tensors(file, model, dtype))), HALVES[-1])


def _finite(found: Mapping[str, Unpacked]) -> bool:
    return all(bool(torch.isfinite(tensor[...]).all()) for tensor in found.values())


def tensors(file: Path, model: Any, dtype: torch.dtype) -> dict[str, Unpacked]:
    """The model's tensors by its own names; what belongs to nothing in it, under the file's.

    `model` may lie on the meta device: only its config and names are looked at.
    """
    header = checked(file)
    kind = str(header.metadata.get("general.architecture"))
    found = (_by_conversions if _has_conversions(kind) else _by_processor)(file, header, kind, model, dtype)
    return {name: tensor for name, tensor in found.items() if name not in ANGLES and not name.startswith(SKIPPED)}


def notes(file: Path) -> tuple[str, ...]:
    """What should be known of a model that transformers makes of such a file."""
    header = weight_headers.gguf(file)
    found = ", ".join(name for name in ANGLES if name in header.tensors)
    return (LEFT_OUT.format(found),) if found else ()


LEFT_OUT = (
    "transformers leaves out {} of this GGUF file, factors of rotary angles, so that the model is not quite the one "
    "that llama.cpp runs; as it was published in 16 bits, as a folder or from the hub, it is"
)


# ---- what is in the file


def _numbers(file: Path, header: Header, name: str, dtype: torch.dtype, early: bool) -> np.ndarray[Any, Any]:
    """A tensor in float32; of blocks, or where it is `early`, in `dtype` already, whose bits numpy holds as int16.

    What llama.cpp computed on is never stored in blocks, and the rest is only laid out otherwise.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    shape, (number, start) = header.tensors[name], header.places[name]
    kind, size = GGMLQuantizationType(number), _bytes(header, name)
    rows = np.memmap(file, np.uint8, "c", offset=start, shape=(size,)).reshape(math.prod(shape[:-1]), -1)
    if kind.name in PLAIN and not early:
        return dequantize(rows, kind).reshape(shape)  # type: ignore[no-any-return]
    with torch.inference_mode(False):  # threads, which fill it, are never in that mode
        made = torch.empty(len(rows), shape[-1], dtype=dtype)
    step = max(1, PART // shape[-1])

    def part(i: int) -> None:
        made[i : i + step] = torch.from_numpy(dequantize(rows[i : i + step], kind))

    parts = range(0, len(rows), step)
    try:
        _at_once(part, parts)
    except NotImplementedError as error:
        what = f"{name} of {file.name} is stored as {kind.name}, which the gguf package does not dequantize"
        raise ZoliteError(what, OTHER) from error
    return made.view(torch.int16).numpy().reshape(shape)


def _at_once(do: Callable[[int], None], parts: range) -> None:
    """By as many threads as torch has; on this one where there is one part, as of most tensors."""
    if (workers := min(len(parts), torch.get_num_threads())) < 2:
        for part in parts:
            do(part)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(do, parts))


# ---- by transformers' processors of tensors


def _by_processor(file: Path, header: Header, kind: str, model: Any, dtype: torch.dtype) -> dict[str, Unpacked]:
    """Of architectures whose tensors transformers gives to a processor, as arrays of numpy: most."""
    from transformers import modeling_gguf_pytorch_utils as loader

    processor = loader.TENSOR_PROCESSORS.get(kind, loader.TensorProcessor)(config=model.config.to_dict())
    table = loader.get_gguf_hf_weights_map(model, processor)
    parts: dict[str, list[str]] = defaultdict(list)
    for name in header.places:
        parts[table.get(name) or table.get(name.removesuffix(".weight")) or name].append(name)

    def make(target: str) -> Tensor:
        made: dict[str, Tensor] = {}
        for name in parts[target]:
            values = _numbers(file, header, name, dtype, early=len(parts[target]) > 1)
            done = processor.process(values, name=name, tensor_key_mapping=table, parsed_parameters={"tensors": made})
            if done.name is not None:
                made[target] = torch.from_numpy(np.ascontiguousarray(done.weights))
        found = made[target]
        return found.view(dtype) if found.dtype == torch.int16 else found.to(dtype)

    return {target: Unpacked(partial(make, target)) for target in parts}


# ---- by transformers' conversions of weights


def _has_conversions(kind: str) -> bool:
    from transformers.integrations.gguf.utils import is_gguf_arch_supported

    return bool(is_gguf_arch_supported(kind))


def _by_conversions(file: Path, header: Header, kind: str, model: Any, dtype: torch.dtype) -> dict[str, Unpacked]:
    """Of architectures that transformers converts as it does checkpoints of safetensors: LFM2, Qwen3.5."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    from transformers.integrations.gguf import reader, utils

    told = reader.GgufHeader.from_file(str(file))
    plain = utils.get_gguf_conversion_mapping(kind, model.config)
    mapping = utils.add_gguf_load_ops(plain, utils.get_gguf_plan(told, plain)[0], told, dtype)
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    stored, own = reader.load_gguf_state_dict(told), model.state_dict()
    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in stored:
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        parts[target].append((name, pattern))

    def make(target: str) -> Tensor:
        converter = copy.deepcopy(by_pattern[parts[target][0][1]])
        for name, pattern in parts[target]:
            converter.add_tensor(target, name, pattern, stored[name][...])
        made = converter.convert(target, model=model, config=model.config)[target]
        found: Tensor = made[0] if isinstance(made, list) else made
        return found

    return {target: Unpacked(partial(make, target)) for target in parts}
