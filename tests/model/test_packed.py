"""Weights that are stored quantized are kept where that was asked for, else held in what was asked for, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from zolite.common.errors import ZoliteError
from zolite.model import load as models
from zolite.model.quant import Int8Linear, Nf4Linear

CPU = torch.device("cpu")
HELD: dict[str, type] = {"int8": Int8Linear, "nf4": Nf4Linear, "float32": nn.Linear, "bf16": nn.Linear}
IDS = torch.arange(3, 40)[None]


def load(folder: Path, quant: str) -> models.Loaded:
    return models.load(models.resolve(str(folder)), quant, CPU, folder.parent / "cache")


def saved_by_bitsandbytes(tiny: Path, folder: Path, bits: int) -> torch.Tensor:
    """The logits of the same weights, dequantized by transformers."""
    options: dict[str, Any] = (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"} if bits == 4 else {"load_in_8bit": True}
    )
    config = BitsAndBytesConfig(**options)
    made = AutoModelForCausalLM.from_pretrained(tiny, quantization_config=config, device_map={"": CPU})
    made.save_pretrained(folder)
    for file in tiny.glob("tokenizer*"):
        shutil.copy(file, folder)
    plain = AutoModelForCausalLM.from_pretrained(folder, device_map={"": CPU}).dequantize(dtype=torch.float32)
    with torch.inference_mode():
        return plain(input_ids=IDS).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("quant", HELD)
@pytest.mark.parametrize("bits", [4, 8])
def test_what_bitsandbytes_saved_is_held_as_asked(tiny: Path, tmp_path: Path, bits: int, quant: str) -> None:
    right = saved_by_bitsandbytes(tiny, tmp_path / "saved", bits)
    found = load(tmp_path / "saved", quant)
    layer = found.model.model.layers[0].mlp.up_proj
    assert type(layer) is HELD[quant]
    with torch.inference_mode():
        logits = found.model(input_ids=IDS).logits.float()
    apart = float((logits - right).norm() / right.norm())
    kept = (bits, quant) in ((4, "nf4"), (8, "int8"))
    assert apart < {"float32": 1e-5, "bf16": 3e-2, "int8": 3e-2, "nf4": 0.3}[quant] and (not kept or apart < 1e-3)
    assert bool(found.notes) != kept


@pytest.mark.parametrize("quant", ["int8", "nf4", "float32"])
def test_an_export_is_compared_in_the_same_weights(tiny: Path, tmp_path: Path, quant: str) -> None:
    saved_by_bitsandbytes(tiny, tmp_path / "saved", 8)
    found = load(tmp_path / "saved", quant)
    plain = models.plain(found.source, quant, CPU, tmp_path / "cache")
    assert {type(m) for m in plain.modules() if isinstance(m, nn.Linear | Int8Linear | Nf4Linear)} == {nn.Linear}
    with torch.inference_mode():
        torch.testing.assert_close(plain(input_ids=IDS).logits, found.model(input_ids=IDS).logits, atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", "something"])
def test_a_method_that_nothing_here_reads_is_refused_with_the_way_out(tiny: Path, tmp_path: Path, method: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": method}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ZoliteError, match=f"stored quantized by {method}") as error:
        load(folder, "int8")
    assert "16 bits" in error.value.hint


@pytest.mark.parametrize("quant", ["int8", "float32"])
def test_fp8_in_blocks_is_dequantized(tiny: Path, tmp_path: Path, quant: str) -> None:
    folder, side = Path(shutil.copytree(tiny, tmp_path / "copy")), 32
    tensors = load_file(folder / "model.safetensors")
    whole = dict(tensors)
    for name, weight in list(tensors.items()):
        if name.endswith("_proj.weight"):
            blocks = weight.view(weight.shape[0] // side, side, weight.shape[1] // side, side)
            scale = blocks.abs().amax(dim=(1, 3)) / 448
            codes = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
            tensors[name], tensors[f"{name}_scale_inv"] = codes.view(weight.shape), scale
            whole[name] = (codes.float() * scale[:, None, :, None]).view(weight.shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    packed = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [side, side]}
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": packed}
    (folder / "config.json").write_text(json.dumps(config))
    right = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    right.load_state_dict(whole, strict=False)
    with torch.inference_mode():
        want, got = right(input_ids=IDS).logits, load(folder, quant).model(input_ids=IDS).logits
    assert float((got - want).norm() / want.norm()) < {"float32": 1e-5, "int8": 3e-2}[quant]
