"""Weights that are stored quantized are kept where that was asked for, else held in what was asked for, or refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, GptOssConfig

from tests.model.packers import PACKERS, four_bits, powers
from zolite.common.errors import ZoliteError
from zolite.config.weights import PACKED
from zolite.model import load as models
from zolite.model.packings import PACKINGS
from zolite.model.quant import Int8Linear, Nf4Linear

CPU = torch.device("cpu")
HELD: dict[str, type] = {"int8": Int8Linear, "nf4": Nf4Linear, "float32": nn.Linear, "bf16": nn.Linear}
IDS = torch.arange(3, 40)[None]


def load(folder: Path, quant: str) -> models.Loaded:
    return models.load(models.resolve(str(folder)), quant, CPU, folder.parent / "cache")


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits.float()  # type: ignore[no-any-return]


def apart(found: Tensor, right: Tensor) -> float:
    return float((found - right).norm() / right.norm())


def described(folder: Path, **changes: Any) -> None:
    """With these entries in its config."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def rewritten(source: Path, folder: Path, tensors: dict[str, Tensor], table: dict[str, Any]) -> Path:
    """The same model with these tensors, stored as the table says."""
    shutil.copytree(source, folder)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    described(folder, quantization_config=table)
    return folder


def packed(source: Path, folder: Path, name: str) -> tuple[Path, Any]:
    """A model's linear layers in one of the formats, and an ordinary model of what they mean."""
    packer, tensors = PACKERS[name], load_file(source / "model.safetensors")
    meant = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    for weight in [n for n in tensors if n.endswith("_proj.weight")]:
        parts, means = packer.pack(tensors.pop(weight).float())
        layer = weight.removesuffix(".weight")
        tensors |= {layer + suffix: part for suffix, part in parts.items()}
        meant.get_submodule(layer).weight.data = means.float()
    return rewritten(source, folder, tensors, dict(packer.config)), meant


def test_every_method_that_is_said_to_be_read_has_a_reader() -> None:
    assert set(PACKED) == set(PACKINGS)


@pytest.mark.parametrize("name", PACKERS)
def test_what_is_packed_is_read_as_its_format_means_it(tiny: Path, tmp_path: Path, name: str) -> None:
    folder, meant = packed(tiny, tmp_path / "packed", name)
    found = load(folder, "float32")
    assert apart(logits(found.model), logits(meant)) < 1e-5
    original = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    assert apart(logits(found.model), logits(original)) > 1e-3  # or nothing was packed
    assert any("stored in" in note for note in found.notes)


@pytest.mark.parametrize("name", ["gptq, 4 bits", "awq", "fp8, in blocks", "compressed-tensors, 4 bits with zeros"])
@pytest.mark.parametrize("quant", ["int8", "nf4", "bf16"])
def test_what_is_packed_is_held_as_asked(tiny: Path, tmp_path: Path, name: str, quant: str) -> None:
    """Just as the same weights are that were never packed."""
    folder, meant = packed(tiny, tmp_path / "packed", name)
    meant.save_pretrained(tmp_path / "meant")
    found, right = load(folder, quant), load(tmp_path / "meant", quant)
    assert type(found.model.model.layers[0].mlp.up_proj) is HELD[quant]
    assert apart(logits(found.model), logits(right.model)) < 1e-5


def saved_by_bitsandbytes(tiny: Path, folder: Path, **options: Any) -> Tensor:
    """The logits of the same weights, dequantized by transformers."""
    config = BitsAndBytesConfig(**options)
    made = AutoModelForCausalLM.from_pretrained(tiny, quantization_config=config, device_map={"": CPU})
    made.save_pretrained(folder)
    for file in tiny.glob("tokenizer*"):
        shutil.copy(file, folder)
    return logits(AutoModelForCausalLM.from_pretrained(folder, device_map={"": CPU}).dequantize(dtype=torch.float32))


BITS: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4, its scales too": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
}


@pytest.mark.parametrize("bits", BITS)
def test_what_bitsandbytes_saved_is_held_as_asked(tiny: Path, tmp_path: Path, bits: str) -> None:
    right = saved_by_bitsandbytes(tiny, tmp_path / "saved", **BITS[bits])
    for quant, most in {"float32": 1e-5, "bf16": 3e-2, "int8": 3e-2, "nf4": 0.3}.items():
        found = load(tmp_path / "saved", quant)
        assert type(found.model.model.layers[0].mlp.up_proj) is HELD[quant]
        kept = bits.startswith(quant)
        assert apart(logits(found.model), right) < (1e-3 if kept else most), quant
        assert bool(found.notes) != kept, quant


