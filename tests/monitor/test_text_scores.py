"""Claims about scores of texts: SQuAD's own script, ROUGE and BLEU by hand, and what is said where a package lacks."""

import collections
import math
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.monitor import text_scores
from zolite.monitor.text_scores import (
    bleu,
    exact_match,
    mean,
    normalized,
    perplexity,
    report_of,
    rouge_l,
    score_of,
    token_f1,
)

# --- SQuAD's official evaluate-v2.0.py, line by line ---------------------------------------------------------------


def official_normalize(s: str) -> str:
    def remove_articles(text: str) -> str:
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def white_space_fix(text: str) -> str:
        return " ".join(text.split())

    def remove_punc(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def official_f1(a_gold: str, a_pred: str) -> float:
    gold_toks, pred_toks = official_normalize(a_gold).split(), official_normalize(a_pred).split()
    common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
    num_same = sum(common.values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision, recall = num_same / len(pred_toks), num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


WORDS = st.lists(
    st.sampled_from(["the", "A", "cat", "an", "Cat's", "sat.", "3.5", "U.S.", "über", "-", "  "]), max_size=6
)
TEXTS = WORDS.map(" ".join)


@given(one=TEXTS, other=TEXTS)
def test_it_scores_as_squads_script(one: str, other: str) -> None:
    assert normalized(one) == official_normalize(one)
    assert exact_match(one, other) is (official_normalize(one) == official_normalize(other))
    assert token_f1(one, other) == pytest.approx(official_f1(other, one), abs=1e-12)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("An  apple, a day", "apple day"),
        ("theater", "theater"),
        ("a.b.c", "abc"),
    ],
)
def test_texts_are_normalized(text: str, plain: str) -> None:
    assert normalized(text) == plain


def test_the_best_reference_counts() -> None:
    answer = score_of("in Paris", ("France", "Paris", "the city of Paris"))
    assert not answer.exact and answer.f1 == pytest.approx(2 / 3)  # one word of two, and of one
    assert score_of("Paris.", ("France", "paris")).exact


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_rouge_l_by_hand() -> None:
    """The longest common subsequence of "police kill the gunman" and "police killed the gunman" is 3 of 4 words."""
    answers = [score_of("police kill the gunman", ("police killed the gunman",)), score_of("a", ("b", "a"))]
    assert rouge_l(answers).value == pytest.approx((0.75 + 1) / 2)


def test_bleu_by_hand() -> None:
    """n-gram precisions of one answer that has one word of eight wrong: 7/8, 5/7, 3/6, 2/5 … and no brevity penalty."""
    reference = "the quick brown fox jumps over the dog"
    said = "the quick brown cat jumps over the dog"
    precisions = (7 / 8, 5 / 7, 3 / 6, 1 / 5)
    wanted = 100 * math.exp(sum(map(math.log, precisions)) / 4)
    assert bleu([score_of(said, (reference,))]).value == pytest.approx(wanted, rel=1e-6)
    shorter = bleu([score_of("the quick brown fox", (reference,))]).value  # all right, and half as long
    assert shorter == pytest.approx(100 * math.exp(1 - 2), rel=1e-6)


def test_references_may_differ_in_number() -> None:
    """A row that has fewer than another is compared with those that it has."""
    answers = [
        score_of("one two three four", ("x", "one two three four")),
        score_of("five six seven eight", ("five six seven eight",)),
    ]
    assert bleu(answers).value == pytest.approx(100)


# --- all of them ------------------------------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None)  # two bootstraps each
@given(hits=st.lists(st.booleans(), min_size=1, max_size=40))
def test_intervals_hold_their_figures(hits: list[bool]) -> None:
    found = report_of([score_of("yes", ("yes" if hit else "no",), ended=hit) for hit in hits])
    for each in (found.exact_match, found.f1, found.rouge_l, found.bleu):
        assert each is not None and each.interval.low <= each.value + 1e-9 and each.value <= each.interval.high + 1e-9
    assert found.exact_match.value == found.f1.value == found.ended == sum(hits) / len(hits)


def test_a_mean_is_weighted_and_the_same_each_time() -> None:
    found = mean([6.0, 1.0], [3, 1])
    assert found.value == 7 / 4 and found == mean([6.0, 1.0], [3, 1])
    assert perplexity(found).value == pytest.approx(math.exp(7 / 4))
    assert perplexity(mean([2000.0], [1])).value == math.inf


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a package its figure is left out, with the command that installs it."""
    find = text_scores.importlib.util.find_spec
    monkeypatch.setattr(text_scores.importlib.util, "find_spec", lambda n: None if n == "sacrebleu" else find(n))
    found = report_of([score_of("yes", ("yes",))])
    assert found.bleu is None and found.rouge_l is not None
    assert found.cautions == (
        'no BLEU: sacrebleu cannot be imported; install them with `pip install "zolite[scores]"`',
    )


def test_letters_that_rouge_does_not_know_are_told() -> None:
    (caution,) = report_of([score_of("你好", ("你好",)), score_of("a", ("a",))]).cautions
    assert caution.startswith("ROUGE-L is 0 on 1 of 2 rows")


def test_nothing_has_no_report() -> None:
    with pytest.raises(ValueError, match="no answers"):
        report_of([])
