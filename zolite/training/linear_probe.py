"""A start in closed form: what linear probes of the layers' features already know, as adapter numbers.

    note, rows = probe_start_(engine, examples, most)     before the first step; "" where there is none

A layer's adapter adds ΔW x to what the layer says of its inputs x. How the labels' scores, mean log-probabilities of
their tokens, move with what a layer says where the label begins is measured: each row is pushed there in a random
direction, forwards and backwards, and the mean derivative J (C, D) is what fits the differences. With U = J⁺, ΔW = U W
moves the scores by W x, as far as later layers are linear, and the best W for features as they are is a multinomial
logistic regression: convex, with a gradient written down, and as cheap as one forward for every row. With C labels its
rank is C − 1, which goes into the layer's own adapter. W is held to directions in which other tokens say little, since
an adapter acts on them as well.

Site by site, the most promising first, each fits what those before it have left, and stays if the model itself then
predicts dev better. What forward-only steps find slowly, which features speak for which label, is there before them.

R rows, C labels, D outputs of a layer, F inputs, N other tokens, r rank.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zolite.data.examples import Example
from zolite.engine.batch import by_length, collate, length, sample
from zolite.engine.engine import Engine
from zolite.model.lora import PerturbedLinear
from zolite.model.loss import Head, Tokens, candidate_scores, generic

DEPTH = 0.6  # of the model's blocks, counted from the last: those before say little that is linear in the label
MISSES = 3  # sites, one after the other, that promised more than they kept, until it ends
LEAST = 0.002  # of dev's loss that a site must be worth
MOST_ROWS = 4096  # more teach a linear probe little
ROOM = 2**31  # bytes of features, in the host's memory
TOKENS = 4096  # a forward
PUSHED = 512  # rows at most that a derivative is measured on
PUSH = 0.1  # length of a push, over that of the stream there
SOFT = 0.05  # ridge of the derivative's fit, a row
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # on features of unit size over √F, strongest first
ROUNDS = 100  # of L-BFGS, for each
GLANCE = 1e-3, 15  # ridge and rounds that tell promising sites from others
LEVEL = 3.0  # size of the feature that is alike for all rows, so that a ridge hardly holds it back
OTHERS = 128  # sequences, about, that two or three other tokens are looked at of
QUIET = 0.1  # weight of what is said of other tokens, against what is said of the label's place


@dataclass(frozen=True)
class Site:
    """A layer that writes into the stream, and the block that it is part of."""

    name: str
    layer: PerturbedLinear
    block: nn.Module


@dataclass(frozen=True)
class Part:
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
class Seen:
    """What some rows look like where their label is predicted; on the host, where small sums are made sooner."""

    xs: dict[str, Tensor]  # (R, F) of each site
    others: dict[str, Tensor]  # (N, F): the same of some of their other tokens
    scores: Tensor  # (R, C) float32
    answers: Tensor  # (R,)

    @property
    def loss(self) -> float:
        return float(F.cross_entropy(self.scores, self.answers))


def probe_start_(engine: Engine, examples: dict[str, Sequence[Example]], most: int) -> tuple[str, int]:
    """Put a linear probe into the adapter. What came of it, in words, and how many rows went through the model.

    After the first site another is tried only while those are fewer than `most`.
    """
    sites = find(engine)
    if not sites or examples["train"][0].candidates == 1:
        return "", 0
    with torch.inference_mode():
        return _site_by_site(engine, sites, examples, most)


def _site_by_site(
    engine: Engine, sites: list[Site], examples: dict[str, Sequence[Example]], most: int
) -> tuple[str, int]:
    room = min(MOST_ROWS, ROOM // (8 * sum(site.layer.a.shape[-1] for site in sites)))
    rows, held = sample(examples["train"], room), sample(examples["dev"], room)
    train, dev = _seen(engine, rows, sites), _seen(engine, held, sites)
    first, kept, misses, count = dev.loss, 0, 0, len(rows) + len(held)
    pushed = sample(rows, min(PUSHED, max(PUSHED // 4, most // 32)))
    while sites and misses < MISSES and (count < most or not kept + misses):
        site = min(sites, key=lambda s: fit(train, dev, s, *GLANCE)[1])
        weight, expected = fit(train, dev, site)
        if not expected < (1 - LEAST) * dev.loss:
            break
        old = _factors(engine, site)
        install_(engine, site, train.xs[site.name], outwards(engine, site, pushed), weight)
        sites = [other for other in sites if other is not site]
        now = _seen(engine, held, sites)
        count += 2 * len(pushed) + len(held)
        better = now.loss < (1 - LEAST) * dev.loss  # not a number, perhaps
        kept, misses = kept + better, 0 if better else misses + 1
        dev = now if better else dev
        if not better:
            engine.adapter.put_(old)
            engine.adapter.moved.discard(f"{site.name}.a")  # it is as it was drawn again
        elif count < most:
            train, count = _seen(engine, rows, sites), count + len(rows)
    layers = "1 layer" if kept == 1 else f"{kept} layers"
    text = f"a linear probe of {len(rows)} rows in {layers}: loss on dev {first:.3f} → {dev.loss:.3f}"
    return (f"{text} before the first step" if kept else ""), count


def find(engine: Engine) -> list[Site]:
    """Layers with an adapter that write into the stream: the last of each part of a block that is as wide as it."""
    if engine.adapter.bases:
        return []
    width = engine.loaded.model.get_output_embeddings().weight.shape[1]
    stacks = [m for m in engine.loaded.model.get_decoder().children() if isinstance(m, nn.ModuleList) and len(m)]
    users = {layer.base: (name, layer) for name, layer in engine.adapter.layers.items()}
    blocks: list[Any] = list(stacks[-1]) if stacks else []
    return [
        Site(*users[last], block)
        for block in blocks[-max(1, round(DEPTH * len(blocks))) :]
        for part in block.children()
        for last in [m for m in part.modules() if getattr(m, "out_features", 0) == width][-1:]
        if last in users
    ]


def _parts(engine: Engine, rows: Sequence[Example]) -> Iterator[Part]:
    """Rows at θ, in batches."""
    engine.at_theta()
    model, device = engine.loaded.model, engine.loaded.device
    decode, head = generic(model), Head.of(model)
    for batch in by_length([length(row) for row in rows], TOKENS):
        some = [rows[i] for i in batch]
        tokens = engine.put(collate(some))
        ends = [min(q.position for q in row.queries) for row in some for _ in row.sequences]
        lengths = [len(sequence) for row in some for sequence in row.sequences]

        def scores(tokens: Tokens = tokens) -> Tensor:
            return candidate_scores(decode, head, tokens, 1)[0]

        yield Part(batch, torch.tensor(ends, device=device), torch.tensor(lengths, device=device), scores)


def _seen(engine: Engine, rows: Sequence[Example], sites: Sequence[Site]) -> Seen:
    """One forward of every row."""
    made, every = torch.Generator().manual_seed(0), max(1, len(rows) * len(rows[0].sequences) // OTHERS)
    order: list[int] = []
    scores: list[Tensor] = []
    xs: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    others: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    for part in _parts(engine, rows):
        with _inputs(sites, part, (_own(part), _other(part, every, made))) as got:
            scores.append(part.scores().cpu())
        for name, (own, other) in got.items():
            xs[name].append(own.cpu())
            others[name].append(other.cpu())
        order += part.rows
    back = torch.tensor(order).argsort()
    answers = torch.tensor([row.answer for row in rows])
    sorted_ = {name: torch.cat(parts)[back] for name, parts in xs.items()}
    return Seen(sorted_, {n: torch.cat(p) for n, p in others.items()}, torch.cat(scores)[back], answers)


def _own(part: Part) -> tuple[Tensor, Tensor]:
    """The label's place in the first sequence of each row: up to there they are all alike."""
    which, ends = part.places
    return which[:: part.each], ends[:: part.each]


