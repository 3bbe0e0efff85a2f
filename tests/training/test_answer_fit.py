"""After the fit the likeliest text is a label and then the end, wherever the prompt ends; other text stays."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zolite.config.recipe import Recipe
from zolite.data.examples import Example, Query, Tokens, answers_of, one_sequence
from zolite.model.loss import Head
from zolite.model.tail import Norm, Reading, Tail
from zolite.training import answer_fit
from zolite.training.answer_fit import Data, line_of
from zolite.training.prepare import prepare
from zolite.training.run import Run

Make = Callable[..., Recipe]
LABELS = {
    "one token": ("yes", "no"),
    "several": ("yesa", "nob"),
    "one inside another": ("yes", "yes no"),
}


def written(folder: str, labels: tuple[str, str], count: int = 90) -> str:
    """Rows whose last word decides between two labels."""
    for split, rows in (("train", count), ("dev", 30), ("test", 30)):
        texts = [f"number {i}: {'river' if i * 7 % 5 < 2 else 'blue'}" for i in range(rows)]
        lines = [{"text": text, "label": labels[text.endswith("blue")]} for text in texts]
        (Path(folder) / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def greedy(run: Run, prompt: Tokens, count: int) -> list[int]:
    """The likeliest token after a prompt, and again, as transformers has it."""
    run.engine.at_theta()
    text = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            text.append(int(run.engine.loaded.model(input_ids=torch.tensor([text])).logits[0, -1].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("ending", answer_fit.ENDINGS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_label_and_the_end_are_said(
    labels: tuple[str, str], ending: str, recipe: Make, tmp_path: Path, tokenizer: Any
) -> None:
    given = {"data__path": written(str(tmp_path), labels), "train__objective": "say", "adapter__linear_probe": True}
    made = recipe(**given)
    run = prepare(replace(made, adapter=replace(made.adapter, rank=None)))
    most, end = max(map(len, answers_of(run.examples["test"][0]))) + 1, tokenizer.eos_token_id
    extra = tuple(tokenizer(ending, add_special_tokens=False)["input_ids"]) if ending else ()
    prompts = [row.text[: row.begins] + extra for row in run.examples["test"]]
    said = [greedy(run, prompt, most) for prompt in prompts]
    told = [end in text and tokenizer.decode(text[: text.index(end)]).strip() in labels for text in said]
    assert sum(told) >= 0.8 * len(said)  # of a model with random weights, whose features say little; else it is none


def test_other_text_stays(recipe: Make, tmp_path: Path, tokenizer: Any) -> None:
    """Its loss rises by no more than a tenth of a nat a token."""
    texts = [tokenizer(text, return_tensors="pt")["input_ids"] for text in ("the tide was out", "We walked home", "12")]

    def nats(objective: str) -> float:
        path = written(str(tmp_path), ("yes", "no"))
        run = prepare(recipe(data__path=path, train__objective=objective, adapter__rank=8))
        run.engine.at_theta()
        with torch.inference_mode():
            logits = [run.engine.loaded.model(input_ids=ids).logits[0, :-1] for ids in texts]
        return sum(float(F.cross_entropy(a, ids[0, 1:])) for a, ids in zip(logits, texts, strict=True)) / len(texts)

    assert nats("say") < nats("rank") + 0.1


def test_rank_alone_begins_with_nothing(recipe: Make, tmp_path: Path) -> None:
    run = prepare(recipe(data__path=written(str(tmp_path), ("yes", "no"))))
    assert not run.engine.adapter.moved and not any("fitted" in note.message for note in run.notes)
    assert run.rows is run.examples["train"]


def test_a_space_with_frozen_bases_has_no_room_and_says_so(recipe: Make, tmp_path: Path) -> None:
    path = written(str(tmp_path), ("yes", "no"))
    run = prepare(recipe(data__path=path, train__objective="say", adapter__space="lora-core"))
    assert run.rows[0].candidates == 1  # what is trained is said all the same


def test_a_fit_that_fails_is_told(recipe: Make, tmp_path: Path) -> None:
    """One row of an adapter cannot tell a label's beginning from its end."""
    path = written(str(tmp_path), ("yesa", "nob"))
    run = prepare(recipe(data__path=path, train__objective="say", adapter__rank=1))
    warned = [note.message for note in run.notes if note.level == "warning"]
    assert any("--rank 9" in message for message in warned)


# ---- what is to be said


def row_of(labels: Sequence[Tokens], right: int) -> Example:
    prompt, queries = (7, 8, 9), tuple(Query(0, 2, t, c) for c, label in enumerate(labels) for t in label)
    text = (*prompt, *labels[right], 0)
    return replace(one_sequence(text, range(3, len(text))), queries=queries, candidates=len(labels), answer=right)


