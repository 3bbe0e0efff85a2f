"""The fast decoder against transformers' own, for every kind of layer it takes. Interpreted on a CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from zolite.config import sizes
from zolite.model import fused_decoder
from zolite.model.lora import Active, PerturbedLinear
from zolite.model.quant import Int8Linear, replace_

pytest.importorskip("triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
COMMON: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.15,
}
KINDS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**COMMON)),
    "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**COMMON, sliding_window=40)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**COMMON)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON)),
}
OTHERS: dict[str, Any] = {
    "mistral that sees a window": lambda: MistralForCausalLM(MistralConfig(**COMMON, sliding_window=4)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**COMMON)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**COMMON, residual_multiplier=0.3)),
    "smollm3, whose fourth layer does not turn": lambda: SmolLM3ForCausalLM(
        SmolLM3Config(**COMMON | {"num_hidden_layers": 4}, pad_token_id=0)
    ),
}
SLOTS, ROWS, TOKENS = 4, 2, 5
WHERE = torch.arange(ROWS * TOKENS, device=DEVICE)


def int8(linear: nn.Linear) -> Int8Linear:
    weight, bias = linear.weight.data, None if linear.bias is None else linear.bias.data
    top = weight.abs().amax(1)
    return Int8Linear((weight / top[:, None] * 127).round().to(torch.int8), top, bias, weight.dtype)


def build(kind: str, quantized: bool, space: str) -> tuple[Any, Active]:
    """A model of random weights; adapters on all but the k projections, mirrored from copy to copy."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (KINDS | OTHERS)[kind]().eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.2)
        active = Active()
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and "proj" in name:
                replace_(model, name, adapted(int8(module) if quantized else module, name, space, active))
    return model.to(DEVICE), active


def adapted(base: Any, name: str, space: str, active: Active) -> nn.Module:
    if space == "none" or name.endswith("k_proj"):
        return base  # type: ignore[no-any-return]
    a = torch.randn(*((SLOTS,) if space == "lora" else ()), 4, base.in_features) / 8
    if space == "lora-core":
        u, c = torch.randn(base.out_features, 4) * 0.02, torch.randn(SLOTS, 4, 4)
        c[1::2] = -c[0::2]
        return PerturbedLinear(base, a.to(DEVICE), u.to(DEVICE).expand(SLOTS, *u.shape), 2.0, active, c.to(DEVICE))
    b = torch.randn(SLOTS, base.out_features, 4) * 0.02
    b[1::2] = -b[0::2]
    if space == "lora":
        a[1::2] = a[0::2]
    return PerturbedLinear(base, a.to(DEVICE), b.to(DEVICE), 2.0, active)


def ids_of(model: Any, points: int) -> Tensor:
    one = torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) * 31 % model.config.vocab_size
    return one.repeat(points, 1).to(DEVICE)


def theirs(model: Any, points: int) -> Tensor:
    """(points, rows · tokens, D)."""
    hidden: Tensor = model.get_decoder()(input_ids=ids_of(model, points), use_cache=False).last_hidden_state
    return hidden.reshape(points, ROWS * TOKENS, -1)


def ours(made: fused_decoder.Decoder, model: Any, points: int) -> Tensor:
    where = torch.cat([WHERE + i * len(WHERE) for i in range(points)])
    return made(ids_of(model, points), where).view(points, ROWS * TOKENS, -1)


def error(x: Tensor, exact: Tensor) -> float:
    return float((x - exact).norm() / exact.norm())


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in pieces":
        width = COMMON["intermediate_size"]
        monkeypatch.setattr(sizes, "PIECE_BYTES", width * 4 * 7)
        monkeypatch.setattr(sizes, "PIECE_BYTES_EXPANDED", width * 4 * 5)
        monkeypatch.setattr(sizes, "TILE_ROWS", 4)


@pytest.mark.parametrize(("kind", "space"), [*((kind, "lora-b") for kind in KINDS), ("llama", "lora-core")])
@torch.inference_mode()
def test_it_is_the_models_own_decoder(kind: str, space: str) -> None:
    model, active = build(kind, False, space)
    active.copies = 2
    assert error(ours(fused_decoder.assemble(model.get_decoder(), active, 16), model, 2), theirs(model, 2)) < 1e-5


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize(("kind", "space"), [("llama with biases", "lora-b"), ("llama", "lora-core")])
@torch.inference_mode()
def test_neither_the_points_nor_the_pieces_nor_the_weights_change_that(
    kind: str, space: str, quantized: bool, points: int
) -> None:
    model, active = build(kind, quantized, space)
    active.copies = points
    made = fused_decoder.assemble(model.get_decoder(), active, 16)
    assert error(ours(made, model, points), theirs(model, points)) < 1e-5


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("kind", "space", "points"),
    [
        ("llama with biases", "lora", 4),
        ("llama", "lora-b", 2),
        ("qwen3", "none", 2),
        ("qwen2", "lora-b", 4),
        ("llama", "lora-core", 2),
        ("qwen2", "lora-core", 4),
    ],
)
@torch.inference_mode()
def test_mirrored_points_differ_as_they_do_in_exact_arithmetic(kind: str, space: str, points: int) -> None:
    model, active = build(kind, True, space)
    active.copies = points
    exact = theirs(model, points)
    made = fused_decoder.assemble(model.get_decoder(), active, 16)
    active.mirrored = True
    found = ours(made, model, points)
    assert error(found, exact) < 0.06
    if space == "none":
        assert torch.equal(found[0], found[1])
    else:
        assert error(found[0::2] - found[1::2], exact[0::2] - exact[1::2]) < 0.08


@torch.inference_mode()
def test_the_difference_of_pairs_is_finer_than_of_rows_rounded_one_by_one() -> None:
    model, active = build("llama", True, "lora-b")
    for module in model.modules():
        if isinstance(module, PerturbedLinear):
            module.b.mul_(0.01)
    active.copies = 2
    exact = theirs(model, 2)
    made = fused_decoder.assemble(model.get_decoder(), active, 16)
    active.mirrored = True
    found = ours(made, model, 2)
    assert error(found[0] - found[1], exact[0] - exact[1]) < 0.08  # although all of the rows are off by …
    assert error(found, exact) > 0.2 * float((exact[0] - exact[1]).norm() / exact.norm())


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
@torch.inference_mode()
def test_other_architectures_are_left_to_transformers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, active = build(kind, False, "none")
    monkeypatch.setattr(fused_decoder, "_runs_here", lambda decoder: True)
    assert (fused_decoder.fused(model, active, 40) is not None) == (kind in KINDS)


@torch.inference_mode()
def test_a_model_that_computes_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, active = build("llama", False, "none")
    monkeypatch.setattr(fused_decoder, "_runs_here", lambda decoder: True)
    layer = model.get_decoder().layers[1]
    layer.self_attn.o_proj.register_forward_hook(lambda module, x, y: y * 1.5)
    assert fused_decoder.fused(model, active, 40) is None


@pytest.mark.parametrize(("total", "count"), [(5, 1), (5, 2), (1000, 3), (1024, 4), (1, 7), (300, 300)])
def test_stretches_cover_everything_once(total: int, count: int) -> None:
    covered = [i for part in fused_decoder.even(total, count, 128) for i in range(part.start, part.stop)]
    assert covered == list(range(total))
