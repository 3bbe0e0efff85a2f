"""A folder of random weights for each architecture that exports are tried on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import AutoConfig

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,  # so that logits differ from each other as a trained model's do
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
}


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
            config = AutoConfig.for_model(kind, **SIZES, **ARCHITECTURES[kind], **special)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(dtype).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return made[kind, dtype]

    return make