def test_places_share_what_labels_share() -> None:
    """Where labels begin alike their shares add up; where one is inside another it may end or go on."""
    row = row_of([(1, 2), (1, 3), (4,)], 0)
    line = line_of(row, (7, 8, 9), [0.5, 0.3, 0.2], "", torch.Generator())
    assert [place.position for place in line.places] == [2, 3, 4]
    assert [dict(zip(p.tokens, p.shares, strict=True)) for p in line.places] == [
        pytest.approx({1: 0.8, 4: 0.2}), pytest.approx({2: 0.625, 3: 0.375}), {0: 1.0},
    ]  # fmt: skip
    inside = line_of(row_of([(1,), (1, 2)], 0), (7, 8, 9), [0.25, 0.75], " ", torch.Generator())
    assert [dict(zip(p.tokens, p.shares, strict=True)) for p in inside.places] == [{1: 1.0}, {0: 0.25, 2: 0.75}]


def test_rows_are_as_many_as_places_have_to_be_told_apart() -> None:
    labels = [tuple(range(i, i + 4)) for i in range(0, 40, 4)]
    lines = [line_of(row_of(labels, right), (7,), [1.0] * 10, "", torch.Generator()) for right in range(10)]
    kinds = {place.kind for line in lines for place in line.places}
    assert answer_fit.rows_of(row_of(labels, 0)) == len(kinds) + len(answer_fit.ENDINGS) - 1


# ---- the loss


WIDTH, INPUTS, WORDS, ASKED, HELD = 12, 20, 31, 6, 5


def drawn(post: bool) -> tuple[Tail, Data]:
    torch.manual_seed(0)
    norms = [Norm(torch.rand(WIDTH) + 0.5, 0.1 * torch.randn(WIDTH), 1e-6, centred) for centred in (False, True)]
    head = Head(torch.nn.Linear(WIDTH, WORDS).requires_grad_(False), 4.0, 0.7)
    at = Reading(torch.randn(ASKED + HELD, INPUTS), *torch.randn(2, ASKED + HELD, WIDTH))
    tokens, shares = torch.randint(0, WORDS, (ASKED, 2)), torch.rand(ASKED, 2).softmax(1)
    data = Data(at, torch.tensor([0, 1, 2] * 2), tokens, shares, (3, 3))
    return Tail(0.8, norms[0] if post else None, norms[1], head, torch.nn.Identity()), data


def naive_loss(tail: Tail, data: Data, change: Tensor, price: float) -> Tensor:
    logs = tail.logits(tail.stream(data.at, change)).log_softmax(1)
    answers = -(data.shares * logs[:ASKED].gather(1, data.tokens)).sum() / len(data.answers)
    base = tail.logits(data.at.streams[ASKED:]).log_softmax(1)
    return answers + price * F.kl_div(logs[ASKED:], base, log_target=True, reduction="batchmean")


@pytest.mark.parametrize("post", [False, True])
def test_the_slope_is_autograds(post: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_fit, "CHUNK", 2 * WORDS)  # two places at once
    tail, data = drawn(post)
    z, u = torch.randn(ASKED + HELD, 3), 0.3 * torch.randn(WIDTH, 3)
    wanted = u.clone().requires_grad_()
    loss = naive_loss(tail, data, z @ wanted.mT, 3.0)
    loss.backward()
    total, slope = answer_fit.loss_and_slope(tail, data, z, u, 3.0, answer_fit.Before(tail, data))
    assert total == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(slope, wanted.grad, rtol=1e-4, atol=1e-6)


def test_detectors_are_ridge_regression_and_as_many_as_there_is_room_for() -> None:
    _, data = drawn(False)
    scale = torch.ones(INPUTS)
    whole = answer_fit.detectors(data, scale, 64)
    assert len(answer_fit.detectors(data, scale, 2)) == 2
    sizes = (data.at.inputs[:ASKED] @ whole.mT).square().mean(0).sqrt()
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=1e-3, atol=1e-3)
    assert (data.at.inputs[ASKED:] @ whole.mT).square().mean() < 0.5  # quiet elsewhere


def test_told_counts_whole_answers() -> None:
    tail, data = drawn(False)
    best = tail.logits(data.at.streams).argmax(1)
    tokens = torch.stack([best[:ASKED], best[:ASKED]], 1)
    assert answer_fit.told(tail, replace(data, tokens=tokens), torch.zeros(ASKED + HELD, WIDTH))[0] == 1.0
    tokens[4] = (best[4] + 1) % WORDS
    assert answer_fit.told(tail, replace(data, tokens=tokens), torch.zeros(ASKED + HELD, WIDTH))[0] == 0.5


@pytest.mark.parametrize("places", [5, 20, 60])
def test_both_forms_of_the_ridge_regression_solve_its_normal_equations(places: int) -> None:
    """(xᵀx + λ) W = xᵀ wanted, whichever of the two matrices is smaller."""
    x, wanted = torch.randn(places, INPUTS, dtype=torch.float64), torch.randn(places, 3, dtype=torch.float64)
    found = answer_fit._ridge(x, wanted)
    normal = x.mT @ x + answer_fit.RIDGE * torch.eye(INPUTS, dtype=torch.float64)
    assert torch.allclose(normal @ found.mT, x.mT @ wanted)
