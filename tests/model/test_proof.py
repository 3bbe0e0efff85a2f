"""What is measured is what the model says: of its head and decoder, or its own logits, or there is a clear no."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from zolite.common.errors import ZoliteError
from zolite.data.examples import fills_masks
from zolite.model import load as models
from zolite.model.loss import Given, Head, generic, mask_logits, own_logits
from zolite.model.proof import Proof, prove, prove_encoder

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


ENCODERS = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "albert")


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_are_measured_at_some_places_as_at_all(
    kind: str, encoders: Callable[[str], Path], tmp_path: Path
) -> None:
    """Whatever is behind their last hidden states; every token sees the later ones, and none the padding."""
    loaded = models.load(models.resolve(str(encoders(kind))), "float32", CPU, tmp_path)
    assert loaded.encoder and loaded.own_logits == 320 and not loaded.notes
    ids = torch.randint(10, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    ids[0, 8:], places = 0, torch.tensor([20, 3, 7])
    with torch.inference_mode():
        ours = mask_logits(loaded.model)(ids, places)
        alone, whole = (loaded.model(input_ids=each).logits[0] for each in (ids[:1, :8], ids[1:]))
        torch.testing.assert_close(ours, torch.stack([whole[8], alone[3], alone[7]]), atol=1e-4, rtol=1e-4)
        ids[1, -1] += 1
        assert float((mask_logits(loaded.model)(ids, places)[0] - ours[0]).abs().max()) > 1e-4


def test_layers_that_answer_once_for_all_rows_get_no_adapter(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    """DeBERTa's queries and keys are of places too, which the points of one forward share."""
    uncalled = models.load(models.resolve(str(encoders("deberta-v2"))), "float32", CPU, tmp_path).uncalled
    assert {name.rpartition(".")[2] for name in uncalled} == {"query_proj", "key_proj"} and len(uncalled) == 4


def test_an_encoder_that_sees_padding_is_refused() -> None:
    """FNet mixes all places, and takes no mask."""
    config = transformers.FNetConfig(vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=2)
    model = transformers.FNetForMaskedLM(config).eval()
    with pytest.raises(ZoliteError, match=r"does not turn two rows of text into logits|padding behind a text"):
        prove_encoder(model, "it")


def test_a_head_that_looks_around_is_refused(encoders: Callable[[str], Path]) -> None:
    """Logits of a place that depend on what else is asked for are not the model's."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(encoders("bert")).eval()
    inner = model.cls.forward
    model.cls.forward = lambda hidden: inner(hidden + hidden.mean(dim=1, keepdim=True))
    with pytest.raises(ZoliteError, match="at some places alone differs") as error:
        prove_encoder(model, "it")
    assert "roberta-base" in error.value.hint


def test_broken_encoders_are_refused(encoders: Callable[[str], Path]) -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(encoders("bert")).eval()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] = torch.nan
    with pytest.raises(ZoliteError, match="1 weights of it"):
        prove_encoder(model, "it")


def test_encoders_bring_their_own_masked_head(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    """Other heads of pretraining may lie beside it; without it the checkpoint is refused, and so is no mask token."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(encoders("bert"), tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    more = {"bert.pooler.dense.weight": torch.zeros(64, 64), "cls.seq_relationship.bias": torch.zeros(2)}
    save_file(tensors | more, folder / "model.safetensors", {"format": "pt"})
    assert models.load(models.resolve(str(folder)), "float32", CPU, tmp_path).encoder
    headless = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
    save_file(headless, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ZoliteError, match=r"missing from its files \(cls\.predictions") as error:
        models.load(models.resolve(str(folder)), "float32", CPU, tmp_path)
    assert "masked-language head" in error.value.hint
    words = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(words | {"mask_token": None}))
    with pytest.raises(ZoliteError, match="no mask token"):
        models.vocabulary(models.resolve(str(folder)), tmp_path)


def test_a_decoders_tokenizer_has_no_mask(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    words = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(words | {"mask_token": "<s>"}))
    assert not fills_masks(models.tokenizer(models.resolve(str(folder)), tmp_path))
