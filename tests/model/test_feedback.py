"""Slopes that go down the stream as formulas: exact where attention has one token to look at, and in the last block."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers as t
from torch import Tensor, nn

from zolite.model.feedback import SHARES, Chain, shares_of
from zolite.model.tail import Tail, reading

WORDS = 97
KNOWN = ("llama", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "granite", "cohere", "phi")
Made = Callable[[str], tuple[Any, nn.Linear, nn.Module, Tensor]]


@pytest.fixture
def made(random_decoders: ModuleType) -> Made:
    """A name of tests/decoders.py to (model, …)."""
    return random_decoders.made  # type: ignore[no-any-return]


Slopes = dict[nn.Module, Tensor]


def by_autograd(model: Any, layers: list[nn.Module], ids: Tensor, places: Tensor, wanted: Tensor) -> Slopes:
    """The slopes of (logits at places · wanted) at what layers say, of all tokens."""
    said: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        said[module] = output = output.detach().requires_grad_() if not output.requires_grad else output
        output.retain_grad()
        return output

    with torch.enable_grad():
        handles = [layer.register_forward_hook(note) for layer in layers]
        logits = model(input_ids=ids, use_cache=False).logits.flatten(0, 1)[places]
        (logits * wanted).sum().backward()
    for handle in handles:
        handle.remove()
    return {layer: each.grad.flatten(0, 1) for layer, each in said.items() if each.grad is not None}


def slopes(model: Any, ids: Tensor, places: Tensor, wanted: Tensor, shares: list[Tensor], near: Tensor) -> Slopes:
    chain = Chain.of(model, torch.arange(12)[None])
    block = next(m for m in model.get_decoder().children() if isinstance(m, nn.ModuleList))[-1]
    tail = Tail.of(model, chain.groups[0][-1].out, block, torch.arange(12)[None])
    assert tail
    with chain.watched(places) as kept:
        at = reading(model, chain.groups[0][-1].out, tail.last_norm, ids, places)
    last = tail.final.slope(at.streams, tail.head.slope(tail.logits(at.streams), wanted.clone()))
    return {each.layer: each.slope for each in chain.down(kept, last, shares, near)}


@pytest.mark.parametrize("name", KNOWN)
def test_a_token_that_sees_itself_alone_has_autograds_slopes(name: str, made: Made) -> None:
    model, *_ = made(name)
    ids, places, wanted = torch.randint(0, WORDS, (5, 1)), torch.arange(5), torch.randn(5, WORDS)
    halves = Chain.of(model, torch.arange(12)[None]).halves
    assert len(halves) == 4
    shares = [torch.eye(1, SHARES).expand(4, SHARES) for _ in range(2)]
    near = torch.full((5, SHARES), 5)
    near[:, 0] = torch.arange(5)
    found = slopes(model, ids, places, wanted, shares, near)
    exact = by_autograd(model, list(found), ids, places, wanted)
    assert len(found) == 2 * (2 + (3 if len(halves[0].inner) == 2 or len(halves[1].inner) == 2 else 2))
    for layer, slope in found.items():
        torch.testing.assert_close(slope, exact[layer], rtol=2e-2, atol=2e-3 * float(exact[layer].abs().max()))


@pytest.mark.parametrize("name", KNOWN)
def test_in_the_last_block_slopes_of_predicted_tokens_are_autograds(name: str, made: Made) -> None:
    model, *_ = made(name)
    ids, places = torch.randint(0, WORDS, (2, 9)), torch.tensor([3, 4, 8, 13])
    wanted, near = torch.randn(4, WORDS), torch.full((4, SHARES), 4)
    found = slopes(model, ids, places, wanted, [torch.zeros(4, SHARES)] * 2, near)
    exact = by_autograd(model, list(found), ids, places, wanted)
    for half in Chain.of(model, torch.arange(12)[None]).halves[:2]:
        for layer in (half.out, *(half.inner if half.activation else ())):
            true = exact[layer][places]
            torch.testing.assert_close(found[layer], true, rtol=2e-2, atol=2e-3 * float(true.abs().max()))


def test_shares_are_mean_attention(made: Made) -> None:
    model, *_ = made("llama")
    chain, made_ = Chain.of(model, torch.arange(12)[None]), torch.Generator().manual_seed(0)
    ids, places = torch.randint(0, WORDS, (40, 9)), (torch.arange(40)[:, None] * 9 + torch.arange(9)).flatten()
    column = places % 9
    near = torch.stack([torch.where(column + k < 9, torch.arange(360) + k, 360) for k in range(SHARES)], 1)
    forward = lambda: model.model(input_ids=ids, use_cache=False)  # noqa: E731
    sums = sum(shares_of(chain, forward, places, near, made_) for _ in range(20))
    model.set_attn_implementation("eager")
    attention = model(input_ids=ids, output_attentions=True).attentions  # each (S, H, T, T)
    for half, probabilities in zip(sums[:, 0] / sums[:, 1], reversed(attention), strict=True):
        for k in range(SHARES):
            exact = probabilities.diagonal(-k, 2, 3).mean((0, 2))
            torch.testing.assert_close(half[:, k], exact, rtol=0, atol=0.05)


def test_a_block_that_computes_something_else_ends_the_chain(random_decoders: ModuleType) -> None:
    torch.manual_seed(0)
    model = t.MixtralForCausalLM(t.MixtralConfig(**random_decoders.GROUPED, num_local_experts=2)).eval()
    with torch.inference_mode():
        assert Chain.of(model, torch.arange(12)[None]).groups == ()
