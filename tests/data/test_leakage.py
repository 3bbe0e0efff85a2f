"""Claims about rows that are there more than once: what is planted is found, and nothing else is."""

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.data import leakage
from zolite.data.kinds.kind import Row
from zolite.data.leakage import NEAR, find, letters, warned, words
from zolite.data.rows import Dataset, load
from zolite.data.splits import Rule
from zolite.data.table import kept

TEMPLATE = "{text}\nCategory: {label}"
WORDS = [f"{a}{b}{c}" for a in ("ba", "do", "ri", "ku", "me") for b in "lnrst" for c in ("a", "ek", "i", "op", "un")]
RECALL = 0.97  # of planted pairs at least this alike


def dataset(**splits: Sequence[str]) -> Dataset:
    """Completion rows of these texts."""
    rows = {
        split: kept(Row(i, {"prompt": text, "completion": "."}) for i, text in enumerate(texts, 1))
        for split, texts in splits.items()
    }
    return Dataset("completion", (), rows, {split: f"{split}.jsonl" for split in rows})


def jaccard(one: str, other: str) -> float:
    """The definition, of all pairs of words."""
    a, b = ({*pairwise(w)} for w in (one.lower().split(), other.lower().split()))
    return len(a & b) / len(a | b)


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(rng.choices(WORDS, k=length))


def edited(rng: random.Random, text: str, edits: int) -> str:
    """With so many words replaced."""
    made = text.split()
    for i in rng.sample(range(len(made)), edits):
        made[i] = "edited"
    return " ".join(made)


def test_recall_and_precision_on_planted_rows() -> None:
    """Of rows that are at least NEAR alike RECALL are found; no row that is less alike is, and none that is alone."""
    rng = random.Random(5)
    train = [sentence(rng, rng.randint(12, 60)) for _ in range(1500)]
    planted = [edited(rng, text, i % 4) + f" {i}" * (i % 2) for i, text in enumerate(train[:600])]
    alone = [sentence(rng, 30) for _ in range(300)]
    data = dataset(train=train, dev=planted + alone)
    known = {i for i, text in enumerate(planted) if letters(text + ".") == letters(train[i] + ".")}
    found = {line - 1 for line, *_ in leakage._near(data.splits["dev"], known, data.splits["train"], "")}
    alike = {i for i, text in enumerate(planted) if i not in known and jaccard(text, train[i]) >= NEAR}
    assert len(alike) > 150 and len(found & alike) >= RECALL * len(alike)
    assert found <= alike
    (leak,) = find(data).leaks
    assert (leak.same, leak.near, leak.rows) == (len(known), len(found), 900)


@pytest.mark.parametrize("change", [str.upper, lambda t: f"  {t}!", lambda t: t.replace(" ", ",  "), lambda t: t])
def test_the_same_but_for_case_and_punctuation(change: object) -> None:
    """Is the same, whatever the punctuation, in every alphabet; it comes with both lines."""
    rng = random.Random(1)
    train = [sentence(rng, 9) for _ in range(40)] + ["ещё одна строка", "это другой текст"]
    data = dataset(train=train, dev=[sentence(rng, 9), change(train[7]), change(train[40])])  # type: ignore[operator]
    (leak,) = find(data).leaks
    assert (leak.split, leak.of, leak.same, leak.near) == ("dev", "train", 2, 0)
    assert [(pair.line, pair.of_line) for pair in leak.examples] == [(2, 8), (3, 41)]


def test_what_stands_in_every_row_is_no_leak() -> None:
    """An instruction in all prompts makes no two rows alike; what follows it does."""
    rng, order = random.Random(2), "decide for the message below whether it is about billing or about returns " * 4
    train = [order + sentence(rng, 10) for _ in range(300)]
    data = dataset(train=train, dev=[order + sentence(rng, 10) for _ in range(50)] + [train[9] + " please"])
    (leak,) = find(data).leaks
    assert (leak.same, leak.near, leak.examples[0].line, leak.examples[0].of_line) == (0, 1, 51, 10)


