"""How good a model is at theta, by the metric of the rows' shape: accuracy where candidates are compared, else loss.

Of rows with labels also what the model would say by itself: another program that loads it lets it write, and never
compares labels.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from zolite.common.events import Evaluated
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


@torch.inference_mode()
def predictions(
    engine: Engine, rows: Sequence[Example], tokens: int = EVAL_TOKENS, verbalizer: Verbalizer | None = None
) -> list[Prediction]:
    """Of rows with labels, in their order."""
    scores = torch.full((len(rows), max(row.candidates for row in rows)), -torch.inf)
    for batch in by_length([length(row) for row in rows], tokens):
        each = engine.scores([rows[i] for i in batch]).cpu()
        scores[batch, : each.shape[1]] = each
    ranks = scores.argsort(dim=1, descending=True).tolist()
    said = say(engine, rows, ranks, verbalizer, tokens) if verbalizer else [None] * len(rows)
    found = zip(rows, scores.argmax(dim=1).tolist(), scores.softmax(dim=1).tolist(), said, strict=True)
    return [Prediction(row.answer, ranked, tuple(shares), text) for row, ranked, shares, text in found]


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
    for batch in by_length([length(row) for row in rows], tokens):
        means = engine.scores([rows[i] for i in batch])[:, 0].cpu()
        total -= float((means * torch.tensor([len(rows[i].queries) for i in batch])).sum())
    return {"value": total / sum(len(row.queries) for row in rows)}


Metric = Callable[[Engine, Sequence[Example], int, Verbalizer | None], Figures]

METRICS: dict[str, Metric] = {"accuracy": choices, "loss": nats}
