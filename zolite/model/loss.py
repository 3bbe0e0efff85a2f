"""Losses from hidden states: logits only where an answer is predicted, in chunks, in float32.

A batch is one packed buffer of integers, cut by a layout that says nothing of the rows but how much room they take: one
copy to the device, and the same operations on the same addresses for every batch of a layout.

K points, G groups of rows, m = K/G points a group (copy g·m + j holds point j of group g), and in every group S
sequences of T tokens, P positions that predict something, Q queries (one token of one candidate answer), R rows of C
candidates, of at most W tokens; D width, V vocabulary.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zolite.config import sizes
from zolite.data.examples import PADDING
from zolite.model.devices import nvidia

Decode = Callable[[Tensor, Tensor], Tensor]
"""Token ids (n, T) and indices (p,) into their n · T tokens to the last hidden states (p, D) there, for the head."""


@dataclass(frozen=True)
class Layout:
    """All that varies between batches but not within a captured graph. Everything but `groups` is of one group."""

    groups: int  # G
    sequences: int  # S
    tokens: int  # T
    positions: int  # P
    queries: int  # Q
    candidates: int  # C; 1 where rows have no labels
    rows: int  # R
    width: int  # W
    single: bool  # every candidate is one token and all of a row's are asked at one position: no log-sum-exp needed

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parts of the buffer in their order: the fields of Tokens."""
        g, answers = self.groups, self.rows * self.candidates
        return {
            "step": (),
            "ids": (g, self.sequences, self.tokens),
            "positions": (g, self.positions),
            "tokens": (g, self.queries),
            "owners": (g, self.queries),
            "gather": (g, answers, self.width),
            "lengths": (g, answers),
            "answers": (g, self.rows),
            "weight": (g,),
        }

    @functools.cached_property
    def size(self) -> int:
        """Numbers in the buffer."""
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Tokens:
    """A batch as views of its buffer, all int64.

    Sequences are padded on the right, where causal attention cannot see it and encoders are told of it. Positions
    beyond the real ones repeat the first, queries beyond the real ones ask for token 0 there, and no candidate gathers
    them.
    """

    layout: Layout
    step: Tensor  # ()
    ids: Tensor  # (G, S, T)
    positions: Tensor  # (G, P): s · T + t within the group
    tokens: Tensor  # (G, Q)
    owners: Tensor  # (G, Q): the position, 0 to P − 1, that predicts each
    gather: Tensor  # (G, R · C, W): each candidate's queries, padded with Q
    lengths: Tensor  # (G, R · C): tokens of each candidate; 0 where a row has fewer candidates
    answers: Tensor  # (G, R): the right candidate
    weight: Tensor  # (G,): rows, or answer tokens where C is 1, of the whole batch, if this is a part of one

    @classmethod
    def of(cls, layout: Layout, flat: Tensor) -> "Tokens":
        """Views of a buffer (layout.size,)."""
        pieces = torch.split(flat, [math.prod(shape) for shape in layout.shapes.values()])
        return cls(layout, *(piece.view(shape) for piece, shape in zip(pieces, layout.shapes.values(), strict=True)))

    def part(self, groups: slice) -> "Tokens":
        """Views of some of the groups."""
        cut: dict[str, Any] = {name: getattr(self, name)[groups] for name in self.layout.shapes if name != "step"}
        return replace(self, layout=replace(self.layout, groups=len(cut["weight"])), **cut)


def loss_sums(decode: Decode, head: "Head | Given", batch: Tokens, points: int) -> Tensor:
    """Each point's losses summed over its group's rows: (K,) float32; to be divided by the group's weight.

    With candidates: cross-entropy of the right one under a softmax over their mean token log-probabilities.
    Without: the answer's token cross-entropy.
    """
    if batch.layout.candidates == 1:
        return -_answer_sums(decode, head, batch, points).sum(dim=1)
    scores = candidate_scores(decode, head, batch, points)
    right = _spread(batch.answers, points).unsqueeze(2)
    return -F.log_softmax(scores, dim=2).gather(2, right).sum(dim=(1, 2))


