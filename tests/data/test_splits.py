"""Claims about which rows are train, dev and test."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.common.errors import UsageError
from zolite.data.rows import load
from zolite.data.sources import find
from zolite.data.split_names import DEV

TEMPLATE = "{text}\nCategory: {label}"


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def label_rows(count: int) -> list[dict[str, str]]:
    return [{"text": f"message {i}", "label": ("billing", "returns")[i % 2]} for i in range(count)]


def refusal(path: Path, **given: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path, TEMPLATE, **given)
    assert caught.value.hint
    return caught.value


# ---- by the names of files


@pytest.mark.parametrize("name", DEV)
def test_dev_has_the_names_that_tools_give_it(tmp_path: Path, name: str) -> None:
    """A file called validation, valid, val or eval is the dev split, and nothing is then held out."""
    jsonl(tmp_path / "train.jsonl", label_rows(20))
    jsonl(tmp_path / f"{name}.jsonl", label_rows(4))
    jsonl(tmp_path / "notes.jsonl", ["not rows"])
    assert find(str(tmp_path)) == {"train": (tmp_path / "train.jsonl",), "dev": (tmp_path / f"{name}.jsonl",)}
    data = load(tmp_path, TEMPLATE)
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 20, "dev": 4}
    assert data.files["dev"] == f"{name}.jsonl"


def test_two_files_for_dev_are_refused(tmp_path: Path) -> None:
    """Under whichever names: which of them is meant is not guessed."""
    for name in ("train", "dev", "validation"):
        jsonl(tmp_path / f"{name}.jsonl", label_rows(4))
    assert "dev: 2 files (dev.jsonl, validation.jsonl)" in refusal(tmp_path).message


def test_files_that_are_missing_or_too_many(tmp_path: Path) -> None:
    """A missing path, a folder without train, two files for a split and a required split are refused."""
    assert "is no file and no folder" in refusal(tmp_path / "nowhere").message
    jsonl(tmp_path / "dev.jsonl", label_rows(2))
    assert "has no train file (it has dev.jsonl)" in refusal(tmp_path).message
    jsonl(tmp_path / "train.jsonl", label_rows(4))
    assert "has no test file" in refusal(tmp_path, required=("train", "test")).message
    (tmp_path / "train.csv").write_text("text,label\n")
    (tmp_path / "test.xlsx").write_text("[]")
    error = refusal(tmp_path)
    assert "train: 2 files (train.csv, train.jsonl)" in error.message
    assert "test.xlsx: it is a spreadsheet" in error.message and ".jsonl, " in error.hint


# ---- dev held out of train


@pytest.mark.parametrize(("rows", "dev"), [(2, 1), (19, 1), (20, 2), (1999, 199), (2500, 200)])
def test_a_tenth_is_held_out(tmp_path: Path, rows: int, dev: int) -> None:
    """Without a dev file a tenth of train, 1 to 200 rows, becomes dev; both keep file order and lose nothing."""
    data = load(jsonl(tmp_path / "d.jsonl", label_rows(rows)), TEMPLATE)
    lines = {split: [row.line for row in data.splits[split]] for split in ("train", "dev")}
    assert len(lines["dev"]) == dev
    assert all(found == sorted(found) for found in lines.values())
    assert sorted(lines["train"] + lines["dev"]) == list(range(1, rows + 1))
    assert data.files == {"train": "d.jsonl", "dev": "d.jsonl"}
    assert data.labels == ("billing", "returns")


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_which_rows_are_held_out_depends_on_content_alone(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    """Shuffling the file moves no row between train and dev."""
    folder = tmp_path_factory.mktemp("d")
    rows = label_rows(50)
    held = load(jsonl(folder / "a.jsonl", rows), TEMPLATE).splits["dev"]
    rng.shuffle(rows)
    again = load(jsonl(folder / "b.jsonl", rows), TEMPLATE).splits["dev"]
    assert {row.columns["text"] for row in held} == {row.columns["text"] for row in again}
