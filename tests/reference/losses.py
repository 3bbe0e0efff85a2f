"""The objective by its definition: whole logits, one sequence a forward, loops, float64."""

import math
from collections.abc import Sequence
from typing import Any

import torch


def mean_logprob(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """log p(answer | prompt) over the answer's length."""
    return -token_losses(model, prompt, answer) / len(answer)


def token_losses(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """−log p(answer | prompt)."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0].double().cpu()
    total = 0.0
    for i, token in enumerate(answer):
        row = logits[len(prompt) + i - 1]
        total -= float(row[token]) - float(torch.logsumexp(row, 0))
    return total


def label_loss(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]], right: int) -> float:
    """Cross-entropy of the right answer under a softmax over the answers' mean log-probabilities."""
    scores = [mean_logprob(model, prompt, answer) for answer in answers]
    return math.log(sum(math.exp(score) for score in scores)) - scores[right]
