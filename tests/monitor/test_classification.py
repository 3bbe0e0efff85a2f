"""Claims about what choices among labels are worth: numbers by hand, naive twins, and when a person is warned."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zolite.monitor.classification import FEW, Report, cautions, confusion, matthews, report_of, wilson

LABELS = ("a", "b", "c", "d")
CHOICES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


def report(pairs: list[tuple[int, int]], labels: tuple[str, ...] = LABELS) -> Report:
    return report_of(labels, [right for right, _ in pairs], [chosen for _, chosen in pairs])


def close(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, abs=1e-12)


def test_by_hand() -> None:
    """Three labels, ten rows: 4 of 5 a, 1 of 3 b, 2 of 2 c."""
    pairs = [(0, 0)] * 4 + [(0, 1)] + [(1, 1), (1, 0), (1, 2)] + [(2, 2)] * 2
    found = report(pairs, ("a", "b", "c"))
    assert found.confusion == ((4, 1, 0), (1, 1, 1), (0, 0, 2))
    assert [(s.rows, s.chosen, s.right) for s in found.labels] == [(5, 5, 4), (3, 2, 1), (2, 3, 2)]
    assert [s.precision for s in found.labels] == pytest.approx([0.8, 0.5, 2 / 3])
    assert [s.recall for s in found.labels] == pytest.approx([0.8, 1 / 3, 1.0])
    assert [s.f1 for s in found.labels] == pytest.approx([0.8, 0.4, 0.8])
    assert (found.accuracy, found.majority, found.baseline) == (0.7, "a", 0.5)
    assert found.macro_f1 == pytest.approx(2 / 3)
    # 10·7 − (5·5 + 3·2 + 2·3) = 33; 10² − 38 = 62 on either side
    assert found.matthews == pytest.approx(33 / 62)


@given(CHOICES)
def test_naive_twins(pairs: list[tuple[int, int]]) -> None:
    """Counts row by row in fractions, and Matthews as the correlation of one-hot columns that it is."""
    found = report(pairs)
    f1s = []
    for i, score in enumerate(found.labels):
        hits = sum(r == c == i for r, c in pairs)
        rows, chosen = sum(r == i for r, _ in pairs), sum(c == i for _, c in pairs)
        assert close(score.precision, float(Fraction(hits, chosen)) if chosen else math.nan)
        assert close(score.recall, float(Fraction(hits, rows)) if rows else math.nan)
        if hits:
            f1s.append(2 / (1 / Fraction(hits, chosen) + 1 / Fraction(hits, rows)))
        elif rows or chosen:
            f1s.append(Fraction(0))
    assert close(found.macro_f1, float(sum(f1s) / len(f1s)))
    assert close(found.accuracy, sum(r == c for r, c in pairs) / len(pairs))
    assert close(found.baseline, max(sum(r == i for r, _ in pairs) for i in range(4)) / len(pairs))
    assert close(found.matthews, correlation(pairs))


def correlation(pairs: list[tuple[int, int]]) -> float:
    """Σ over labels of cov(is right, is chosen) / √(Σ var · Σ var)."""

    def covariance(xs: list[int], ys: list[int]) -> float:
        n = len(xs)
        return sum(x * y for x, y in zip(xs, ys, strict=True)) / n - sum(xs) * sum(ys) / n**2

    right = [[int(r == i) for r, _ in pairs] for i in range(4)]
    chosen = [[int(c == i) for _, c in pairs] for i in range(4)]
    both = sum(map(covariance, right, chosen))
    apart = sum(map(covariance, right, right)) * sum(map(covariance, chosen, chosen))
    return both / math.sqrt(apart) if apart > 1e-12 else 0.0


@given(CHOICES, st.permutations(range(4)))
def test_names_and_order_change_nothing(pairs: list[tuple[int, int]], places: list[int]) -> None:
    """Neither the order of the rows nor the numbers of the labels."""
    found, other = report(pairs), report([(places[r], places[c]) for r, c in reversed(pairs)])
    for name in ("accuracy", "baseline", "macro_f1", "matthews"):
        assert close(getattr(found, name), getattr(other, name))
    assert all(found.labels[i].right == other.labels[places[i]].right for i in range(4))


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (((50, 0), (0, 50)), 1.0),
        (((0, 50), (50, 0)), -1.0),
        (((25, 25), (25, 25)), 0.0),
        (((252, 0), (8, 0)), 0.0),
        (((6, 2), (1, 3)), 16 / math.sqrt(8 * 4 * 7 * 5)),
    ],
)
def test_matthews_of_two_labels(table: tuple[tuple[int, ...], ...], value: float) -> None:
    """(tp·tn − fp·fn) / √(…), and 0 where one label is always chosen."""
    assert matthews(table) == pytest.approx(value)


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    # R: prop.test(hits, rows, correct = FALSE)$conf.int
    [(0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0), (5, 10, 0.2365931, 0.7634069), (8, 8, 0.6755924, 1.0)],
)
def test_wilson_by_hand(hits: int, rows: int, low: float, high: float) -> None:
    found = wilson(hits, rows)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_where_the_share_is_just_possible(case: tuple[int, int]) -> None:
    """Its ends p solve (share − p)² = z² p (1 − p) / n, the share lies between them, and more rows narrow it."""
    hits, rows = case
    found, share = wilson(hits, rows), hits / rows
    for p in (found.low, found.high):
        assert (share - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / rows, abs=1e-6)
    assert 0 <= found.low <= share <= found.high <= 1
    more = wilson(10 * hits, 10 * rows)
    assert more.high - more.low < found.high - found.low


def test_no_rows() -> None:
    """Are no report; of a label without rows nothing is known."""
    with pytest.raises(ValueError, match="no rows"):
        confusion(2, [], [])
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    never = report([(0, 0), (1, 1)], ("a", "b", "c")).labels[2]
    assert math.isnan(never.precision) and math.isnan(never.recall) and math.isnan(never.f1)


# --- warnings


def told(pairs: list[tuple[int, int]], labels: tuple[str, ...] = ("ham", "spam"), **said: float) -> str:
    return "\n".join(cautions(report(pairs, labels), **said))


def test_a_perfect_score_on_lopsided_rows_is_no_success() -> None:
    """252 ham and 8 spam, all right; or all called ham."""
    perfect = told([(0, 0)] * 252 + [(1, 1)] * 8)
    assert "96.9% of the rows have one label" in perfect and "'spam' (8: 68% to 100%)" in perfect
    useless = told([(0, 0)] * 252 + [(1, 0)] * 8)
    assert useless.startswith("no better than always answering 'ham', which is right on 96.9%")
    assert "never chosen: 'spam'" in useless
    assert "no row has: 'spam'" in told([(0, 0)] * 30)


def test_a_lead_within_its_interval_is_none() -> None:
    text = told([(0, 0)] * 60 + [(1, 1)] * 5 + [(1, 0)] * 35)
    assert text.startswith("perhaps no better than always answering 'ham', which is right on 60.0%: 100 rows leave")


def test_a_good_result_needs_no_words() -> None:
    pairs = [(0, 0)] * 45 + [(0, 1)] * 5 + [(1, 1)] * 46 + [(1, 0)] * 4
    assert told(pairs) == told(pairs, says=1.0, said_right=0.905) == ""


def test_what_is_not_said_is_told() -> None:
    """Where the model writes something else than what it ranks highest."""
    pairs = [(0, 0)] * 50 + [(1, 1)] * 50
    assert "a label on 0.0% of the rows and the right one on 0.0%" in told(pairs, says=0.0, said_right=0.0)
    assert "the right one on 50.0%" in told(pairs, says=1.0, said_right=0.5)


def test_long_lists_are_cut() -> None:
    labels = tuple(f"label {i}" for i in range(12))
    text = told([(i, i) for i in range(12) for _ in range(FEW - 1)], labels)
    assert "and 7 more" in text and "'label 11'" not in text
