"""Claims about going on from an adapter of peft's: the same model at step 0, and nothing of it ignored."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from zolite.common.errors import UsageError
from zolite.config import recipe as recipes
from zolite.config.recipe import AdapterPart, Recipe
from zolite.export import export as exports
from zolite.sessions import session as sessions
from zolite.training import warm_start
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.resume import resume

Make = Callable[..., Recipe]


@pytest.fixture
def lora(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """lora(r=6, …) is the folder of an adapter with random A and B on the tiny model, saved by peft itself."""

    def make(**options: Any) -> Path:
        chosen = {"r": 6, "lora_alpha": 9, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"} | options
        folder = tmp_path / f"lora-{len(list(tmp_path.glob('lora-*')))}"
        base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        model = get_peft_model(base, LoraConfig(**chosen))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.data.normal_(std=0.2)
        model.save_pretrained(folder)
        return folder

    return make


def adopted(make: Make, folder: Path, **changes: Any) -> Recipe:
    """As `zolite train --from-adapter` makes it."""
    recipe = make(adapter__rank=8, **changes)
    return recipes.override(recipe, warm_start.settings(folder, {}, AdapterPart()))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True},
    "one layer": {"layers_to_transform": [1]},
    "a pattern": {"target_modules": r".*\.0\.mlp\.(up|down)_proj"},
    "all": {"target_modules": "all-linear"},
    "in 16 bits": {"lora_alpha": 5},
}


@pytest.mark.parametrize("what", OPTIONS)
@torch.inference_mode()
def test_step_0_is_the_adapter(recipe: Make, lora: Callable[..., Path], tmp_path: Path, tiny: Path, what: str) -> None:
    """Before the first step zolite's losses are those of peft with the adapter: rank, alpha and layers are its."""
    folder = lora(**OPTIONS[what])
    if what == "in 16 bits":
        tensors = load_file(folder / warm_start.WEIGHTS)
        save_file({k: t.half() for k, t in tensors.items()}, folder / warm_start.WEIGHTS)
    chosen = adopted(recipe, folder, train__steps=1)
    assert (chosen.adapter.rank, chosen.adapter.space) == (6, "lora")
    run = prepare(chosen)
    with sessions.create("run", run.recipe, run.facts) as session:
        list(train(run, session))
        done = exports.export(session, tmp_path / "out", step="0")  # compares with the bare model, too
    theirs, ours = load_file(folder / warm_start.WEIGHTS), load_file(tmp_path / "out" / warm_start.WEIGHTS)
    assert theirs.keys() == ours.keys()
    config, written = (json.loads((where / warm_start.CONFIG).read_text()) for where in (folder, tmp_path / "out"))
    scale = config["lora_alpha"] / (math.sqrt(6) if config["use_rslora"] else 6)
    rest = {"A": 1.0, "B": scale / (written["lora_alpha"] / 6)}  # what a whole lora_alpha lacks is in B
    for name, there in theirs.items():
        torch.testing.assert_close(ours[name], there.float() * rest[name.split(".")[-2][-1]], rtol=1e-6, atol=0.0)
    assert chosen.adapter.alpha / chosen.adapter.rank == pytest.approx(scale)
    assert done.reports[0].effect > 0.01


def test_a_resumed_session_needs_the_folder_no_more(recipe: Make, lora: Callable[..., Path]) -> None:
    """With the adapter's folder gone a stopped session goes on, bit for bit as one that was never stopped."""
    folder = lora()
    whole = prepare(adopted(recipe, folder, train__steps=4, train__save_every=4))
    with sessions.create("whole", whole.recipe, whole.facts) as session:
        list(train(whole, session))
    half = prepare(adopted(recipe, folder, train__steps=4, train__save_every=4))
    taken = iter((False, False, True))
    with sessions.create("half", half.recipe, half.facts) as session:
        list(train(half, session, lambda: next(taken)))
    shutil.rmtree(folder)
    list(resume("half", {"data.path": whole.recipe.data.path}, False, lambda: False))
    ends = []
    for name in ("whole", "half"):
        with sessions.open_(name) as session:
            checkpoint = session.at(4)
            assert checkpoint is not None
            ends.append(checkpoint.tensors())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


REFUSED: dict[str, dict[str, Any]] = {
    "use_dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "rank_pattern": {"rank_pattern": {"q_proj": 2}},
    "bias": {"bias": "lora_only"},
    "init_lora_weights": {"init_lora_weights": "pissa"},
    "trainable_token_indices": {"trainable_token_indices": [1, 2]},
}


@pytest.mark.parametrize("what", REFUSED)
def test_nothing_of_an_adapter_is_ignored(lora: Callable[..., Path], what: str) -> None:
    """What zolite's adapters have not is refused by its name, with a way on."""
    with pytest.raises(UsageError, match=what) as caught:
        warm_start.find(lora(**REFUSED[what]))
    assert "merge_and_unload" in caught.value.hint


def test_other_settings_are_named(lora: Callable[..., Path]) -> None:
    """A rank, an alpha or targets that were asked for and are not the adapter's are named, all at once."""
    given = {"adapter.rank": 16, "adapter.alpha": "9", "adapter.targets": "k_proj"}
    with pytest.raises(UsageError) as caught:
        warm_start.settings(lora(), given, AdapterPart())
    assert "adapter.rank was to be 16, the adapter's is 6" in caught.value.message
    assert "adapter.targets was to be k_proj, the adapter's is q_proj,up_proj" in caught.value.message
    assert "alpha" not in caught.value.message
    with pytest.raises(UsageError, match="rank was to be 4"):
        warm_start.settings(lora(), {}, AdapterPart(rank=4))
    assert warm_start.settings(lora(), {"adapter.targets": "up_proj, q_proj"}, AdapterPart())["adapter.rank"] == 6


def test_another_model_and_another_space_are_refused(recipe: Make, lora: Callable[..., Path], tmp_path: Path) -> None:
    """Shapes that do not fit are named; lora-b takes an adapter only if its A's are those it would draw itself."""
    folder = lora()
    tensors = load_file(folder / warm_start.WEIGHTS)
    narrow = {k: t[:, :8].contiguous() if "lora_A" in k else t for k, t in tensors.items()}
    save_file(narrow, folder / warm_start.WEIGHTS)
    with pytest.raises(UsageError, match=r"q_proj.a is \(6, 8\), in this model \(6, 64\)"):
        prepare(adopted(recipe, folder))
    save_file(tensors, folder / warm_start.WEIGHTS)
    with pytest.raises(UsageError, match="lora-b draws its A's from the seed") as caught:
        prepare(recipes.override(adopted(recipe, folder), {"adapter.space": "lora-b"}))
    assert "--space lora" in caught.value.hint
    run = prepare(recipe(adapter__targets="q_proj", train__lr=0.05))
    with sessions.create("own", run.recipe, run.facts) as session:
        list(train(run, session))
        exports.export(session, tmp_path / "own")
    again = prepare(recipes.override(adopted(recipe, tmp_path / "own"), {"adapter.space": "lora-b"}))
    assert torch.equal(again.space.theta, run.space.theta)


def test_what_is_no_adapter_is_said(tmp_path: Path) -> None:
    """A folder without an adapter, or with a broken one, is refused in one line."""
    with pytest.raises(UsageError, match="is no adapter as peft writes it"):
        warm_start.find(tmp_path)
