"""Claims about routed experts: how they are held, what they multiply, and how much of them is expanded at once."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast

from zolite.common.errors import UsageError
from zolite.config import recipe as recipes
from zolite.config import sizes
from zolite.config.recipe import Recipe
from zolite.model import experts
from zolite.model import load as models
from zolite.model.experts import Int8Experts, Nf4Experts
from zolite.model.quant import linear_names
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.memory import laid_out, peak, weights

CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},  # (E, out, in), by expert
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32},  # (E, in, out), with biases
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32},
    "jetmoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32, "kv_channels": 16},
    "llama4_text": {"num_local_experts": 4, "intermediate_size": 32, "intermediate_size_mlp": 48},
}

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def moe(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Make:
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("moe") / kind
            config = AutoConfig.for_model(kind, **SMALL | KINDS[kind])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
                for p in model.parameters():
                    torch.nn.init.normal_(p, std=0.2)  # some leave experts empty, or biases zero
            model.save_pretrained(made[kind])
            tokenizer.save_pretrained(made[kind])
        return made[kind]

    return make


def loaded(folder: Path, quant: str) -> Any:
    return models.load(models.resolve(str(folder)), quant, CPU, folder / "cache").model


def logits(model: Any) -> Tensor:
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits.float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("quant", "most"), [("int8", 0.0045), ("nf4", 0.16)])
def test_experts_are_held_in_codes_of_the_models_own_weights(moe: Make, kind: str, quant: str, most: float) -> None:
    """No weight of an expert is left in floating point, and expanded ones are within half a step of the file's."""
    true = {(name, leaf): value for name, m in loaded(moe(kind), "float32").named_modules() for leaf, value in held(m)}
    found = {(name, leaf): value for name, m in loaded(moe(kind), quant).named_modules() for leaf, value in held(m)}
    assert found.keys() == true.keys()
    assert found
    for place, codes in found.items():
        assert isinstance(codes, Int8Experts if quant == "int8" else Nf4Experts), place
        size = sum(t.nbytes for t in codes.buffers())
        assert size < true[place].nbytes / (3.5 if quant == "int8" else 6.5), place
        for i, weight in enumerate(true[place]):
            turned = kind in ("gpt_oss", "llama4_text")
            largest = weight.abs().amax(-2 if turned else -1, keepdim=True) if quant == "int8" else weight.abs().max()
            assert ((codes[i] - weight).abs() / largest).max() <= most, place


def held(module: torch.nn.Module) -> list[tuple[str, Any]]:
    return [(name, value) for each, name, value in experts.tensors(module) if each is module]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quant", ["int8", "nf4", "float32"])
def test_plain_transformers_computes_the_same(moe: Make, kind: str, quant: str) -> None:
    """Logits are those of transformers' own forward, which has all of the same experts in float32."""
    plain = models.plain(models.resolve(str(moe(kind))), quant, CPU, moe(kind) / "cache")
    assert not any(isinstance(m, Int8Experts | Nf4Experts) for m in plain.modules())
    torch.testing.assert_close(logits(loaded(moe(kind), quant)), logits(plain), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quant", ["int8", "nf4"])
def test_one_expert_is_expanded_at_a_time(moe: Make, quant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all experts of a load and of a forward, none is expanded while another is; so peaks hold one."""
    model, alive, most = loaded(moe("qwen3_moe"), quant), [0], [0]
    kind = Int8Experts if quant == "int8" else Nf4Experts
    whole = kind.__getitem__

    def watched(self: Any, expert: Any) -> Tensor:
        weight = whole(self, expert)
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        weakref.finalize(weight, lambda: alive.__setitem__(0, alive[0] - 1))
        return weight

    monkeypatch.setattr(kind, "__getitem__", watched)
    logits(model)
    assert most == [1]


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("quant", ["int8", "nf4", "float32"])
def test_plans_count_what_is_held(moe: Make, kind: str, quant: str) -> None:
    """The weights of a plan are the loaded model's tensors, byte for byte but for the code table of nf4."""
    model, cpu = loaded(moe(kind), quant), replace(machine.typical(0), device="cpu", fused=False)
    recipe = recipes.resolve(recipes.override(Recipe(), {"model.quant": quant}))
    said = peak(weights(laid_out(cpu, model_spec.spec(str(moe(kind))), recipe)))
    buffers = (t for m in model.modules() if "Rotary" not in type(m).__name__ for t in m.buffers(recurse=False))
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *buffers)}
    layers = (model.get_submodule(name) for name in linear_names(model))
    scales = sum(layer.packed.quant_state.absmax.nbytes for layer in layers) if quant == "nf4" else 0
    assert 0 <= sum(tensors.values()) + scales - said < (2000 if quant == "nf4" else 1)


@pytest.mark.parametrize("target", ["experts", "gate_up_proj", "model.layers.0.mlp.experts.down_proj"])
def test_adapters_on_experts_are_refused_by_name(moe: Make, target: str) -> None:
    model = loaded(moe("qwen3_moe"), "int8")
    assert {name.rpartition(".")[2] for name in models.select(model, ())} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    with pytest.raises(UsageError, match=f"{target} are weights of routed experts") as caught:
        models.select(model, ("q_proj", target))
    assert "q_proj" in caught.value.hint


def test_a_save_of_bitsandbytes_has_its_experts_quantized_too(moe: Make, tmp_path: Path) -> None:
    """It holds them in 16 or 32 bits; they are held as the plan says."""
    AutoModelForCausalLM.from_pretrained(
        moe("qwen3_moe"), quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map={"": "cpu"}
    ).save_pretrained(tmp_path)
    model = loaded(tmp_path, "int8")
    found = [value for _, _, value in experts.tensors(model)]
    assert len(found) == 4 and all(isinstance(value, Int8Experts) for value in found)
    torch.testing.assert_close(logits(model), logits(loaded(moe("qwen3_moe"), "int8")), rtol=1e-4, atol=1e-4)


def test_rows_do_not_depend_on_how_many_go_through_an_expert_at_once(
    moe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(moe("gpt_oss"), "int8")
    whole = logits(model)
    monkeypatch.setattr(sizes, "EXPERT_TOKENS", 3)
    torch.testing.assert_close(logits(model), whole, rtol=1e-5, atol=1e-5)
