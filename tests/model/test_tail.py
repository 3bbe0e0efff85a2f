"""The tail behind the last layer: recognised in every architecture of a table, and exact against the model itself."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zolite.model.loss import Head
from zolite.model.tail import Norm, Tail, reading

WIDTH, WORDS, TOKENS = 32, 97, 12
NAMES = ("llama", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "granite", "cohere", "phi", "gpt-neox")
Made = Callable[[str], tuple[Any, nn.Linear, nn.Module, Tensor]]
"""A name of tests/decoders.py to (model, its last layer that writes into the stream, that layer's block, a text)."""


@pytest.fixture
def made(random_decoders: ModuleType) -> Made:
    return random_decoders.made  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_logits_after_a_change_are_the_models(name: str, made: Made) -> None:
    model, layer, block, ids = made(name)
    tail = Tail.of(model, layer, block, ids)
    assert tail is not None
    at, change = reading(model, layer, tail.last_norm, ids, torch.arange(TOKENS)), 0.3 * torch.randn(TOKENS, WIDTH)
    handle = layer.register_forward_hook(lambda _, __, output: output + change)
    expected = model(input_ids=ids, use_cache=False).logits[0]
    handle.remove()
    torch.testing.assert_close(tail.logits(tail.stream(at, change)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_slope_is_autograds(name: str, made: Made) -> None:
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


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_what_has_more_behind_it_is_not_taken_for_a_tail(name: str, made: Made) -> None:
    model, _, block, ids = made(name)
    attention = [m for m in block.self_attn.modules() if isinstance(m, nn.Linear) and m.out_features == WIDTH][-1]
    assert Tail.of(model, attention, block, ids) is None


def test_a_head_that_does_more_than_is_known_is_not_taken(made: Made) -> None:
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
