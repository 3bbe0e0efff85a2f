"""Formats that weights are stored in, quantized: which tensors a layer has there, and what its weight is.

Each is a published layout, read in plain torch on the CPU, a layer at a time:

    GPTQ                  AutoGPTQ, GPTQModel: arXiv 2210.17323; codes of 2, 3, 4 and 8 bits, along the inputs
    AWQ                   AutoAWQ's "gemm": arXiv 2306.00978; 4 bits, along the outputs in an order of their own
    FP8                   float8 with scales of tensors, rows or blocks (DeepSeek-V3, Qwen3, FBGEMM)
    MXFP4                 gpt-oss: pairs of four-bit floats with an exponent for 32 of them (OCP MX 1.0)
    compressed-tensors    its formats of integers, of float8 and of four-bit floats (NVFP4, MXFP4)
    bitsandbytes          by the library itself for 4 bits; int8 is a code and a row's largest number

Weights are (out, in) float32, as those of linear layers; experts that lie in one tensor are (experts, in, out).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Any

import torch
from torch import Tensor

from zolite.common.errors import ZoliteError
from zolite.model.quant import expand4

Parts = Mapping[str, Tensor]
"""A packed layer's tensors, by what stands behind its name."""
Options = Mapping[str, Any]
"""Of a layer: the numbers of its config that its tensors do not say."""


@dataclass(frozen=True)
class Packing:
    """A layer that has `mark` is packed so: its weight, called `into`, comes of `needs` and what there is of `may`."""

    mark: str
    needs: tuple[str, ...]
    weight: Callable[[Parts, Options], Tensor]
    may: tuple[str, ...] = ()
    into: str = ".weight"


# ---- codes


def codes(packed: Tensor, bits: int) -> Tensor:
    """(…, n) int32 to (…, n · 32 / bits) uint8: a stream of bits, from the lowest of the first number on."""
    words, values = bits // gcd(bits, 32), 32 // gcd(bits, 32)  # after which bits and numbers begin together
    rest = packed.shape[-1] // words
    made = torch.empty(*packed.shape[:-1], rest * values, dtype=torch.uint8)
    for value in range(values):
        word, shift = divmod(value * bits, 32)
        found = (packed[..., word::words][..., :rest] >> shift) & (2 ** min(bits, 32 - shift) - 1)
        if shift + bits > 32:  # the rest of it are the lowest bits of the next number
            found = found | (packed[..., word + 1 :: words][..., :rest] << (32 - shift))
        made[..., value::values] = (found & (2**bits - 1)).to(torch.uint8)
    return made


