"""A start in closed form: what a linear readout of the last layer's features already knows, as adapter numbers.

    note = readout_(engine, examples)       before the first step; "" where the rows or the model have no readout

The last linear layer writes into the residual stream just before the last norm, so it moves a label's logit by a
product of its own inputs: Δlogit_c = s e_cᵀ diag(g) ΔW x, with e_c the label's row of the head, g and s what the norm
does to the stream. The best ΔW for features x as they are is a multinomial logistic regression: convex, with a gradient
written down, and as cheap as one forward for every row. With C labels its rank is C − 1, which goes into the layer's own
adapter. What forward-only steps find slowly, how the features at hand map to these labels, is there before the first.

R rows, C labels, D width of the stream, F inputs of the layer, r rank.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zolite.data.batch import sample
from zolite.data.template import Example
from zolite.engine.engine import Engine
from zolite.model.slots import SlotLinear

MOST_ROWS = 4096  # more teach a readout little
TOKENS = 4096  # a forward
RIDGES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # on features of unit size over √F, strongest first
ROUNDS = 100  # of L-BFGS, for each


@dataclass(frozen=True)
class Site:
    """The last layer that writes into the stream, and the norm behind it."""

    name: str
    layer: SlotLinear
    norm: nn.Module


@dataclass(frozen=True)
class Features:
    """What some rows look like where their label is predicted; float32, on the device."""

    x: Tensor  # (R, F)
    before: Tensor  # (R, D): the stream before the norm
    after: Tensor  # (R, D)
    answers: Tensor  # (R,)


def readout_(engine: Engine, examples: dict[str, Sequence[Example]]) -> str:
    """Put the readout that predicts dev best into the adapter. What came of it, in words."""
    site, tokens = find(engine), labels(examples["train"][0])
    if site is None or tokens is None:
        return ""
    with torch.inference_mode():
        train, dev = (features(engine, site, sample(examples[split], MOST_ROWS)) for split in ("train", "dev"))
        head = engine.loaded.model.get_output_embeddings().weight[tokens.to(train.x.device)].float()
        gain, size = _gain(train)
        weight, before, after = regress(train, dev, head * gain, size)
        install_(engine, site, train.x, torch.linalg.pinv(head * gain) @ weight)
    return f"a readout of {len(train.x)} rows took dev's loss from {before:.3f} to {after:.3f} before the first step"


def find(engine: Engine) -> Site | None:
    """None where the last layer that writes into the stream has no adapter."""
    decoder = engine.loaded.model.get_decoder()
    width = engine.loaded.model.get_output_embeddings().weight.shape[1]
    norms = [m for m in decoder.children() if sum(p.numel() for p in m.parameters()) in (width, 2 * width)]
    stacks = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m)]
    if not norms or not stacks:
        return None
    writers = [m for m in stacks[-1][-1].modules() if getattr(m, "out_features", 0) == width]
    users = {m.base: (n, m) for n, m in engine.loaded.model.named_modules() if isinstance(m, SlotLinear)}
    return Site(*users[writers[-1]], norms[-1]) if writers and writers[-1] in users else None


def labels(row: Example) -> Tensor | None:
    """The token that tells each label from the others where they begin: (C,). None where there is none."""
    first = {q.candidate: q.token for q in reversed(row.queries)}
    tokens = [first[c] for c in sorted(first)]
    return torch.tensor(tokens) if 1 < len(tokens) == len(set(tokens)) else None


def features(engine: Engine, site: Site, rows: Sequence[Example]) -> Features:
    """One forward of every row, up to where its label begins."""
    texts = [row.sequences[row.queries[0].sequence][: row.queries[0].position + 1] for row in rows]
    device, decoder = engine.loaded.device, engine.loaded.model.get_decoder()
    seen: list[tuple[Tensor, ...]] = [()] * len(rows)
    engine.at_theta()
    for batch in _batches([len(t) for t in texts]):
        ids = nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in batch], batch_first=True)
        ends = torch.tensor([len(texts[i]) - 1 for i in batch], device=device)
        with _inputs(site.layer, site.norm) as got:
            after = decoder(input_ids=ids.to(device), use_cache=False).last_hidden_state
        place = torch.arange(len(batch), device=device)
        for i, *parts in zip(batch, *(t[place, ends].float() for t in (*got, after)), strict=True):
            seen[i] = tuple(parts)
    x, before, after = (torch.stack(parts) for parts in zip(*seen, strict=True))
    return Features(x, before, after, torch.tensor([row.answer for row in rows], device=device))


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most TOKENS padded tokens."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        count = max(1, TOKENS // lengths[order[0]])
        yield order[:count]
        order = order[count:]


@contextmanager
def _inputs(*modules: nn.Module) -> Iterator[list[Tensor]]:
    """What the modules read in the forward inside, in their order."""
    got: dict[nn.Module, Tensor] = {}
    handles = [m.register_forward_pre_hook(lambda m, args: got.__setitem__(m, args[0])) for m in modules]
    found: list[Tensor] = []
    try:
        yield found
        found += [got[m] for m in modules]
    finally:
        for handle in handles:
            handle.remove()


def _gain(seen: Features) -> tuple[Tensor, Callable[[Features], Tensor]]:
    """The norm as a scale of each coordinate (D,), and how much a row's own is larger than the mean's (R, 1)."""
    gain = (seen.before * seen.after).sum(0) / seen.before.square().sum(0).clamp(min=1e-30)

    def size(rows: Features) -> Tensor:
        linear = rows.before * gain
        return ((rows.after * linear).sum(1) / linear.square().sum(1).clamp(min=1e-30)).unsqueeze(1)

    return gain, size


def regress(
    train: Features, dev: Features, head: Tensor, size: Callable[[Features], Tensor]
) -> tuple[Tensor, float, float]:
    """Weights (C, F) of features on logits that predict dev best, and dev's loss before and after.

    head (C, D): the stream to logits. Ridge by ridge, each from where the stronger one ended.
    """
    unit = train.x.square().mean(0).sqrt().clamp(min=1e-6) * train.x.shape[1] ** 0.5
    xs, offsets = zip(*(((f.x / unit) * size(f), (f.before * size(f)) @ head.mT) for f in (train, dev)), strict=True)
    weight = xs[0].new_zeros(head.shape[0], xs[0].shape[1])
    zero = float(F.cross_entropy(offsets[1], dev.answers))
    best, least = weight, zero
    for ridge in RIDGES:
        weight = _fit(xs[0], offsets[0], train.answers, ridge, weight)
        loss = float(F.cross_entropy(offsets[1] + xs[1] @ weight.mT, dev.answers))
        if loss < least:
            best, least = weight, loss
    best = best - best.mean(0)  # which changes no probability
    return best / unit, zero, least


def _fit(x: Tensor, offset: Tensor, answers: Tensor, ridge: float, start: Tensor) -> Tensor:
    """Weights (C, F) of least cross-entropy of offset + x Wᵀ plus ridge · |W|², by L-BFGS with the gradient written."""
    w, onehot = start.clone(), F.one_hot(answers, offset.shape[1]).to(x)
    solver = torch.optim.LBFGS([w], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> float:
        logits = offset + x @ w.mT
        w.grad = (logits.softmax(1) - onehot).mT @ x / len(x) + 2 * ridge * w
        return float(F.cross_entropy(logits, answers) + ridge * w.square().sum())

    solver.step(loss)  # type: ignore[no-untyped-call]
    return w


def install_(engine: Engine, site: Site, x: Tensor, product: Tensor) -> None:
    """ΔW (D, F) into the layer's first rows of A and columns of B, as far as its rank goes.

    Each row of A is made as long as those drawn are: of x, they see as much.
    """
    factors = engine.adapter.factors(engine.adapter.space.theta)
    a, b = (factors[f"{site.name}.{f}"].clone() for f in "ab")
    u, s, v = torch.svd_lowrank(product, q=min(len(a), *product.shape), niter=4)
    k = int((s > 1e-4 * s[0]).sum())
    lengths = (x @ v[:, :k]).square().mean(0).sqrt().clamp(min=1e-12)
    usual = (x @ a.mT).square().mean().sqrt()
    a[:k] = (v[:, :k] * (usual / lengths)).mT
    b[:, :k] = u[:, :k] * (s[:k] * lengths / usual / site.layer.scale)
    engine.adapter.put_({f"{site.name}.a": a, f"{site.name}.b": b})
