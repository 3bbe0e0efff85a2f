"""The tail behind the last layer: recognised in every architecture of a table, and exact against the model itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as t
from torch import Tensor, nn

from zolite.model.loss import Head
from zolite.model.tail import Norm, Tail, reading

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
    "gemma2, a norm behind the block and a cap": lambda: t.Gemma2ForCausalLM(
        t.Gemma2Config(**GROUPED, head_dim=8, final_logit_softcapping=5.0)
    ),
    "gemma3, a norm behind the block": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**GROUPED, head_dim=8)),
    "olmo2, a norm behind the block": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**GROUPED)),
    "granite, scales": lambda: t.GraniteForCausalLM(
        t.GraniteConfig(**GROUPED, residual_multiplier=0.3, logits_scaling=4.0)
    ),
    "cohere, a parallel block and a scale": lambda: t.CohereForCausalLM(t.CohereConfig(**GROUPED, logit_scale=0.2)),
    "phi, a bias in the head": lambda: t.PhiForCausalLM(t.PhiConfig(**GROUPED)),
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


@pytest.mark.parametrize("name", MODELS)
def test_logits_after_a_change_are_the_models(name: str) -> None:
    model, layer, block, ids = made(name)
    tail = Tail.of(model, layer, block, ids)
    assert tail is not None
    at, change = reading(model, layer, tail.last_norm, ids, torch.arange(TOKENS)), 0.3 * torch.randn(TOKENS, WIDTH)
    handle = layer.register_forward_hook(lambda _, __, output: output + change)
    expected = model(input_ids=ids, use_cache=False).logits[0]
    handle.remove()
    torch.testing.assert_close(tail.logits(tail.stream(at, change)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_slope_is_autograds(name: str) -> None:
    model, layer, block, ids = made(name)
    tail = Tail.of(model, layer, block, ids)
    assert tail is not None
    at = reading(model, layer, tail.last_norm, ids, torch.arange(TOKENS))
    change, wanted = 0.3 * torch.randn(TOKENS, WIDTH, requires_grad=True), torch.randn(TOKENS, WORDS)
    change.retain_grad()
    with torch.enable_grad():
        (tail.logits(tail.stream(at, change)) * wanted).sum().backward()
    found = change.detach()
    stream = tail.stream(at, found)
    slope = tail.slope(at, found, stream, tail.logits(stream), wanted)
    torch.testing.assert_close(slope, change.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2, a norm behind the block and a cap"])
def test_what_has_more_behind_it_is_not_taken_for_a_tail(name: str) -> None:
    model, _, block, ids = made(name)
    attention = [m for m in block.self_attn.modules() if isinstance(m, nn.Linear) and m.out_features == WIDTH][-1]
    assert Tail.of(model, attention, block, ids) is None


def test_a_head_that_does_more_than_is_known_is_not_taken() -> None:
    model, layer, block, ids = made("llama")
    model.lm_head.register_forward_hook(lambda _, __, output: output.abs().sqrt())
    assert Tail.of(model, layer, block, ids) is None


@pytest.mark.parametrize(
    "module", [nn.RMSNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH, elementwise_affine=False)]
)
def test_norms_are_recognised_by_what_they_compute(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, 1.0)
    norm, x = Norm.of(module, WIDTH), torch.randn(5, WIDTH)
    assert norm is not None
    torch.testing.assert_close(norm(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Softmax(-1), nn.Linear(WIDTH, 8)])
def test_other_modules_are_none(module: nn.Module) -> None:
    assert Norm.of(module, WIDTH) is None


def test_the_heads_slope_is_autograds() -> None:
    module = nn.Linear(WIDTH, WORDS)
    head, hidden = Head(module, 3.0, 0.5), torch.randn(4, WIDTH, requires_grad=True)
    wanted = torch.randn(4, WORDS)
    (head(hidden) * wanted).sum().backward()
    slope = head.slope(head(hidden.detach()), wanted)
    torch.testing.assert_close(slope, hidden.grad)
