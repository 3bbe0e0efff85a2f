"""A GGUF file's weights are those that transformers unpacks, bit for bit, and none of them lies on the disk again."""

import contextlib
import io
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from gguf import MODEL_ARCH, GGUFReader, GGUFWriter, get_tensor_name_map
from torch import Tensor

from tests.ggufs import add_vocabulary, base_gguf, stored
from zolite.common import weight_headers
from zolite.common.errors import ZoliteError
from zolite.model import gguf_weights
from zolite.model import load as models

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 64,
    "initializer_range": 0.1,
}  # fmt: skip
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL)),
    "llama, tied": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**SMALL)),
    "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**SMALL)),
}
KINDS = ("F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
MOST = 1 << 20  # bytes of a file in the cache: of a tokenizer of 300 tokens it is far less


@pytest.fixture
def written(tokenizer: t.PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., Path]:
    """written("llama", "Q4_K"), after a change of the model"""

    def write(name: str, kind: str, change: Callable[[Any], object] = lambda model: None) -> Path:
        torch.manual_seed(0)
        model = MODELS[name]().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        change(model)
        base_gguf(model, tokenizer, tmp_path / "model.gguf", kind)
        return tmp_path / "model.gguf"

    return write


def by_transformers(file: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    with models.quiet(), contextlib.redirect_stderr(io.StringIO()):
        whole = t.GgufConfig(dequantize=True)
        return t.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=dtype, quantization_config=whole
        ).state_dict()  # type: ignore[no-any-return]


def loaded(file: Path, quant: str = "float32") -> models.Loaded:
    return models.load(models.resolve(str(file)), quant, CPU, file.parent / "cache")


def same(found: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    assert found.keys() == right.keys()
    return all(torch.equal(found[name], right[name].to(found[name].dtype)) for name in right)


@pytest.mark.parametrize(
    ("name", "kind"), [*(("llama", kind) for kind in KINDS), *((name, "Q4_0") for name in MODELS), ("qwen2", "Q6_K")]
)
def test_weights_are_those_of_transformers(written: Callable[..., Path], name: str, kind: str) -> None:
    """In float16, which they were in where older versions kept them on the disk; the cache has no weights."""
    file = written(name, kind)
    assert same(loaded(file).model.state_dict(), by_transformers(file, torch.float16))
    assert max(each.stat().st_size for each in (file.parent / "cache").rglob("*")) < MOST
    assert not list((file.parent / "cache").rglob("*.safetensors"))


def test_a_file_may_be_read_under_inference_mode(written: Callable[..., Path]) -> None:
    """Tensors are filled by threads, which know nothing of it."""
    file = written("llama", "Q8_0")
    with torch.inference_mode():
        found = loaded(file).model.state_dict()
    assert same(found, by_transformers(file, torch.float16))


@pytest.mark.parametrize("quant", ["int8", "nf4"])
def test_a_tensor_is_quantized_before_the_next_is_made(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, quant: str
) -> None:
    """No more than one of the linear layers' weights in 16 bits is alive at a time."""
    alive, most = 0, 0
    make = gguf_weights.Unpacked.__getitem__

    def counted(self: gguf_weights.Unpacked, at: Any) -> Tensor:
        nonlocal alive, most
        made = make(self, at)
        if made.dim() == 2 and made.shape[0] <= 256:
            alive, most = alive + 1, max(most, alive + 1)
            weakref.finalize(made, lambda: counted_down())
        return made

    def counted_down() -> None:
        nonlocal alive
        alive -= 1

    file = written("llama", "Q4_0")
    models.tokenizer(models.resolve(str(file)), file.parent / "cache")
    monkeypatch.setattr(gguf_weights.Unpacked, "__getitem__", counted)
    loaded(file, quant)
    assert most in (1, 2)


@pytest.mark.parametrize("kind", ["Q8_0", "F32"])
def test_weights_that_float16_cannot_hold_are_bfloat16(written: Callable[..., Path], kind: str) -> None:
    file = written("llama", kind, lambda model: model.model.layers[1].mlp.up_proj.weight[3, 5].fill_(3e5))
    right = by_transformers(file, torch.bfloat16)
    assert same(loaded(file).model.state_dict(), right)
    assert bool((right["model.layers.1.mlp.up_proj.weight"] > 65504).any())


def test_experts_of_two_tensors_become_one(tokenizer: t.PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Gate and up lie apart in the file, and may be stored as different types."""
    torch.manual_seed(0)
    config = t.Qwen3MoeConfig(**SMALL, moe_intermediate_size=768, num_experts=4, num_experts_per_tok=2)
    model = t.Qwen3MoeForCausalLM(config).requires_grad_(False)
    writer = GGUFWriter(tmp_path / "model.gguf", "qwen3moe")
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_block_count(2)
    writer.add_feed_forward_length(256)
    writer.add_expert_feed_forward_length(768)
    writer.add_expert_count(4)
    writer.add_expert_used_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(64)
    writer.add_value_length(64)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(300)
    add_vocabulary(writer, tokenizer, 300)
    names = get_tensor_name_map(MODEL_ARCH.QWEN3MOE, 2)
    for name, tensor in model.state_dict().items():
        layer = name.removeprefix("model.layers.")[0]
        parts = {names.get_name(name, try_suffixes=(".weight", ".bias")): (tensor, "Q4_0")}
        if name.endswith("gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            both = ("gate", gate, "Q4_0"), ("up", up, "F16")
            parts = {f"blk.{layer}.ffn_{part}_exps.weight": (half, kind) for part, half, kind in both}
        elif name.endswith("down_proj"):
            parts = {f"blk.{layer}.ffn_down_exps.weight": (tensor, "Q8_0")}
        for place, (part, kind) in parts.items():
            values, of = stored(part.contiguous().numpy(), kind)
            writer.add_tensor(place, values, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = tmp_path / "model.gguf"
    assert same(loaded(file).model.state_dict(), by_transformers(file, torch.float16))


# ---- what is refused


def test_a_cut_file_is_named(written: Callable[..., Path]) -> None:
    file = written("llama", "Q8_0")
    whole = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(whole - 5000)
    with pytest.raises(ZoliteError, match=rf"model.gguf is cut: {whole - 5000:,} bytes are there") as caught:
        loaded(file)
    assert "download" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [("blk.9.attn_q.weight", "1 belong to nothing"), ("blk.1.attn_q.weight", "1 tensors are missing")],
)
def test_every_tensor_is_accounted_for(written: Callable[..., Path], name: str, words: str) -> None:
    """One that belongs to a layer that the model does not have; and one that is called otherwise is missing."""
    file = written("llama", "Q8_0")
    data, old = file.read_bytes(), b"blk.1.attn_q.weight"
    assert data.count(old) == 1
    file.write_bytes(data.replace(old, b"blk.9.attn_q.weight"))
    with pytest.raises(ZoliteError, match=words):
        loaded(file)


def test_headers_say_where_tensors_lie(written: Callable[..., Path]) -> None:
    """As the gguf package reads them."""
    file = written("qwen2", "Q4_K")
    header = weight_headers.gguf(file)
    right = {each.name: (int(each.tensor_type), int(each.data_offset)) for each in GGUFReader(file).tensors}
    assert header.places == right


def test_factors_of_angles_that_are_left_out_are_said(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 3.1 has them as a tensor, which transformers does not read."""
    add = GGUFWriter.write_header_to_file

    def with_factors(self: GGUFWriter, *args: Any) -> None:
        self.add_tensor("rope_freqs.weight", torch.ones(32).numpy())
        add(self, *args)

    monkeypatch.setattr(GGUFWriter, "write_header_to_file", with_factors)
    assert any("rope_freqs.weight" in note for note in loaded(written("llama", "Q8_0")).notes)


def test_what_older_versions_kept_is_removed(written: Callable[..., Path]) -> None:
    file = written("llama", "Q8_0")
    older = file.parent / "cache" / "gguf" / f"other-0123-{models.CONVERSION - 1}"
    older.mkdir(parents=True)
    (older / "model.safetensors").write_bytes(bytes(1000))
    models.tokenizer(models.resolve(str(file)), file.parent / "cache")
    assert not older.exists()