def test_scripts_without_spaces() -> None:
    """Letters of Chinese and Japanese count as words."""
    text = "机器学习模型在训练时需要大量的数据来提高它们的准确性"
    data = dataset(train=[text, "天气很好我们去公园散步吧今天没有下雨"], dev=[text[:-3] + "精确性"])
    assert len(words(text)) == len(text)
    (leak,) = find(data).leaks
    assert leak.near == 1 and leak.examples[0].of_line == 1


def test_every_row_alike_takes_no_time_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that are candidates of each other, and are not near, few pairs are compared."""
    tried: list[float] = []
    real = leakage._similarity
    monkeypatch.setattr(leakage, "_similarity", lambda *a: tried.append(min(0.7, real(*a))) or tried[-1])
    base = " ".join(WORDS[:40])
    data = dataset(train=[f"{base} t{i}" for i in range(200)], dev=[f"{base} d{i}" for i in range(50)])
    monkeypatch.setattr(leakage, "LEAST", 10**6)
    assert not find(data).leaks
    assert 0 < len(tried) <= 50 * leakage.TRIED


def test_labels_copies_and_contradictions(tmp_path: Path) -> None:
    """A row that equals another one, a text with two labels, and a leak whatever its label, each with its lines."""
    texts = [f"{word} {i} message of its own" for i, word in enumerate(WORDS[:30])]
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
    more = [rows[3], rows[3], rows[4] | {"label": "b"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + more))
    (tmp_path / "dev.jsonl").write_text(json.dumps(rows[5] | {"label": "a"}) + "\n")
    data = load(tmp_path, TEMPLATE)
    found = find(data)
    assert (found.copies, [(p.line, p.of_line) for p in found.copied]) == (2, [(31, 4), (32, 4)])
    assert (found.contradictions, [(p.line, p.of_line) for p in found.contradicting]) == (1, [(33, 5)])
    (leak,) = found.leaks
    assert (leak.same, leak.examples[0].line, leak.examples[0].of_line) == (1, 1, 6)
    said = list(warned(found, data))
    assert said[0].startswith("2 rows of train the same as an earlier one: train.jsonl: line 31 = line 4")
    assert said[1].endswith("another label: train.jsonl: line 33 ≠ line 5")
    assert said[2].startswith(
        "leakage: 1 of 1 dev row found in train too (1 the same): dev.jsonl: line 1 ≈ train.jsonl: "
    )


def test_groups_in_two_files(tmp_path: Path) -> None:
    """Users that train and dev share are counted where --group-by names them."""
    for split, users in (("train", range(6)), ("dev", range(4, 8))):
        rows = [{"text": f"{split} {u} says {WORDS[u]}", "label": "ab"[u % 2], "user": f"u{u}"} for u in users]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load(tmp_path, TEMPLATE, rule=Rule(group_by="user"))
    (leak,) = find(data).leaks
    assert (leak.groups, leak.same) == (2, 0)
    (said,) = warned(find(data), data, "user")
    assert "2 groups by column 'user' in dev and in train" in said and "--group-by user" in said


def test_splits_beyond_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are the same are found in all rows, and how many were compared for what is near is told."""
    monkeypatch.setattr(leakage, "MOST", 10)
    rng = random.Random(3)
    train = [sentence(rng, 8) for _ in range(95)]
    (leak,) = find(dataset(train=train, dev=[train[93]])).leaks
    assert (leak.same, leak.compared) == (1, 10)


@given(st.text(max_size=20))
def test_letters_and_words_agree(text: str) -> None:
    """Texts of the same words have the same letters, in whatever case."""
    assert letters(text).replace(" ", "") == letters(text) or not "".join(words(text))
    if words(text) and text.isascii():
        assert letters(text) == "".join(words(text))
        assert letters(text.upper()) == letters(text)
