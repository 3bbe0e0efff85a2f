"""Weights that are stored quantized: kept where that is what was asked for, else dequantized and quantized as asked.

The library that reads a format dequantizes it, on the CPU, where the whole model lies in the activations' dtype
meanwhile.
"""

from typing import Any

import torch
from torch import nn

from zolite.common.errors import UsageError
from zolite.model.quant import Int8Linear, Nf4Linear, linear_names, replace_, weight16

DEQUANTIZED = ("bitsandbytes", "fp8", "mxfp4", "compressed-tensors")
"""Methods (`quant_method` of a config) that transformers dequantizes at a load, where what it takes is installed."""


def stored(config: Any) -> str:
    """The weight format that a model is stored in, where it is one of zolite's; else the method's name, "" for none."""
    options = settings(config)
    if options.get("load_in_8bit"):
        return "int8"
    if options.get("load_in_4bit"):
        return str(options.get("bnb_4bit_quant_type") or "fp4")
    return str(options.get("quant_method") or "")


def settings(config: Any) -> dict[str, Any]:
    """A config's `quantization_config` as a table, which `config` has from now on."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return {}
    table: dict[str, Any] = found if isinstance(found, dict) else found.to_dict()
    config.quantization_config = table
    return table


def dequantize_at_load(config: Any, name: str) -> None:
    """Have transformers dequantize a model as it loads it. Raises UsageError where it cannot."""
    options = settings(config)
    method = str(options.get("quant_method") or "bitsandbytes")
    if method not in DEQUANTIZED:
        raise UsageError(
            f"the weights of {name} are stored quantized by {method}, which zolite does not read",
            "take the model as it was published in 16 bits, most often its name without that of the method; "
            "--quant int8 and nf4 quantize it as it is loaded. A GGUF file of it would do too",
        )
    if method != "bitsandbytes":
        options["dequantize"] = True


def plain_(model: Any) -> Any:
    """An ordinary model of one whose weights were dequantized."""
    if getattr(model, "hf_quantizer", None) is not None:
        quantizer = model.hf_quantizer
        if quantizer.quantization_config.quant_method == "bitsandbytes":
            model = model.dequantize(dtype=model.dtype)
        model.hf_quantizer, model.is_quantized = None, False
        vars(model.config).pop("quantization_config", None)
    return model


def quantize_(model: Any, quantization: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The model on a device, in a format of zolite's: its linear layers but the head, one at a time."""
    for name in linear_names(model) if quantization in ENCODED else ():
        layer = model.get_submodule(name)
        replace_(model, name, ENCODED[quantization](layer, device, dtype))
    return nn.Module.to(model, device)


def _int8(layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> Int8Linear:
    """As bitsandbytes does: of each row, 127 is the largest."""
    weight = layer.weight.detach().to(device).float()
    scales = weight.abs().amax(dim=1)
    codes = (weight * (127 / scales.clamp(min=1e-30))[:, None]).round().to(torch.int8)
    return Int8Linear(codes, scales, _bias(layer, device, dtype), dtype)


def _nf4(layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> Nf4Linear:
    from bitsandbytes.nn import Params4bit

    weight = Params4bit(layer.weight.detach().cpu(), requires_grad=False, quant_type="nf4", compress_statistics=False)
    return Nf4Linear(weight.to(device), _bias(layer, device, dtype), dtype)


ENCODED = {"int8": _int8, "nf4": _nf4}


def _bias(layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
    return None if layer.bias is None else layer.bias.detach().to(device, dtype)


def expand_(model: nn.Module) -> None:
    """Ordinary layers in the place of zolite's quantized ones, of the same weights in float32."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Int8Linear | Nf4Linear):
            made = nn.Linear(module.in_features, module.out_features, device="meta")
            made.weight = nn.Parameter(weight16(module, torch.float32), requires_grad=False)
            bias = module.bias
            made.register_parameter("bias", None if bias is None else nn.Parameter(bias.float(), requires_grad=False))
            replace_(model, name, made)
