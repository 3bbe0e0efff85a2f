"""A folder of random weights for each architecture that exports are tried on."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import AutoConfig

from zolite.common.paths import paths
from zolite.export import parity, peft, readers
from zolite.export.source import Trained
from zolite.model import load as models

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,  # so that logits differ from each other as a trained model's do
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "vision_use_head": False,
}
LLAMA = {"intermediate_size": 128, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": LLAMA | {"tie_word_embeddings": True},
    "mistral": LLAMA | {"sliding_window": None},
    "qwen3": LLAMA | {"head_dim": 32},
    "gemma3_text": LLAMA | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64},
    "phi": {"intermediate_size": 128, "num_key_value_heads": 4},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "gpt_neox": {"intermediate_size": 128},
    "gpt2": {"n_inner": 128},  # whose weights lie as (in, out)
    "gemma3": {"vision_config": VISION},  # whose text is a part of the checkpoint
    "resized": LLAMA | {"tie_word_embeddings": True, "vocab_size": 311},  # rows of the table without a token
    "ernie4_5_moe": LLAMA | {  # layers beside routed experts have the names that experts had
        "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
    },
}  # fmt: skip


def config_of(kind: str, numbers: dict[str, Any]) -> Any:
    if kind == "gemma3":
        text = numbers | ARCHITECTURES["gemma3_text"]
        vision = text.pop("vision_config")
        return AutoConfig.for_model(kind, text_config=text, vision_config=vision, tie_word_embeddings=True)
    return AutoConfig.for_model("llama" if kind == "resized" else kind, **numbers)


@pytest.fixture(scope="session")
def model_folder(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, torch.dtype], Path]:
    """model_folder("phi", torch.bfloat16): two layers, in that many bits, with the byte tokenizer."""
    made: dict[tuple[str, torch.dtype], Path] = {}

    def make(kind: str, dtype: torch.dtype) -> Path:
        if (kind, dtype) not in made:
            folder = made[kind, dtype] = tmp_path_factory.mktemp("models") / kind
            special = {
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": 0,
            }
            config = config_of(kind, SIZES | ARCHITECTURES[kind] | special)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(dtype).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return made[kind, dtype]

    return make


@pytest.fixture
def saying() -> Callable[[Trained], Trained]:
    """saying(trained): the same with an adapter that makes it say " yes" and the end after every prompt of its rows."""

    def learn(chosen: Trained) -> Trained:
        rows = parity.held_out(chosen).rows
        prompts = [row.text[: row.begins] for row in rows]
        tokenizer = models.tokenizer(chosen.source, paths()["cache"])
        answer = (*tokenizer(" yes", add_special_tokens=False).input_ids, tokenizer.eos_token_id)
        with tempfile.TemporaryDirectory() as where:
            peft.write(chosen, Path(where), "f32")
            base = AutoModelForCausalLM.from_pretrained(chosen.origin, dtype=torch.float32)
            model = PeftModel.from_pretrained(base, where, is_trainable=True)
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        rule = torch.optim.Adam(named.values(), lr=0.02)
        for _ in range(40):
            logits = readers.forward_of(model)([(*prompt, *answer[:-1]) for prompt in prompts])
            asked = torch.cat([each[-len(answer) :] for each in logits])
            loss = torch.nn.functional.cross_entropy(asked, torch.tensor(answer * len(prompts)))
            rule.zero_grad()
            loss.backward()
            rule.step()
        assert loss < 0.6  # no logit of so small a model is above 6.4
        stored = {
            f"base_model.model.{name.rpartition('.')[0]}.lora_{name[-1].upper()}.default.weight": name
            for name in chosen.factors
        }
        return dataclasses.replace(chosen, factors={stored[name]: p.detach().clone() for name, p in named.items()})

    return learn
