"""What configs say of rows: how far there is a table of positions, how far positions were trained."""

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from zolite.config.limits import LEARNED, Limits, limits_of

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MADE = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=12)
    ),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(**SMALL, ffn_dim=16, word_embed_proj_dim=16, max_position_embeddings=12)
    ),
    "roberta": lambda: transformers.RobertaForCausalLM(
        transformers.RobertaConfig(**SMALL, intermediate_size=16, max_position_embeddings=14, is_decoder=True)
    ),
    "gptj": lambda: transformers.GPTJForCausalLM(
        transformers.GPTJConfig(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=12, rotary_dim=4)
    ),
    "gpt_neo": lambda: transformers.GPTNeoForCausalLM(
        transformers.GPTNeoConfig(
            vocab_size=40, hidden_size=16, num_layers=1, num_heads=2, max_position_embeddings=12,
            attention_types=[[["global"], 1]],
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_a_table_of_positions_ends_where_the_model_fails(kind: str) -> None:
    model = MADE[kind]().eval()
    most = limits_of(model.config.to_dict()).positions
    assert most == 12 and kind in LEARNED
    with torch.inference_mode():
        model(input_ids=torch.full((1, most), 5), use_cache=False)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, most + 1), 5), use_cache=False)


@pytest.mark.parametrize(
    ("config", "limits"),
    [
        ({"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 512}, Limits(300, trained=512)),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 512}}, Limits(trained=512)),
        ({"model_type": "mamba", "vocab_size": 9}, Limits(9)),
        ({"model_type": "bloom", "vocab_size": 9, "n_positions": 5}, Limits(9)),
        (
            {
                "model_type": "qwen2",
                "max_position_embeddings": 100,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100},
            },
            Limits(trained=400),
        ),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 400,
                "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 100},
            },
            Limits(trained=400),
        ),
    ],
)
def test_limits(config: dict[str, object], limits: Limits) -> None:
    assert limits_of(config) == limits


def test_what_is_said_has_the_numbers() -> None:
    rope = Limits(trained=2048)
    assert not rope.doubted(2048) and not Limits().doubted(10**6)
    assert "2,049" in rope.doubted(2049) and "data.context=2048" in rope.doubted(2049)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = (
    "model_type", "vocab_size", "max_position_embeddings", "n_positions", "rope_scaling", "rope_parameters",
    "text_config", "pad_token_id", "alibi",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), anything))
def test_no_config_makes_it_fail(config: dict[str, object]) -> None:
    found = limits_of(config)
    assert min(found.vocabulary, found.positions, found.trained) >= 0