@pytest.mark.parametrize("quant", ["int8", "nf4", "float32"])
def test_an_export_is_compared_in_the_same_weights(tiny: Path, tmp_path: Path, quant: str) -> None:
    saved_by_bitsandbytes(tiny, tmp_path / "saved", **BITS["int8"])
    found = load(tmp_path / "saved", quant)
    plain = models.plain(found.source, quant, CPU, tmp_path / "cache")
    assert {type(m) for m in plain.modules() if isinstance(m, nn.Linear | Int8Linear | Nf4Linear)} == {nn.Linear}
    torch.testing.assert_close(logits(plain), logits(found.model), atol=2e-3, rtol=0)


def test_layers_that_lie_turned_are_turned_back(tmp_path: Path) -> None:
    """GPT-2's are square and (in, out), and what packs them makes (out, in) of that."""
    config = GPT2Config(vocab_size=64, n_positions=64, n_embd=64, n_layer=2, n_head=4, initializer_range=0.1)
    whole = AutoModelForCausalLM.from_config(config)
    whole.save_pretrained(tmp_path / "whole")
    meant, tensors = whole.eval().float(), load_file(tmp_path / "whole" / "model.safetensors")
    for weight in [n for n in tensors if ".c_" in n and n.endswith(".weight")]:
        parts, means = PACKERS["gptq, 4 bits"].pack(tensors.pop(weight).T)
        layer = weight.removesuffix(".weight")
        parts.pop(".bias")
        tensors |= {layer + suffix: part for suffix, part in parts.items()}
        meant.get_submodule(layer).weight.data = means.T.contiguous()
    table = dict(PACKERS["gptq, 4 bits"].config)
    folder = rewritten(tmp_path / "whole", tmp_path / "packed", tensors, table)
    assert apart(logits(load(folder, "float32").model), logits(meant)) < 1e-5


def test_the_experts_of_gpt_oss_are_dequantized(tmp_path: Path) -> None:
    config = GptOssConfig(
        vocab_size=64, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128,
        pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    meant = AutoModelForCausalLM.from_config(config)
    meant.save_pretrained(tmp_path / "whole")
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    for name in [n for n in tensors if n.endswith(("gate_up_proj", "down_proj"))]:
        rows = tensors.pop(name).mT.contiguous()  # (experts, out, in)
        exponent = powers(rows)
        codes, means = four_bits(rows, exponent.float().exp2())
        tensors[f"{name}_blocks"] = codes.unflatten(-1, (-1, 16))
        tensors[f"{name}_scales"] = (exponent + 127).to(torch.uint8)
        meant.get_parameter(name).data = means.mT.contiguous()
    table = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    folder = rewritten(tmp_path / "whole", tmp_path / "packed", tensors, table)
    assert apart(logits(load(folder, "float32").model), logits(meant.eval().float())) < 1e-5


def test_a_bias_that_is_none_is_told_from_one_that_is_lost(tiny: Path, tmp_path: Path) -> None:
    folder, _ = packed(tiny, tmp_path / "packed", "gptq, 4 bits")
    tensors = load_file(folder / "model.safetensors")
    assert not tensors["model.layers.0.mlp.up_proj.bias"].any()  # which the model has no place for, and which loads
    tensors["model.layers.0.mlp.up_proj.bias"][0] = 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZoliteError, match=r"1 belong to nothing \(model\.layers\.0\.mlp\.up_proj\.bias"):
        load(folder, "float32")


def test_how_weights_are_stored_may_lie_beside_the_config(tiny: Path, tmp_path: Path) -> None:
    folder, meant = packed(tiny, tmp_path / "packed", "gptq, 4 bits")
    described(folder, quantization_config=None)
    (folder / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 32, "desc_act": False}))
    assert apart(logits(load(folder, "float32").model), logits(meant)) < 1e-5


def test_a_part_that_is_missing_is_named(tiny: Path, tmp_path: Path) -> None:
    folder, _ = packed(tiny, tmp_path / "packed", "awq")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.scales"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZoliteError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.scales"):
        load(folder, "int8")


def test_scales_of_other_blocks_than_the_config_says_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder, _ = packed(tiny, tmp_path / "packed", "fp8, in blocks")
    described(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [48, 48]})
    with pytest.raises(ZoliteError, match="is not stored as its config says"):
        load(folder, "float32")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "hqq": ({"quant_method": "hqq"}, "stored quantized by hqq"),
    "something": ({"quant_method": "something"}, "stored quantized by something"),
    "awq of another layout": ({"quant_method": "awq", "version": "gemv"}, "awq's layout 'gemv'"),
    "gptq of another layout": ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "gptq's layout 'marlin'"),
    "rotated": ({"quant_method": "compressed-tensors", "transform_config": {"config_groups": {}}}, "rotated"),
    "sparse": ({"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-bitmask"}}, "sparse"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_nothing_here_reads_is_refused_with_the_way_out(tiny: Path, tmp_path: Path, kind: str) -> None:
    table, words = REFUSED[kind]
    folder = Path(shutil.copytree(tiny, tmp_path / "copy"))
    described(folder, quantization_config=table)
    with pytest.raises(ZoliteError, match=words) as error:
        load(folder, "int8")
    assert "16 bits" in error.value.hint
