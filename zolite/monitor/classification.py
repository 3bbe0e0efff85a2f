"""What choices among labels are worth: per label, as a whole, beside chance, and what a person must be told of them.

report_of(labels, right, chosen)      both the numbers of a row's label, one a row
choices_of(right, likelihoods, sizes) of candidates, whichever they are
cautions(report, says, said_right)    plain sentences where the accuracy alone would mislead
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

Z95 = 1.959963984540054  # standard deviations about the mean that hold 95 % of a normal distribution
FEW = 20  # rows of a label; below, an interval of its recall is over 15 points wide even where all are right
LOPSIDED = 0.9  # share of the commonest label, from which accuracy is mostly its share
SAID_LESS = 0.01  # of the rows; what is said and what is ranked may differ by so much
NAMED = 5  # labels that one sentence lists


@dataclass(frozen=True)
class Interval:
    """Shares from 0 to 1."""

    low: float
    high: float


@dataclass(frozen=True)
class LabelScore:
    """One label against all others. A share of nothing is not a number."""

    label: str
    rows: int  # that have it
    chosen: int  # times it was chosen
    right: int  # times both
    precision: float  # of those chosen, right
    recall: float  # of its rows, right
    f1: float
    recall_interval: Interval


@dataclass(frozen=True)
class Report:
    """Shares are from 0 to 1; Matthews' correlation is from -1 to 1, and 0 for a choice that knows nothing."""

    rows: int
    accuracy: float
    interval: Interval
    majority: str  # the label that most rows have
    baseline: float  # the accuracy of whoever always says it
    macro_f1: float  # mean over labels that were there or chosen
    matthews: float
    labels: tuple[LabelScore, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows by their label, columns by the chosen one


def report_of(labels: Sequence[str], right: Sequence[int], chosen: Sequence[int]) -> Report:
    """`right` and `chosen` are indices into `labels`, one each a row; ValueError where there is no row."""
    table = confusion(len(labels), right, chosen)
    scores = tuple(_score(label, i, table) for i, label in enumerate(labels))
    hits, rows = sum(score.right for score in scores), len(right)
    most = max(scores, key=lambda score: score.rows)
    return Report(
        rows=rows,
        accuracy=hits / rows,
        interval=wilson(hits, rows),
        majority=most.label,
        baseline=most.rows / rows,
        macro_f1=fmean(score.f1 for score in scores if not math.isnan(score.f1)),
        matthews=matthews(table),
        labels=scores,
        confusion=table,
    )


def confusion(count: int, right: Sequence[int], chosen: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """(count, count): rows with label i for which label j was chosen."""
    if not right:
        raise ValueError("no rows")
    table = [[0] * count for _ in range(count)]
    for i, j in zip(right, chosen, strict=True):
        table[i][j] += 1
    return tuple(map(tuple, table))


def _score(label: str, i: int, table: Sequence[Sequence[int]]) -> LabelScore:
    hits, rows, chosen = table[i][i], sum(table[i]), sum(line[i] for line in table)
    f1 = _share(2 * hits, rows + chosen)
    return LabelScore(label, rows, chosen, hits, _share(hits, chosen), _share(hits, rows), f1, wilson(hits, rows))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def wilson(hits: int, rows: int) -> Interval:
    """Wilson's 95 % interval of a share (1927): unlike the normal one it is right for few rows and for shares near 1.

    Of no rows everything is possible.
    """
    if not rows:
        return Interval(0.0, 1.0)
    share, z2 = hits / rows, Z95 * Z95 / rows
    middle = (share + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows))
    return Interval(max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))  # but for rounding


def difference(before: float, after: float, rows: int) -> Interval:
    """Newcombe's 95 % interval of after − before, two shares of `rows` each (1998, method 10): made of Wilson's.

    Of the same rows it is wider than it need be, since it does not know which of them are right both times.
    """
    b, a = (wilson(round(share * rows), rows) for share in (before, after))
    change = after - before
    return Interval(
        change - math.hypot(after - a.low, b.high - before), change + math.hypot(a.high - after, before - b.low)
    )


