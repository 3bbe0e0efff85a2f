"""Claims about what a run says before its first step."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

from zolite.common.errors import UsageError, ZoliteError
from zolite.config.recipe import Recipe
from zolite.data.in_place import INSIDE
from zolite.export.export import export
from zolite.model import load as models
from zolite.model.proof import Proof
from zolite.sessions import session as sessions
from zolite.training.prepare import prepare
from zolite.training.resume import begin, resume
from zolite.training.score import score


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """Prompts of every split end in a space that belongs to the answer."""
    for split in ("train", "dev", "test"):
        lines = [{"prompt": f"Say {i}: ", "completion": "yes"} for i in range(12)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(tmp_path)


def test_borders_and_special_tokens_are_told_once(
    recipe: Callable[..., Recipe], rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As warnings of the run, not once a split."""
    read = models.vocabulary
    monkeypatch.setattr(models, "vocabulary", lambda *a: replace(read(*a), notes=("two ends",)))
    notes = [(note.level, note.message) for note in prepare(recipe(data__path=rows)).notes]
    assert notes.count(("warning", f"in 12 of 12 rows, line 1 first, {INSIDE}")) == 1
    assert sum(INSIDE in text for _, text in notes) == 1 and ("warning", "two ends") in notes


def test_tokens_beyond_the_embedding_table_are_refused_before_weights_are_read(
    recipe: Callable[..., Recipe], rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than in the midst of a forward."""

    def never(*_: Any) -> None:
        raise AssertionError("weights were read")

    read = models.vocabulary
    monkeypatch.setattr(models, "vocabulary", lambda *a: replace(read(*a), table=260))
    monkeypatch.setattr(models, "load", never)
    with pytest.raises(UsageError, match="beyond the model's embedding table of 260 rows"):
        prepare(recipe(data__path=rows))


def copied(tiny: Path, tmp_path: Path, **config: Any) -> str:
    """The tiny model with other numbers in its config."""
    folder = Path(shutil.copytree(tiny, tmp_path / "copied"))
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return str(folder)


def test_rows_beyond_trained_positions_are_told(recipe: Callable[..., Recipe], tiny: Path, tmp_path: Path) -> None:
    run = prepare(recipe(model__name=copied(tiny, tmp_path, max_position_embeddings=24)))
    said = [note.message for note in run.notes if note.level == "warning"]
    assert any("trained up to 24" in text and "data.context=24" in text for text in said), said


def test_rows_beyond_a_table_of_positions_are_refused_before_weights_are_read(
    recipe: Callable[..., Recipe], gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the weights were read"))
    known = json.loads((gpt2 / "config.json").read_text())
    (gpt2 / "config.json").write_text(json.dumps(known | {"n_positions": 24}))
    for act in (prepare, lambda made: score(made.model.name, Path(made.data.path), {"model.quant": "float32"})):
        with pytest.raises(UsageError, match="beyond the model's 24 positions"):
            act(recipe(model__name=str(gpt2)))


def test_another_config_is_another_run(recipe: Callable[..., Recipe], tiny: Path, tmp_path: Path) -> None:
    made = recipe(model__name=copied(tiny, tmp_path), train__steps=2)
    list(begin(made, "it", lambda: False))
    known = json.loads((tmp_path / "copied" / "config.json").read_text())
    (tmp_path / "copied" / "config.json").write_text(json.dumps(known | {"rms_norm_eps": 1e-2}))
    with pytest.raises(UsageError, match=r"model's config\.json is not the same"):
        list(resume("it", {"train.steps": 4}, False, lambda: False))


def test_losses_that_overflow_are_one_line(
    recipe: Callable[..., Recipe], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that only the rows make too large: two short rows at the load were fine."""
    monkeypatch.setattr(models, "prove", lambda *_: Proof(0, frozenset()))
    folder = Path(copied(tiny, tmp_path))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] *= float("inf")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for probe in (False, True):
        with pytest.raises(ZoliteError, match="are not finite in float32"):
            prepare(recipe(model__name=str(folder), adapter__linear_probe=probe))


@pytest.fixture
def gpt2(tokenizer: Any, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_positions=128, initializer_range=0.1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.fixture
def capped(tokenizer: Any, tmp_path: Path) -> Path:
    """A model with a cap that is not among those that zolite's head knows."""
    torch.manual_seed(1)
    config = RecurrentGemmaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, lru_width=32,
        num_key_value_heads=1, attention_window_size=32, logits_soft_cap=2.0, initializer_range=0.1,
    )  # fmt: skip
    RecurrentGemmaForCausalLM(config).save_pretrained(tmp_path / "capped")
    tokenizer.save_pretrained(tmp_path / "capped")
    return tmp_path / "capped"


def test_a_model_with_more_behind_its_head_is_measured_by_its_own_logits(
    recipe: Callable[..., Recipe], capped: Path, folder: Callable[..., Path]
) -> None:
    run = prepare(recipe(model__name=str(capped), data__path=str(folder("completion")), train__microbatch=2))
    assert sum("the model's own logits" in note.message for note in run.notes) == 1
    rows = run.examples["train"][:4]
    model = RecurrentGemmaForCausalLM.from_pretrained(capped).eval()
    for row, ours in zip(rows, run.engine.scores(rows), strict=True):
        with torch.inference_mode():
            logs = model(input_ids=torch.tensor(row.sequences), use_cache=False).logits.log_softmax(-1)
        theirs = torch.stack([logs[q.sequence, q.position, q.token] for q in row.queries]).mean()
        torch.testing.assert_close(ours[0], theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("quant", ["float32", "int8"])
def test_gpt2_trains_and_merges_as_it_is_stored(recipe: Callable[..., Recipe], gpt2: Path, quant: str) -> None:
    """export reads back what it wrote, and raises where the losses are others."""
    made = recipe(model__name=str(gpt2), model__quant=quant, train__steps=3, train__lr=1e-3, adapter__space="lora")
    list(begin(made, "it", lambda: False))
    with sessions.open_("it") as session:
        export(session, gpt2.parent / "merged", "merged")
