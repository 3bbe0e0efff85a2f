"""Weight formats (config/weights.py) in torch: how frozen weights are loaded and how they multiply."""

import copy
import logging
import subprocess
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zolite.config.weights import WEIGHT_FORMATS
from zolite.model.devices import nvidia

LOADING: dict[str, Callable[[torch.dtype], dict[str, Any]]] = {
    "int8": lambda _: {"load_in_8bit": True, "llm_int8_threshold": 0.0},
    "nf4": lambda dtype: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype},
}
"""Options of transformers' BitsAndBytesConfig, by format, for activations of a dtype; other formats need none."""


def activations(name: str, device: torch.device) -> torch.dtype:
    """What a format computes in on a device."""
    dtype: torch.dtype = getattr(torch, WEIGHT_FORMATS[name].dtype(device.type))
    return dtype


def loading(name: str, device: torch.device) -> dict[str, Any]:
    """Options of transformers' BitsAndBytesConfig; {} for none."""
    options = LOADING.get(name)
    return options(activations(name, device)) if options else {}


class Int8Linear(nn.Module):
    """bitsandbytes' int8 weights, multiplied as weights only: y = x (codes · scales)ᵀ.

    bitsandbytes' own product (LLM.int8(), arXiv 2208.07339) rounds each token's activations to int8 too. That is fine
    for inference and ruinous here: of the difference L(θ + εd) − L(θ − εd) at ε = 1e-2 about half is that rounding
    (docs/log.md). Where both points run together, kernels.pair_product rounds their mean and their difference instead.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, codes: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = codes.shape
        self.dtype = dtype  # of the activations
        self.register_buffer("codes", codes, persistent=False)  # (out, in) int8
        self.register_buffer(
            "scales", scales.float() / 127, persistent=False
        )  # (out,) float32, from each row's maximum
        self.register_buffer("bias", bias, persistent=False)

    @property
    def weight(self) -> Tensor:
        """Expanded anew: for models that take a layer's weight without calling it."""
        return weight16(self, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, weight16(self, x.dtype), self.bias)


class Nf4Linear(nn.Module):
    """bitsandbytes' nf4 weights, expanded and multiplied in the activations' dtype.

    bitsandbytes does the same on a GPU; on CPUs with AVX-512 BF16 it repacks them and multiplies in bfloat16.
    """

    bias: Tensor | None

    def __init__(self, weight: Any, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.packed, self.dtype = weight, dtype  # bitsandbytes.nn.Params4bit
        self.out_features, self.in_features = weight.quant_state.shape
        self.register_buffer("bias", bias, persistent=False)

    @property
    def weight(self) -> Tensor:
        """Expanded anew: for models that take a layer's weight without calling it."""
        return weight16(self, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, weight16(self, self.dtype), self.bias)


def weight16(layer: Any, dtype: torch.dtype) -> Tensor:
    """A linear layer's weight (out, in) as it is multiplied: codes are expanded, a plain layer's is itself."""
    if isinstance(layer, Int8Linear):
        return expand8(layer.codes, layer.scales, dtype)
    if isinstance(layer, Nf4Linear):
        return expand4(layer.packed.data, layer.packed.quant_state).to(dtype)
    weight: Tensor = layer.weight
    return weight


def expand4(packed: Tensor, state: Any) -> Tensor:
    """bitsandbytes' four-bit weights (out, in) in their state's dtype.

    Rows that are no multiple of a block are expanded as one: on a CPU bitsandbytes begins a block with each row then,
    though it quantized blocks of all rows behind each other.
    """
    from bitsandbytes.functional import dequantize_4bit

    if state.shape[-1] % state.blocksize == 0:
        return dequantize_4bit(packed, state)  # type: ignore[no-any-return]
    one = copy.copy(state)
    one.shape = torch.Size([state.shape.numel()])
    return dequantize_4bit(packed, one).view(state.shape)  # type: ignore[no-any-return]


def expand_broken_(model: nn.Module) -> None:
    """Ordinary layers in the place of bitsandbytes' four-bit ones that its own expansion may get wrong (expand4)."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "Linear4bit" and module.in_features % module.weight.quant_state.blocksize:
            made = nn.Linear(module.in_features, module.out_features, device="meta")
            weight = expand4(module.weight.data, module.weight.quant_state)
            made.weight, made.bias = nn.Parameter(weight, requires_grad=False), module.bias
            replace_(model, name, made)


def expand8(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Codes (out, in) int8 times their rows' scales (out,)."""
    fast = triton_kernels(codes.device)
    if fast is None:
        return torch.mul(codes, scales[:, None]).to(dtype)
    return fast.expand(codes, scales, dtype)  # type: ignore[no-any-return]


@cache
def triton_kernels(device: torch.device) -> Any:
    """The module model/kernels.py, where there is a GPU of NVIDIA's that it serves and Triton works; else None.

    Triton compiles a launcher on the spot: it wants a C compiler and Python's headers, which many a system lacks.
    """
    if not nvidia(device) or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from zolite.model import kernels

        kernels.expand(torch.zeros(1, 16, dtype=torch.int8, device=device), torch.ones(1, device=device), torch.float16)
    except (ImportError, RuntimeError, OSError, AssertionError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).warning("Triton does not work here, so steps are slower: %s", error)
        return None
    return kernels


def simplify_(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace bitsandbytes' layers by ones that multiply the same weights in the activations' dtype, and no other.

    GPT-2's Conv1D, a linear layer whose weight is stored as (in, out), becomes one like all others.
    """
    for name, module in list(model.named_modules()):
        simpler = SIMPLER.get(type(module).__name__)
        if simpler is not None:
            replace_(model, name, simpler(module, dtype))


def _int8(module: Any, dtype: torch.dtype) -> Int8Linear:
    """From a Linear8bitLt, wherever it keeps codes and scales before its first call."""
    state, weight = module.state, module.weight
    codes = state.CB if state.CB is not None else weight.data
    scales = state.SCB if state.SCB is not None else weight.SCB
    return Int8Linear(codes, scales, _cast(module.bias, dtype), dtype)


def _nf4(module: Any, dtype: torch.dtype) -> Nf4Linear:
    return Nf4Linear(module.weight, _cast(module.bias, dtype), dtype)


def _turned(module: Any, _: torch.dtype) -> nn.Linear:
    """From a Conv1D."""
    inputs, outputs = module.weight.shape
    made = nn.Linear(inputs, outputs, device="meta", dtype=module.weight.dtype)
    made.weight, made.bias = nn.Parameter(module.weight.detach().mT.contiguous(), requires_grad=False), module.bias
    return made


def _cast(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.detach().to(dtype)


SIMPLER: dict[str, Callable[[Any, torch.dtype], nn.Module]] = {
    "Linear8bitLt": _int8,
    "Linear4bit": _nf4,
    "Conv1D": _turned,
}


def replace_(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of a named one."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def linear_names(model: Any) -> list[str]:
    """Every linear layer that may carry an adapter, by full name; the head is not one."""
    return [n for n, m in model.named_modules() if is_linear(m) and m is not model.get_output_embeddings()]


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Int8Linear | Nf4Linear)