def matthews(table: Sequence[Sequence[int]]) -> float:
    """Gorodkin's correlation of K labels (2004), Matthews' own for two; 0 where one side is always the same label."""
    rows = [sum(line) for line in table]
    chosen = [sum(line) for line in zip(*table, strict=True)]
    total = sum(rows)
    together = total * sum(table[i][i] for i in range(len(table))) - sum(map(_product, rows, chosen))
    apart = (total**2 - sum(map(_product, rows, rows))) * (total**2 - sum(map(_product, chosen, chosen)))
    return together / math.sqrt(apart) if apart else 0.0


def _product(a: int, b: int) -> int:
    return a * b


# --- rows with candidates of their own --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """Accuracies of choosing a candidate by its log-likelihood, as lm-eval has them. Shares from 0 to 1."""

    rows: int
    acc: float  # the candidate with the highest log-likelihood is right
    acc_interval: Interval
    acc_norm: float  # the same, with each log-likelihood divided by the bytes of its candidate
    acc_norm_interval: Interval
    chance: float  # accuracy of choosing blindly


def choices_of(right: Sequence[int], likelihoods: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]]) -> Choices:
    """`right`: index of a row's right candidate; `sizes`: bytes of its candidates. ValueError where there is no row."""
    if not right:
        raise ValueError("no rows")
    rows, chance = len(right), fmean(1 / len(each) for each in likelihoods)
    by_sum = sum(map(_best_is, right, likelihoods))
    divided = ([n / max(1, s) for n, s in zip(*each, strict=True)] for each in zip(likelihoods, sizes, strict=True))
    by_byte = sum(map(_best_is, right, divided))
    return Choices(rows, by_sum / rows, wilson(by_sum, rows), by_byte / rows, wilson(by_byte, rows), chance)


def _best_is(right: int, values: Sequence[float]) -> bool:
    return max(range(len(values)), key=values.__getitem__) == right


# --- what a person must be told ---------------------------------------------------------------------------------------


def cautions(report: Report, says: float = math.nan, said_right: float = math.nan) -> Iterator[str]:
    """Sentences, the gravest first. `says`, `said_right`: shares of rows whose greedy text is a label, or its own."""
    yield from _beside_majority(report)
    if said_right < report.accuracy - SAID_LESS:
        yield (
            f"text that the model writes is a label on {says:.1%} of the rows and the right one on {said_right:.1%}: "
            "programs that let it write do not get the accuracy above"
        )
    yield from _listed("no row has", [repr(s.label) for s in report.labels if not s.rows])
    yield from _listed("never chosen", [repr(s.label) for s in report.labels if s.rows and not s.chosen])
    few = [
        f"{s.label!r} ({s.rows}: {s.recall_interval.low:.0%} to {s.recall_interval.high:.0%})"
        for s in report.labels
        if 0 < s.rows < FEW
    ]
    yield from _listed(f"fewer than {FEW} rows, so that recall may be anything between", few)


def _beside_majority(report: Report) -> Iterator[str]:
    always = f"always answering {report.majority!r}, which is right on {report.baseline:.1%}"
    if report.accuracy <= report.baseline:
        yield f"no better than {always}"
    elif report.interval.low <= report.baseline:
        low, high = report.interval.low, report.interval.high
        yield f"perhaps no better than {always}: {report.rows:,} rows leave anything from {low:.1%} to {high:.1%}"
    elif report.baseline >= LOPSIDED:
        yield f"accuracy says little where {report.baseline:.1%} of the rows have one label: see the others' recall"


def _listed(what: str, names: Sequence[str]) -> Iterator[str]:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    if names:
        yield f"{what}: {', '.join(names[:NAMED])}{more}"
