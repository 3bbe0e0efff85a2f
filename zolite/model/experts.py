"""Routed experts, whose weights lie in one tensor of three dimensions: quantized as they are read, expanded one by one.

    quantizing(options)             transformers' settings for a load that quantizes linear layers and experts
    simplify_(model, name, dtype)   after it: experts that multiply by codes, whose weights are expanded when they run
    expand_(model)                  or ordinary ones again, of the same weights in float32

bitsandbytes quantizes linear layers alone, so transformers would leave experts in 16 bits, or 32 on a CPU. Here such a
tensor, (E, out, in) or (E, in, out) where a model stores it turned, becomes codes before the next one is read.

E experts, S tokens, of which each goes to k experts, D width.
"""

from collections.abc import Callable, Iterator
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from zolite.config import sizes
from zolite.model.quant import expand8

OWN_LOOPS = ("JetMoeParallelExperts", "LongcatFlashExperts", "Step3p7Experts")
"""Classes that take one expert's weight after the other themselves, without transformers' interface for experts."""
AT_ONCE = "Llama4TextExperts"  # its rows lie by expert already; all experts are multiplied in one product
HELD = "zolite_experts"  # attribute of a parameter of codes, until its module has them in its place
BLOCK = 64  # weights that share a scale in nf4


class Int8Experts(nn.Module):
    """As bitsandbytes does for linear layers: of each row of an expert's weight, 127 is the largest."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, turned: bool, dtype: torch.dtype) -> None:
        """Of weights (E, out, in), or (E, in, out) if `turned`; one expert at a time is in float32 meanwhile."""
        super().__init__()
        rows, self.turned, self.dtype = weight.mT if turned else weight, turned, dtype
        codes = torch.empty(rows.shape, dtype=torch.int8, device=rows.device)
        scales = torch.empty(rows.shape[:2], dtype=torch.float32, device=rows.device)
        for i, expert in enumerate(rows):
            one = expert.float()
            scales[i] = one.abs().amax(dim=1)
            codes[i] = (one * (127 / scales[i].clamp(min=1e-30))[:, None]).round_()
        self.register_buffer("codes", codes, persistent=False)  # (E, out, in)
        self.register_buffer("scales", scales.div_(127), persistent=False)  # (E, out)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, expert: int | Tensor) -> Tensor:
        """One expert's weight as the model stores it, expanded."""
        i = int(expert)
        weight = expand8(self.codes[i], self.scales[i], self.dtype)
        return weight.mT if self.turned else weight


class Nf4Experts(nn.Module):
    """bitsandbytes' nf4. No block of weights is of two experts."""

    packed: Tensor
    absmax: Tensor
    code: Tensor

    def __init__(self, weight: Tensor, turned: bool, dtype: torch.dtype) -> None:
        super().__init__()
        from bitsandbytes.functional import quantize_4bit

        found = [quantize_4bit(expert.contiguous(), blocksize=BLOCK, quant_type="nf4") for expert in weight]
        self.shape, self.dtype = weight.shape[1:], dtype
        self.register_buffer("packed", torch.stack([packed for packed, _ in found]), persistent=False)
        self.register_buffer("absmax", torch.stack([state.absmax for _, state in found]), persistent=False)
        self.register_buffer("code", found[0][1].code, persistent=False)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, expert: int | Tensor) -> Tensor:
        """One expert's weight as the model stores it, expanded."""
        from bitsandbytes.functional import QuantState, dequantize_4bit

        i = int(expert)
        # As one row: bitsandbytes on a CPU cuts the blocks of shorter rows elsewhere than where it quantizes them.
        state = QuantState(self.absmax[i], torch.Size([self.shape.numel()]), self.code, BLOCK, "nf4", self.dtype)
        weight: Tensor = dequantize_4bit(self.packed[i], state).view(self.shape)
        return weight


CODED: dict[str, Callable[[Tensor, bool, torch.dtype], Any]] = {"int8": Int8Experts, "nf4": Nf4Experts}


# ---- which they are


def has_experts(module: nn.Module) -> bool:
    """By what transformers' decorator of experts leaves on them, or by their class."""
    return by_interface(module) or type(module).__name__ in (*OWN_LOOPS, AT_ONCE)


def by_interface(module: nn.Module) -> bool:
    return hasattr(module, "has_gate") and hasattr(module, "is_transposed")


def tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Modules with experts, and the names and values of their weights, coded or not."""
    for module in [each for each in model.modules() if has_experts(each)]:
        for name, value in [*module.named_parameters(recurse=False), *module.named_children()]:
            if isinstance(value, Int8Experts | Nf4Experts) or getattr(value, "ndim", 0) == 3 or hasattr(value, HELD):
                yield module, name, value


def names(model: nn.Module) -> list[str]:
    """Last parts of the names of experts' weights."""
    return sorted({name for _, name, _ in tensors(model)})


def _turned(module: nn.Module) -> bool:
    return bool(getattr(module, "is_transposed", type(module).__name__ == AT_ONCE))


# ---- how they are loaded


def quantizing(options: dict[str, Any]) -> Any:
    """transformers' BitsAndBytesConfig of these options, for a quantizer that codes experts too."""
    from transformers import BitsAndBytesConfig

    made = BitsAndBytesConfig(**options)
    made.quant_method = _registered("int8" if made.load_in_8bit else "nf4")
    return made


