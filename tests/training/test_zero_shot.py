"""Claims about a model as it is, shape by shape: its losses are those of plain transformers on the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.examples import Example
from zolite.data.kinds.registry import KINDS
from zolite.training.score import Wanted, scores

TALK = [{"role": "user", "content": "Say ox"}, {"role": "assistant", "content": "ox"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "label": [{"text": "a long way down", "label": "yes"}, {"text": "blue", "label": "no"}],
    "completion": [{"prompt": "Say ox:", "completion": " ox"}, {"prompt": "Say:", "completion": " seven of them"}],
    "alpaca": [
        {"instruction": "Say ox", "input": "", "output": "ox"},
        {"instruction": "Say", "input": "it", "output": "no"},
    ],
    "question": [{"question": "what?", "answer": "an ox"}, {"question": "why?", "answer": "no"}],
    "question-context": [
        {"context": "An ox.", "question": "what?", "answer": "an ox"},
        {"context": "b", "question": "c", "answer": "d"},
    ],
    "choice": [
        {"question": "what?", "choices": ["ox", "a long way"], "answer": 0},
        {"question": "why?", "choices": ["a", "ab", "c"], "answer": 1},
    ],
    "choice-context": [
        {"context": "An ox.", "question": "what?", "choices": ["ox", "warm"], "answer": 0},
        {"context": "Warm.", "question": "why?", "choices": ["a", "ab"], "answer": 1},
    ],
    "preference": [{"prompt": "Say ox:", "chosen": " ox", "rejected": " no, never"}] * 2,
    "sharegpt": [{"conversations": [{"from": "human", "value": "Say ox"}, {"from": "gpt", "value": "ox"}]}] * 2,
    "text": [{"text": "a long way down, and seven of them behind it " * 4}, {"text": "blue"}],
    "preference-messages": [{"prompt": TALK[:1], "chosen": TALK[1:], "rejected": [TALK[1] | {"content": "never"}]}] * 2,
    "completion-messages": [{"prompt": TALK[:1], "completion": TALK[1:]}] * 2,
    "messages": [{"messages": TALK}, {"messages": [*TALK, {"role": "user", "content": "why?"}, TALK[1]]}],
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_transformers_own(kind: str, tiny: Path, tmp_path: Path) -> None:
    """Of each answer's tokens, and of the tokens of each candidate, to 1e-4 nats in float32."""
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]))
    given = {"model.quant": "float32", "model.device": "cpu", "data.context": 128}
    found = scores(str(tiny), file, given, Wanted(answers=0)).tuned
    model, words, template = (
        LlamaForCausalLM.from_pretrained(tiny),
        AutoTokenizer.from_pretrained(tiny),
        Recipe().data.template,
    )
    rows = tables.load_for_eval(file, template, ())
    assert rows.kind == kind
    examples = encode(*rows.splits.values(), kind, rows.labels, words, template, 128).examples
    if examples[0].candidates > 1:
        for example, prediction in zip(examples, found.predictions, strict=True):
            assert prediction.sums == pytest.approx(of_candidates(model, example), abs=1e-4)
        return
    nats = [nats_of(model, example) for example in examples]
    tokens = sum(len(example.queries) for example in examples)
    assert found.event.value == pytest.approx(sum(nats) / tokens, abs=1e-4)


def nats_of(model: Any, example: Example) -> float:
    """By the labels that transformers takes, −100 where nothing is learned."""
    labels = [-100] * len(example.text)
    for query in example.queries:
        labels[query.position + 1] = query.token
    with torch.inference_mode():
        loss = model(torch.tensor([example.text]), labels=torch.tensor([labels])).loss
    return float(loss) * len(example.queries)


@torch.inference_mode()
def of_candidates(model: Any, example: Example) -> list[float]:
    """Log-probability of each candidate, by all logits of all sequences."""
    logs = [model(torch.tensor([ids])).logits[0].log_softmax(dim=1) for ids in example.sequences]
    sums = [0.0] * example.candidates
    for query in example.queries:
        sums[query.candidate] += float(logs[query.sequence][query.position, query.token])
    return sums
