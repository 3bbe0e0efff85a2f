"""How good a model is at theta: accuracy where rows have labels, token loss elsewhere."""

import time
from collections.abc import Sequence

import torch

from zolite.common.events import Evaluated
from zolite.config.sizes import EVAL_TOKENS
from zolite.data.encode import Example
from zolite.engine.batch import by_length, length
from zolite.engine.engine import Engine


@torch.inference_mode()
def evaluate(engine: Engine, rows: Sequence[Example], split: str, step: int, tokens: int = EVAL_TOKENS) -> Evaluated:
    """Accuracy in [0, 1], or nats a token. `tokens` a forward, or a row's where it has more."""
    began = time.monotonic()
    measure = right_answers if rows[0].candidates > 1 else nats
    total = sum(measure(engine, [rows[i] for i in batch]) for batch in by_length([length(row) for row in rows], tokens))
    if rows[0].candidates > 1:
        metric, value = "accuracy", total / len(rows)
    else:
        metric, value = "loss", total / sum(len(row.queries) for row in rows)
    return Evaluated(step, split, metric, value, len(rows), time.monotonic() - began)


def right_answers(engine: Engine, rows: Sequence[Example]) -> float:
    """How many rows' right candidate scores highest."""
    answers = torch.tensor([row.answer for row in rows])
    return float((engine.scores(rows).argmax(dim=1).cpu() == answers).sum())


def nats(engine: Engine, rows: Sequence[Example]) -> float:
    """Summed cross-entropy of the answers' tokens."""
    means = engine.scores(rows)[:, 0].cpu()
    return -float((means * torch.tensor([len(row.queries) for row in rows])).sum())
