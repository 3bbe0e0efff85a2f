"""Every tensor of a model is accounted for: what is missing, left over, bent, cut or elsewhere is named."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from zolite.common.errors import ZoliteError
from zolite.model import load as models
from zolite.model.weight_files import checked

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def loaded(folder: Path, quant: str = "float32") -> models.Loaded:
    return models.load(models.resolve(str(folder)), quant, CPU, folder.parent / "cache")


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


def renamed(how: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {how(name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("quant", ["float32", "int8"])
@pytest.mark.parametrize(
    ("prefix", "how"),
    [
        ("_orig_mod.", lambda name: f"_orig_mod.{name}"),
        ("module.", lambda name: f"module.{name}"),
        ("module._orig_mod.", lambda name: f"module._orig_mod.{name}"),
        ("base_model.model.", lambda name: f"base_model.model.{name}"),
        ("_orig_mod.", lambda name: name.replace("self_attn.", "self_attn._orig_mod.")),
    ],
)
def test_a_wrappers_prefix_is_left_out_and_said(
    tiny: Path, copy: Path, prefix: str, how: Callable[[str], str], quant: str
) -> None:
    rewritten(copy, renamed(how))
    found, right = loaded(copy, quant), loaded(tiny, quant)
    ids = torch.arange(3, 20)[None]
    assert torch.equal(found.model(input_ids=ids).logits, right.model(input_ids=ids).logits)
    assert any(prefix in note for note in found.notes) and not right.notes


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: t for n, t in tensors.items() if name not in n}


STRANGE: dict[str, tuple[Callable[[Tensors], Tensors], list[str]]] = {
    "misnamed": (
        renamed(lambda name: name.replace("layers.1.", "layers.01.")),
        ["9 tensors are missing", "9 belong to nothing", "layers.1.input_layernorm", "layers.01.input_layernorm"],
    ),
    "missing": (without("layers.1.mlp.up_proj"), ["1 tensors are missing", "model.layers.1.mlp.up_proj.weight"]),
    "a layer more": (
        lambda t: t | {n.replace("layers.1", "layers.2"): w.clone() for n, w in t.items() if "layers.1" in n},
        ["9 belong to nothing", "model.layers.2.input_layernorm.weight"],
    ),
    "bent": (
        lambda t: t | {"model.layers.0.mlp.down_proj.weight": torch.zeros(64, 96)},
        ["1 have another shape", "model.layers.0.mlp.down_proj.weight (64×96 for 64×128)"],
    ),
    "an adapter": (
        lambda t: t | {"model.layers.0.mlp.down_proj.lora_A.default.weight": torch.zeros(4, 128)},
        ["1 belong to nothing", "lora_A"],
    ),
    "a prefix, and one missing": (
        lambda t: renamed(lambda name: f"module.{name}")(without("layers.1.mlp.up_proj")(t)),
        ["1 tensors are missing", "model.layers.1.mlp.up_proj.weight"],
    ),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_tensor_that_is_not_the_models_is_refused_by_name(copy: Path, kind: str) -> None:
    change, words = STRANGE[kind]
    rewritten(copy, change)
    with pytest.raises(ZoliteError) as error:
        loaded(copy)
    assert all(word in error.value.message for word in words), error.value.message
    assert error.value.hint


def test_a_head_without_its_weight_is_missing_unless_it_is_tied(copy: Path) -> None:
    assert "lm_head.weight" not in load_file(copy / "model.safetensors")
    loaded(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ZoliteError, match=r"1 tensors are missing .*lm_head\.weight"):
        loaded(copy)


def test_old_buffers_are_no_weights(copy: Path) -> None:
    rewritten(copy, lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    loaded(copy)


def indexed(folder: Path, *names: str) -> None:
    """The weights in a file of each of these names, by turns, and their index."""
    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    shares = {name: dict(list(tensors.items())[i :: len(names)]) for i, name in enumerate(names)}
    for name, share in shares.items():
        (folder / name).parent.mkdir(exist_ok=True)
        save_file(share, folder / name, metadata={"format": "pt"})
    places = {tensor: name for name, share in shares.items() for tensor in share}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_every_file_that_is_loaded_is_in_the_fingerprint(copy: Path) -> None:
    indexed(copy, "model-1.safetensors", "zz.safetensors")
    before = loaded(copy).fingerprint
    weights = copy / "zz.safetensors"
    save_file({n: t + 1 for n, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    assert loaded(copy).fingerprint != before


def test_files_that_lie_elsewhere_or_not_there_are_refused(copy: Path) -> None:
    indexed(copy, "model-1.safetensors", "model-2.safetensors", "../elsewhere.safetensors")
    with pytest.raises(ZoliteError, match=r"1 files outside its folder, '\.\./elsewhere\.safetensors'"):
        loaded(copy)
    (copy / "model-1.safetensors").unlink()
    index = copy / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("../elsewhere", "model-1"))
    with pytest.raises(ZoliteError, match="lacks 1 of its 2 files of weights: model-1"):
        loaded(copy)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 513000\n"


@pytest.mark.parametrize("bytes_", [0, 7, 300, -1])
def test_a_file_that_is_cut_is_named(copy: Path, bytes_: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:bytes_])
    with pytest.raises(ZoliteError, match=r"copy/model\.safetensors cannot be read"):
        loaded(copy)


def test_a_pointer_of_git_lfs_is_called_one(copy: Path) -> None:
    (copy / "model.safetensors").write_text(POINTER)
    with pytest.raises(ZoliteError, match="pointer of Git LFS") as error:
        loaded(copy)
    assert "lfs pull" in error.value.hint


def test_pickled_weights_are_refused_with_the_command_that_converts_them(copy: Path, tiny: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    halves = list(tensors)[::2]
    torch.save({n: tensors[n] for n in halves}, copy / "pytorch_model-1.bin")
    torch.save({n: t for n, t in tensors.items() if n not in halves}, copy / "pytorch_model-2.bin")
    with pytest.raises(ZoliteError, match=r"pickled \(pytorch_model-1\.bin, pytorch_model-2\.bin\)") as error:
        loaded(copy)
    command = shlex.split(re.sub(r"^.*convert it once: ", "", error.value.hint))
    subprocess.run([sys.executable, *command[1:]], check=True)
    ids = torch.arange(3, 20)[None]
    assert torch.equal(loaded(copy).model(input_ids=ids).logits, loaded(tiny).model(input_ids=ids).logits)


def test_an_adapters_folder_is_no_model(copy: Path) -> None:
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(ZoliteError, match="holds an adapter") as error:
        checked(copy)
    assert "some/base" in error.value.hint


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_without_its_head_is_refused(kind: str, tiny: Path, tmp_path: Path) -> None:
    """Such as those that make embeddings of sentences: it says what is missing, and which checkpoint has it."""
    config = AutoConfig.for_model(
        kind, vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=66,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path / kind)
    for file in tiny.glob("tokenizer*"):
        shutil.copy(file, tmp_path / kind)
    with pytest.raises(ZoliteError, match=r"tensors are missing from its files .*(cls|lm_head)") as caught:
        loaded(tmp_path / kind)
    assert "the masked-language head that it was pretrained with" in caught.value.hint