def _other(part: Part, every: int, made: torch.Generator) -> tuple[Tensor, Tensor]:
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
    sites: Sequence[Site], part: Part, places: Sequence[tuple[Tensor, Tensor]]
) -> Iterator[dict[str, list[Tensor]]]:
    """What the sites read at some places in the forward inside: all that they read would be larger than the model."""
    got: dict[str, list[Tensor]] = {}

    def look(name: str, x: Tensor) -> None:
        tokens = x.view(len(part.ends), -1, x.shape[-1])
        got[name] = [tokens[place] for place in places]

    handles = [s.layer.register_forward_pre_hook(lambda _, x, s=s: look(s.name, x[0])) for s in sites]
    try:
        yield got
    finally:
        for handle in handles:
            handle.remove()


def outwards(engine: Engine, site: Site, rows: Sequence[Example]) -> Tensor:
    """What a site has to say at the label's place to move one label's score alone, against the mean's: (D, C)."""
    width = site.layer.b.shape[-2]
    way = torch.randn(len(rows), width, generator=torch.Generator().manual_seed(0))
    slopes = torch.empty(len(rows), rows[0].candidates)
    for part in _parts(engine, rows):
        here = way[part.rows].to(part.ends.device)
        with _pushed(site, here, part) as sizes:
            up = part.scores()
        with _pushed(site, -here, part):
            slopes[part.rows] = ((up - part.scores()) / (2 * sizes[0])).cpu()
    slopes = torch.nan_to_num(slopes - slopes.mean(1, keepdim=True), 0, 0, 0)
    soft = SOFT * len(rows) * torch.eye(width)
    derivative = torch.linalg.solve(way.mT @ way + soft, way.mT @ slopes).mT
    found: Tensor = torch.linalg.pinv(derivative, rtol=1e-3)
    return found


