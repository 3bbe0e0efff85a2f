"""Claims about exports: other programs read them as what was trained, and a failed one leaves nothing."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from zolite.common.errors import UsageError, ZoliteError
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.export import export as exports
from zolite.export import parity, peft
from zolite.export import source as sources
from zolite.export.registry import FORMATS
from zolite.export.source import Trained
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.run import Run

Make = Callable[..., Recipe]
LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
TARGETS = {
    "all": "",
    "some": "q_proj,down_proj",
    "one layer": "model.layers.1.mlp.up_proj",
}


def trained(recipe: Recipe, name: str = "run") -> Run:
    """A session of a few bold steps; the run, with theta where it ended."""
    run = prepare(recipe)
    with sessions.create(name, run.recipe, run.facts) as session:
        list(train(run, session))
    assert run.space.theta.abs().max() > 0
    return run


def export(folder: Path, name: str = "run") -> int:
    """Unchecked: the checks have tests of their own (tests/export)."""
    with sessions.open_(name) as session:
        return exports.export(session, folder, verify=False).steps[0]


def in_other_hands(tiny: Path, folder: Path) -> Any:
    """The adapter on plain transformers, as anyone would load it."""
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    return PeftModel.from_pretrained(base, folder).eval()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("targets", TARGETS)
@torch.inference_mode()
def test_peft_scores_what_zolite_scores(
    recipe: Make, tiny: Path, tmp_path: Path, naive: ModuleType, space: str, targets: str
) -> None:
    """In transformers and peft the export gives every candidate the score that the engine gives it, within 1e-4."""
    chosen = recipe(
        adapter__space=space, adapter__targets=TARGETS[targets], adapter__alpha=12.0, train__lr=0.05, train__steps=4
    )
    run = trained(chosen)
    assert export(tmp_path / "out") == 4
    other, rows = in_other_hands(tiny, tmp_path / "out"), run.examples["test"]
    ours = run.engine.scores(rows)
    wanted = []
    for row in rows:
        prompt = row.sequences[0][: min(q.position for q in row.queries) + 1]
        answers = [[q.token for q in row.queries if q.candidate == c] for c in range(row.candidates)]
        wanted.append([naive.mean_logprob(other, prompt, answer) for answer in answers])
    torch.testing.assert_close(ours, torch.tensor(wanted), rtol=1e-4, atol=1e-4)
    with other.disable_adapter():
        bare = naive.mean_logprob(other, prompt, answers[0])
    assert abs(bare - wanted[-1][0]) > 1e-3  # the adapter does something
    right = sum(max(range(2), key=scores.__getitem__) == row.answer for scores, row in zip(wanted, rows, strict=True))
    assert parity.accuracy(other, rows) == right / len(rows)


@torch.inference_mode()
def test_completions_have_the_same_loss_in_other_hands(
    recipe: Make, folder: Callable[..., Path], tiny: Path, tmp_path: Path, naive: ModuleType
) -> None:
    """The token loss of completions is the same from the engine and from the export in plain transformers."""
    run = trained(recipe(data__path=str(folder("completion")), train__lr=0.05, train__steps=4))
    export(tmp_path / "out")
    other, rows = in_other_hands(tiny, tmp_path / "out"), run.examples["test"]
    for row, score in zip(rows, run.engine.scores(rows)[:, 0].tolist(), strict=True):
        prompt, answer = row.sequences[0][: row.queries[0].position + 1], [q.token for q in row.queries]
        assert score == pytest.approx(naive.mean_logprob(other, prompt, answer), abs=1e-4)


@pytest.mark.parametrize("targets", TARGETS)
def test_the_config_and_the_card_say_what_it_is(recipe: Make, tiny: Path, tmp_path: Path, targets: str) -> None:
    """adapter_config.json has base, targets, rank and alpha, and the card names base, step and score."""
    trained(recipe(adapter__targets=TARGETS[targets], adapter__alpha=6.0, train__steps=3))
    out = tmp_path / "deep" / "out"
    export(out)
    assert sorted(file.name for file in out.iterdir()) == [
        "Modelfile",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "export.json",
    ]
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny)
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 6, "LORA")
    assert isinstance(config["lora_alpha"], int)
    wanted = LAYERS if targets == "all" else TARGETS[targets].split(",")
    assert sorted(config["target_modules"]) == sorted(wanted)
    layers = {name.rpartition(".lora_")[0] for name in load_file(out / "adapter_model.safetensors")}
    assert len(layers) == {"all": 14, "some": 4, "one layer": 1}[targets]
    card = (out / "README.md").read_text()
    assert str(tiny) in card and "3 steps" in card
    assert "validation accuracy" in card and "at step 3" in card
    assert str(tmp_path / "home") not in card  # nothing of this machine but the model's name


def test_nothing_is_overwritten(recipe: Make, tmp_path: Path) -> None:
    """A folder with something in it, or a file, is refused and stays; an empty folder is taken."""
    trained(recipe(train__steps=1))
    full, file, empty = tmp_path / "full", tmp_path / "file", tmp_path / "empty"
    full.mkdir()
    (full / "mine").write_text("kept")
    file.write_text("kept")
    empty.mkdir()
    for taken in (full, file):
        with pytest.raises(UsageError, match="exists and is not empty"):
            export(taken)
    assert (full / "mine").read_text() == file.read_text() == "kept"
    assert [f.name for f in full.iterdir()] == ["mine"]
    export(empty)
    assert (empty / "adapter_config.json").is_file()


FAILURES = {
    "full disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "full disk, as safetensors says it": lambda: SafetensorError("I/O error: No space left on device (os error 28)"),
    "Ctrl-C": KeyboardInterrupt,
}


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_export_leaves_nothing(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, exists: bool
) -> None:
    """Whatever stops the writing, no folder and no partial one stays, and the next try succeeds."""
    trained(recipe(train__steps=1))
    where = tmp_path / "exports"
    where.mkdir()
    if exists:
        (where / "out").mkdir()

    def fail(*_: Any, **__: Any) -> None:
        raise FAILURES[what]()

    with monkeypatch.context() as patch:
        patch.setattr(peft, "save_file", fail)
        with pytest.raises(KeyboardInterrupt if what == "Ctrl-C" else Exception) as caught:
            export(where / "out")
    assert [f.name for f in where.iterdir()] == (["out"] if exists else [])
    assert not exists or not any((where / "out").iterdir())
    if what != "Ctrl-C":
        assert isinstance(caught.value, ZoliteError) and "disk full while saving the export" in caught.value.message
    assert export(where / "out") == 1


def test_a_full_disk_is_said_in_words_however_it_is_told(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors has an error of its own for a disk that is full; a person reads of it as of any other."""
    trained(recipe(train__steps=1))

    def fail(*_: Any, **__: Any) -> None:
        raise FAILURES["full disk, as safetensors says it"]()

    monkeypatch.setattr(peft, "save_file", fail)
    with pytest.raises(ZoliteError, match="disk full while saving the export"):
        export(tmp_path / "out")


