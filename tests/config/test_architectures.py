"""Claims about the table of architectures: one object adds one, and rows are kept in the orders that llama.cpp has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from zolite.config.architectures import (
    ARCHITECTURES,
    BOTH,
    ROTATED,
    UNTIED,
    Architecture,
    LlamaCpp,
    by_llama_cpp,
    gated,
    halves,
    thirds,
)
from zolite.config.recipe import Recipe
from zolite.data.lengths import Rows
from zolite.export.export import export
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.plan import plan, wish
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare


class MineConfig(LlamaConfig):
    model_type = "mine"


class Mine(LlamaForCausalLM):
    config_class = MineConfig


@pytest.fixture
def mine(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """The folder of a model whose architecture transformers knows and zolite does not."""
    AutoConfig.register("mine", MineConfig, exist_ok=True)
    AutoModelForCausalLM.register(MineConfig, Mine, exist_ok=True)
    sizes: dict[str, Any] = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = MineConfig(
        **sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        Mine(config).save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def test_one_object_adds_an_architecture(
    recipe: Callable[..., Recipe], mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parameters are counted from the config alone, it is planned for the fused decoder, trained and exported."""
    added = Architecture("mine", BOTH, gated(), decoder=True, defaults=UNTIED, llama_cpp=LlamaCpp("llama", ROTATED))
    monkeypatch.setitem(ARCHITECTURES, added.name, added)
    spec = model_spec.from_config("mine", LlamaConfig.from_pretrained(mine).to_dict() | {"model_type": "mine"})
    assert spec.fast and spec.parameters == sum(p.numel() for p in Mine.from_pretrained(mine).parameters())
    planning = plan(machine.published("rtx-4060"), wish([spec], Rows(64, 8)))
    assert planning.plans and planning.plans[0].spec.architecture == "mine"
    run = prepare(recipe(model__name=str(mine), train__steps=2))
    with sessions.create("run", run.recipe, run.facts) as session:
        list(train(run, session))
        export(session, tmp_path / "out", "gguf", verify=False)
    fields = GGUFReader(tmp_path / "out" / "adapter.gguf").fields
    assert fields["general.architecture"].contents() == "llama"


def test_the_halves_of_a_head_are_interleaved() -> None:
    """Rows 0, 1, 2, 3 of a head of four become 0, 2, 1, 3: what transformers rotates together stands together."""
    assert halves(2, 8) == [0, 2, 1, 3, 4, 6, 5, 7]
    assert thirds(2, 12) == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]


def test_names_of_llama_cpp() -> None:
    """Each name leads to one record, the first of it; where llama.cpp has a name of its own, to that one's."""
    for name in ("llama", "qwen3", "gemma2"):
        assert by_llama_cpp(name) is ARCHITECTURES[name]
    assert by_llama_cpp("gemma3") is ARCHITECTURES["gemma3_text"]
    assert by_llama_cpp("gptneox") is ARCHITECTURES["gpt_neox"] and by_llama_cpp("nobody") is None
