"""Claims about exports in every format: whole or not there, checked before they appear, of the step asked for."""

import dataclasses
import json
import os
import re
import stat
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.ggufs import base_gguf
from zolite.common.errors import DoesNotFit, UsageError, ZoliteError
from zolite.common.paths import paths
from zolite.config.architectures import ARCHITECTURES
from zolite.config.recipe import Recipe
from zolite.data.examples import spoken
from zolite.export import export as exports
from zolite.export import gguf, merged, merged_gguf, peft
from zolite.export import source as sources
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.run import Run

Make = Callable[..., Recipe]
ModelFolder = Callable[[str, torch.dtype], Path]
KINDS = (
    "llama",
    "mistral",
    "qwen3",
    "gemma3_text",
    "phi",
    "opt",
    "gpt_neox",
    "gpt2",
    "gemma3",
    "resized",
    "ernie4_5_moe",
)
IN_LLAMA_CPP = tuple(kind for kind in KINDS if kind not in ("opt", "ernie4_5_moe"))


def trained(recipe: Recipe, name: str = "run") -> Run:
    """A session of a few bold steps; the run, with theta where it ended."""
    run = prepare(recipe)
    with sessions.create(name, run.recipe, run.facts) as session:
        list(train(run, session))
    return run


def export(folder: Path, *options: Any, name: str = "run", **more: Any) -> exports.Done:
    with sessions.open_(name) as session:
        return exports.export(session, folder, *options, **more)


def bold(recipe: Make, folder: Path, **changes: Any) -> Run:
    return trained(recipe(**{"model__name": str(folder), "train__steps": 3, "train__lr": 0.15} | changes))


def losses(run: Run) -> list[float]:
    """Of test rows' right answers, by the run's own engine."""
    rows = run.examples["test"]
    return [-float(s[row.answer]) for s, row in zip(run.engine.scores(rows), rows, strict=True)]


@torch.inference_mode()
def losses_of(model: Any, rows: Sequence[Any], naive: Any) -> list[float]:
    """Nats a token of each row's right answer, by the definition."""
    found = []
    for row in rows:
        prompt = row.sequences[0][: min(q.position for q in row.queries) + 1]
        answer = [q.token for q in row.queries if q.candidate == row.answer]
        found.append(-naive.mean_logprob(model, prompt, answer))
    return found


@pytest.mark.parametrize(("kind", "space"), [*((kind, "lora-b") for kind in KINDS), ("qwen3", "lora-core")])
@torch.inference_mode()
def test_every_architecture_round_trips(
    recipe: Make, model_folder: ModelFolder, tmp_path: Path, naive: Any, kind: str, space: str
) -> None:
    """peft and merged exports have the engine's losses in plain transformers: within 1e-4, and bfloat16's rounding."""
    folder = model_folder(kind, torch.bfloat16)
    run = bold(recipe, folder, adapter__space=space)
    ours = losses(run)
    for format_, apart in (("peft", 1e-5), ("merged", 0.03)):
        done = export(tmp_path / format_, format_)
        assert done.steps == (3,) and done.reports[0].effect > 0.1
        if format_ == "peft":
            bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            with warnings.catch_warnings(record=True) as told:
                other = PeftModel.from_pretrained(bare, tmp_path / "peft").eval()
            assert not [w for w in told if "adapter" in str(w.message)]  # of keys that are missing or left over
        else:
            other = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
        theirs = losses_of(other, run.examples["test"], naive)
        assert np.abs(np.subtract(ours, theirs)).mean() < apart