FOUR_BIT = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""What four bits are as a float: a sign, two bits of exponent, one of fraction (E2M1 of OCP MX 1.0)."""


def pairs(packed: Tensor) -> Tensor:
    """(…, n) uint8 to (…, 2n) float32: of each byte the low half comes first."""
    halves = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
    return torch.tensor(FOUR_BIT)[halves.int()]


def exponents(scale: Tensor) -> Tensor:
    """Powers of two, stored as bytes, to float32."""
    return scale.int().sub(127).float().exp2() if scale.dtype == torch.uint8 else scale.float()


def spread(scale: Tensor, shape: Sequence[int], block: tuple[int, int]) -> Tensor:
    """Scales, of a tensor, of rows or of blocks, for each of (…, out, in): broadcast where that is enough.

    The last blocks may be cut short. Raises ValueError where the numbers of blocks are not those of the shape.
    """
    if scale.numel() == 1:
        return scale.reshape(())
    scale = scale[..., None] if scale.dim() == 1 else scale
    for dim, (size, step) in enumerate(zip(shape[-2:], block, strict=True), start=-2):
        if scale.shape[dim] == 1 or scale.shape[dim] == size:
            continue
        if step < 1 or scale.shape[dim] != -(-size // step):
            raise ValueError(f"{tuple(scale.shape)} scales for {tuple(shape)} weights in blocks of {block}")
        scale = scale.repeat_interleave(step, dim=dim).narrow(dim, 0, size)
    return scale


# ---- GPTQ and AWQ


def gptq(parts: Parts, options: Options) -> Tensor:
    """w = (code − zero) · scale, by groups of inputs, which `g_idx` tells of each. Version 1 stores zero − 1."""
    inputs = parts[".g_idx"].numel() if ".g_idx" in parts else parts[".qweight"].shape[0] * 32 // int(options["bits"])
    bits = parts[".qweight"].shape[0] * 32 // inputs
    scales = parts[".scales"].float()  # (groups, out)
    zeros = codes(parts[".qzeros"], bits)[:, : scales.shape[1]].int()
    if (options.get("checkpoint_format") or options.get("format") or "gptq") == "gptq":
        zeros = (zeros + 1) & (2**bits - 1)
    size = -(-inputs // scales.shape[0])
    groups = parts[".g_idx"].long() if ".g_idx" in parts else torch.arange(inputs) // size
    rows = codes(parts[".qweight"].mT, bits)  # (out, in)
    return (rows - zeros.mT[:, groups]).mul(scales.mT[:, groups])


AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the outputs whose codes an int32 has, from its lowest bits on


def awq(parts: Parts, options: Options) -> Tensor:
    """w = (code − zero) · scale, by groups of inputs."""
    scales = parts[".scales"].float().mT  # (out, groups)
    rows, zeros = (_ordered(codes(parts[name], 4)).mT for name in (".qweight", ".qzeros"))
    size = -(-rows.shape[1] // scales.shape[1])
    zeros, scales = zeros.int().repeat_interleave(size, dim=1), scales.repeat_interleave(size, dim=1)
    return (rows - zeros[:, : rows.shape[1]]).mul(scales[:, : rows.shape[1]])


def _ordered(found: Tensor) -> Tensor:
    made = torch.empty_like(found)
    for place, output in enumerate(AWQ_ORDER):
        made[..., output::8] = found[..., place::8]
    return made


# ---- floats with scales


def fp8(weight: str, scale: str, parts: Parts, options: Options) -> Tensor:
    """float8 times a scale; both may have a dimension of experts before."""
    values = parts[weight].float()
    block = tuple(int(side) for side in options.get("weight_block_size") or (0, 0))
    return values.mul_(spread(exponents(parts[scale]), values.shape, (block[0], block[1])))


def mxfp4(parts: Parts, options: Options) -> Tensor:
    """(experts, out, in / 32, 16) bytes to (experts, in, out), as gpt-oss multiplies them."""
    return pairs(parts["_blocks"]).mul_(exponents(parts["_scales"])[..., None]).flatten(-2).mT.contiguous()


# ---- compressed-tensors


def integers(parts: Parts, options: Options) -> Tensor:
    """Codes in int32, along the inputs, each with an offset of half its range; zeros lie along the outputs."""
    bits, (rows, columns) = int(options["num_bits"]), parts[".weight_shape"].tolist()
    if parts[".weight_packed"].shape[-1] != -(-columns * bits // 32):
        raise ValueError(f"{bits} bits of {columns} inputs in {parts['.weight_packed'].shape[-1]} numbers")
    unsigned = _padded(parts[".weight_packed"], bits)[:, :columns]
    values, scale = unsigned.float().sub_(2 ** (bits - 1)), parts[".weight_scale"].float()
    zeros: Tensor | None = None
    if ".weight_zero_point" in parts:
        zeros = _padded(parts[".weight_zero_point"].mT, bits)[:, :rows].mT.float() - 2 ** (bits - 1)
    return _grouped(values, scale, zeros, parts.get(".weight_g_idx"), options)


def _padded(packed: Tensor, bits: int) -> Tensor:
    """Codes of rows that end before a stream of them and numbers begin together again."""
    return codes(torch.nn.functional.pad(packed, (0, -packed.shape[-1] % (bits // gcd(bits, 32)))), bits)


def _grouped(values: Tensor, scale: Tensor, zeros: Tensor | None, groups: Tensor | None, options: Options) -> Tensor:
    if groups is not None and bool((groups >= 0).all()):
        order = groups.long()
        return values.sub_(zeros[:, order] if zeros is not None else 0).mul_(scale[:, order])
    block = _block(options)
    if zeros is not None:
        values.sub_(spread(zeros, values.shape, block))
    return values.mul_(spread(scale, values.shape, block))


def _block(options: Options) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    sides = options.get("block_structure") or (1, options.get("group_size") or 0)
    rows, columns = (sides.split("x") if isinstance(sides, str) else sides)[:2]
    return int(rows), int(columns)


def plain(parts: Parts, options: Options) -> Tensor:
    """Codes of int8 or float8, each in a number of its own."""
    zeros = parts[".weight_zero_point"].float() if ".weight_zero_point" in parts else None
    scale = exponents(parts[".weight_scale"])
    return _grouped(parts[".weight"].float(), scale, zeros, parts.get(".weight_g_idx"), options)


def floats(parts: Parts, options: Options) -> Tensor:
    """Pairs of four-bit floats in a byte, scales of groups that may have one of their own (NVFP4)."""
    values, scale = pairs(parts[".weight_packed"]), exponents(parts[".weight_scale"])
    if ".weight_global_scale" in parts:
        scale = scale / parts[".weight_global_scale"].float()
    return values.mul_(spread(scale, values.shape, (1, values.shape[1] // scale.shape[-1])))


def packed(parts: Parts, options: Options) -> Tensor:
    """Of either kind, as their numbers are stored."""
    return (floats if parts[".weight_packed"].dtype == torch.uint8 else integers)(parts, options)


# ---- bitsandbytes


def four_bits(parts: Parts, options: Options) -> Tensor:
    """nf4 and fp4, their scales quantized or not."""
    from bitsandbytes.functional import QuantState

    state = QuantState.from_dict({name: part for name, part in parts.items() if name != ".weight"}, torch.device("cpu"))
    return expand4(parts[".weight"], state).float()


def eight_bits(parts: Parts, options: Options) -> Tensor:
    """Of each row, 127 is the largest."""
    if int(parts.get(".weight_format", torch.zeros(()))) != 0:
        raise ValueError("int8 weights in the order of a card's tiles, not of rows")
    return parts[".weight"].float().mul_(parts[".SCB"].float()[:, None] / 127)


STATE = (".weight.quant_map", ".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4")
NESTED = (".weight.nested_absmax", ".weight.nested_quant_map")

BLOCKS = Packing("_scale_inv", ("",), partial(fp8, "", "_scale_inv"), into="")
ROWS = Packing(".weight_scale", (".weight",), partial(fp8, ".weight", ".weight_scale"))
"""FP8 with the names of DeepSeek-V3, and with those of FBGEMM."""

PACKINGS: dict[str, tuple[Packing, ...]] = {
    "bitsandbytes": (
        Packing(".weight.absmax", (".weight",), four_bits, may=(*STATE, *NESTED)),
        Packing(".SCB", (".weight",), eight_bits, may=(".weight_format",)),
    ),
    "gptq": (Packing(".qweight", (".qzeros", ".scales"), gptq, may=(".g_idx",)),),
    "awq": (Packing(".qweight", (".qzeros", ".scales"), awq),),
    "fp8": (BLOCKS, ROWS),
    "fbgemm_fp8": (ROWS,),
    "mxfp4": (Packing("_blocks", ("_scales",), mxfp4, into=""),),
    "compressed-tensors": (
        Packing(
            ".weight_packed",
            (".weight_scale",),
            packed,
            may=(".weight_shape", ".weight_zero_point", ".weight_g_idx", ".weight_global_scale"),
        ),
        Packing(".weight_scale", (".weight",), plain, may=(".weight_zero_point", ".weight_g_idx")),
    ),
}
"""By `quant_method` of a config."""

ACTIVATIONS = re.compile(
    r"\.(input|output|k|v|q|activation|input_global|k_global|v_global)_(scale|zero_point|scale_ub)$"
)
"""Tensors beside them that say how activations are rounded as they are served: nothing of the weights."""

FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gptq": ("checkpoint_format", ("gptq", "gptq_v2")),
    "awq": ("version", ("gemm",)),
    "compressed-tensors": (
        "format",
        (
            "dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mxfp8-quantized",
            "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mixed-precision",
        ),
    ),
}  # fmt: skip
"""Of a method: the setting that says which layout, and those that are read."""


def refuse_layout(method: str, options: Options, name: str) -> None:
    """Raises ZoliteError for a layout of a method that nothing here reads."""
    setting, known = FORMATS.get(method, ("", ()))
    found = str(options.get(setting) or options.get("format") or known[0]).lower() if known else ""
    if known and found not in known:
        why = f"in {method}'s layout {found!r}, of which {', '.join(known)} are read"
    elif options.get("transform_config"):
        why = "rotated, to be turned back by a transform as the model runs"
    elif (options.get("sparsity_config") or {}).get("format", "dense") != "dense":
        why = f"sparse, in the format {options['sparsity_config']['format']}"
    else:
        return
    raise ZoliteError(f"the weights of {name} are stored {why}", ELSEWHERE)


ELSEWHERE = (
    "take the model as it was published in 16 bits, most often its name without that of the method; --quant int8 and "
    "nf4 quantize it as it is loaded. A GGUF file of it would do too"
)
