"""Claims about what a run says before its first step."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zolite.common.errors import UsageError
from zolite.config.recipe import Recipe
from zolite.data.in_place import INSIDE
from zolite.model import load as models
from zolite.training.prepare import prepare


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
