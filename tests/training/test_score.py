"""Claims about scoring a session or a model: what stands beside the score, and each row's part in it."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaForCausalLM

from zolite.common.errors import UsageError
from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import answers_of
from zolite.data.kinds.registry import KINDS
from zolite.training.few_shot import Rendering, chosen, with_shots
from zolite.training.resume import begin
from zolite.training.score import Wanted, records, score, scores

Make = Callable[..., Recipe]
PLAIN = {"model.quant": "float32", "model.device": "cpu", "data.context": 128}


@pytest.fixture
def trained(recipe: Make, folder: Callable[..., Path]) -> Path:
    """Session "run"; returns the folder of its rows."""
    data = folder()
    list(begin(recipe(data__path=str(data), train__lr=0.05, train__steps=3), "run", lambda: False))
    return data


def test_a_session_is_compared_with_its_base_model(trained: Path, recipe: Make) -> None:
    """The base is the model by itself, on the same rows; the score alone is the session's."""
    found = scores("run", trained, {})
    model = scores(recipe().model.name, trained, PLAIN)
    assert found.base is not None and model.base is None
    assert [p.ranked for p in found.base.predictions] == [p.ranked for p in model.tuned.predictions]
    for ours, theirs in zip(found.base.predictions, model.tuned.predictions, strict=True):
        assert ours.shares == pytest.approx(theirs.shares, abs=1e-5)
        assert ours.shares != pytest.approx(found.tuned.predictions[0].shares, abs=1e-3)
    alone = score("run", trained, {})
    assert (alone.value, alone.says, alone.step) == (found.tuned.event.value, found.tuned.event.says, 3)


def test_the_report_is_of_the_predictions(trained: Path) -> None:
    """Its counts, the event's figures and the records tell of one and the same choices."""
    found = scores("run", trained, {})
    report, event, rows = found.tuned.report, found.tuned.event, list(records(found))
    assert report is not None and report.accuracy == event.value and report.baseline == event.majority
    counted = Counter((row["label"], row["ranked"]) for row in rows)
    for i, right in enumerate(found.labels):
        assert [counted[right, chosen] for chosen in found.labels] == list(report.confusion[i])
    assert sum(row["says_label"] for row in rows) == event.says * len(rows)
    for line, row in enumerate(rows, start=1):
        assert row["line"] == line and row["prompt"].endswith("Category:") and row["base"].keys() <= row.keys()
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["ranked"] == max(row["probabilities"], key=row["probabilities"].__getitem__)


@pytest.mark.parametrize("kind", ["completion", "messages"])
def test_answers_are_transformers_own(recipe: Make, folder: Callable[..., Path], kind: str) -> None:
    """What is written for a row is what transformers writes for it alone, and the records and figures tell of it."""
    model, data = recipe().model.name, folder(kind, test=6)
    found = scores(model, data, PLAIN)
    plain, words = transformers_of(model)
    assert [q.row for q in found.questions] == list(range(6)) and found.tuned.report is None
    most = max(len(words(text, add_special_tokens=False).input_ids) for q in found.questions for text in q.references)
    for question, answer in zip(found.questions, found.tuned.answers, strict=True):
        prompt = torch.tensor([question.prompt])
        out = plain.generate(prompt, do_sample=False, max_new_tokens=most + 1, eos_token_id=words.eos_token_id)
        said = words.decode(out[0, prompt.shape[1] :], skip_special_tokens=True).strip()
        assert answer.text == said
    lines, texts = list(records(found)), found.tuned.texts
    assert texts is not None and texts.rows == len(lines) == 6
    assert texts.f1.value == pytest.approx(sum(line["f1"] for line in lines) / 6, abs=1e-5)
    assert [line["answer"] for line in lines] == [answer.text for answer in found.tuned.answers]
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    wanted = [row["completion"] if kind == "completion" else row["messages"][-1]["content"] for row in rows]
    assert [line["references"] for line in lines] == [[text.strip()] for text in wanted]
    assert found.tuned.figures["perplexity"].value == pytest.approx(math.exp(found.tuned.event.value), rel=1e-6)


def transformers_of(model: str) -> tuple[Any, Any]:
    return LlamaForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)


@pytest.mark.parametrize("kind", ["label", "completion", "messages"])
def test_examples_stand_before_each_prompt(recipe: Make, folder: Callable[..., Path], kind: str) -> None:
    """As many as there is room for, from train, whole; the row behind them is the row, and the same each time."""
    model, data = recipe().model.name, folder(kind, test=4)
    found, again = (scores(model, data, PLAIN, Wanted(few_shot=3)) for _ in range(2))
    few = found.few_shot
    assert few is not None and few.count == 3 and few.scored.event.rows == 4 and max(few.fitted) > 0
    assert again.few_shot is not None and again.few_shot.scored.event.value == few.scored.event.value
    with pytest.raises(UsageError, match="25 examples were asked for"):
        scores(model, data, PLAIN, Wanted(few_shot=25))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 4), context=st.integers(24, 300), kind=st.sampled_from(["label", "completion", "messages"]))
def test_examples_are_cut_from_the_left_and_whole(
    tokenizer: Any, folder: Callable[..., Path], count: int, context: int, kind: str
) -> None:
    """A row with examples is as long as there is room, ends as the row alone does, and reads as one text."""
    splits = tables.load(folder(kind, train=6, test=3), Recipe().data.template)
    how = Rendering(kind, splits.labels, Recipe().data.template, tokenizer, context)
    rows, shots = splits.splits["test"], chosen(splits.splits["train"], count)
    alone = encode(rows, kind, how.labels, tokenizer, how.template, 300)
    if max(len(example.text) for example in alone.examples) >= context:
        return
    found = with_shots(rows, alone.examples, alone.origins, shots, how)
    written = ["".join(p.text for p in KINDS[kind].pieces(shot, how.template)).strip() for shot in shots]
    for example, plain, fitted in zip(found.examples, alone.examples, found.fitted, strict=True):
        text = tokenizer.decode(example.text)
        assert len(example.text) <= context and example.candidates == plain.candidates
        assert tokenizer.decode(example.text[example.begins :]) == tokenizer.decode(plain.text[plain.begins :])
        if kind != "messages":
            assert [each in text for each in written] == [i >= count - fitted for i in range(count)]
            assert answers_of(example) == answers_of(plain)


def test_rows_without_labels_have_a_loss(recipe: Make, folder: Callable[..., Path]) -> None:
    """The score alone answers nothing."""
    model, data = recipe().model.name, folder("completion")
    found = scores(model, data, PLAIN)
    assert found.tuned.event.metric == "loss" and found.tuned.report is None and found.tuned.loss is not None
    assert score(model, data, PLAIN).value == pytest.approx(found.tuned.event.value, rel=1e-6)
    assert not scores(model, data, PLAIN, Wanted(answers=0)).tuned.answers