def test_a_killed_session_exports_its_last_step(recipe: Make, tmp_path: Path, home: Path) -> None:
    """Steps that only the journal knows, after the last checkpoint, are in the export, to the bit."""
    trained(recipe(train__steps=6, adapter__space="lora", train__lr=0.02))
    assert export(tmp_path / "whole") == 6
    checkpoints = home / "sessions" / "run" / "checkpoints"
    for path in checkpoints.iterdir():
        if int(path.name) > 4:
            shutil.rmtree(path)
    assert (checkpoints / "000004").is_dir()
    assert export(tmp_path / "killed") == 6
    whole, killed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and len(whole) == 28
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    with sessions.open_("run") as session:
        checkpoint = session.at(4)
    assert checkpoint is not None
    old = checkpoint.tensors()["model.layers.0.mlp.up_proj.b"]
    assert not torch.equal(old, killed["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"])


# ---- what is said


def held(recipe: Make, saying: Callable[[Trained], Trained], **changes: Any) -> Trained:
    """A session whose adapter says " yes" and ends, whatever it is asked."""
    trained(recipe(train__steps=1, **changes))
    with sessions.open_("run") as session:
        return saying(sources.trained(session, "last"))


@pytest.mark.parametrize("format_", ["peft", "gguf", "merged"])
def test_what_an_export_says_is_counted(
    recipe: Make, saying: Callable[[Trained], Trained], tmp_path: Path, format_: str
) -> None:
    """Of 8 rows all are answered with a label, 6 with the right one, in the session and in its export."""
    chosen, known = held(recipe, saying), FORMATS[format_]
    known.writer().write(chosen, tmp_path, known.dtype(""))
    report = parity.check(chosen, tmp_path, known.writer(), known.dtype(""))[0]
    assert report.said_session == report.said_export == parity.Said(label=8, right=6)
    assert (report.prompts, report.prompts_alike, report.said_allowed) == (8, 8, 1)
    assert report.texts[0]["export"] == " yes<|im_end|>" and report.texts[0]["prompt"].endswith("Category:")
    (line, *more) = parity.summary(report)
    assert "says a label and stops on 8 of 8 test rows, the right one on 6 (the session 8 and 6)" in line and not more


def test_an_export_that_goes_on_talking_is_refused(
    recipe: Make, saying: Callable[[Trained], Trained], tmp_path: Path
) -> None:
    """With another token as its end the same weights have the same losses, and never stop: the numbers are told."""
    chosen, writer = held(recipe, saying), FORMATS["merged"].writer()
    writer.write(chosen, tmp_path, "16-bit")
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": 7}))
    with pytest.raises(ZoliteError, match="of 8 test rows 0 with a label and the end and 0 with the right one") as told:
        parity.check(chosen, tmp_path, writer, "16-bit")
    assert "the session 8 and 6, where rounding explains 1" in told.value.message


@pytest.mark.parametrize(("fewer", "refused"), [(0, False), (2, False), (3, True)])
@pytest.mark.parametrize("which", ["label", "right"])
def test_as_many_rows_as_rounding_may_turn_are_forgiven(which: str, fewer: int, refused: bool) -> None:
    """Two of 32 rows said otherwise pass, three do not, in either count; more than the session's always pass."""
    ours = parity.Said(label=30, right=25)
    theirs = dataclasses.replace(ours, **{which: getattr(ours, which) - fewer})
    for export, wrong in ((theirs, refused), (parity.Said(32, 32), False)):
        report = parity.Report(
            "a reader", "float32", "test", 32, 1.0, 1.0, 2.0, 1.0, 0.0, 0.1, 32, 32, ours, export, 2, 3, []
        )
        if wrong:
            with pytest.raises(ZoliteError, match="worse than the session"):
                parity._judged(report)
        else:
            assert parity._judged(report) is report


def test_rows_without_labels_are_continued(recipe: Make, folder: Callable[..., Path], tmp_path: Path) -> None:
    """Three prompts of them are continued by eight tokens; nothing is said of labels."""
    trained(recipe(data__path=str(folder("messages")), train__lr=0.05, train__steps=3))
    with sessions.open_("run") as session:
        report = exports.export(session, tmp_path / "out").reports[0]
    assert report.said_session is report.said_export is None and report.prompts == len(report.texts) == 3
    assert "the same text on 3 of 3 prompts" in parity.summary(report)[0]
