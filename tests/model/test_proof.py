"""What is measured is what the model says: of its head and decoder, or its own logits, or there is a clear no."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from zolite.common.errors import ZoliteError
from zolite.model import load as models
from zolite.model.loss import Given, Head, generic, own_logits
from zolite.model.proof import Proof, prove

CPU = torch.device("cpu")


def llama(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval().to(dtype)


def behind(model: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The model with something behind its head that no config speaks of."""
    inner = model.forward

    def forward(input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        found = inner(input_ids=input_ids, use_cache=use_cache)
        found.logits = change(found.logits)
        return found

    model.forward = forward
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_head_alone_is_believed(dtype: torch.dtype) -> None:
    assert prove(llama(dtype), "it") == Proof(0, frozenset())


CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a cap": lambda x: 30 * torch.tanh(x / 30),
    "a scale": lambda x: 1.05 * x,
    "a shift of some words": lambda x: x + 0.5 * (torch.arange(x.shape[-1]) % 7 == 0).to(x),
    "fewer words": lambda x: x[..., :-1],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", CHANGES)
def test_whatever_stands_behind_the_head_is_seen(kind: str, dtype: torch.dtype) -> None:
    model = behind(llama(dtype), CHANGES[kind])
    assert prove(model, "it").own_logits == 300 - (kind == "fewer words")


def test_own_logits_are_those_of_each_row_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model, copies = llama(), 2
    ids = torch.randint(3, 300, (6, 8), generator=torch.Generator().manual_seed(0))
    places = torch.randint(0, 48, (11,), generator=torch.Generator().manual_seed(1))
    want = Head.of(model)(generic(model)(ids, places))
    for numbers in (1, 2 * 8 * 300 * 2, 2**26):
        monkeypatch.setattr("zolite.config.sizes.OWN_LOGITS", numbers)
        got = Given(300)(own_logits(model, lambda: copies)(ids, places))
        torch.testing.assert_close(got, want)


def test_given_logits_are_read_as_a_heads_are() -> None:
    head, hidden = Head(nn.Linear(16, 40, bias=False), None, 1.0), torch.randn(5, 16)
    with torch.no_grad():
        logits, tokens = head(hidden), torch.tensor([3, 0, 39, 7, 7])
        given = Given(40)
        torch.testing.assert_close(given(logits, slice(8, 24)), head(hidden, slice(8, 24)))
        torch.testing.assert_close(given.at(logits, tokens), head.at(hidden, tokens))


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        is_decoder=False,
    )  # fmt: skip
    torch.manual_seed(0)
    with pytest.raises(ZoliteError, match="no decoder: later tokens change"):
        prove(transformers.BertLMHeadModel(config).eval(), "it")


def test_numbers_that_are_not_finite_are_explained() -> None:
    wide = llama(torch.float16)
    with torch.no_grad():
        wide.model.norm.weight.mul_(6e4)
        wide.lm_head.weight.mul_(1e3)
    with pytest.raises(ZoliteError, match="not finite in float16") as error:
        prove(wide, "it")
    assert "bf16" in error.value.hint
    broken = llama()
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(ZoliteError, match=r"1 weights of it .*model\.layers\.1\.mlp\.up_proj\.weight"):
        prove(broken, "it")


def test_a_forward_that_fails_is_one_line() -> None:
    model = llama()
    model.forward = lambda input_ids: {}["pixel_values"]
    with pytest.raises(ZoliteError, match="does not turn two rows of text into logits: KeyError"):
        prove(model, "it")


KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "t5": (lambda: transformers.T5Config(vocab_size=300), "an encoder with a decoder"),
    "bert": (
        lambda: transformers.BertConfig(vocab_size=300, architectures=["BertForMaskedLM"]),
        "BertForMaskedLM is an encoder",
    ),
    "vit": (lambda: transformers.ViTConfig(), "writes no text"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_decoder_is_refused_before_its_weights_are_read(tiny: Path, tmp_path: Path, kind: str) -> None:
    made, words = KINDS[kind]
    (tmp_path / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    made().save_pretrained(tmp_path)
    with pytest.raises(ZoliteError, match=words) as error:
        models.load(models.resolve(str(tmp_path)), "float32", CPU, tmp_path / "cache")
    assert error.value.hint


def test_a_layer_whose_weight_is_taken_uncalled_gets_no_adapter() -> None:
    config = transformers.FalconMambaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4, time_step_rank=4, intermediate_size=64
    )
    model = transformers.FalconMambaForCausalLM(config).eval()
    uncalled = prove(model, "it").uncalled
    assert {name.rpartition(".")[2] for name in uncalled} == {"dt_proj", "out_proj"} and len(uncalled) == 4
    named = models.select(model, (), uncalled)
    assert named and not uncalled & set(named)
