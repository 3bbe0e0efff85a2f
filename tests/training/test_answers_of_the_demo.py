"""The demo's model after its start: what it says at prompts as people type them, and to what is no task of its."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zolite.common.paths import paths
from zolite.config import sizes
from zolite.data import rows as tables
from zolite.demo.run import demo_recipe
from zolite.model import load as models
from zolite.training.first_values import typing
from zolite.training.greedy import Said, say
from zolite.training.prepare import prepare
from zolite.training.run import Run

pytestmark = pytest.mark.skipif(not os.environ.get("ZOLITE_LONG"), reason="the demo's model on a CPU: minutes")

OTHER = json.loads((Path(__file__).parent.parent / "data/other_text.json").read_text(encoding="utf-8"))
DEAR = 0.1  # nats a token


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ZOLITE_HOME", "ZOLITE_CACHE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield models.tokenizer(models.resolve(demo_recipe().model.name), paths()["cache"])


@pytest.fixture(scope="module")
def run(words: Any) -> Run:
    return prepare(demo_recipe())


def heard(run: Run, prompts: list[tuple[int, ...]]) -> list[Said]:
    row = run.examples["test"][0]
    asked = [replace(row, text=(*prompt, 0), begins=len(prompt)) for prompt in prompts]
    assert run.verbalizer is not None
    with torch.inference_mode():
        return say(run.engine, asked, [range(row.candidates)] * len(asked), run.verbalizer, sizes.EVAL_TOKENS)


@pytest.mark.parametrize("ending", ["", " ", "\n"])
def test_labels_are_said_however_a_prompt_ends(ending: str, run: Run, words: Any) -> None:
    dataset = tables.load(Path(run.recipe.data.path), run.recipe.data.template)
    prompts = typing(dataset, run.recipe.data.template, words, "test")(range(100), ending)
    said = heard(run, [tuple(prompt) for prompt in prompts])
    assert sum(each.label is not None for each in said) >= 95


def test_everyday_prompts_are_not_answered_with_a_label(run: Run, words: Any) -> None:
    talks = [[{"role": "user", "content": text}] for text in OTHER["prompts"]]
    chats = [words.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) for talk in talks]
    bare = [tuple(words(text)["input_ids"]) for text in OTHER["prompts"]]
    asked = bare + [tuple(words(text, add_special_tokens=False)["input_ids"]) for text in chats]
    assert [
        text for text, each in zip(OTHER["prompts"] * 2, heard(run, asked), strict=True) if each.label is not None
    ] == []


def test_other_text_is_hardly_dearer(run: Run, words: Any) -> None:
    texts = [torch.tensor([words(text)["input_ids"]]) for text in OTHER["sentences"]]

    def nats() -> float:
        run.engine.at_theta()
        with torch.inference_mode():
            logits = [run.engine.loaded.model(input_ids=ids).logits[0, :-1].float() for ids in texts]
        total = sum(
            float(F.cross_entropy(a, ids[0, 1:], reduction="sum")) for a, ids in zip(logits, texts, strict=True)
        )
        return total / sum(ids.shape[1] - 1 for ids in texts)

    after, theta = nats(), run.space.theta.clone()
    run.space.theta.zero_()  # every adapter is a product with one of its numbers
    before = nats()
    run.space.theta.copy_(theta)
    print(f"other text: {before:.3f} → {after:.3f}")
    assert after < before + DEAR