@cache
def _registered(format_: str) -> str:
    """The name under which transformers has a quantizer for both linear layers and experts."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantizer

    linear: Any = AUTO_QUANTIZER_MAPPING[{"int8": "bitsandbytes_8bit", "nf4": "bitsandbytes_4bit"}[format_]]

    class Quantizer(linear):  # type: ignore[misc]
        """bitsandbytes' own, which is asked of every tensor whether it is to be quantized."""

        def param_needs_quantization(self, model: Any, param_name: str, **more: Any) -> bool:
            module, _, name = param_name.rpartition(".")
            found = model.get_submodule(module)
            coded = has_experts(found) and getattr(getattr(found, name, None), "ndim", 0) == 3
            return bool(coded or super().param_needs_quantization(model, param_name, **more))

        def get_quantize_ops(self) -> Any:
            return _operation(super().get_quantize_ops(), format_)

    register_quantizer(f"zolite_{format_}")(Quantizer)
    return f"zolite_{format_}"


def _operation(linear: Any, format_: str) -> Any:
    """What transformers calls with tensors that are read: bitsandbytes' for linear layers, codes for experts."""
    from transformers.core_model_loading import ConversionOps

    class Quantize(ConversionOps):  # type: ignore[misc]
        def convert(self, input_dict: dict[str, Any], model: Any = None, **more: Any) -> dict[str, Any]:
            made, rest = {}, {}
            for full, value in input_dict.items():
                module = model.get_submodule(full.rpartition(".")[0])
                if has_experts(module):
                    made[full] = _held(value[0] if isinstance(value, list) else value, module, format_)
                else:
                    rest[full] = value
            return made | (linear.convert(rest, model=model, **more) if rest else {})

    return Quantize()


def _held(weight: Tensor, module: nn.Module, format_: str) -> nn.Parameter:
    """A parameter, since that is what transformers keeps, with the experts as an attribute."""
    coded = CODED[format_](weight, _turned(module), weight.dtype)
    held = nn.Parameter(next(coded.buffers()), requires_grad=False)
    setattr(held, HELD, coded)
    return held


# ---- how they run


def simplify_(model: nn.Module, format_: str, dtype: torch.dtype) -> None:
    """Codes in the place of all experts' weights, where the format has codes; each expert runs alone in any format."""
    code_(model, format_, dtype)
    for module in model.modules():
        if by_interface(module) or type(module).__name__ == AT_ONCE:
            module.forward = MethodType(by_expert if by_interface(module) else sorted_by_expert, module)


def code_(model: nn.Module, format_: str, dtype: torch.dtype) -> None:
    """Those that a load left as they were, too: a checkpoint of bitsandbytes has its experts in 16 bits."""
    for module, name, value in list(tensors(model)) if format_ in CODED else ():
        if isinstance(value, nn.Parameter):
            made = getattr(value, HELD, None) or CODED[format_](value.detach(), _turned(module), dtype)
            made.dtype = dtype
            delattr(module, name)
            setattr(module, name, made)


def expand_(model: nn.Module) -> None:
    """Ordinary experts of the same weights in float32, as transformers alone runs them."""
    for module, name, value in list(tensors(model)):
        if isinstance(value, Int8Experts | Nf4Experts):
            value.dtype = torch.float32
            delattr(module, name)
            weight = torch.stack([value[i] for i in range(len(value))])
            setattr(module, name, nn.Parameter(weight, requires_grad=False))


def by_expert(self: Any, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """In the place of an experts' forward: (S, D), and (S, k) experts with their weights, to (S, D).

    Expert after expert, each with its own tokens, in float32 where they meet: the same sums in the same order always.
    """
    made = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    flat, shares = index.flatten(), weights.flatten()
    counts = flat.bincount(minlength=self.num_experts).tolist()  # the one place that waits for the device
    for expert, mine in enumerate(torch.split(flat.argsort(stable=True), counts)[: self.num_experts]):
        for part in torch.split(mine, sizes.EXPERT_TOKENS):
            if len(part):
                rows = part // index.shape[1]
                made.index_add_(0, rows, _one(self, expert, hidden[rows]) * shares[part, None])
    return made.to(hidden.dtype)


def _one(self: Any, expert: int, x: Tensor) -> Tensor:
    """Tokens (n, D) through one expert: (n, D) float32."""
    up = "gate_up_proj" if self.has_gate else "up_proj"
    inner = _linear(self, up, expert, x)
    y = _linear(self, "down_proj", expert, self._apply_gate(inner) if self.has_gate else self.act_fn(inner))
    return (self.post_expert_norm(y) if getattr(self, "has_post_expert_norm", False) else y).float()


def _linear(self: Any, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(self, name)[expert]
    y = torch.mm(x, weight if self.is_transposed else weight.mT)
    return y.add_(getattr(self, f"{name}_bias")[expert]) if self.has_bias else y


def sorted_by_expert(self: Any, hidden: Tensor) -> Tensor:
    """The same for rows (E · n, D) that lie by their experts."""
    made = torch.empty_like(hidden)
    for expert, (rows, out) in enumerate(zip(*(t.chunk(self.num_experts) for t in (hidden, made)), strict=True)):
        gate, up = torch.mm(rows, self.gate_up_proj[expert]).chunk(2, dim=-1)
        out.copy_(torch.mm(up * self.act_fn(gate), self.down_proj[expert]))
    return made
