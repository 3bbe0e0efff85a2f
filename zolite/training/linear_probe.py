"""A start in closed form: what linear probes of the layers' features already know, as adapter numbers.

    result = start_from_probe_(engine, examples, most)     before the first step

A layer's adapter adds ΔW x to the layer's output for its inputs x. How the labels' scores, mean log-probabilities of
their tokens, move with a layer's output where the label begins is measured: each row is pushed there in a random
direction, forwards and backwards, and the mean derivative J (C, D) is what fits the differences. With U = J⁺, ΔW = U W
moves the scores by W x, as far as later layers are linear, and the best W for features as they are is a multinomial
logistic regression: convex, with a gradient written down, and as cheap as one forward for every row. With C labels its
rank is C − 1, which goes into the layer's own adapter. W is held to directions along which other tokens' features are
small, since an adapter acts on them as well.

Layer by layer, the most promising first, each fits what those before it have left, and stays if the model itself then
predicts dev better. What forward-only steps find slowly, which features speak for which label, is there before them.

R rows, C labels, D outputs of a layer, F inputs, N other tokens, r rank.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zolite.common.progress import phase
from zolite.data.examples import Example
from zolite.engine.batch import by_length, collate, length, sample
from zolite.engine.engine import Engine
from zolite.model.load import Loaded
from zolite.model.lora import PerturbedLinear
from zolite.model.loss import Tokens as Batch
from zolite.model.loss import candidate_scores
from zolite.model.proof import not_finite

DEPTH = 0.6  # of the model's blocks, counted from the last: those before hold little that is linear in the label
MISSES = 3  # layers in a row whose probe did not help the model, until the search ends
LEAST = 0.002  # of dev's loss that a layer must be worth
MOST_ROWS = 4096  # more teach a linear probe little
ROOM = 2**31  # bytes of features, in the host's memory
TOKENS = 4096  # a forward
PUSHED = 512  # rows at most that a derivative is measured on
PUSH = 0.1  # length of a push, over that of the stream there
RIDGE = 0.05  # ridge of the derivative's fit, a row
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # on features of unit size over √F, strongest first
ROUNDS = 100  # of L-BFGS, for each
SCREENING = 1e-3, 15  # ridge and rounds of the fits that rank layers
INTERCEPT = 3.0  # size of the feature that is alike for all rows, so that a ridge hardly holds it back
OTHERS = 128  # sequences, about, of which two or three other tokens are taken
REGULARIZER = 0.1  # weight of the probe's output at other tokens, against that at the label's place


@dataclass(frozen=True)
class ProbedLayer:
    """A layer that writes into the residual stream, and the block that it is part of."""

    name: str
    linear: PerturbedLinear
    block: nn.Module


@dataclass(frozen=True)
class Sequences:
    """A few rows' sequences on the device, S of them, as many of each row."""

    rows: list[int]  # their numbers
    ends: Tensor  # (S,): where the label begins to be predicted
    lengths: Tensor  # (S,)
    scores: Callable[[], Tensor]  # takes a forward: of their labels (rows, C) float32

    @property
    def each(self) -> int:
        """Sequences of a row."""
        return len(self.ends) // len(self.rows)

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """The same as `ends`, in (S, T, …)."""
        return torch.arange(len(self.ends), device=self.ends.device), self.ends


@dataclass(frozen=True)
class Features:
    """The layers' inputs where some rows' label is predicted; on the host, where small sums are quicker."""

    xs: dict[str, Tensor]  # (R, F) of each layer
    others: dict[str, Tensor]  # (N, F): the same of some of their other tokens
    scores: Tensor  # (R, C) float32
    answers: Tensor  # (R,)

    @property
    def loss(self) -> float:
        return float(F.cross_entropy(self.scores, self.answers))


@dataclass(frozen=True)
class Result:
    """What came of a linear-probe start: one sentence, empty where no layer was worth it, and its price."""

    text: str
    rows: int  # that went through the model, as forwards of one row each
    loss: float = math.nan  # on dev, afterwards


