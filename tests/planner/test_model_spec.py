"""Claims about a model's numbers without its weights: they are those of the model that transformers would build."""

import contextlib
import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from zolite.cli.train import base
from zolite.common import weight_headers
from zolite.common.errors import UsageError, ZoliteError
from zolite.config import catalog
from zolite.config import recipe as recipes
from zolite.config.architectures import ARCHITECTURES, Linear
from zolite.config.methods import METHODS
from zolite.data.lengths import Rows
from zolite.model import experts
from zolite.model.load import load, resolve, text_alone
from zolite.model.quant import linear_names, simplify_
from zolite.planner import hardware as machine
from zolite.planner import model_spec
from zolite.planner.memory import ledger, peak
from zolite.planner.model_spec import ModelSpec
from zolite.planner.plan import layouts

SMALL = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "vision_use_head": False,  # as every Gemma 3 has it
}
BENT = {"attention_bias": True, "mlp_bias": True, "use_qkv_bias": True, "attention_out_bias": True, "use_qk_norm": True}


MOE = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "mlp_only_layers": [1]},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def config_of(family: str, **changes: Any) -> Any:
    """A small config of an architecture."""
    from transformers import AutoConfig

    inner = {"opt": "ffn_dim", "gpt2": "n_inner"}.get(family, "intermediate_size")
    values = SMALL | {inner: 96} | MOE.get(family, {}) | changes
    if family == "gemma3":
        tied = values["tie_word_embeddings"]
        return AutoConfig.for_model(family, text_config=values, vision_config=VISION, tie_word_embeddings=tied)
    return AutoConfig.for_model(family, **values)


