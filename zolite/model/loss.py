"""Losses from hidden states: logits only where an answer is predicted, in chunks, in float32.

K points, S sequences, T tokens, P positions that predict something, Q queries (one token of one candidate answer),
R rows, C candidates a row, D width, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_NUMBERS = 2**23  # float32 logits held at once: 32 MiB


@dataclass(frozen=True)
class Tokens:
    """A batch on its device. Sequences are padded on the right, where causal attention cannot see the padding."""

    ids: Tensor  # (S, T) int64
    positions: Tensor  # (P,) int64: s · T + t, ascending
    tokens: Tensor  # (Q,) int64, grouped by the position that predicts them
    owners: Tensor  # (Q,) int64: the position, 0 to P − 1, that predicts each
    spans: tuple[int, ...]  # P + 1 host integers: the queries of position p are spans[p] to spans[p + 1]
    gather: Tensor  # (R · C, longest answer) int64: each candidate's queries, padded with Q
    lengths: Tensor  # (R · C,) float32: tokens of each candidate
    answers: Tensor  # (R,) int64: the right candidate
    candidates: int  # C; 1 where rows have no labels

    @property
    def weight(self) -> int:
        """What a sum of losses over this batch is divided by: rows with labels, else answer tokens."""
        return len(self.answers) if self.candidates > 1 else len(self.tokens)


def loss_sums(model: nn.Module, batch: Tokens, points: int) -> Tensor:
    """Summed losses (K,) float32; divide by `batch.weight`.

    With candidates: cross-entropy of the right one under a softmax over their mean token log-probabilities.
    Without: the answer's token cross-entropy.
    """
    scores = candidate_scores(model, batch, points)
    if batch.candidates == 1:
        return -(scores.view(points, -1) * batch.lengths).sum(dim=1)
    right = batch.answers.expand(points, -1).reshape(-1, 1)
    chosen = F.log_softmax(scores.view(-1, batch.candidates), dim=-1).gather(1, right)
    return -chosen.view(points, -1).sum(dim=1)


def candidate_scores(model: nn.Module, batch: Tokens, points: int) -> Tensor:
    """Mean token log-probability of every candidate: (K, R, C) float32."""
    logp = token_logprobs(model, batch, points)
    padded = F.pad(logp, (0, 1))  # index Q reads a zero, so that sums need no atomics and stay deterministic
    return (padded[:, batch.gather].sum(dim=-1) / batch.lengths).view(points, -1, batch.candidates)


def token_logprobs(model: nn.Module, batch: Tokens, points: int) -> Tensor:
    """Log-probability of every query's token: (K, Q) float32."""
    hidden = hidden_states(model, batch.ids.repeat(points, 1))
    wanted = hidden.view(points, -1, hidden.shape[-1])[:, batch.positions]  # (K, P, D)
    head = Head.of(model)
    parts = []
    for first, last in _chunks(len(batch.spans) - 1, CHUNK_NUMBERS // (points * head.vocabulary)):
        logits = head(wanted[:, first:last])  # (K, p, V) float32
        low, high = batch.spans[first], batch.spans[last]
        rows = batch.owners[low:high] - first
        parts.append(logits[:, rows, batch.tokens[low:high]] - logits.logsumexp(dim=-1)[:, rows])
    return torch.cat(parts, dim=1)


def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """Last hidden states (rows, T, D): the decoder without its head."""
    hidden: Tensor = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


@dataclass(frozen=True)
class Head:
    """The output layer, and what some architectures do to its logits."""

    module: Any
    cap: float | None  # Gemma: cap · tanh(logits / cap)
    scale: float  # Cohere multiplies, Granite divides

    @classmethod
    def of(cls, model: Any) -> "Head":
        config = model.config.get_text_config()
        scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(model.get_output_embeddings(), getattr(config, "final_logit_softcapping", None), scale)

    @property
    def vocabulary(self) -> int:
        return int(self.module.weight.shape[0])

    def __call__(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, V) float32."""
        logits = _float_product(hidden, self.module.weight)
        if getattr(self.module, "bias", None) is not None:
            logits += self.module.bias
        logits = logits * self.scale if self.scale != 1.0 else logits
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def _float_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """hidden weightᵀ accumulated and returned in float32, without a float32 copy of the weight."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    if weight.is_cuda and weight.dtype != torch.float32:
        product = torch.mm(rows, weight.mT, out_dtype=torch.float32)
    else:
        product = torch.mm(rows, weight.mT).float()
    return product.view(*hidden.shape[:-1], -1)


def _chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    size = max(1, size)
    return ((first, min(first + size, total)) for first in range(0, total, size))