def start_from_probe_(
    engine: Engine,
    examples: dict[str, Sequence[Example]],
    most: int,
    left: Mapping[str, int] | None = None,
) -> Result:
    """Put linear probes into layers whose adapter says nothing yet, one by one, as long as dev's loss improves.

    After the first layer another is tried only while fewer than `most` rows have gone through the model. `left`: layers
    whose last so many rows of A they leave.
    """
    layers = [layer for layer in find(engine) if not taken(engine, layer)]
    if not layers or examples["train"][0].candidates == 1:
        return Result("", 0)
    with torch.inference_mode(), phase("linear probes of the layers"):
        search = Search.of(engine, layers, examples, most, left or {})
        while (found := search.best()) is not None:
            search.install(*found)
        return search.result()


@dataclass
class Search:
    """The layers not tried yet, and what the rows look like with the probes that were kept."""

    engine: Engine
    layers: list[ProbedLayer]
    rows: Sequence[Example]  # of train
    held_out: Sequence[Example]  # of dev
    most: int
    left: Mapping[str, int]
    train: Features
    dev: Features
    first_loss: float  # on dev, before any probe
    forwards: int  # of one row each
    kept: int = 0
    misses: int = 0  # in a row

    @classmethod
    def of(
        cls,
        engine: Engine,
        layers: list[ProbedLayer],
        examples: dict[str, Any],
        most: int,
        left: Mapping[str, int],
    ) -> "Search":
        room = min(MOST_ROWS, ROOM // (8 * sum(each.linear.a.shape[-1] for each in layers)))
        rows, held_out = sample(examples["train"], room), sample(examples["dev"], room)
        train, dev = features_of(engine, rows, layers), features_of(engine, held_out, layers)
        return cls(engine, layers, rows, held_out, most, left, train, dev, dev.loss, len(rows) + len(held_out))

    def best(self) -> tuple[ProbedLayer, Tensor] | None:
        """The layer whose probe predicts dev best, with its weights (C, F); None where none is worth trying."""
        affordable = self.forwards < self.most or not self.kept + self.misses
        if not self.layers or self.misses >= MISSES or not affordable:
            return None
        layer = min(self.layers, key=lambda each: fit(self.train, self.dev, each, *SCREENING)[1])
        weight, expected = fit(self.train, self.dev, layer)
        return (layer, weight) if expected < (1 - LEAST) * self.dev.loss else None

    def install(self, layer: ProbedLayer, weight: Tensor) -> None:
        """Put a probe into its layer's adapter; it stays if the model itself then predicts dev better."""
        before = _factors(self.engine, layer)
        pushed = sample(self.rows, min(PUSHED, max(PUSHED // 4, self.most // 32)))
        directions, room = (
            output_directions(self.engine, layer, pushed),
            len(layer.linear.a) - self.left.get(layer.name, 0),
        )
        install_(self.engine, layer, self.train.xs[layer.name], directions, weight, slice(0, room))
        self.layers = [other for other in self.layers if other is not layer]
        now = features_of(self.engine, self.held_out, self.layers)
        self.forwards += 2 * len(pushed) + len(self.held_out)
        if not now.loss < (1 - LEAST) * self.dev.loss:  # not a number, perhaps
            self.misses += 1
            self.engine.adapter.put_(before)
            self.engine.adapter.moved.discard(f"{layer.name}.a")  # it is as it was drawn again
            return
        self.kept, self.misses, self.dev = self.kept + 1, 0, now
        if self.forwards < self.most:
            self.train = features_of(self.engine, self.rows, self.layers)
            self.forwards += len(self.rows)

    def result(self) -> Result:
        if not self.kept:
            return Result("", self.forwards, self.dev.loss)
        layers = "1 layer" if self.kept == 1 else f"{self.kept} layers"
        loss = f"loss on dev {self.first_loss:.3f} → {self.dev.loss:.3f} before the first step"
        text = f"started from a linear probe of {len(self.rows)} rows in {layers}: {loss}"
        return Result(text, self.forwards, self.dev.loss)


def loss_on(engine: Engine, rows: Sequence[Example]) -> float:
    """What a search compares: mean cross-entropy of the right label among all, of MOST_ROWS rows at most."""
    with torch.inference_mode():
        return features_of(engine, sample(rows, MOST_ROWS), ()).loss


def find(engine: Engine) -> list[ProbedLayer]:
    """Layers with an adapter that write into the stream: the last of each part of a block that is as wide as it."""
    if engine.adapter.bases:
        return []
    width, blocks = _stream(engine.loaded)
    users = {layer.base: (name, layer) for name, layer in engine.adapter.layers.items()}
    return [
        ProbedLayer(*users[last], block)
        for block in blocks[-max(1, round(DEPTH * len(blocks))) :]
        for part in block.children()
        for last in [m for m in part.modules() if getattr(m, "out_features", 0) == width][-1:]
        if last in users
    ]


def _stream(loaded: Loaded) -> tuple[int, list[Any]]:
    """(width of the residual stream, the blocks that write into it, in their order)."""
    model = loaded.model
    if loaded.encoder:  # whose blocks lie deeper, and whose head may be narrower
        stacks = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m)]
        return int(model.config.hidden_size), list(stacks[0]) if stacks else []
    stacks = [m for m in model.get_decoder().children() if isinstance(m, nn.ModuleList) and len(m)]
    return int(model.get_output_embeddings().weight.shape[1]), list(stacks[-1]) if stacks else []


def _sequences(engine: Engine, rows: Sequence[Example]) -> Iterator[Sequences]:
    """Rows at θ, in batches."""
    engine.at_theta()
    device, decode, head = engine.loaded.device, engine.plain, engine.head
    for batch in by_length([length(row) for row in rows], TOKENS):
        some = [rows[i] for i in batch]
        tokens = engine.put(collate(some))
        ends = [min(q.position for q in row.queries) for row in some for _ in row.sequences]
        lengths = [len(sequence) for row in some for sequence in row.sequences]

        def scores(tokens: Batch = tokens, some: Sequence[Example] = some) -> Tensor:
            return engine.compared(candidate_scores(decode, head, tokens, 1)[0], tokens, some)

        yield Sequences(batch, torch.tensor(ends, device=device), torch.tensor(lengths, device=device), scores)


def features_of(engine: Engine, rows: Sequence[Example], layers: Sequence[ProbedLayer]) -> Features:
    """One forward of every row."""
    made, every = torch.Generator().manual_seed(0), max(1, len(rows) * len(rows[0].sequences) // OTHERS)
    order: list[int] = []
    scores: list[Tensor] = []
    xs: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    others: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    for part in _sequences(engine, rows):
        with _inputs(layers, len(part.ends), (_own(part), _other(part, every, made))) as got:
            scores.append(part.scores().cpu())
        for name, (mine, other) in got.items():
            xs[name].append(mine.cpu())
            others[name].append(other.cpu())
        order += part.rows
    back = torch.tensor(order).argsort()
    answers = torch.tensor([row.answer for row in rows])
    if any(bool(each.isnan().any()) for each in scores):
        raise not_finite("scores of some rows' labels", engine.adapter.space.copies.dtype)
    sorted_ = {name: torch.cat(parts)[back] for name, parts in xs.items()}
    return Features(sorted_, {n: torch.cat(p) for n, p in others.items()}, torch.cat(scores)[back], answers)


def _own(part: Sequences) -> tuple[Tensor, Tensor]:
    """The label's place in the first sequence of each row: up to there they are all alike."""
    which, ends = part.places
    return which[:: part.each], ends[:: part.each]


def _other(part: Sequences, every: int, made: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of some rows' sequences a token before the label, the first one, which is like no other, and the label's last."""
    which = [
        s for i, row in enumerate(part.rows) if row % every == 0 for s in range(i * part.each, (i + 1) * part.each)
    ]
    some = torch.tensor(which, dtype=torch.long, device=part.ends.device)
    ends, last = part.ends[some], part.lengths[some] - 1
    before = (torch.rand(len(some), generator=made).to(ends.device) * ends).long()
    behind = last > ends  # a label of one token is not read
    return torch.cat([some, some, some[behind]]), torch.cat([before, torch.zeros_like(before), last[behind]])


@contextmanager
def _inputs(
    layers: Sequence[ProbedLayer], sequences: int, places: Sequence[tuple[Tensor, Tensor]]
) -> Iterator[dict[str, list[Tensor]]]:
    """The layers' inputs at some places in the forward inside; all of them would be larger than the model."""
    got: dict[str, list[Tensor]] = {}

    def take(name: str, x: Tensor) -> None:
        tokens = x.view(sequences, -1, x.shape[-1])
        got[name] = [tokens[place] for place in places]

    handles = [s.linear.register_forward_pre_hook(lambda _, x, s=s: take(s.name, x[0])) for s in layers]
    try:
        yield got
    finally:
        for handle in handles:
            handle.remove()


def output_directions(engine: Engine, layer: ProbedLayer, rows: Sequence[Example]) -> Tensor:
    """What a layer's output must change by at the label's place to move one label's score alone: (D, C)."""
    width = layer.linear.b.shape[-2]
    direction = torch.randn(len(rows), width, generator=torch.Generator().manual_seed(0))
    derivatives = torch.empty(len(rows), rows[0].candidates)
    for part in _sequences(engine, rows):
        here = direction[part.rows].to(part.ends.device)
        with _pushed(layer, here, part) as sizes:
            up = part.scores()
        with _pushed(layer, -here, part):
            derivatives[part.rows] = ((up - part.scores()) / (2 * sizes[0])).cpu()
    derivatives = torch.nan_to_num(derivatives - derivatives.mean(1, keepdim=True), 0, 0, 0)
    soft = RIDGE * len(rows) * torch.eye(width)
    derivative = torch.linalg.solve(direction.mT @ direction + soft, direction.mT @ derivatives).mT
    found: Tensor = torch.linalg.pinv(derivative, rtol=1e-3)
    return found


@contextmanager
def _pushed(layer: ProbedLayer, direction: Tensor, part: Sequences) -> Iterator[list[Tensor]]:
    """Adds to a layer's output at the rows' ends, inside; the lengths (rows, 1) of the pushes are in the list."""
    sizes: list[Tensor] = []

    def measure(_: nn.Module, args: Any, kwargs: Any) -> None:
        stream = args[0] if args else kwargs["hidden_states"]
        sizes.append(PUSH * stream[_own(part)].float().square().mean(1, keepdim=True).sqrt())

    def push(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        pushes = (sizes[0] * direction).to(output.dtype).repeat_interleave(part.each, dim=0)
        output.view(len(part.ends), -1, output.shape[-1])[part.places] += pushes
        return output

    handles = [
        layer.block.register_forward_pre_hook(measure, with_kwargs=True),
        layer.linear.register_forward_hook(push),
    ]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class FeatureScale:
    """Features of unit size, and smaller along what other tokens have much of: x (1/unit) (1 + Q (shrink − 1) Qᵀ)."""

    unit: Tensor  # (F,)
    main: Tensor  # (F, N) orthonormal
    shrink: Tensor  # (N,)

    @classmethod
    def of(cls, x: Tensor, others: Tensor) -> "FeatureScale":
        unit = x.square().mean(0).sqrt().clamp(min=1e-6) * x.shape[1] ** 0.5
        others = (others / unit).double() * (REGULARIZER * x.shape[1] / len(others)) ** 0.5
        squares, vectors = torch.linalg.eigh(others @ others.mT)  # some are a thousand times others, squared a million
        squares = squares.clamp(min=1e-12 * float(squares[-1]))
        main = others.mT @ vectors / squares.sqrt()
        return cls(unit, main.to(x), (1 + squares).rsqrt().to(x))

    def scaled(self, x: Tensor) -> Tensor:
        """Features (R, F)."""
        return self._shrunk(x / self.unit)

    def back(self, weight: Tensor) -> Tensor:
        """Weights (C, F) on such features as weights on plain ones."""
        return self._shrunk(weight) / self.unit

    def _shrunk(self, x: Tensor) -> Tensor:
        return x + (x @ self.main) * (self.shrink - 1) @ self.main.mT


def fit(
    train: Features, dev: Features, layer: ProbedLayer, ridge: float | None = None, rounds: int = ROUNDS
) -> tuple[Tensor, float]:
    """Weights (C, F) that make scores + x Wᵀ predict dev best, and its loss then.

    Ridge by ridge, each from where the stronger one ended; or one alone.
    """
    inputs = (train.xs[layer.name], train.others[layer.name], dev.xs[layer.name])
    x, others, y = (torch.nan_to_num(t.float(), 0, 0, 0) for t in inputs)  # what overflows is left out
    scale = FeatureScale.of(x, others)
    x, y = scale.scaled(x), scale.scaled(y)
    mean = x.mean(0)
    level = INTERCEPT * mean / mean.square().sum().clamp(min=1e-30)  # of a row: INTERCEPT, about, whatever the row
    x, y = (torch.cat([rows, rows @ level[:, None]], 1) for rows in (x, y))
    weight = best = x.new_zeros(train.scores.shape[1], x.shape[1])
    least = float("inf")
    for strength in (ridge,) if ridge else RIDGES:
        weight = _fit(x, train.scores, train.answers, strength, weight, rounds)
        loss = float(F.cross_entropy(dev.scores + y @ weight.mT, dev.answers))
        if loss < least:
            best, least = weight, loss
    best = best - best.mean(0)  # which changes no probability
    return scale.back(best[:, :-1] + best[:, -1:] * level), least


def _fit(x: Tensor, scores: Tensor, answers: Tensor, ridge: float, start: Tensor, rounds: int) -> Tensor:
    """Weights (C, F) of least cross-entropy of scores + x Wᵀ plus ridge · |W|², by L-BFGS with the gradient written."""
    w, onehot = start.clone(), F.one_hot(answers, scores.shape[1]).to(x)
    solver = torch.optim.LBFGS([w], max_iter=rounds, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> float:
        logits = scores + x @ w.mT
        w.grad = (logits.softmax(1) - onehot).mT @ x / len(x) + 2 * ridge * w
        return float(F.cross_entropy(logits, answers) + ridge * w.square().sum())

    solver.step(loss)  # type: ignore[no-untyped-call]
    return w


def _factors(engine: Engine, layer: ProbedLayer) -> dict[str, Tensor]:
    factors = engine.adapter.factors(engine.adapter.space.theta)
    return {name: factors[name].clone() for name in (f"{layer.name}.a", f"{layer.name}.b")}


def install_(engine: Engine, layer: ProbedLayer, x: Tensor, directions: Tensor, weight: Tensor, room: slice) -> None:
    """ΔW = directions (D, C) · weight (C, F) into some rows of the layer's A and columns of its B, as many as it takes.

    Each row of A is made as long as those drawn are: of x, they see as much.
    """
    a, b = _factors(engine, layer).values()
    x, directions, weight = x.to(a), directions.to(a), weight.to(a)
    q, inner = torch.linalg.qr(directions)
    u, s, v = torch.linalg.svd(inner @ weight, full_matrices=False)
    k = min(room.stop - room.start, int((s > 1e-4 * s[0]).sum()))
    u, v, rows = q @ u, v.mT, slice(room.start, room.start + k)
    lengths = (x @ v[:, :k]).square().mean(0).sqrt().clamp(min=1e-12)
    usual = (x @ a.mT).square().mean().sqrt()
    a[rows] = (v[:, :k] * (usual / lengths)).mT
    b[:, rows] = u[:, :k] * (s[:k] * lengths / usual / layer.linear.scale)
    engine.adapter.put_({f"{layer.name}.a": a, f"{layer.name}.b": b})


def taken(engine: Engine, layer: ProbedLayer) -> int:
    """Rows of a layer's A, its first, that say something."""
    _, b = _factors(engine, layer).values()
    return int(b.any(0).sum())
