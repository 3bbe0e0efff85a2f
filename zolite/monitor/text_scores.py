"""What written answers are worth beside their references: exact match, token F1, ROUGE-L and BLEU, with intervals.

answer = score_of("The Eiffel Tower", ("Eiffel Tower", "the tower"))     one row
report = report_of([answer, …])                                          all of them

Exact match and F1 compare texts as SQuAD's official script does (Rajpurkar et al., 2016 and 2018). ROUGE-L is
rouge-score's and BLEU sacrebleu's; without those packages a report has no such figure and says what is missing.
"""

import importlib.util
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zolite.monitor.classification import Interval, wilson

RESAMPLES = 1000  # of a bootstrap
INSTALL = 'install them with `pip install "zolite[scores]"`'
PACKAGES = {"rouge_score": ("ROUGE-L", "rouge-score"), "sacrebleu": ("BLEU", "sacrebleu")}
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_TOKEN = re.compile(r"[a-z0-9]")  # of what rouge-score makes words


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Answer:
    """What a model wrote for a row, beside what it should have written. Scores are the best over all references."""

    text: str
    references: tuple[str, ...]
    exact: bool
    f1: float  # 0 to 1
    ended: bool = True  # by itself, and was not cut


@dataclass(frozen=True)
class TextReport:
    """Shares from 0 to 1; BLEU from 0 to 100, as its papers have it."""

    rows: int
    exact_match: Measured
    f1: Measured
    rouge_l: Measured | None
    bleu: Measured | None
    ended: float  # share of answers that ended by themselves
    cautions: tuple[str, ...]  # what a person must know of these figures


# --- one answer -------------------------------------------------------------------------------------------------------


def normalized(text: str) -> str:
    """Lower case, without punctuation, without articles, one space between words: SQuAD's normalize_answer."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, reference: str) -> bool:
    return normalized(text) == normalized(reference)


def token_f1(text: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, 0 to 1; of two texts without words, 1."""
    said, wanted = normalized(text).split(), normalized(reference).split()
    if not said or not wanted:
        return float(said == wanted)
    same = sum((Counter(said) & Counter(wanted)).values())
    return 2 * same / (len(said) + len(wanted))


def score_of(text: str, references: Sequence[str], ended: bool = True) -> Answer:
    """ValueError where there is no reference."""
    exact = any(exact_match(text, each) for each in references)
    return Answer(text, tuple(references), exact, max(token_f1(text, each) for each in references), ended)


# --- all of them ------------------------------------------------------------------------------------------------------


def report_of(answers: Sequence[Answer]) -> TextReport:
    """ValueError where there is none."""
    if not answers:
        raise ValueError("no answers")
    hits = sum(answer.exact for answer in answers)
    found = {name: SCORERS[name](answers) if importlib.util.find_spec(name) else None for name in PACKAGES}
    return TextReport(
        rows=len(answers),
        exact_match=Measured(hits / len(answers), wilson(hits, len(answers))),
        f1=mean([answer.f1 for answer in answers]),
        rouge_l=found["rouge_score"],
        bleu=found["sacrebleu"],
        ended=sum(answer.ended for answer in answers) / len(answers),
        cautions=(*_missing(), *_beyond_rouge(answers)),
    )


def _missing() -> list[str]:
    absent = [PACKAGES[name] for name in PACKAGES if importlib.util.find_spec(name) is None]
    names, packages = (" and ".join(each) for each in zip(*absent, strict=True)) if absent else ("", "")
    return [f"no {names}: {packages} cannot be imported; {INSTALL}"] if absent else []


def _beyond_rouge(answers: Sequence[Answer]) -> list[str]:
    """rouge-score makes words of Latin letters without accents and of digits, and drops all others."""
    lost = sum(not any(_ROUGE_TOKEN.search(each.lower()) for each in answer.references) for answer in answers)
    if not lost or not importlib.util.find_spec("rouge_score"):
        return []
    return [f"ROUGE-L is 0 on {lost} of {len(answers)} rows, whose references have no letter of a to z and no digit"]


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> Measured:
    """Σ values / Σ weights (each 1 if left out), with the interval of a bootstrap over the rows, the same each time."""
    import numpy as np  # not by those who only show what was found

    top = np.asarray(values, np.float64)
    below = np.ones_like(top) if weights is None else np.asarray(weights, np.float64)
    drawn = np.random.default_rng(0)
    resamples = (drawn.integers(0, len(top), len(top)) for _ in range(RESAMPLES))
    low, high = np.quantile([top[rows].sum() / below[rows].sum() for rows in resamples], (0.025, 0.975))
    return Measured(float(top.sum() / below.sum()), Interval(float(low), float(high)))


def perplexity(nats: Measured) -> Measured:
    """e to the loss in nats a token; infinite where that is beyond any number."""
    return Measured(_exp(nats.value), Interval(_exp(nats.interval.low), _exp(nats.interval.high)))


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def rouge_l(answers: Sequence[Answer]) -> Measured:
    """Mean F-measure of the longest common subsequence, of each answer with the reference that it is nearest to."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return mean([scorer.score_multi(list(a.references), a.text)["rougeL"].fmeasure for a in answers])


def bleu(answers: Sequence[Answer]) -> Measured:
    """Of the whole corpus, with all references of each row; the interval is sacrebleu's own bootstrap."""
    from sacrebleu.metrics import BLEU

    most = max(len(a.references) for a in answers)
    streams = [[a.references[i] if i < len(a.references) else None for a in answers] for i in range(most)]
    found = BLEU().corpus_score([a.text for a in answers], streams, n_bootstrap=RESAMPLES)
    low, high = found._mean - found._ci, found._mean + found._ci  # about the resamples' mean, which is another one
    return Measured(found.score, Interval(max(0.0, min(low, found.score)), min(100.0, max(high, found.score))))


SCORERS: dict[str, Callable[[Sequence[Answer]], Measured]] = {"rouge_score": rouge_l, "sacrebleu": bleu}
