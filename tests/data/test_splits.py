"""Claims about which rows are train, dev and test."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.common.errors import UsageError
from zolite.config import recipe as recipes
from zolite.data.rows import load, load_for_eval
from zolite.data.sources import find
from zolite.data.split_names import DEV
from zolite.data.splits import Rule, held_out

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


@pytest.mark.parametrize("seed", [0, 7])
def test_what_a_session_of_before_holds_out(tmp_path: Path, seed: int) -> None:
    """Sessions that stored no rule keep their dev rows: the tenth with the lowest sha256 of their content."""
    rows = label_rows(57)
    rule = Rule.of(recipes.resolved_from_dict({"data": {}}).data)
    assert rule == Rule(stratify=False)
    found = load(jsonl(tmp_path / "d.jsonl", rows), TEMPLATE, rule=replace(rule, split_seed=seed))
    contents = {json.dumps([row, []], sort_keys=True): row for row in rows}
    before = sorted(contents, key=lambda text: hashlib.sha256(text.encode()).digest())[:5]
    held = {json.dumps([row.columns, []], sort_keys=True) for row in found.splits["dev"]}
    assert (held == set(before)) == (seed == 0) and len(held) == 5


# ---- which rows are held out, as a law of keys, labels and a rule

KEYS = st.lists(st.integers(0, 60), min_size=2, max_size=120)
SHARES = st.sampled_from((None, 0.01, 0.1, 0.25, 0.5, 0.9))


def nearer(held: set[int], keys: list[int], labels: list[str], count: int) -> list[int]:
    """Groups that would bring dev nearer to so many rows, in it or in its place; none that train loses labels by."""
    every, sizes = Counter(labels), Counter(keys)
    found = []
    for key in sizes.keys() - {keys[i] for i in held}:
        unit = [i for i in range(len(keys)) if keys[i] == key]
        kept = every - Counter(labels[i] for i in (*held, *unit))
        alone = every - Counter(labels[i] for i in unit)
        more = kept.keys() == every.keys() and abs(len(held) + len(unit) - count) < abs(len(held) - count)
        instead = (
            len({keys[i] for i in held}) == 1 and (every - Counter(labels[i] for i in held)).keys() != every.keys()
        )
        fewer = instead and len(alone) > len(every - Counter(labels[i] for i in held))
        found += [key] if more or fewer else []
    return found


@given(KEYS, SHARES, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_laws_of_every_rule(
    keys: list[int], share: float | None, stratify: bool, grouped: bool, rng: random.Random
) -> None:
    """Some rows are held out and some are not, as many as asked for or as near as groups and labels allow, the same
    in every order."""
    labels = ["aaab"[key % 4] for key in keys]  # a key is of the content, so rows that share it share the label
    rule = Rule(dev_share=share, stratify=stratify, group_by="user" if grouped else "")
    if grouped and len(set(keys)) < 2:
        return
    held = held_out(keys, labels, rule)
    assert 0 < len(held) < len(keys) and held <= set(range(len(keys)))
    assert not nearer(held, keys, labels, rule.count(len(keys))) if grouped else len(held) <= rule.count(len(keys))
    order = rng.sample(range(len(keys)), len(keys))
    again = held_out([keys[i] for i in order], [labels[i] for i in order], rule)
    assert Counter(keys[i] for i in held) == Counter(keys[order[i]] for i in again)
    if grouped:
        assert {keys[i] for i in held}.isdisjoint(keys[i] for i in range(len(keys)) if i not in held)


@given(st.lists(st.sampled_from("aaaaaabbc"), min_size=2, max_size=300), SHARES, st.integers(0, 2**63 - 1))
def test_labels_keep_their_shares(labels: list[str], share: float | None, seed: int) -> None:
    """Dev has of each label what its share of the rows is, to less than one row; a label's only row stays in train."""
    rng, rule = random.Random(seed), Rule(dev_share=share)
    keys = [rng.getrandbits(64) for _ in labels]
    held, every = Counter(labels[i] for i in held_out(keys, labels, rule)), Counter(labels)
    if max(every.values()) == 1:
        return  # then one of them has to go
    for label, many in every.items():
        wanted = 0 if many == 1 else many * rule.count(len(labels)) / len(labels)
        assert abs(held[label] - wanted) < 1 or held.total() == 1
        assert held[label] < many


