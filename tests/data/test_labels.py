"""Claims about labels that are one in another spelling, that look alike, and that only dev has."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.errors import UsageError
from zolite.data.labels import alike, differing, joined, key
from zolite.data.rows import Dataset, load, load_for_eval

TEMPLATE = "{text}\nCategory: {label}"
SAME = {
    "trailing space": ("spam ", "spam"),
    "no-break space inside": ("not\u00a0spam", "not spam"),
    "two spaces inside": ("not  spam", "not spam"),
    "zero width space": ("sp\u200bam", "spam"),
    "zero width joiner at its end": ("spam\u200d", "spam"),
    "byte order mark": ("\ufeffspam", "spam"),
    "soft hyphen": ("sp\u00adam", "spam"),
    "NFD": ("cafe\u0301", "caf\u00e9"),
    "a float": ("1.0", "1"),
    "a longer float": ("-12.000", "-12"),
}
LIKE = {
    "case": ("Spam", "spam", "U+0053 LATIN CAPITAL LETTER S"),
    "Cyrillic": ("sp\u0430m", "spam", "U+0430 CYRILLIC SMALL LETTER A"),
    "Greek": ("\u039fK", "OK", "U+039F GREEK CAPITAL LETTER OMICRON"),
    "full width": ("\uff53pam", "spam", "U+FF53 FULLWIDTH LATIN SMALL LETTER S"),
    "a dash": ("non\u2013fiction", "non-fiction", "U+2013 EN DASH"),
}
OTHER = [("1", "1.5"), ("01", "1"), ("yes", "no"), ("1.0.0", "1"), ("spam", "spams"), ("v1.0", "v1"), ("e", "é")]


def jsonl(path: Path, labels: Sequence[str]) -> Path:
    rows = [{"text": f"message {i}", "label": label} for i, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def of_labels(data: Dataset) -> list[str]:
    rows = sorted((row.line, row.columns["label"]) for part in data.splits.values() for row in part)
    return [label for _, label in rows]


@pytest.mark.parametrize(("odd", "plain"), SAME.values(), ids=SAME)
def test_what_is_one_label(tmp_path: Path, odd: str, plain: str) -> None:
    """It is joined, in train and beside it, under the spelling of most rows, and said with the count of rows."""
    labels = ["other", plain, odd, plain] * 5
    data = load(jsonl(tmp_path / "d.jsonl", labels), TEMPLATE)
    assert set(data.labels) == {"other", plain} and of_labels(data) == ["other", plain, plain, plain] * 5
    if odd != odd.strip():  # which was never another label
        return
    (note,) = [note for note in data.notes if "another spelling" in note]
    assert f"{odd!r} (5 rows" in note and f"as {plain!r}" in note and not data.warnings
    (tmp_path / "two").mkdir()
    jsonl(tmp_path / "two/train.jsonl", ["other", plain])
    jsonl(tmp_path / "two/dev.jsonl", [odd])
    assert load(tmp_path / "two", TEMPLATE).splits["dev"][0].columns["label"] == plain
    evaluated = load_for_eval(tmp_path / "two", TEMPLATE, ("other", plain))
    assert evaluated.splits["dev"][0].columns["label"] == plain


@pytest.mark.parametrize(("odd", "plain", "named"), LIKE.values(), ids=LIKE)
def test_what_looks_alike_is_named(tmp_path: Path, odd: str, plain: str, named: str) -> None:
    """It stays another label, with a warning that has counts, the code point and the command that joins them."""
    path = jsonl(tmp_path / "d.jsonl", ["other", plain, odd, plain] * 5)
    data = load(path, TEMPLATE)
    assert set(data.labels) == {"other", plain, odd}
    (warning,) = data.warnings
    assert f"{plain!r} (10 rows) and {odd!r} (5 rows" in warning and named in warning
    assert f"`zolite data check {path} --fix OUT`" in warning


@pytest.mark.parametrize(("odd", "plain", "named"), LIKE.values(), ids=LIKE)
def test_a_label_of_dev_alone_is_explained(tmp_path: Path, odd: str, plain: str, named: str) -> None:
    """With its row, what it looks like in train, and by which character it is another."""
    jsonl(tmp_path / "train.jsonl", ["other", plain] * 4)
    jsonl(tmp_path / "dev.jsonl", [plain, odd])
    with pytest.raises(UsageError) as caught:
        load(tmp_path, TEMPLATE)
    wanted = f"dev.jsonl: line 2: label {odd!r} is not among the labels of train.jsonl: it looks like {plain!r}, but "
    assert wanted in caught.value.message and named in caught.value.message
    assert "--fix OUT" in caught.value.hint


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_is_another_label(one: str, other: str) -> None:
    """It is neither joined nor called alike."""
    assert not joined({one: 1, other: 1}) and not alike({one: 1, other: 1})


def test_a_misspelled_label_of_dev(tmp_path: Path) -> None:
    """The nearest one is named; where none is near, nothing is."""
    jsonl(tmp_path / "train.jsonl", ["billing", "returns"] * 4)
    jsonl(tmp_path / "dev.jsonl", ["retuns", "weather"])
    with pytest.raises(UsageError) as caught:
        load(tmp_path, TEMPLATE)
    first, second = caught.value.message.splitlines()[1:]
    assert first.endswith("the nearest of those is 'returns'") and second.endswith("the labels of train.jsonl")


def test_a_label_of_which_nothing_is_seen(tmp_path: Path) -> None:
    """A zero width space alone is refused."""
    with pytest.raises(UsageError, match="has nothing that can be seen"):
        load(jsonl(tmp_path / "d.jsonl", ["a", "\u200b"] * 4), TEMPLATE)


@given(st.dictionaries(st.text(max_size=6), st.integers(1, 9), max_size=12))
def test_joining_is_done_once(counts: dict[str, int]) -> None:
    """What is kept is itself, every pair joined has one key, and every other label keeps its spelling."""
    found = joined(counts)
    assert not found.keys() & set(found.values())
    assert all(key(label) == key(kept) and kept in counts for label, kept in found.items())
    left = counts.keys() - found.keys()
    assert len({key(label) for label in left}) == len(left)


@given(st.text(max_size=8))
def test_the_key_of_a_key(label: str) -> None:
    """Is itself, and the same for both normal forms."""
    assert key(key(label)) == key(label) == key(unicodedata.normalize("NFD", label))


@given(st.text(max_size=8), st.text(max_size=8))
def test_code_points_are_those_of_one_side(one: str, other: str) -> None:
    """What is said to differ is in one of the two and not in both as often."""
    for c in (c for c in {*one, *other} if one.count(c) == other.count(c) and not c.isspace()):
        assert f"U+{ord(c):04X} " not in differing(one, other)
