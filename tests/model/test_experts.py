"""Claims about routed experts: how they are held, what they multiply, and how much of them is expanded at once."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from zolite.config import sizes
from zolite.model import experts
from zolite.model import load as models
from zolite.model.experts import Int8Experts, Nf4Experts

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


def test_rows_do_not_depend_on_how_many_go_through_an_expert_at_once(
    moe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(moe("gpt_oss"), "int8")
    whole = logits(model)
    monkeypatch.setattr(sizes, "EXPERT_TOKENS", 3)
    torch.testing.assert_close(logits(model), whole, rtol=1e-5, atol=1e-5)
