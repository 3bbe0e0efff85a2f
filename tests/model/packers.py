"""Weights quantized and packed as the formats' definitions say, number by number: what the readers are compared with.

A packer takes a weight (out, in) and gives the tensors of a layer, by what stands behind its name, and the weight that
they mean. Nothing here is shared with the readers: bits go into whole numbers of Python, which are cut into words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

GROUP = 32
Packed = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Packer:
    pack: Callable[[Tensor], Packed]
    config: Mapping[str, Any] = field(default_factory=dict)


def words(codes: Sequence[int], bits: int) -> list[int]:
    """Codes behind each other, from the lowest bit on, in signed numbers of 32 bits."""
    whole = sum(code << (place * bits) for place, code in enumerate(codes))
    found = [(whole >> (32 * i)) & 0xFFFFFFFF for i in range(-(-len(codes) * bits // 32))]
    return [word - 2**32 if word >= 2**31 else word for word in found]


def in_words(codes: Tensor, bits: int) -> Tensor:
    """(rows, n) to (rows, words) int32."""
    return torch.tensor([words(row, bits) for row in codes.tolist()], dtype=torch.int32)


def affine(weight: Tensor, bits: int, groups: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes (out, in), zeros and scales (out, groups), and what they mean: (code − zero) · scale."""
    count, most = int(groups.max()) + 1, 2**bits - 1
    zeros, scales = torch.zeros(weight.shape[0], count), torch.zeros(weight.shape[0], count)
    for group in range(count):
        part = weight[:, groups == group]
        low, high = part.amin(dim=1).clamp(max=0), part.amax(dim=1).clamp(min=0)
        scales[:, group] = ((high - low) / most).half().float()
        zeros[:, group] = (-low / scales[:, group]).round().clamp(0, most)
    codes = (weight / scales[:, groups] + zeros[:, groups]).round().clamp(0, most)
    return codes.int(), zeros.int(), scales, (codes - zeros[:, groups]) * scales[:, groups]


def gptq(bits: int, v2: bool = False, act_order: bool = False) -> Packer:
    def pack(weight: Tensor) -> Packed:
        groups = torch.arange(weight.shape[1]) // GROUP
        if act_order:
            groups = groups[torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))]
        codes, zeros, scales, means = affine(weight, bits, groups)
        stored = zeros if v2 else (zeros - 1) % 2**bits
        return {
            ".qweight": in_words(codes, bits).T.contiguous(),
            ".qzeros": in_words(stored.T, bits),
            ".scales": scales.T.half().contiguous(),
            ".g_idx": groups.int(),
            ".bias": torch.zeros(weight.shape[0]),  # which AutoGPTQ writes for every layer
        }, means

    table = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": act_order}
    return Packer(pack, table | {"checkpoint_format": "gptq_v2" if v2 else "gptq"})