@contextmanager
def _pushed(site: Site, way: Tensor, part: Part) -> Iterator[list[Tensor]]:
    """Adds to what a site says at the rows' ends, inside; the lengths (rows, 1) of the steps are in the list."""
    sizes: list[Tensor] = []

    def measure(_: nn.Module, args: Any, kwargs: Any) -> None:
        stream = args[0] if args else kwargs["hidden_states"]
        sizes.append(PUSH * stream[_own(part)].float().square().mean(1, keepdim=True).sqrt())

    def push(_: nn.Module, __: Any, said: Tensor) -> Tensor:
        said = said.clone()
        pushes = (sizes[0] * way).to(said.dtype).repeat_interleave(part.each, dim=0)
        said.view(len(part.ends), -1, said.shape[-1])[part.places] += pushes
        return said

    handles = [site.block.register_forward_pre_hook(measure, with_kwargs=True), site.layer.register_forward_hook(push)]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Measure:
    """Features of unit size, and smaller along what other tokens have much of: x (1/unit) (1 + Q (shrink − 1) Qᵀ)."""

    unit: Tensor  # (F,)
    main: Tensor  # (F, N) orthonormal
    shrink: Tensor  # (N,)

    @classmethod
    def of(cls, x: Tensor, others: Tensor) -> "Measure":
        unit = x.square().mean(0).sqrt().clamp(min=1e-6) * x.shape[1] ** 0.5
        others = (others / unit).double() * (QUIET * x.shape[1] / len(others)) ** 0.5
        squares, turn = torch.linalg.eigh(others @ others.mT)  # some are a thousand times others, squared a million
        squares = squares.clamp(min=1e-12 * float(squares[-1]))
        main = others.mT @ turn / squares.sqrt()
        return cls(unit, main.to(x), (1 + squares).rsqrt().to(x))

    def inwards(self, x: Tensor) -> Tensor:
        """Features (R, F)."""
        return self._shrunk(x / self.unit)

    def back(self, weight: Tensor) -> Tensor:
        """Weights (C, F) on such features as weights on plain ones."""
        return self._shrunk(weight) / self.unit

    def _shrunk(self, x: Tensor) -> Tensor:
        return x + (x @ self.main) * (self.shrink - 1) @ self.main.mT


