"""Claims about encoders: labels are learned at their masks, as transformers and peft alone read the result."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from zolite import api
from zolite.common.errors import UsageError
from zolite.common.events import Noted, StepDone
from zolite.config.recipe import Recipe
from zolite.data.examples import Example
from zolite.data.kinds.registry import KINDS as ROWS
from zolite.engine.engine import Engine
from zolite.export.export import export
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.score import scores
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key

Make = Callable[..., Recipe]
Folder = Callable[[str], Path]
KINDS_OF_ROWS = set(ROWS)
KINDS = (
    "bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "xlm-roberta", "camembert", "albert",
    "mpnet",
)  # fmt: skip
TEMPLATE = "{text} It was {label}."
LABELS = ("yes", "no", "a long way")  # of one token and of several


def of_transformers(model: Any, tokenizer: Any, row: Example, labels: tuple[str, ...]) -> torch.Tensor:
    """Mean log-probabilities (C,) of a row's labels at as many masks, one sequence at a time, without padding."""
    found = []
    for label in range(len(labels)):
        asked = [query for query in row.queries if query.candidate == label]
        ids = torch.tensor([row.sequences[asked[0].sequence]])
        assert [int(ids[0, q.position]) for q in asked] == [tokenizer.mask_token_id] * len(asked)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(-1)
        found.append(torch.stack([logits[q.position, q.token] for q in asked]).mean())
    return torch.stack(found)


