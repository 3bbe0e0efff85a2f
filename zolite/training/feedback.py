"""A start for rows without labels: a gradient of the adapter from forward passes, and Adam on it.

    result = start_from_feedback_(run, most)        before the first step

A forward keeps what stands at predicted tokens; the loss's slope at the end of the stream is exact and written out, and
goes down block by block as formulas (model/feedback.py). Exact in the last block, an estimate below: what it gains it
gains within a few passes over the rows; then it stands still or learns the rows by heart, and two-point steps go on
from there. Dev decides: what was best there is kept, and where nothing was better, the adapter as it was.

N places that predict a token, V words, n trained numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zolite.common.progress import phase
from zolite.config import sizes
from zolite.data.examples import Example, Tokens, one_sequence, sizes_of
from zolite.engine.batch import Order, by_length, length, sample
from zolite.engine.engine import Engine
from zolite.model.feedback import SHARES, Chain, Slope, shares_of
from zolite.model.tail import Tail
from zolite.training.evaluate import evaluate

STEPS = 240  # at most
EVERY = 12  # steps from look to look at dev
RATES = (3e-3, 1e-3, 3e-4)  # of Adam, one after the other, each from the best adapter so far
PATIENCE = 2  # looks in a row that were no better, until the next rate
BETAS = (0.9, 0.99)
PIECE = 1 << 20  # numbers
DEV_ROWS = 64
MEASURED = 4  # batches that mean attention is measured on
HELD = 8  # texts of the model's own that are held in a step
STRIDE = 9  # they come in kinds: those of a step lie so far apart
PRICE = 1.0  # of a nat of KL there, beside a nat of the rows' loss
UNKNOWN = "no start from predicted tokens: the model's blocks are of no known form, or memory did not suffice"


def least(batch: int) -> int:
    """Rows that a start reads at the least: mean attention is measured, and dev is looked at twice."""
    return (3 * MEASURED + EVERY) * batch + 2 * DEV_ROWS


@dataclass(frozen=True)
class Places:
    """Rows as one forward, and where in it tokens are predicted."""

    ids: Tensor  # (S, T) int64
    places: Tensor  # (N,): in the S · T tokens
    tokens: Tensor  # (N,): what is predicted there
    near: Tensor  # (N, SHARES): the number of the place so many tokens behind; N where there is none

    @classmethod
    def of(cls, rows: Sequence[Example], device: torch.device) -> "Places":
        width = max(len(row.sequences[0]) for row in rows)
        ids = torch.tensor([[*row.sequences[0], *[0] * (width - len(row.sequences[0]))] for row in rows])
        found = [(i * width + q.position, q.token) for i, row in enumerate(rows) for q in row.queries]
        places = torch.tensor([place for place, _ in found])
        number = torch.full((len(rows) * width + SHARES,), len(found))
        number[places] = torch.arange(len(found))
        column = places % width
        near = torch.stack([torch.where(column + k < width, number[places + k], len(found)) for k in range(SHARES)], 1)
        tokens = torch.tensor([token for _, token in found])
        return cls(*(t.to(device) for t in (ids, places, tokens, near)))


@dataclass(frozen=True)
class Feedback:
    """The gradient at θ, and what it takes."""

    engine: Engine
    chain: Chain
    tail: Tail
    shares: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, engine: Engine, rows: Sequence[Example]) -> "Feedback | None":
        """None where the end of the model, or its last block, is of no known form. `rows`: mean attention is theirs."""
        model, ids = engine.loaded.model, torch.tensor([rows[0].sequences[0]], device=engine.loaded.device)
        engine.at_theta()
        chain = Chain.of(model, ids)
        tail = Tail.of(model, chain.groups[0][-1].out, chain.last, ids) if chain.groups else None
        return cls(engine, chain, tail)._measured(rows) if tail else None

    def _measured(self, rows: Sequence[Example]) -> "Feedback":
        made, total = torch.Generator().manual_seed(0), torch.zeros((), device=self.engine.loaded.device)
        for part in parts(self, rows):
            p = Places.of([rows[i] for i in part], self.engine.loaded.device)
            total = total + shares_of(self.chain, partial(self._decode, p), p.places, p.near, made)
        return replace(self, shares=tuple(total[:, 0] / total[:, 1].clamp(min=1e-30)) if total.numel() else ())

    def _decode(self, p: Places) -> Any:
        return self.engine.loaded.model.get_decoder()(input_ids=p.ids, use_cache=False)

    def add_(self, grad: Tensor, p: Places, share: float, base: Tensor | None = None) -> None:
        """grad (n,) += `share` times the slope of the summed loss at these places, in one forward.

        With `base` (N, D), streams that the last norm read once, the loss is KL(what was said then ‖ what is said now).
        """
        with self.chain.watched(p.places) as kept:
            stream = self.streams(p)
        slope = share * self._last(stream, p.tokens, base)
        blocks = {b.name: b.of(grad) for b in self.engine.adapter.space.blocks}
        names = {layer: name for name, layer in self.engine.adapter.layers.items()}
        for each in self.chain.down(kept, slope, self.shares, p.near):
            if each.layer in names:
                _add(blocks, names[each.layer], each, each.layer.scale)

    def streams(self, p: Places) -> Tensor:
        """What the last norm reads at the places: (N, D) float32."""
        found = list[Tensor]()
        note = lambda _, args: found.append(args[0].flatten(0, 1)[p.places].float())  # noqa: E731
        handle = self.tail.last_norm.register_forward_pre_hook(note)
        try:
            self._decode(p)
        finally:
            handle.remove()
        return found[-1]

    def _last(self, stream: Tensor, tokens: Tensor, base: Tensor | None) -> Tensor:
        """The slope of the places' summed loss at their stream behind the last block (N, D)."""
        slope = torch.empty_like(stream)
        size = max(1, sizes.START_LOGITS // self.tail.head.vocabulary)
        for i in range(0, len(tokens), size):
            cut = slice(i, i + size)
            logits = self.tail.logits(stream[cut])
            g = logits.softmax(1)
            if base is None:
                g.scatter_add_(1, tokens[cut, None], g.new_full((len(g), 1), -1.0))
            else:
                g -= self.tail.logits(base[cut].float()).softmax(1)
            slope[cut] = self.tail.final.slope(stream[cut], self.tail.head.slope(logits, g))
        return slope


def _add(blocks: Mapping[str, Tensor], name: str, at: Slope, scale: float) -> None:
    """What a layer's slope says of its A and B, those of them that are trained."""
    assert at.a is not None and at.low is not None
    if (part := blocks.get(f"{name}.b")) is not None:
        part.addmm_(at.slope.mT, at.x @ at.a.mT, alpha=scale)
    if (part := blocks.get(f"{name}.a")) is not None:
        part.addmm_(at.low.mT, at.x, alpha=scale)


@dataclass(frozen=True)
class Held:
    """Texts of the model's own, some a forward, and the streams that its last norm read of them before the start."""

    parts: tuple[tuple[Places, Tensor], ...]

    @classmethod
    def of(cls, feedback: Feedback, own: Sequence[Tokens]) -> "Held":
        rows = [one_sequence(text, range(1, len(text))) for text in own]
        rows = [row for i in range(STRIDE) for row in rows[i::STRIDE]]  # each part has texts of every kind
        groups = [rows[i : i + HELD] for i in range(0, len(rows), HELD)]
        places = [Places.of(group, feedback.engine.loaded.device) for group in groups]
        feedback.engine.at_theta()
        dtype = feedback.engine.adapter.space.copies.dtype
        return cls(tuple((p, feedback.streams(p).to(dtype)) for p in places))


@dataclass(frozen=True)
class Result:
    """What came of it, and its price."""

    before: float  # loss on dev, nats a token
    after: float
    steps: int  # until the adapter that was kept
    rows: int  # that went through the model

    @property
    def text(self) -> str:
        if not self.steps:
            return (
                "the slope that comes back from predicted tokens made nothing better on dev: started as the adapter was"
            )
        return (
            f"started along the slope that comes back from predicted tokens, {self.steps} batches: loss on dev "
            f"{self.before:.3f} → {self.after:.3f} before the first step"
        )


def start_from_feedback_(
    engine: Engine,
    examples: Mapping[str, Sequence[Example]],
    own: Sequence[Tokens],
    batch: int,
    seed: int,
    most: int,
) -> Result | None:
    """Move the adapter along that slope as long as dev's loss falls, for about `most` rows through the model.

    What is said in texts of the model's `own` is to stay. None where the model is of no form whose slope is known.
    """
    rows = examples["train"]
    order = Order(sizes_of(rows).lengths, batch, seed)
    with torch.inference_mode():
        first = [rows[i] for step in range(MEASURED) for i in order.batch_at(step)]
        feedback = None if engine.loaded.own_logits or engine.adapter.bases else Feedback.of(engine, first)
        if feedback is None:
            return None
        dev, theta = sample(examples["dev"], DEV_ROWS), engine.adapter.space.theta
        read, best = 3 * len(first) + len(dev), loss_on(engine, dev)
        held = Held.of(feedback, own)
        return Search(feedback, held, rows, dev, order, most, theta, theta.to("cpu", copy=True), best, read=read).run()


@dataclass
class Search:
    """Adam from the best adapter so far, at falling rates."""

    feedback: Feedback
    held: Held
    rows: Sequence[Example]
    dev: Sequence[Example]
    order: Order
    most: int  # rows through the model
    theta: Tensor  # (n,), the adapter's own
    kept: Tensor  # (n,), on the host
    best: float
    step: int = 0  # of `kept`
    read: int = 0  # rows through the model

    def run(self) -> Result:
        before = self.best
        try:
            with phase("starting along predicted tokens: rows read", self.most) as read:
                for rate in RATES:
                    self._descend(rate, read)
        finally:
            self.theta.copy_(self.kept)
            self.feedback.engine.at_theta()
        return Result(before, self.best, self.step, self.read)

    def _descend(self, rate: float, told: Callable[[int], None]) -> None:
        """From `kept`, until PATIENCE looks in a row were no better."""
        self.theta.copy_(self.kept)
        grad, *moments = (torch.zeros_like(self.theta) for _ in range(3))
        step, missed, first = 0, 0, self.step
        while missed < PATIENCE and first + step < STEPS and self.read < self.most:
            for _ in range(EVERY):
                step += 1
                number = first + step - 1
                gradient_(grad.zero_(), self.feedback, [self.rows[i] for i in self.order.batch_at(number)])
                pull_(grad, self.feedback, self.held, number)
                adam_(self.theta, grad, moments, step, rate)
                self.read += self.order.size + HELD
                told(self.read)
            self.read += len(self.dev)
            now = loss_on(self.feedback.engine, self.dev)
            missed += 1
            if now < self.best:
                self.best, self.step, missed = now, first + step, 0
                self.kept.copy_(self.theta)


def loss_on(engine: Engine, rows: Sequence[Example]) -> float:
    """Nats a token."""
    return evaluate(engine, rows, "dev", 0).value


def gradient_(grad: Tensor, feedback: Feedback, rows: Sequence[Example]) -> None:
    """grad (n,) += the slope of the mean loss of these rows' tokens at θ."""
    feedback.engine.at_theta()
    share = 1 / sum(len(row.queries) for row in rows)
    for part in parts(feedback, rows):
        feedback.add_(grad, Places.of([rows[i] for i in part], feedback.engine.loaded.device), share)


def pull_(grad: Tensor, feedback: Feedback, held: Held, step: int) -> None:
    """grad += PRICE times the slope of the mean KL at one of the held parts."""
    if held.parts:
        p, base = held.parts[step % len(held.parts)]
        feedback.add_(grad, p, PRICE / len(p.tokens), base)


def parts(feedback: Feedback, rows: Sequence[Example]) -> list[list[int]]:
    """Row numbers in forwards of about START_TOKENS tokens that keep about START_KEPT bytes."""
    a_place = sum(half.numbers for half in feedback.chain.halves) * feedback.engine.adapter.space.copies.element_size()
    most = max(1, sizes.START_KEPT // a_place)
    fuller = max(len(row.queries) / length(row) for row in rows)  # places a token, at most
    return by_length([length(row) for row in rows], max(1, min(sizes.START_TOKENS, int(most / fuller))))


def adam_(theta: Tensor, grad: Tensor, moments: Sequence[Tensor], step: int, rate: float) -> None:
    """A step of Adam (Kingma and Ba 2015, arXiv 1412.6980), counted from 1; in pieces, so that it takes no memory."""
    for part, slope, mean, square in zip(*(torch.split(t, PIECE) for t in (theta, grad, *moments)), strict=True):
        mean.lerp_(slope, 1 - BETAS[0])
        square.lerp_(slope.square(), 1 - BETAS[1])
        size = (square / (1 - BETAS[1] ** step)).sqrt_().add_(1e-12)
        part.addcdiv_(mean / (1 - BETAS[0] ** step), size, value=-rate)
