"""How good a model is at theta, by the metric of the rows' shape: accuracy where candidates are compared, else loss.

Of rows with labels also what the model would say by itself: another program that loads it lets it write, and never
compares labels.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from zolite.common.events import Evaluated
from zolite.common.progress import counted
from zolite.config.sizes import EVAL_TOKENS
from zolite.data.examples import Example
from zolite.engine.batch import by_length, length
from zolite.engine.engine import Engine
from zolite.training.greedy import Said, Verbalizer, say


@torch.inference_mode()
def evaluate(
    engine: Engine,
    rows: Sequence[Example],
    split: str,
    step: int,
    tokens: int = EVAL_TOKENS,
    verbalizer: Verbalizer | None = None,
) -> Evaluated:
    """The rows' metric: accuracy in [0, 1], or nats a token. `tokens` a forward, or a row's where it has more.

    With a `verbalizer`, also how often greedy text is a label and the right one, where rows have labels.
    """
    began, metric = time.monotonic(), rows[0].metric
    figures = METRICS[metric](engine, rows, tokens, verbalizer)
    return Evaluated(step, split, metric, rows=len(rows), seconds=time.monotonic() - began, **figures)


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one row with a label. Labels are numbers."""

    right: int
    ranked: int  # the candidate that scores highest
    shares: tuple[float, ...]  # of each candidate, among them
    said: Said | None  # greedily; None where nobody asked
    sums: tuple[float, ...] = ()  # each candidate's log-probability, all its tokens together


@torch.inference_mode()
def predictions(
    engine: Engine, rows: Sequence[Example], tokens: int = EVAL_TOKENS, verbalizer: Verbalizer | None = None
) -> list[Prediction]:
    """Of rows with candidates, in their order."""
    scores: dict[int, list[float]] = {}
    for batch in counted(_alike(rows, tokens), "evaluating rows", len(rows), len):
        scores |= zip(batch, engine.scores([rows[i] for i in batch]).tolist(), strict=True)
    by_row = [(row, scores[i]) for i, row in enumerate(rows)]
    ranks = [sorted(range(row.candidates), key=each.__getitem__, reverse=True) for row, each in by_row]
    said = say(engine, rows, ranks, verbalizer, tokens) if verbalizer and rows[0].text else [None] * len(rows)
    return [_prediction(engine, row, scores[i], said[i]) for i, row in enumerate(rows)]


def _alike(rows: Sequence[Example], tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of as many candidates each, of at most so many tokens."""
    for count in sorted({row.candidates for row in rows}):
        places = [i for i, row in enumerate(rows) if row.candidates == count]
        yield from ([places[i] for i in batch] for batch in by_length([length(rows[i]) for i in places], tokens))


def _prediction(engine: Engine, row: Example, scores: list[float], said: Said | None) -> Prediction:
    found = torch.tensor(scores)
    sums = found if engine.sums(row) else found * torch.tensor(row.arrays.counts)
    return Prediction(row.answer, int(found.argmax()), tuple(found.softmax(dim=0).tolist()), said, tuple(sums.tolist()))


Figures = dict[str, float]
"""Fields of Evaluated."""


def figures(found: Sequence[Prediction]) -> Figures:
    """What an evaluation says of predictions: shares of the rows."""
    count = len(found)
    majority = Counter(each.right for each in found).most_common(1)[0][1]
    ranked = {"value": sum(each.ranked == each.right for each in found) / count, "majority": majority / count}
    said = [(each.said.label, each.right) for each in found if each.said]
    if not said:
        return ranked
    says, right = sum(label is not None for label, _ in said), sum(label == right for label, right in said)
    return ranked | {"says": says / count, "said_right": right / count}


def choices(engine: Engine, rows: Sequence[Example], tokens: int, verbalizer: Verbalizer | None) -> Figures:
    """Accuracy: the share of rows whose right candidate scores highest; and what is said."""
    return figures(predictions(engine, rows, tokens, verbalizer))


def nats(engine: Engine, rows: Sequence[Example], tokens: int, verbalizer: Verbalizer | None) -> Figures:
    """Cross-entropy of the answers' tokens, a token."""
    total = 0.0
    for batch in counted(by_length([length(row) for row in rows], tokens), "evaluating rows", len(rows), len):
        means = engine.scores([rows[i] for i in batch])[:, 0].cpu()
        total -= float((means * torch.tensor([len(rows[i].queries) for i in batch])).sum())
    return {"value": total / sum(len(row.queries) for row in rows)}


@torch.inference_mode()
def row_nats(engine: Engine, rows: Sequence[Example], tokens: int = EVAL_TOKENS) -> list[float]:
    """Cross-entropy of each row's answer, all its tokens together."""
    found: dict[int, float] = {}
    for batch in by_length([length(row) for row in rows], tokens):
        means = engine.scores([rows[i] for i in batch])[:, 0].tolist()
        found |= {i: -mean * len(rows[i].queries) for i, mean in zip(batch, means, strict=True)}
    return [found[i] for i in range(len(rows))]


Metric = Callable[[Engine, Sequence[Example], int, Verbalizer | None], Figures]

METRICS: dict[str, Metric] = {"accuracy": choices, "loss": nats}