def points_apart(engine: Engine, rows: list[Example]) -> float:
    """Of the losses at two points in one forward, from those in a forward each."""
    points = [Combo(((0.05 * (i + 1), Noise(Key(i, 0, ("check", i)))),)) for i in range(2)]
    with torch.inference_mode():
        theta = engine.adapter.space.theta
        theta.add_(torch.randn(theta.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
        objective = engine.bind(rows)
        together, alone = objective(points), torch.cat([objective([point]) for point in points])
    assert float((together[0] - together[1]).abs()) > 1e-5
    return float((together - alone).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_transformers(kind: str, encoders: Folder, recipe: Make, folder: Any) -> None:
    """Of rows beside others and padded, and of two perturbed copies in one forward."""
    made = recipe(
        model__name=str(encoders(kind)), data__path=str(folder("label", 16, 6, 6, LABELS)), data__template=TEMPLATE,
        train__copies=2, adapter__space="lora",
    )  # fmt: skip
    run = prepare(made)
    rows, model = run.examples["train"], AutoModelForMaskedLM.from_pretrained(encoders(kind)).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoders(kind))
    labels = tuple(run.facts["labels"])
    assert len({len(row.sequences[0]) for row in rows}) > 1 and all(len(row.sequences) > 1 for row in rows)
    with torch.inference_mode():
        ours = run.engine.scores(rows)
    theirs = torch.stack([of_transformers(model, tokenizer, row, labels) for row in rows])
    assert float((ours - theirs).abs().max()) < 1e-4
    assert points_apart(run.engine, list(rows[:8])) < 1e-4


def exported(made: Recipe, where: Path) -> tuple[Any, Any]:
    """(the export for peft, which was checked, the session's scores of dev at its last step)."""
    run = prepare(made)
    with sessions.create("first", run.recipe, run.facts) as session:
        list(train(run, session))
        done = export(session, where / "out", "peft")
    assert done.reports[0].apart < 1e-4 < done.reports[0].effect and "transformers with peft" in done.uses
    with torch.inference_mode():
        return done, run.engine.scores(run.examples["dev"])


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "albert"])
def test_peft_alone_answers_as_the_session(kind: str, encoders: Folder, recipe: Make, tmp_path: Path, folder: Any,
                                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """From texts, by the tokenizer's own masks; the command that an export comes with does the same."""
    made = recipe(
        model__name=str(encoders(kind)), data__path=str(folder("label", 12, 6, 6, LABELS)), data__template=TEMPLATE,
        adapter__space="lora", train__steps=2, train__lr=0.05, train__eps=0.01,
    )  # fmt: skip
    done, ours = exported(made, tmp_path)
    model = peft.PeftModel.from_pretrained(
        AutoModelForMaskedLM.from_pretrained(encoders(kind)), str(tmp_path / "out")
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoders(kind))
    with sessions.open_("first") as session:
        labels = session.facts["labels"]
    lines = (Path(made.data.path) / "dev.jsonl").read_text().splitlines()
    theirs = torch.tensor([[by_text(model, tokenizer, json.loads(line)["text"], x) for x in labels] for line in lines])
    assert float((ours - theirs).abs().max()) < 1e-4
    exec(done.uses["transformers with peft"], {})
    assert capsys.readouterr().out.strip() in labels


def by_text(model: Any, tokenizer: Any, text: str, label: str) -> float:
    """A label's mean log-probability, as anybody would ask for it."""
    tokens = tokenizer(f"was {label}", add_special_tokens=False).input_ids
    tokens = tokens[len(tokenizer("was", add_special_tokens=False).input_ids) :]
    asked = tokenizer(f"{text} It was {tokenizer.mask_token * len(tokens)}.", return_tensors="pt")
    with torch.inference_mode():
        logs = model(**asked).logits[0][asked.input_ids[0] == tokenizer.mask_token_id].log_softmax(-1)
    return float(logs[range(len(tokens)), tokens].mean())


def test_a_run_learns_resumes_and_is_scored(encoders: Folder, recipe: Make, separable: str) -> None:
    """A linear probe, a measured step size, steps; half of a run and its other half are the whole."""
    changes = {
        "model__name": str(encoders("bert")), "data__path": separable, "data__template": TEMPLATE, "train__steps": 8,
        "adapter__linear_probe": True, "adapter__rank": 8, "train__objective": "say",
    }  # fmt: skip
    made = recipe(**changes)
    made = replace(made, train=replace(made.train, lr=None, eps=None))
    notes = [event.message for event in api.train(made, "whole") if isinstance(event, Noted)]
    assert any("linear probe" in note for note in notes)
    steps: list[StepDone] = []
    stopped = api.train(made, "half", lambda: len(steps) == 4)
    steps.extend(event for event in stopped if isinstance(event, StepDone))
    more = [event for event in api.resume("half") if isinstance(event, StepDone)]
    assert len(steps) + len(more) == 8
    whole, half = (scores(name, Path(separable), {}) for name in ("whole", "half"))
    assert [each.shares for each in whole.tuned.predictions] == [each.shares for each in half.tuned.predictions]
    assert whole.base is not None and whole.tuned.event.value > 0.9 > whole.base.event.value
    with sessions.open_("whole") as session:
        assert session.recipe.train.objective == "rank"


@pytest.mark.parametrize("quant", ["int8", "nf4"])
@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_frozen_weights_in_8_and_4_bits(kind: str, quant: str, encoders: Folder, tmp_path: Path) -> None:
    """All layers but the head, whose logits stay near the original's."""
    source, cpu = models.resolve(str(encoders(kind))), torch.device("cpu")
    ids = torch.arange(20, 60).view(2, 20)
    found = [models.load(source, how, cpu, tmp_path) for how in ("float32", quant)]
    with torch.inference_mode():
        exact, near = (each.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for each in found)
    assert found[1].encoder and float((near - exact).norm() / exact.norm()) < (0.05 if quant == "int8" else 0.4)


@pytest.mark.parametrize("kind", sorted(KINDS_OF_ROWS - {"label"}))
def test_rows_without_labels_are_refused(kind: str, encoders: Folder, recipe: Make, folder: Any) -> None:
    made = recipe(model__name=str(encoders("bert")), data__path=str(folder(kind)))
    with pytest.raises(UsageError, match="an encoder fills in masks") as error:
        prepare(made)
    assert "causal language model" in error.value.hint


def test_llama_cpp_gets_no_encoder(encoders: Folder, recipe: Make, tmp_path: Path) -> None:
    run = prepare(recipe(model__name=str(encoders("bert")), train__steps=1))
    with sessions.create("first", run.recipe, run.facts) as session:
        list(train(run, session))
        for format_ in ("gguf", "merged-gguf"):
            with pytest.raises(UsageError, match="BertForMaskedLM is an encoder") as error:
                export(session, tmp_path / format_, format_)
            assert "peft or merged" in error.value.hint
        done = export(session, tmp_path / "merged", "merged", verify=False)
    assert list(done.uses) == ["transformers"]
