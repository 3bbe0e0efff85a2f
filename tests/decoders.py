"""Small random decoders of the kinds that write into their stream in different ways."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as t
from torch import Tensor, nn

WIDTH, WORDS, TOKENS = 32, 97, 12
SMALL: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
GROUPED = SMALL | {"num_key_value_heads": 2}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**GROUPED)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**GROUPED, head_dim=8)),
    "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**GROUPED, head_dim=8)),
    "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**GROUPED, head_dim=8, final_logit_softcapping=5.0)),
    "gemma3": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**GROUPED, head_dim=8)),
    "olmo2": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**GROUPED)),
    "granite": lambda: t.GraniteForCausalLM(t.GraniteConfig(**GROUPED, residual_multiplier=0.3, logits_scaling=4.0)),
    "cohere": lambda: t.CohereForCausalLM(t.CohereConfig(**GROUPED, logit_scale=0.2)),
    "phi": lambda: t.PhiForCausalLM(t.PhiConfig(**GROUPED)),
    "gpt-neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SMALL)),
}


def made(name: str) -> tuple[Any, nn.Linear, nn.Module, Tensor]:
    """(model, its last layer that writes into the stream, that layer's block, a text)."""
    torch.manual_seed(0)
    model = MODELS[name]().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    block = next(m for m in model.get_decoder().children() if isinstance(m, nn.ModuleList))[-1]
    layer = [m for m in block.modules() if isinstance(m, nn.Linear) and m.out_features == WIDTH][-1]
    return model, layer, block, torch.randint(0, WORDS, (1, TOKENS))
