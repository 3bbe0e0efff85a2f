"""Claims about weight formats: what a frozen layer holds and what it multiplies."""

import dataclasses
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from zolite.config.weights import WEIGHT_FORMATS
from zolite.model import load as models
from zolite.model.quant import Int8Linear, Nf4Linear, activations, linear_names

CPU = torch.device("cpu")
# Largest error of a layer's output beside the largest output, by the dtype that it is computed in on a CPU.
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-7}


def loaded(tiny: Path, quant: str) -> Any:
    return models.load(models.resolve(str(tiny)), quant, CPU, tiny.parent / "cache").model


def layers(model: Any) -> dict[str, Any]:
    return {name: model.get_submodule(name) for name in linear_names(model)}


def weights(layer: Any) -> Tensor:
    """What a layer's stored numbers stand for, (out, in) float32."""
    if isinstance(layer, Int8Linear):
        return (layer.codes.double() * layer.scales.double()[:, None]).float()
    if isinstance(layer, Nf4Linear):
        return bnb.dequantize_4bit(layer.packed.data, layer.packed.quant_state).float()
    return layer.weight.float()


@pytest.mark.parametrize("quant", WEIGHT_FORMATS)
def test_a_layer_multiplies_by_the_weights_it_stands_for(tiny: Path, quant: str) -> None:
    """In every format every layer's output is a dense float32 product with its expanded weights, up to rounding."""
    model, dtype = loaded(tiny, quant), activations(quant, CPU)
    assert len(layers(model)) == 14
    for name, layer in layers(model).items():
        torch.manual_seed(3)
        x = torch.randn(2, 5, layer.in_features).to(dtype)
        x[0, 0] *= 100  # tokens of a language model differ as much
        wanted = x.float() @ weights(layer).mT  # first: bitsandbytes may repack nf4 weights at their first product
        got = layer(x)
        assert got.dtype == dtype, name
        error = (got.float() - wanted).abs().amax(-1) / wanted.abs().amax(-1)
        assert error.max() <= ROUNDING[dtype], name


@pytest.mark.parametrize(("quant", "most"), [("int8", 0.0045), ("nf4", 0.16), ("bf16", 2**-8), ("float32", 0.0)])
def test_a_format_holds_the_models_own_weights(tiny: Path, quant: str, most: float) -> None:
    """Expanded weights differ from the file's by no more than half a step of the format, beside a row's largest."""
    original, held = layers(loaded(tiny, "float32")), layers(loaded(tiny, quant))
    for name, layer in held.items():
        true = original[name].weight
        scale = true.abs().amax() if quant == "nf4" else true.abs().amax(dim=1, keepdim=True)
        apart = ((weights(layer) - true).abs() / scale).max()
        assert apart <= most, name
        assert quant == "float32" or apart > 0, f"{name} is not stored in {quant}"


def test_nf4_rows_that_end_within_a_block(tmp_path: Path) -> None:
    """Blocks of 64 go on in the next row: bitsandbytes on a CPU expands such layers to other weights, we do not."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=96, intermediate_size=80, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    source, ids = models.resolve(str(tmp_path / "model")), torch.arange(3, 20)[None]
    held, original = layers(loaded(tmp_path / "model", "nf4")), layers(loaded(tmp_path / "model", "float32"))
    for name, layer in held.items():
        codes = torch.stack((layer.packed.data.flatten() >> 4, layer.packed.data.flatten() & 15), dim=1).flatten()
        state = layer.packed.quant_state
        meant = state.code[codes.long()] * state.absmax.repeat_interleave(64)[: codes.numel()]
        torch.testing.assert_close(layer.weight, meant.view(layer.weight.shape))
        true = original[name].weight
        assert float((layer.weight - true).norm() / true.norm()) < 0.12, name
    alone = models.plain(source, "nf4", CPU, tmp_path / "cache")
    zolites = models.load(source, "nf4", CPU, tmp_path / "cache").model
    torch.testing.assert_close(alone(input_ids=ids).logits, zolites(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_int8_rows_do_not_see_each_other(tiny: Path) -> None:
    """A token's int8 product is the same alone and beside tokens a thousand times as large."""
    for name, layer in layers(loaded(tiny, "int8")).items():
        torch.manual_seed(4)
        x = torch.randn(3, 4, layer.in_features)
        x[1:] *= 1000
        torch.testing.assert_close(layer(x)[0], layer(x[:1])[0], rtol=1e-5, atol=1e-6, msg=name)


def test_int8_codes_are_those_of_bitsandbytes(tiny: Path) -> None:
    """Int8Linear holds the codes and scales that transformers gets from bitsandbytes, at a byte a weight."""
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    theirs = AutoModelForCausalLM.from_pretrained(tiny, quantization_config=config, device_map={"": "cpu"})
    for name, layer in layers(loaded(tiny, "int8")).items():
        other = theirs.get_submodule(name)
        assert type(other).__name__ == "Linear8bitLt" and isinstance(layer, Int8Linear)
        codes = other.state.CB if other.state.CB is not None else other.weight.data
        scales = other.state.SCB if other.state.SCB is not None else other.weight.SCB
        assert layer.codes.dtype == torch.int8
        assert torch.equal(layer.codes, codes), name
        torch.testing.assert_close(layer.scales, scales.float() / 127, rtol=1e-6, atol=0.0)
        held = sum(t.nbytes for t in [*layer.buffers(), *layer.parameters()])
        assert held == layer.in_features * layer.out_features + 4 * layer.out_features


@pytest.mark.parametrize("quant", WEIGHT_FORMATS)
@torch.inference_mode()
def test_plain_transformers_computes_the_same(tiny: Path, quant: str) -> None:
    """models.plain, which has none of zolite's layers, gives models.load's logits in every format."""
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(5))
    source = models.resolve(str(tiny))
    plain = models.plain(source, quant, CPU, tiny.parent / "cache")
    assert not any(isinstance(m, Int8Linear) or "bitsandbytes" in type(m).__module__ for m in plain.modules())
    ours, theirs = (m(input_ids=ids).logits.float() for m in (loaded(tiny, quant), plain))
    assert (ours - theirs).abs().max() <= ROUNDING[activations(quant, CPU)] * 10 * theirs.abs().max()


@pytest.mark.parametrize("quant", ["int8", "nf4"])
def test_a_layers_weight_is_the_one_it_multiplies_by(tiny: Path, quant: str) -> None:
    """Some models take a layer's weight without calling it (Mamba's step sizes)."""
    for name, layer in layers(loaded(tiny, quant)).items():
        x = torch.randn(3, layer.in_features)
        torch.testing.assert_close(torch.nn.functional.linear(x, layer.weight), layer(x), msg=name)


def test_loaded_models_are_frozen(tiny: Path) -> None:
    """Nothing in a loaded model asks for a gradient or is in training mode, in any format."""
    for quant in WEIGHT_FORMATS:
        model = loaded(tiny, quant)
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("quant", WEIGHT_FORMATS)
def test_plain_is_float32_throughout(tiny: Path, quant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the export is checked against computes in float32, whatever a GPU trains in."""
    low = dataclasses.replace(WEIGHT_FORMATS[quant], cpu="bfloat16")
    monkeypatch.setitem(WEIGHT_FORMATS, quant, low)
    model = models.plain(models.resolve(str(tiny)), quant, CPU, tiny.parent / "cache")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model(torch.tensor([[1, 2, 3]])).logits.dtype == torch.float32
