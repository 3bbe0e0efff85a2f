"""How good a model is at theta, by the metric of the rows' shape: accuracy where candidates are compared, else loss."""

import time
from collections.abc import Callable, Sequence

import torch

from zolite.common.events import Evaluated
from zolite.config.sizes import EVAL_TOKENS
from zolite.data.examples import Example
from zolite.engine.batch import by_length, length
from zolite.engine.engine import Engine


@torch.inference_mode()
def evaluate(engine: Engine, rows: Sequence[Example], split: str, step: int, tokens: int = EVAL_TOKENS) -> Evaluated:
    """The rows' metric: accuracy in [0, 1], or nats a token. `tokens` a forward, or a row's where it has more."""
    began, metric = time.monotonic(), rows[0].metric
    measure, count = METRICS[metric]
    total = sum(measure(engine, [rows[i] for i in batch]) for batch in by_length([length(row) for row in rows], tokens))
    return Evaluated(step, split, metric, total / sum(map(count, rows)), len(rows), time.monotonic() - began)


def right_answers(engine: Engine, rows: Sequence[Example]) -> float:
    """How many rows' right candidate scores highest."""
    answers = torch.tensor([row.answer for row in rows])
    return float((engine.scores(rows).argmax(dim=1).cpu() == answers).sum())


def nats(engine: Engine, rows: Sequence[Example]) -> float:
    """Summed cross-entropy of the answers' tokens."""
    means = engine.scores(rows)[:, 0].cpu()
    return -float((means * torch.tensor([len(row.queries) for row in rows])).sum())


Measure = Callable[[Engine, Sequence[Example]], float]

# Name to what is summed over rows, and what each row counts for in the mean.
METRICS: dict[str, tuple[Measure, Callable[[Example], int]]] = {
    "accuracy": (right_answers, lambda row: 1),
    "loss": (nats, lambda row: len(row.queries)),
}