def candidate_scores(decode: Decode, head: "Head | Given", batch: Tokens, points: int) -> Tensor:
    """Mean token log-probability of every candidate: (K, R, C) float32; -inf of those that a row does not have.

    Where the layout is `single` they are logits: all of a row's are greater by one and the same number, which neither
    the best candidate nor the softmax over candidates depends on.
    """
    counts = _spread(batch.lengths, points)
    means = (_answer_sums(decode, head, batch, points) / counts).masked_fill(counts == 0, -torch.inf)
    return means.view(points, batch.layout.rows, batch.layout.candidates)


def _answer_sums(decode: Decode, head: "Head | Given", batch: Tokens, points: int) -> Tensor:
    """Summed token scores of every candidate: (K, R · C) float32."""
    padded = F.pad(token_scores(decode, head, batch, points), (0, 1))  # index Q reads a zero: no atomics, always
    members = _spread(batch.gather, points)  # the same order of sums
    return padded.gather(1, members.flatten(1)).view(members.shape).sum(dim=2)


def token_scores(decode: Decode, head: "Head | Given", batch: Tokens, points: int) -> Tensor:
    """Log-probability of every query's token, or its logit where the layout is `single`: (K, Q) float32."""
    layout = batch.layout
    point = torch.arange(points, device=batch.ids.device).unsqueeze(1)
    places = _spread(batch.positions, points) + point * (layout.sequences * layout.tokens)
    hidden = decode(_spread(batch.ids, points).flatten(0, 1), places.flatten())  # (K · P, D)
    owners = (_spread(batch.owners, points) + point * layout.positions).flatten()
    logits = _logits(head, hidden, owners, _spread(batch.tokens, points).flatten())
    scores = logits if layout.single else logits - _log_sums(head, hidden)[owners]
    return scores.view(points, layout.queries)


