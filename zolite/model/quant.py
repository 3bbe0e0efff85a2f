"""Weight formats: how frozen weights are stored and how they multiply."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Format:
    """A way to store the frozen linear layers. Embeddings, norms and the head stay in the activations' dtype."""

    bits: float  # a weight, its share of the scales included
    cpu: torch.dtype  # activations on a CPU, which computes nothing faster than float32
    cuda: torch.dtype  # activations on a GPU
    load: Callable[[torch.dtype], dict[str, Any]]  # what transformers' BitsAndBytesConfig is told


FORMATS = {
    # int8 products take float16, eight times finer than bfloat16: what zeroth-order differences need.
    "int8": Format(8.0, torch.float32, torch.float16, lambda _: {"load_in_8bit": True, "llm_int8_threshold": 0.0}),
    "nf4": Format(
        4.5,
        torch.float32,
        torch.bfloat16,
        lambda dtype: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype},
    ),
    "bf16": Format(16.0, torch.bfloat16, torch.bfloat16, lambda _: {}),
    "float32": Format(32.0, torch.float32, torch.float32, lambda _: {}),
}


class Int8Linear(nn.Module):
    """bitsandbytes' int8 product without its autograd wrapper, which warns at each call and goes through float16.

    y = (round(x · 127 / s) codesᵀ) · s · scales / 127², s the largest |x| of each row (LLM.int8(), arXiv 2208.07339,
    with threshold 0). Rows are independent, so a batch gives each row what the row alone would get.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, codes: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = codes.shape
        self.register_buffer("codes", codes, persistent=False)  # (out, in) int8
        self.register_buffer("scales", scales, persistent=False)  # (out,) float32: largest |w| of each row
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        product = _int8_cuda if x.is_cuda else _int8_cpu
        y = product(x.reshape(-1, self.in_features), self.codes, self.scales)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], self.out_features)


def _int8_cuda(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """(rows, in) → (rows, out), in x's dtype."""
    ops = torch.ops.bitsandbytes
    rows, row_scales, _ = ops.int8_vectorwise_quant(x.to(torch.float16))
    y: Tensor = ops.int8_scaled_mm(rows, codes, row_scales, scales, dtype=torch.float16)
    return y.to(x.dtype)


def _int8_cpu(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """As `_int8_cuda`, in float32 around an integer product."""
    row_scales = x.abs().amax(dim=-1, keepdim=True).float().clamp_(min=torch.finfo(torch.float32).tiny)
    rows = (x * (127 / row_scales)).round_().to(torch.int8)
    products: Tensor = torch.ops.bitsandbytes.int8_linear_matmul(rows, codes)  # (rows, out) int32, exact
    return products.float().mul_(row_scales).mul_(scales / 127**2).to(x.dtype)


def simplify_(model: nn.Module) -> None:
    """Replace every bitsandbytes Linear8bitLt by an Int8Linear on the same codes."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "Linear8bitLt":
            replace_(model, name, Int8Linear(*_codes(module), getattr(module, "bias", None)))


def replace_(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of a named one."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def linear_names(model: Any) -> list[str]:
    """Every linear layer that may carry an adapter, by full name; the head is not one."""
    return [n for n, m in model.named_modules() if is_linear(m) and m is not model.get_output_embeddings()]


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Int8Linear)  # bitsandbytes' layers are nn.Linear


def _codes(module: Any) -> tuple[Tensor, Tensor]:
    """(codes, scales) of a Linear8bitLt, wherever it keeps them before its first call."""
    state, weight = module.state, module.weight
    codes = state.CB if state.CB is not None else weight.data
    scales = state.SCB if state.SCB is not None else weight.SCB
    return codes, scales.float()