def awq(weight: Tensor) -> Packed:
    codes, zeros, scales, means = affine(weight, 4, torch.arange(weight.shape[1]) // GROUP)

    def interleaved(table: Tensor) -> Tensor:  # of each eight outputs
        order = [eight + i for eight in range(0, table.shape[1], 8) for i in (0, 2, 4, 6, 1, 3, 5, 7)]
        return in_words(table[:, order], 4)

    return {".qweight": interleaved(codes.T), ".qzeros": interleaved(zeros.T), ".scales": scales.T.half()}, means


def fp8(scales: Callable[[Tensor], Tensor], name: str) -> Callable[[Tensor], Packed]:
    """`scales` of a weight are of the same number of dimensions, or one number."""

    def pack(weight: Tensor) -> Packed:
        scale = scales(weight)
        wide = scale
        for dim, size in enumerate(weight.shape if scale.dim() else ()):
            wide = wide.repeat_interleave(-(-size // scale.shape[dim]), dim=dim).narrow(dim, 0, size)
        codes = (weight / wide).to(torch.float8_e4m3fn)
        return {".weight": codes, name: scale, ".input_scale": torch.ones(())}, codes.float() * wide

    return pack


def blocks(weight: Tensor) -> Tensor:
    high, wide = weight.shape[0] // GROUP, weight.shape[1] // GROUP
    return weight.reshape(high, GROUP, wide, GROUP).abs().amax(dim=(1, 3)) / 448


def rows(weight: Tensor) -> Tensor:
    return weight.abs().amax(dim=1, keepdim=True) / 448


def whole(weight: Tensor) -> Tensor:
    return weight.abs().amax() / 448


HALVES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
FLOATS = torch.tensor(HALVES + [-value for value in HALVES])


def four_bits(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest four-bit float of each weight over its group's scale, two in a byte, and what they mean."""
    wide = scale.repeat_interleave(weight.shape[-1] // scale.shape[-1], dim=-1)
    nearest = ((weight / wide)[..., None] - FLOATS).abs().argmin(dim=-1)
    return (nearest[..., 0::2] + 16 * nearest[..., 1::2]).to(torch.uint8), FLOATS[nearest] * wide


def powers(weight: Tensor) -> Tensor:
    """Exponents of groups: their largest becomes 4 to 8 times a power of two, most of it within 6."""
    largest = weight.unflatten(-1, (-1, GROUP)).abs().amax(dim=-1)
    return (largest / 4).log2().floor().int()


def mxfp4(weight: Tensor) -> Packed:
    exponent = powers(weight)
    packed, means = four_bits(weight, exponent.float().exp2())
    return {".weight_packed": packed, ".weight_scale": (exponent + 127).to(torch.uint8)}, means


def nvfp4(weight: Tensor) -> Packed:
    overall = 448 * 6 / weight.abs().amax()
    scale = (weight.unflatten(-1, (-1, 16)).abs().amax(dim=-1) / 6 * overall).to(torch.float8_e4m3fn)
    packed, means = four_bits(weight, scale.float() / overall)
    return {".weight_packed": packed, ".weight_scale": scale, ".weight_global_scale": overall[None]}, means


def integers(bits: int, group: int, symmetric: bool, act_order: bool = False) -> Callable[[Tensor], Packed]:
    """compressed-tensors' packed ones. `group` 0: a scale for each row."""

    def pack(weight: Tensor) -> Packed:
        groups = torch.arange(weight.shape[1]) // (group or weight.shape[1])
        if act_order:
            groups = groups[torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))]
        codes, zeros, scales, means = affine(weight, bits, groups)
        half = 2 ** (bits - 1)
        if symmetric:
            scales = torch.stack([weight[:, groups == g].abs().amax(dim=1) for g in groups.unique()], dim=1) / half
            signed = (weight / scales[:, groups]).round().clamp(-half, half - 1)
            codes, means = (signed + half).int(), signed * scales[:, groups]
        made = {".weight_packed": in_words(codes, bits), ".weight_scale": scales}
        made |= {".weight_shape": torch.tensor(weight.shape)}
        made |= {} if symmetric else {".weight_zero_point": in_words(zeros.T, bits).T.contiguous()}
        return made | ({".weight_g_idx": groups.int()} if act_order else {}), means

    return pack


def of_rows(weight: Tensor) -> Packed:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    codes = (weight / scale).round().to(torch.int8)
    return {".weight": codes, ".weight_scale": scale}, codes.float() * scale


def compressed(layout: str, pack: Callable[[Tensor], Packed], **numbers: Any) -> Packer:
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": None, **numbers}}
    return Packer(pack, {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}})


PACKERS: dict[str, Packer] = {
    "gptq, 4 bits": gptq(4),
    "gptq, 8 bits, in the order of activations": gptq(8, act_order=True),
    "gptq, 3 bits": gptq(3),
    "gptq, 2 bits, second version": gptq(2, v2=True),
    "awq": Packer(awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}),
    "fp8, in blocks": Packer(
        fp8(blocks, ".weight_scale_inv"), {"quant_method": "fp8", "weight_block_size": [GROUP, GROUP]}
    ),
    "fp8, a tensor": Packer(fp8(whole, ".weight_scale_inv"), {"quant_method": "fp8"}),
    "fp8, in rows": Packer(fp8(rows, ".weight_scale"), {"quant_method": "fbgemm_fp8"}),
    "compressed-tensors, 4 bits": compressed("pack-quantized", integers(4, GROUP, True), group_size=GROUP),
    "compressed-tensors, 4 bits with zeros": compressed("pack-quantized", integers(4, GROUP, False), group_size=GROUP),
    "compressed-tensors, 8 bits of rows": compressed("pack-quantized", integers(8, 0, False), num_bits=8),
    "compressed-tensors, 3 bits, in the order of activations": compressed(
        "pack-quantized", integers(3, GROUP, False, act_order=True), num_bits=3, group_size=GROUP
    ),
    "compressed-tensors, int8": compressed("int-quantized", of_rows, num_bits=8),
    "compressed-tensors, float8": compressed("float-quantized", fp8(rows, ".weight_scale"), num_bits=8),
    "compressed-tensors, float8 in blocks": compressed(
        "float-quantized", fp8(blocks, ".weight_scale"), num_bits=8, block_structure=[GROUP, GROUP]
    ),
    "compressed-tensors, nvfp4": compressed("nvfp4-pack-quantized", nvfp4, group_size=16),
    "compressed-tensors, mxfp4": compressed("mxfp4-pack-quantized", mxfp4, group_size=32),
}