def _logits(head: "Head | Given", hidden: Tensor, owners: Tensor, tokens: Tensor) -> Tensor:
    """Logit of each query's token: (K · Q,) float32, gathering sizes.CHUNK_NUMBERS numbers of the head at once."""
    chunks = _chunks(len(tokens), sizes.CHUNK_NUMBERS // hidden.shape[1])
    return torch.cat([head.at(hidden[owners[chunk]], tokens[chunk]) for chunk in chunks])


def _log_sums(head: "Head | Given", hidden: Tensor) -> Tensor:
    """Log-sum-exp of all logits at each position: (K · P,) float32, holding about sizes.CHUNK_NUMBERS logits at once.

    In chunks of the vocabulary, so that the head, often the largest weight of all, is read once.
    """
    sums = hidden.new_full((len(hidden),), -math.inf, dtype=torch.float32)
    for chunk in _columns(head, hidden):
        sums = torch.logaddexp(sums, head(hidden, chunk).logsumexp(dim=1))
    return sums


def likeliest(head: "Head | Given", hidden: Tensor) -> Tensor:
    """The token with the largest logit at each position: (P, D) → (P,) int64, in chunks as above."""
    best = hidden.new_full((len(hidden),), -math.inf, dtype=torch.float32)
    tokens = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for chunk in _columns(head, hidden):
        top, at = head(hidden, chunk).max(dim=1)
        tokens, best = torch.where(top > best, at + chunk.start, tokens), torch.maximum(top, best)
    return tokens


def _columns(head: "Head | Given", hidden: Tensor) -> Iterator[slice]:
    """Stretches of the vocabulary, each of about sizes.CHUNK_NUMBERS logits at all positions together."""
    columns = sizes.CHUNK_NUMBERS // len(hidden) // sizes.COLUMNS * sizes.COLUMNS
    return _chunks(head.vocabulary, max(sizes.COLUMNS, columns))


def _spread(values: Tensor, points: int) -> Tensor:
    """(G, …) → (K, …): what a group's points share."""
    groups, *rest = values.shape
    return values.unsqueeze(1).expand(groups, points // groups, *rest).flatten(0, 1)


def generic(model: Any) -> Decode:
    """Any transformers model's decoder, all of it at every token."""
    decoder = model.get_decoder()

    def decode(ids: Tensor, places: Tensor) -> Tensor:
        hidden: Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
        return hidden.flatten(0, 1)[places]

    return decode


def own_logits(model: Any, copies: Callable[[], int] = lambda: 1) -> Decode:
    """The model's own logits (p, V) in the place of hidden states, for `Given`: right whatever stands behind its head.

    Logits of all tokens are made, so that few sequences of each of the `copies` points go through at once.
    """
    options = {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}
    vocabulary = int(model.config.get_text_config().vocab_size)

    def decode(ids: Tensor, places: Tensor) -> Tensor:
        rows = ids.view(copies(), -1, ids.shape[1])
        point, sequence = places // rows[0].numel(), places // ids.shape[1] % rows.shape[1]
        found: Tensor | None = None
        for chunk in _chunks(rows.shape[1], sizes.OWN_LOGITS // (len(rows) * ids.shape[1] * vocabulary)):
            some = rows[:, chunk]
            logits = model(input_ids=some.flatten(0, 1), **options).logits.flatten(0, 1)
            at = point * some[0].numel() + (sequence - chunk.start) * ids.shape[1] + places % ids.shape[1]
            inside = ((sequence >= chunk.start) & (sequence < chunk.stop)).unsqueeze(1)
            mine = logits[at.clamp(0, len(logits) - 1)]
            found = mine if found is None else torch.where(inside, mine, found)
        assert found is not None
        return found

    return decode


def mask_logits(model: Any) -> Decode:
    """An encoder's own logits (p, V), in the place of hidden states as those of `own_logits`: of the places alone.

    What the model makes of its last hidden states goes on with those that are asked for.
    """
    encoder = model.base_model

    def decode(ids: Tensor, places: Tensor) -> Tensor:
        def gather(_: Any, __: Any, output: Any) -> Any:
            output["last_hidden_state"] = output["last_hidden_state"].flatten(0, 1)[places].unsqueeze(0)
            return output

        handle = encoder.register_forward_hook(gather)
        try:
            logits: Tensor = model(input_ids=ids, attention_mask=unpadded(ids)).logits
        finally:
            handle.remove()
        return logits.squeeze(0)

    return decode


def unpadded(ids: Tensor) -> Tensor:
    """1 where a row (n, T) has text, 0 behind its end: no row of an encoder ends with the token that pads."""
    return (ids != PADDING).flip(1).cumsum(1).flip(1).clamp(max=1)


@dataclass(frozen=True)
class Given:
    """In the place of a head where a decoder gives logits already: `own_logits`, `mask_logits`."""

    vocabulary: int

    def __call__(self, logits: Tensor, tokens: slice = slice(None)) -> Tensor:
        """(…, V) → those of a stretch of tokens, float32."""
        return logits[..., tokens].float()

    def at(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """One token's logit each: (…, V) and (…) → (…) float32."""
        return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).float()


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

    def __call__(self, hidden: Tensor, tokens: slice = slice(None)) -> Tensor:
        """Logits of every token, or of a stretch of them: (…, D) → (…, V) float32."""
        logits = _float_product(hidden, self.module.weight[tokens])
        if getattr(self.module, "bias", None) is not None:
            logits += self.module.bias[tokens]
        return self._shaped(logits)

    def at(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """One token's logit each: (…, D) and (…) → (…) float32."""
        logits = (hidden.float() * self.module.weight[tokens].float()).sum(dim=-1)
        if getattr(self.module, "bias", None) is not None:
            logits += self.module.bias[tokens]
        return self._shaped(logits)

    def slope(self, logits: Tensor, g: Tensor) -> Tensor:
        """A loss's slope at the hidden states, (n, D) float32, given its slope g at the logits, both (n, V)."""
        if self.cap is not None:
            g = g * (1 - (logits / self.cap).square())
        weight = self.module.weight
        return self.scale * torch.mm(g.to(weight.dtype), weight).float()

    def _shaped(self, logits: Tensor) -> Tensor:
        logits = logits * self.scale if self.scale != 1.0 else logits
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def _float_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """hidden weightᵀ accumulated and returned in float32, without a float32 copy of the weight."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    if nvidia(weight.device) and weight.dtype != torch.float32:
        product = torch.mm(rows, weight.mT, out_dtype=torch.float32)
    else:
        product = torch.mm(rows, weight.mT).float()
    return product.view(*hidden.shape[:-1], -1)


def _chunks(total: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(first, min(first + size, total)) for first in range(0, total, size))