def fit(train: Seen, dev: Seen, site: Site, ridge: float | None = None, rounds: int = ROUNDS) -> tuple[Tensor, float]:
    """Weights (C, F) that make scores + x Wᵀ predict dev best, and its loss then.

    Ridge by ridge, each from where the stronger one ended; or one alone.
    """
    seen = (train.xs[site.name], train.others[site.name], dev.xs[site.name])
    x, others, y = (torch.nan_to_num(t.float(), 0, 0, 0) for t in seen)  # what overflows says nothing
    measure = Measure.of(x, others)
    x, y = measure.inwards(x), measure.inwards(y)
    mean = x.mean(0)
    level = LEVEL * mean / mean.square().sum().clamp(min=1e-30)  # of a row: LEVEL, about, whatever the row
    x, y = (torch.cat([rows, rows @ level[:, None]], 1) for rows in (x, y))
    weight = best = x.new_zeros(train.scores.shape[1], x.shape[1])
    least = float("inf")
    for strength in (ridge,) if ridge else RIDGES:
        weight = _fit(x, train.scores, train.answers, strength, weight, rounds)
        loss = float(F.cross_entropy(dev.scores + y @ weight.mT, dev.answers))
        if loss < least:
            best, least = weight, loss
    best = best - best.mean(0)  # which changes no probability
    return measure.back(best[:, :-1] + best[:, -1:] * level), least


def _fit(x: Tensor, scores: Tensor, answers: Tensor, ridge: float, start: Tensor, rounds: int) -> Tensor:
    """Weights (C, F) of least cross-entropy of scores + x Wᵀ plus ridge · |W|², by L-BFGS with the gradient written."""
    w, onehot = start.clone(), F.one_hot(answers, scores.shape[1]).to(x)
    solver = torch.optim.LBFGS([w], max_iter=rounds, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> float:
        said = scores + x @ w.mT
        w.grad = (said.softmax(1) - onehot).mT @ x / len(x) + 2 * ridge * w
        return float(F.cross_entropy(said, answers) + ridge * w.square().sum())

    solver.step(loss)  # type: ignore[no-untyped-call]
    return w


def _factors(engine: Engine, site: Site) -> dict[str, Tensor]:
    factors = engine.adapter.factors(engine.adapter.space.theta)
    return {name: factors[name].clone() for name in (f"{site.name}.a", f"{site.name}.b")}


def install_(engine: Engine, site: Site, x: Tensor, outwards: Tensor, weight: Tensor) -> None:
    """ΔW = outwards (D, C) · weight (C, F) into the layer's first rows of A and columns of B, as far as its rank goes.

    Each row of A is made as long as those drawn are: of x, they see as much.
    """
    a, b = _factors(engine, site).values()
    x, outwards, weight = x.to(a), outwards.to(a), weight.to(a)
    q, inner = torch.linalg.qr(outwards)
    u, s, v = torch.linalg.svd(inner @ weight, full_matrices=False)
    k = min(len(a), int((s > 1e-4 * s[0]).sum()))
    u, v = q @ u, v.mT
    lengths = (x @ v[:, :k]).square().mean(0).sqrt().clamp(min=1e-12)
    usual = (x @ a.mT).square().mean().sqrt()
    a[:k] = (v[:, :k] * (usual / lengths)).mT
    b[:, :k] = u[:, :k] * (s[:k] * lengths / usual / site.layer.scale)
    engine.adapter.put_({f"{site.name}.a": a, f"{site.name}.b": b})