@given(st.integers(2, 40), st.integers(1, 3))
def test_rows_that_are_alike_stay_together(many: int, copies: int) -> None:
    """As far as dev has room for them."""
    keys = [i for i in range(many) for _ in range(copies)]
    rule = Rule(dev_share=0.5)
    held = held_out(keys, [""] * len(keys), rule)
    split = {key for i, key in enumerate(keys) if i in held} & {key for i, key in enumerate(keys) if i not in held}
    assert len(split) <= 1 and len(held) == rule.count(len(keys))


def test_a_group_is_in_one_split(tmp_path: Path) -> None:
    """All rows of a user are train or dev; a row without one is a group of its own, and that is said."""
    rows = [row | {"user": i % 9 or None} for i, row in enumerate(label_rows(90))]
    found = load(jsonl(tmp_path / "d.jsonl", rows), TEMPLATE, rule=Rule(dev_share=0.2, group_by="user"))
    users = {split: {row.group for row in part} - {""} for split, part in found.splits.items()}
    assert users["train"] and users["dev"] and users["train"].isdisjoint(users["dev"])
    assert len(found.splits["dev"]) <= 18
    assert "10 rows without 'user': each is a group of its own" in found.notes
    assert any(note.endswith("the same share of every label, each 'user' whole") for note in found.notes)
    assert "'usr'" in refusal(tmp_path / "d.jsonl", rule=Rule(group_by="usr")).message
    one = jsonl(tmp_path / "one.jsonl", [row | {"user": "u"} for row in label_rows(9)])
    assert "has one value in all rows" in refusal(one, rule=Rule(group_by="user")).message


# ---- by a column


@pytest.mark.parametrize("dev", ["dev", "Validation", " VAL "])
def test_a_column_says_the_splits(tmp_path: Path, dev: str) -> None:
    """Each row goes where its column says, whatever the case; it is no column that a model reads."""
    parts = ["train", dev, "test", "train"]
    rows = [row | {"part": parts[i % 4]} for i, row in enumerate(label_rows(40))]
    path = jsonl(tmp_path / "d.jsonl", rows)
    found = load(path, TEMPLATE, rule=Rule(split_by="part"))
    assert {split: len(part) for split, part in found.splits.items()} == {"train": 20, "dev": 10, "test": 10}
    assert [row.line for row in found.splits["test"]] == [3 + 4 * i for i in range(10)]
    assert found.notes == ("rows of d.jsonl by column 'part': train 20, dev 10, test 10",)
    alone = load_for_eval(path, TEMPLATE, (), rule=Rule(split_by="part"))
    assert alone.splits == {"test": found.splits["test"]}
    assert len(load_for_eval(path, TEMPLATE, (), rule=Rule(split_by="other")).splits["train"]) == 40


def test_what_a_column_cannot_say(tmp_path: Path) -> None:
    """Values that name no split have their lines; no train, files that say it already and no such column are faults."""
    rows = [row | {"part": ("train", "holdout", "")[i % 3]} for i, row in enumerate(label_rows(6))]
    path = jsonl(tmp_path / "train.jsonl", rows)
    message = refusal(path, rule=Rule(split_by="part")).message
    assert "line 2: column 'part' is 'holdout', which names no split" in message and message.count("line ") == 4
    error = refusal(path, rule=Rule(split_by="split"))
    assert "no row has 'split' (it has: text, label, part)" in error.message
    only = jsonl(tmp_path / "only.jsonl", [row | {"part": "test"} for row in label_rows(6)])
    assert "names no row train" in refusal(only, rule=Rule(split_by="part")).message
    jsonl(tmp_path / "dev.jsonl", label_rows(2))
    assert "a file for each of train, dev" in refusal(tmp_path, rule=Rule(split_by="part")).message
    no_dev = jsonl(
        tmp_path / "no_dev.jsonl", [row | {"part": ("train", "test")[i > 19]} for i, row in enumerate(label_rows(25))]
    )
    found = load(no_dev, TEMPLATE, rule=Rule(split_by="part"))
    assert {split: len(part) for split, part in found.splits.items()} == {"train": 18, "dev": 2, "test": 5}