def built(config: Any) -> Any:
    """The model without memory for its weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return text_alone(model)


def counted(model: Any) -> dict[str, int]:
    """Parameters by what becomes of them, as the loaded model itself has them."""
    head, names = model.get_output_embeddings(), linear_names(model)
    tied = head.weight is model.get_input_embeddings().weight
    linear = {id(model.get_submodule(name).weight) for name in names}
    tables = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    heads = {id(p) for p in head.parameters() if not (tied and p is head.weight)}
    routed = {id(value) for _, _, value in experts.tensors(model)}
    counts = dict.fromkeys(("linear", "embedding", "head", "routed", "other"), 0)
    for parameter in model.parameters():
        kind = next(
            (k for k, s in zip(counts, (linear, tables, heads, routed), strict=False) if id(parameter) in s), "other"
        )
        counts[kind] += parameter.numel()
    return counts


def layers(model: Any) -> list[tuple[str, int, int]]:
    found = ((name, model.get_submodule(name)) for name in linear_names(model))
    return sorted((name.rpartition(".")[2], m.in_features, m.out_features) for name, m in found)


def same(spec: ModelSpec, model: Any) -> bool:
    simplify_(model, torch.float32)  # GPT-2's linear layers are of another class
    found = sorted((each.name, each.inputs, each.outputs) for each in spec.linears for _ in range(each.count))
    return {kind: getattr(spec, kind) for kind in counted(model)} == counted(model) and found == layers(model)


def header_of(model: Any, folder: Path) -> Path:
    """The folder of a checkpoint with that model's names and shapes."""
    folder.mkdir(exist_ok=True)
    shared: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in shared:
            tensors[name] = torch.zeros(tensor.shape, dtype=torch.float16)
        shared.add(id(tensor))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_counts_from_config(family: str, tied: bool) -> None:
    """From its config alone, every class of parameters and every linear layer is what transformers builds."""
    for changes in ({}, BENT):
        config = config_of(family, tie_word_embeddings=tied, **changes)
        assert same(model_spec.from_config(family, config.to_dict()), built(config))


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_counts_from_headers(family: str, tmp_path: Path) -> None:
    """An architecture that no table knows is counted from its tensors' names and shapes, to the same numbers."""
    config = config_of(family, tie_word_embeddings=True)
    model = built(config)
    header = weight_headers.folder(header_of(model, tmp_path / family))
    assert header is not None
    assert same(model_spec.from_tensors(family, config.to_dict(), header), model)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_defaults(family: str) -> None:
    """What a config leaves out is what transformers would assume."""
    from transformers import AutoConfig

    sizes = {key: SMALL[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    short = sizes | {"intermediate_size": 96, "ffn_dim": 96, "max_position_embeddings": 128, "head_dim": 16}
    if family == "gemma3":
        config = AutoConfig.for_model(family, text_config=sizes, vision_config=VISION)
        assert same(
            model_spec.from_config(family, {"model_type": family, "text_config": sizes, "vision_config": VISION}),
            built(config),
        )
        return
    if family == "gpt2":  # which calls it n_inner
        del short["intermediate_size"], short["ffn_dim"]
    if family == "nemotron":  # takes a default of None for a number
        short["num_key_value_heads"] = 2
    config = AutoConfig.for_model(family, **short, pad_token_id=0)
    assert same(model_spec.from_config(family, short | {"model_type": family}), built(config))


@pytest.mark.parametrize("name", catalog.models())
def test_catalogue(name: str) -> None:
    """Each model of the catalogue has as many parameters as its publishers say."""
    known, spec = catalog.models()[name], model_spec.spec(name)
    assert spec.parameters + spec.left_out == known.parameters
    assert spec.name == known.hub and spec.context >= 2048 and known.licence
    path = Path(model_spec.__file__).parents[2] / "profiles" / "models" / f"{name}.toml"
    assert path.read_text(encoding="utf-8").startswith("# zolite ")


@pytest.mark.parametrize("name", catalog.models())
def test_catalogue_recipes(name: str) -> None:
    """Each model's recipe is one that training takes, and fits a card of the catalogue, but for what none holds."""
    known = catalog.models()[name]
    assert known.recipe
    recipe = recipes.resolve(base(name))
    assert recipe == recipes.resolve(recipes.from_dict({**known.recipe}))
    assert recipe.adapter.space in METHODS[recipe.method.name].spaces
    largest, spec = machine.published("rtx-5090"), model_spec.spec(name)
    fits = peak(ledger(largest, spec, [*layouts(recipe)][-1], Rows(512, 64))) <= largest.total_bytes
    assert fits == (spec.parameters < 40e9)
    assert recipe.model.quant != "int8" or "gemma" not in name  # int8 computes in float16, too small for it


@pytest.mark.parametrize("name", catalog.cards())
def test_cards(name: str) -> None:
    """A card's rates stand in the ratios of its architecture, so that a mistyped number shows."""
    card = catalog.card(name)
    allowed = {(7, 5): {(2, 4), (4, 16), (8, 16)}, (12, 0): {(2, 8)}}.get(card.capability, {(2, 8), (4, 8)})
    found = (card.tensor16_per_s / card.float32_per_s, card.int8_per_s / card.float32_per_s)
    assert any(found == pytest.approx(pair, rel=0.02) for pair in allowed)
    assert 1 <= card.memory_bytes / 2**30 <= 32 and 100e9 < card.memory_bytes_per_s < 2e12


def test_unknown_names() -> None:
    """A name that is almost right gets the names that are nearest."""
    for name, near in (("Qwen/Qwen3-0.6", "Qwen/Qwen3-0.6B"), ("smollm2-135", "smollm2-135m")):
        with pytest.raises(UsageError) as caught:
            model_spec.spec(name)
        assert near in caught.value.hint
    with pytest.raises(UsageError) as caught:
        catalog.card("rtx-3060")
    assert "rtx-3060-12gb" in caught.value.hint


def test_offline() -> None:
    """Without a network, a hub id that neither the cache nor the catalogue has is refused with the reason."""
    with pytest.raises(UsageError) as caught:
        model_spec.spec("someone/something-7b")
    assert "HF_HUB_OFFLINE" in caught.value.message


def test_online(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is asked for a config alone where the architecture is known, and for headers where it is not."""
    asked = []
    header = weight_headers.safetensors(tiny / "model.safetensors")
    infos = {name: SimpleNamespace(shape=list(shape), data_offsets=(0, 2)) for name, shape in header.tensors.items()}

    def metadata(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(files_metadata={"model.safetensors": SimpleNamespace(tensors=infos)})

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: str(tiny / file))
    monkeypatch.setattr("huggingface_hub.get_safetensors_metadata", metadata)
    known = model_spec.spec("some/one")
    assert not asked and (known.name, known.linears) == ("some/one", model_spec.spec(str(tiny)).linears)
    monkeypatch.delitem(ARCHITECTURES, "llama")
    other = model_spec.spec("some/one")
    assert asked == ["some/one"] and (other.parameters, other.fast) == (known.parameters, False)


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network that answers, a model that is nowhere here is refused with what still works."""

    def refuse(name: str, file: str) -> str:
        raise ConnectionError("name resolution failed")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(ZoliteError) as caught:
        model_spec.spec("some/one")
    assert "name resolution failed" in caught.value.message and "network" in caught.value.hint


def test_cache(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in the hub's cache is read where it lies."""
    home = tmp_path / "hub" / "models--some--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    (home / "snapshots").mkdir()
    (home / "snapshots" / "abc").symlink_to(tiny)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = model_spec.spec("some/tiny")
    assert (spec.name, spec.vocabulary, spec.hidden, spec.tied) == ("some/tiny", 300, 64, True)
    assert spec.bytes == (tiny / "model.safetensors").stat().st_size


def test_tied_twice(tmp_path: Path) -> None:
    """A tied head that the file holds a second time is counted once."""
    config = config_of("llama", tie_word_embeddings=True)
    folder = tmp_path / "twice"
    config.save_pretrained(folder)
    model = built(config)
    tensors = {n: torch.zeros(t.shape, dtype=torch.float16) for n, t in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    spec = model_spec.spec(str(folder))
    assert spec.head == 0 and spec.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_pictures_are_left_out(weights: str, tmp_path: Path) -> None:
    """Of a model that also sees, only what text goes through is loaded and planned for; texts fare alike."""
    from transformers import AutoModelForCausalLM

    config = config_of("gemma3", tie_word_embeddings=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        whole = AutoModelForCausalLM.from_config(config).eval()
    whole.save_pretrained(tmp_path / "seeing")
    spec, header = model_spec.spec(str(tmp_path / "seeing")), weight_headers.folder(tmp_path / "seeing")
    assert header is not None and spec.left_out > 0
    unknown = model_spec.from_tensors("x", config.to_dict(), header)
    assert (unknown.left_out, unknown.parameters) == (spec.left_out, spec.parameters)
    assert spec.parameters + spec.left_out == sum(p.numel() for p in whole.parameters())
    model = load(resolve(str(tmp_path / "seeing")), weights, torch.device("cpu"), tmp_path).model
    assert not [name for name, _ in model.named_modules() if "vision" in name or "multi_modal" in name]
    assert len(linear_names(model)) == sum(linear.count for linear in spec.linears)
    ids = torch.arange(12).view(1, 12)
    with torch.inference_mode():
        far = (model(input_ids=ids).logits - whole(input_ids=ids).logits).abs().max()
    assert far < (1e-5 if weights == "float32" else 0.1)


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "camembert", "albert", "mpnet"]
)
def test_encoders_are_counted(kind: str, encoders: Callable[[str], Path], tmp_path: Path) -> None:
    """As they are loaded: with their head, and without others that lie beside it."""
    folder = shutil.copytree(encoders(kind), tmp_path / kind)
    model = load(resolve(str(folder)), "float32", torch.device("cpu"), tmp_path).model
    spec = model_spec.spec(str(folder))
    assert same(spec, model) and spec.encoder and not spec.fast and spec.left_out == 0
    tensors = load_file(folder / "model.safetensors") | {"bert.pooler.dense.weight": torch.zeros(8, 8)}
    save_file(tensors, folder / "model.safetensors")
    assert same(more := model_spec.spec(str(folder)), model) and more.left_out == 64


def test_quantized_twice(tmp_path: Path) -> None:
    """Weights that lie in 4 bits already are counted by the config, not by how they are packed."""
    config = config_of("llama", tie_word_embeddings=False)
    folder = tmp_path / "packed"
    config.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "bitsandbytes"}
    }
    (folder / "config.json").write_text(json.dumps(values))
    save_file(
        {"model.layers.0.self_attn.q_proj.weight": torch.zeros(2304, 1, dtype=torch.uint8)},
        folder / "model.safetensors",
    )
    spec = model_spec.spec(str(folder))
    assert spec.packed == "bitsandbytes" and spec.linear == counted(built(config))["linear"]


def test_sharded(tmp_path: Path) -> None:
    """A model in several files is the sum of them; one that lacks a file its index names has no headers."""
    names = {f"model.layers.{i}.mlp.fc.weight": f"model-{i}.safetensors" for i in range(2)}
    for name, file in names.items():
        save_file({name: torch.zeros(4, 8)}, tmp_path / file)
    (tmp_path / weight_headers.INDEX).write_text(json.dumps({"weight_map": names}))
    header = weight_headers.folder(tmp_path)
    assert header is not None and header.tensors == dict.fromkeys(names, (4, 8))
    (tmp_path / "model-1.safetensors").unlink()
    assert weight_headers.folder(tmp_path) is None


def test_merged() -> None:
    """Alike layers are counted together."""
    one, two = Linear("a", 2, 3, 1), Linear("a", 2, 4, 1)
    assert model_spec.merged([one, two, one]) == (Linear("a", 2, 3, 2), Linear("a", 2, 4, 1))


# --- GGUF ------------------------------------------------------------------------------------------------------------


def test_gguf_builtin() -> None:
    """The embedded model's GGUF says what the catalogue says."""
    from zolite.model.load import resolve

    source = resolve("builtin:smollm2-135m")
    assert source.path is not None
    mine, known = model_spec.spec(str(source.path)), model_spec.spec("smollm2-135m")
    for field in ("architecture", "linears", "embedding", "head", "other", "context", "heads", "kv_heads", "head_dim"):
        assert getattr(mine, field) == getattr(known, field)
    assert mine.packed == "gguf" and mine.bytes == source.path.stat().st_size


def test_gguf_as_the_library_reads(tmp_path: Path) -> None:
    """Facts and shapes of a file that the gguf package wrote are those that it reads back."""
    from gguf import GGUFReader, GGUFWriter

    path = tmp_path / "some.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_block_count(3)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "ü"])
    writer.add_array("some.numbers", [1, 2, 3, 4])
    writer.add_float32("some.float", 0.5)
    writer.add_tensor("token_embd.weight", torch.zeros(7, 5).numpy())
    writer.add_tensor("blk.0.attn_norm.weight", torch.zeros(5).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    mine = weight_headers.gguf(path)
    theirs = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in GGUFReader(str(path)).tensors}
    assert mine.tensors == theirs
    assert (
        mine.metadata["llama.block_count"],
        mine.metadata["tokenizer.ggml.tokens"],
        mine.metadata["some.numbers"],
    ) == (
        3,
        3,
        4,
    )
    assert mine.metadata["some.float"] == 0.5


def spoiled(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    yield b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60)
    yield b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**62) + b"x" * 64
    yield b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 2**61)  # an array of arrays


def test_hostile_gguf(tmp_path: Path) -> None:
    """A GGUF that claims more than it holds is refused at once, with a remedy."""
    path = tmp_path / "bad.gguf"
    whole = b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 8) + struct.pack("<Q5s", 5, b"hello")
    path.write_bytes(whole)
    assert weight_headers.gguf(path).metadata == {"k": "hello"}
    for data in spoiled(whole):
        path.write_bytes(data)
        with pytest.raises(ZoliteError):
            weight_headers.gguf(path)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever bytes a file holds, reading its header ends in numbers or in a ZoliteError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        for content, read in (
            (data, weight_headers.safetensors),
            (b"GGUF\x03\x00\x00\x00" + data, weight_headers.gguf),
        ):
            path.write_bytes(content)
            with contextlib.suppress(ZoliteError):
                assert read(path).bytes == len(content)


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"model_type": "llama"}', '{"model_type": "llama", "hidden_size": "9"}', '{"model_type": "who"}'],
)
def test_bad_configs(text: str, tmp_path: Path) -> None:
    """A config that makes no sense is refused with what is wrong."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ZoliteError) as caught:
        model_spec.spec(str(tmp_path))
    assert caught.value.hint