def rotated(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """A head's rows as llama.cpp wants them, one after the other: first half's i, second half's i."""
    rows = []
    for head in weight.chunk(heads):
        first, second = head.chunk(2)
        for i in range(len(first)):
            rows += [first[i], second[i]]
    return torch.stack(rows)


def unwoven(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """q, k, v of each head in turn to all q, all k, all v."""
    parts = [head.chunk(3) for head in weight.chunk(heads)]
    return torch.cat([part[i] for i in range(3) for part in parts])


@pytest.mark.parametrize(("kind", "space"), [*((kind, "lora-b") for kind in IN_LLAMA_CPP), ("llama", "lora-core")])
def test_lora_gguf_is_the_adapter(
    recipe: Make, model_folder: ModelFolder, tmp_path: Path, kind: str, space: str
) -> None:
    """Tensors have llama.cpp's names and orders, and B·A is the one trained, row for row, to float32's last bits."""
    bold(recipe, model_folder(kind, torch.bfloat16), adapter__alpha=12.0, adapter__space=space)
    export(tmp_path / "out", "gguf", dtype="f32", verify=False)
    export(tmp_path / "peft", "peft", verify=False)
    factors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    reader = GGUFReader(tmp_path / "out" / "adapter.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter" and fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 12.0
    known = ARCHITECTURES["llama" if kind == "resized" else kind].llama_cpp
    assert known is not None and fields["general.architecture"] == known.name
    stored = {t.name: torch.from_numpy(np.array(t.data)) for t in reader.tensors}
    query = {"llama": "q_proj", "mistral": "q_proj", "gpt_neox": "query_key_value"}
    assert len(stored) == len(factors)
    products = {name[:-7]: stored[f"{name[:-7]}.lora_b"] @ stored[name] for name in stored if name.endswith(".lora_a")}
    wanted = {}
    for name in factors:
        if ".lora_A." in name:
            product, leaf = factors[name.replace("lora_A", "lora_B")] @ factors[name], name.split(".")[-3]
            if kind in ("llama", "mistral", "resized") and leaf in ("q_proj", "k_proj"):
                product = rotated(product, 4 if leaf == "q_proj" else 2)
            if leaf == query.get(kind) == "query_key_value":
                product = unwoven(product, 4)
            wanted[name] = product
    assert len(products) == len(wanted)
    for name, product in wanted.items():
        block = re.findall(r"\.(?:layers|h)\.(\d+)\.", name)[0]
        alike = [n for n, p in products.items() if p.shape == product.shape and torch.allclose(p, product, atol=1e-6)]
        assert [n.split(".")[1] for n in alike] == [block], name


def test_what_llama_cpp_has_no_name_for_is_refused(recipe: Make, model_folder: ModelFolder, tmp_path: Path) -> None:
    """OPT as GGUF, and a merged GGUF without a GGUF to start from, are refused with what to do instead."""
    bold(recipe, model_folder("opt", torch.bfloat16))
    with pytest.raises(UsageError, match="OPTForCausalLM") as caught:
        export(tmp_path / "out", "gguf")
    assert "--format merged" in caught.value.hint
    trained(recipe(train__steps=1), "other")
    with pytest.raises(UsageError, match="not a GGUF file") as caught:
        export(tmp_path / "out", "merged-gguf", name="other")
    assert "convert_hf_to_gguf.py" in caught.value.hint
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".zolite*"))


def test_merging_changes_what_has_an_adapter_and_nothing_else(
    recipe: Make, model_folder: ModelFolder, tmp_path: Path
) -> None:
    """Each merged weight is the original plus s·B·A rounded once; all other tensors and files are the original's."""
    folder = model_folder("qwen3", torch.float16)
    bold(recipe, folder, adapter__targets="q_proj,down_proj")
    export(tmp_path / "peft", "peft", verify=False)
    export(tmp_path / "out", "merged", verify=False)
    factors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.{m}.weight" for i in (0, 1) for m in ("self_attn.q_proj", "mlp.down_proj")}
    for name in changed:
        a, b = (factors[f"base_model.model.{name.removesuffix('weight')}lora_{f}.weight"] for f in "AB")
        wanted = (before[name].double() + 4.0 * (b.double() @ a.double())).to(torch.float16)
        assert (wanted == after[name]).float().mean() > 0.999  # the rest rounds to a neighbour
        assert torch.allclose(wanted.float(), after[name].float(), rtol=2**-9)
    for file in ("config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "out" / file).read_text()) == json.loads((folder / file).read_text())


@pytest.mark.parametrize("alpha", [6.0, 24.0])
def test_a_merged_gguf_is_the_base_and_the_adapter(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alpha: float
) -> None:
    """Each weight with an adapter is the file's plus α / r · B A; the others are the file's."""
    trained(recipe(train__steps=3, train__lr=0.15, adapter__targets="q_proj,down_proj", adapter__alpha=alpha))
    with sessions.open_("run") as session:
        chosen = sources.trained(session, "last")
    gains = gguf.converted(chosen)
    base = {name: np.random.default_rng(1).normal(size=(len(b), a.shape[1])) for name, (a, b) in gains.items()}
    base = {name: array.astype(np.float32) for name, array in (base | {"output.weight": np.eye(64)}).items()}
    writer = GGUFWriter(tmp_path / "base.gguf", "llama")
    for name, array in base.items():
        writer.add_tensor(name, array)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    monkeypatch.setattr(sources.Trained, "gguf", property(lambda self: tmp_path / "base.gguf"))
    merged_gguf.write(chosen, tmp_path, "f16")
    found = {t.name: t.data for t in GGUFReader(tmp_path / merged_gguf.MODEL).tensors}
    assert found.keys() == base.keys() and len(gains) == 4
    for name, array in base.items():
        gain = 0.0 if name not in gains else alpha / 4 * (gains[name][1].double() @ gains[name][0].double()).numpy()
        assert np.allclose(found[name].astype(np.float64), array + gain, rtol=1e-3, atol=1e-3)
        assert name not in gains or np.abs(gain).max() > 0.05


def test_a_gguf_file_is_merged_in_16_bits(
    recipe: Make, model_folder: ModelFolder, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Its weights are unpacked for that alone: what is written is their sum with the adapter, rounded once."""
    base = AutoModelForCausalLM.from_pretrained(model_folder("llama", torch.float16))
    base_gguf(base.float(), tokenizer, tmp_path / "base.gguf", "Q8_0")
    bold(recipe, tmp_path / "base.gguf", adapter__targets="q_proj,down_proj")
    export(tmp_path / "merged", "merged")
    with sessions.open_("run") as session:
        chosen = sources.trained(session, "last")
    before = models.in_16_bits(chosen.source, paths()["cache"]).state_dict()
    after = load_file(tmp_path / "merged" / "model.safetensors")
    gains = {f"{name}.weight": sources.delta(a, b, chosen.scale) for name, (a, b) in chosen.layers.items()}
    assert len(gains) == 4 and gains.keys() < after.keys() <= before.keys()
    for name, weight in after.items():
        assert torch.equal(weight, (before[name].float() + gains.get(name, 0.0)).to(torch.float16))
    assert not list(paths()["cache"].rglob("*.safetensors"))


def test_shards_stay_shards(recipe: Make, model_folder: ModelFolder, tmp_path: Path) -> None:
    """A model in several files is merged into as many, its index still right; float32 becomes bfloat16 throughout."""
    whole = AutoModelForCausalLM.from_pretrained(model_folder("llama", torch.float16), dtype=torch.float32)
    whole.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    for file in model_folder("llama", torch.float16).glob("tokenizer*"):
        (tmp_path / "shards" / file.name).write_bytes(file.read_bytes())
    bold(recipe, tmp_path / "shards")
    export(tmp_path / "out", "merged")
    files = sorted(f.name for f in (tmp_path / "out").glob("*.safetensors"))
    assert files == sorted(f.name for f in (tmp_path / "shards").glob("*.safetensors")) and len(files) > 2
    index = json.loads((tmp_path / "out" / merged.INDEX).read_text())
    tensors = {name: t for file in files for name, t in load_file(tmp_path / "out" / file).items()}
    assert tensors.keys() == index["weight_map"].keys()
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert index["metadata"]["total_size"] == sum(2 * t.numel() for t in tensors.values())
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_merging_looks_before_it_starts(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little memory, too little disk, and other weights than those trained on are said before a byte is written."""
    trained(recipe(train__steps=1))
    with monkeypatch.context() as patch:
        patch.setattr(merged.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
        with pytest.raises(DoesNotFit, match="1000 B are free"):
            export(tmp_path / "out", "merged")
    with monkeypatch.context() as patch:
        patch.setattr(exports.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 1000}))
        with pytest.raises(ZoliteError, match="1000 B are free"):
            export(tmp_path / "out", "merged")
    assert not (tmp_path / "out").exists()


def test_weights_that_changed_are_not_exported(recipe: Make, model_folder: ModelFolder, tmp_path: Path) -> None:
    """A model folder that is not the one trained on is refused: the adapter is not for it."""
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(model_folder("llama", torch.float16)).save_pretrained(folder)
    for file in model_folder("llama", torch.float16).glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    bold(recipe, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({k: t + 1 for k, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZoliteError, match="no longer those"):
        export(tmp_path / "out", "merged")


WRONG: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "twice": lambda t: 2 * t,
    "rows mixed up": lambda t: t.flip(0),
    "not a number": lambda t: t * float("nan"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("format_", ["peft", "gguf", "merged"])
def test_a_wrong_export_never_appears(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str, wrong: str
) -> None:
    """Numbers that are written otherwise than trained are found by reading them back, and nothing stays."""
    trained(recipe(train__steps=3, train__lr=0.05))
    spoil, module = WRONG[wrong], {"peft": peft, "gguf": gguf, "merged": merged}[format_]
    write = module.WRITER.write

    def spoilt(chosen: Any, folder: Path, dtype: str) -> None:
        factors = {k: spoil(t) if k.endswith(".b") else t for k, t in chosen.factors.items()}
        monkeypatch.setattr(gguf, "_rounded", _unasked) if wrong == "not a number" else None
        monkeypatch.setattr(merged.torch, "isfinite", torch.ones_like) if wrong == "not a number" else None
        write(dataclasses.replace(chosen, factors=factors), folder, dtype)

    monkeypatch.setattr(module, "WRITER", dataclasses.replace(module.WRITER, write=spoilt))
    with pytest.raises(ZoliteError, match="other losses than the session"):
        export(tmp_path / "exports" / "out", format_)
    assert not any((tmp_path / "exports").iterdir())


def test_a_layer_that_peft_does_not_find_is_named(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that an architecture's layers have elsewhere are the reason that is given, before any loss is compared."""
    trained(recipe(train__steps=3, train__lr=0.05))
    named = peft._peft_name
    monkeypatch.setattr(peft, "_peft_name", lambda block: named(block).replace("0.mlp.up_proj", "0.mlp.upper"))
    with pytest.raises(ZoliteError, match=r"another way than transformers does: .*layers\.0\.mlp\.up_proj") as caught:
        export(tmp_path / "out")
    assert "--format merged" in caught.value.hint and not (tmp_path / "out").exists()


def _unasked(layers: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {f"{n}.lora_{f}": t.half().numpy() for n, pair in layers.items() for f, t in zip("ab", pair, strict=True)}


def test_an_adapter_that_changes_nothing_is_told(recipe: Make, tmp_path: Path) -> None:
    """Step 0, where B is zero, is refused with the reason, and written when that is asked for."""
    trained(recipe(train__steps=2, train__lr=0.05))
    with pytest.raises(ZoliteError, match="changes nothing") as caught:
        export(tmp_path / "out", step="0")
    assert "--no-verify" in caught.value.hint and not (tmp_path / "out").exists()
    assert export(tmp_path / "out", step="0", verify=False).steps == (0,)


def test_the_step_that_was_asked_for(recipe: Make, tmp_path: Path) -> None:
    """--step takes a number, best and last; several are averaged factor by factor, as the card says."""
    trained(recipe(train__steps=4, train__lr=0.05, train__eval_every=1))
    with sessions.open_("run") as session:
        scores = {e.step: e.value for e in session.journal.evaluations() if e.split == "dev"}
    for what in ("1", "3", "1,3", "best", "last"):
        export(tmp_path / what, step=what, verify=False)
    files = {w: load_file(tmp_path / w / "adapter_model.safetensors") for w in ("1", "3", "1,3", "last")}
    for name, mean in files["1,3"].items():
        torch.testing.assert_close(mean, (files["1"][name] + files["3"][name]) / 2)
    assert not torch.equal(*(files[w]["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"] for w in ("1", "3")))
    about = {w: json.loads((tmp_path / w / exports.REPORT).read_text())["steps"] for w in ("1,3", "best", "last")}
    assert (about["1,3"], about["last"]) == ([1, 3], [4])
    assert scores[about["best"][0]] == max(scores.values())
    assert "the mean of steps 1 and 3" in (tmp_path / "1,3" / "README.md").read_text()
    with pytest.raises(UsageError):
        export(tmp_path / "out", step="9")


def test_force_replaces_exports_only(recipe: Make, tmp_path: Path) -> None:
    """--force replaces what an export left, never a folder of anything else, and asked for without it nothing is."""
    trained(recipe(train__steps=2, train__lr=0.05))
    export(tmp_path / "out", step="1", verify=False)
    with pytest.raises(UsageError, match="exists and is not empty"):
        export(tmp_path / "out", verify=False)
    old = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(ZoliteError):
        export(tmp_path / "out", step="0", force=True)  # changes nothing: refused after it was written beside
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == old
    export(tmp_path / "out", "gguf", force=True, verify=False)
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    with pytest.raises(UsageError, match=r"has what no export made"):
        export(tmp_path / "mine", force=True)
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert not list(tmp_path.glob(".zolite*"))


def test_the_report_says_what_was_compared(recipe: Make, tmp_path: Path) -> None:
    """export.json has both losses, their distance, what is allowed, and what each goes on with."""
    run = trained(recipe(train__steps=3, train__lr=0.05))
    done = export(tmp_path / "out", "gguf")
    report = json.loads((tmp_path / "out" / exports.REPORT).read_text())["checks"][0]
    answers = [spoken(row) for row in run.examples["test"]]  # the label's tokens and the end's
    assert report["loss_session"] == pytest.approx(-float(run.engine.scores(answers).mean()), abs=1e-5)
    assert report["apart"] <= report["allowed"] < report["effect"]
    assert len(report["texts"]) == 3 and report["rows"] == 8 and report["split"] == "test"
    assert "gguf" in report["reader"] and "checked with gguf" in "\n".join(exports.summary(done, "run", "gguf"))


@pytest.mark.parametrize("format_", ["peft", "gguf", "merged"])
def test_others_can_read_an_export(recipe: Make, tmp_path: Path, format_: str) -> None:
    """Files and folder have the modes that any new ones get: a server of another user reads them."""
    trained(recipe(train__steps=1))
    before = os.umask(0o022)
    try:
        export(tmp_path / "out", format_, verify=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()} == {0o644}


@pytest.mark.parametrize("alpha", [0.3, 6.1, 12.0])
def test_alpha_is_a_whole_number_for_those_who_read_one(
    recipe: Make, model_folder: ModelFolder, tmp_path: Path, naive: Any, alpha: float
) -> None:
    """Ollama reads lora_alpha as an integer: what a fractional one lacks is in B, and the losses are the session's. A
    GGUF file has alpha as it is."""
    folder = model_folder("llama", torch.bfloat16)
    run = bold(recipe, folder, adapter__alpha=alpha)
    assert export(tmp_path / "gguf", "gguf", dtype="f32").reports[0].apart < 1e-4
    export(tmp_path / "peft")
    stored = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["lora_alpha"]
    assert isinstance(stored, int) and stored == max(1, round(alpha))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    other = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    assert losses_of(other, run.examples["test"], naive) == pytest.approx(losses(run), abs=1e-4)


def test_rows_that_are_gone_are_asked_for(recipe: Make, folder: Callable[..., Path], tmp_path: Path) -> None:
    """Without the rows nothing is checked in silence: the error says how to export unchecked."""
    data = folder()
    trained(recipe(data__path=str(data), train__steps=2))
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError) as caught:
        export(tmp_path / "out")
    assert "--no-verify" in caught.value.hint
    export(tmp_path / "out", verify=False)
