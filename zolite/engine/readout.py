"""A start in closed form: what a linear readout of the last layers' features already knows, as adapter numbers.

    note, rows = readout_(engine, examples)       before the first step; "" where the rows or the model have no readout

A layer that writes into the residual stream (Llama's down_proj) moves a label's logit by a product of its own inputs:
Δlogit_c = s e_cᵀ diag(g) ΔW x, with e_c the label's row of the head, g and s what the last norm does to the stream. For
the last layer that is exact, for those before it as good as later layers leave alone what they add. The best ΔW for
features x as they are is a multinomial logistic regression: convex, with a gradient written down, and as cheap as one
forward for every row. With C labels its rank is C − 1, which goes into the layer's own adapter.

Layer by layer, the last first, each fits what the ones after it have left, and stays if the model itself then predicts
dev better. What forward-only steps find slowly, which features speak for which label, is there before the first.

R rows, C labels, D width of the stream, F inputs of a layer, r rank.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zolite.data.batch import sample
from zolite.data.template import Example
from zolite.engine.engine import Engine
from zolite.model.slots import SlotLinear

LAYERS = 8  # at most
MISSES = 3  # in a row, until the layers before are left alone
LEAST = 0.005  # of dev's loss that a layer must be worth
MOST_ROWS = 4096  # more teach a readout little
ROOM = 2**28  # bytes of features, in the host's memory
TOKENS = 4096  # a forward
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # on features of unit size over √F, strongest first
ROUNDS = 100  # of L-BFGS, for each
LEVEL = 3.0  # size of the feature that is alike for all rows, so that a ridge hardly holds it back


@dataclass(frozen=True)
class Site:
    """A layer that writes into the stream, by its full name."""

    name: str
    layer: SlotLinear


@dataclass(frozen=True)
class Seen:
    """What some rows look like where their label is predicted; float32."""

    xs: tuple[Tensor, ...]  # (R, F) of each layer, on the host
    before: Tensor  # (R, D): the stream before the last norm
    after: Tensor  # (R, D)
    answers: Tensor  # (R,)


def readout_(engine: Engine, examples: dict[str, Sequence[Example]]) -> tuple[str, int]:
    """Put the readout into the adapter. What came of it, in words, and how many rows went through the model."""
    sites, norm, tokens = *find(engine), labels(examples["train"][0])
    if not sites or norm is None or tokens is None:
        return "", 0
    with torch.inference_mode():
        return _layer_by_layer(engine, sites, norm, tokens, examples)


def _layer_by_layer(
    engine: Engine, sites: Sequence[Site], norm: nn.Module, tokens: Tensor, examples: dict[str, Sequence[Example]]
) -> tuple[str, int]:
    most = min(MOST_ROWS, ROOM // (4 * sum(site.layer.a.shape[-1] for site in sites)))
    rows, held = sample(examples["train"], most), sample(examples["dev"], most)
    train, dev = (_seen(engine, [site.layer for site in sites], norm, part) for part in (rows, held))
    head = engine.loaded.model.get_output_embeddings().weight[tokens.to(train.after.device)].float()
    gain = (train.before * train.after).sum(0) / train.before.square().sum(0).clamp(min=1e-30)
    outwards = torch.linalg.pinv(head * gain)  # (D, C): a step along column c moves logit c alone
    here, there = train.after @ head.mT, dev.after @ head.mT
    first = loss = float(F.cross_entropy(there, dev.answers))
    count, misses, kept = len(rows) + len(held), 0, 0
    for k, site in enumerate(sites):
        x, y = (part.xs[k].to(head.device) * _sizes(part, gain) for part in (train, dev))
        weight, expected = regress(x, here, train.answers, y, there, dev.answers)
        found = there, loss
        if expected < (1 - LEAST) * loss:
            old = _factors(engine, site)
            install_(engine, site, x, outwards, weight)
            now = _seen(engine, [], norm, held).after @ head.mT
            count += len(held)
            found = now, float(F.cross_entropy(now, dev.answers))
            if not found[1] < (1 - LEAST) * loss:  # not a number, perhaps
                engine.adapter.put_(old)
                found = there, loss
        better = found[1] < loss
        here, (there, loss) = here + better * (x @ weight.mT), found
        kept, misses = kept + better, 0 if better else misses + 1
        if misses >= MISSES:
            break
    text = f"a readout of {len(rows)} rows in {kept} layers: loss on dev {first:.3f} → {loss:.3f} before the first step"
    return (text if kept else ""), count


def find(engine: Engine) -> tuple[list[Site], nn.Module | None]:
    """Layers that write into the stream last and have an adapter, the last first, and the norm behind them."""
    decoder = engine.loaded.model.get_decoder()
    width = engine.loaded.model.get_output_embeddings().weight.shape[1]
    norms = [m for m in decoder.children() if sum(p.numel() for p in m.parameters()) in (width, 2 * width)]
    stacks = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m)]
    if not norms or not stacks or engine.adapter.frames:
        return [], None
    users = {layer.base: Site(name, layer) for name, layer in engine.adapter.layers.items()}
    writers: list[Any] = [
        [m for m in layer.modules() if getattr(m, "out_features", 0) == width][-1:] for layer in stacks[-1]
    ]
    sites = [users.get(m[0]) if m else None for m in reversed(writers)]
    return [site for site in sites[:LAYERS] if site is not None] if sites[0] else [], norms[-1]


def labels(row: Example) -> Tensor | None:
    """The token that tells each label from the others where they begin: (C,). None where there is none."""
    first = {q.candidate: q.token for q in reversed(row.queries)}
    tokens = [first[c] for c in sorted(first)]
    return torch.tensor(tokens) if 1 < len(tokens) == len(set(tokens)) else None


def _seen(engine: Engine, layers: Sequence[nn.Module], norm: nn.Module, rows: Sequence[Example]) -> Seen:
    """One forward of every row at θ, up to where its label begins."""
    texts = [row.sequences[row.queries[0].sequence][: row.queries[0].position + 1] for row in rows]
    device, decoder = engine.loaded.device, engine.loaded.model.get_decoder()
    seen: list[tuple[Tensor, ...]] = [()] * len(rows)
    engine.at_theta()
    for batch in _batches([len(t) for t in texts]):
        ids = nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in batch], batch_first=True)
        place, ends = torch.arange(len(batch)), torch.tensor([len(texts[i]) - 1 for i in batch])
        with _inputs(*layers, norm) as got:
            after = decoder(input_ids=ids.to(device), use_cache=False).last_hidden_state
        inputs = [t[place, ends].float().cpu() for t in got[:-1]]
        stream = [t[place, ends].float() for t in (got[-1], after)]
        for i, *parts in zip(batch, *inputs, *stream, strict=True):
            seen[i] = tuple(parts)
    *xs, before, after = (torch.stack(parts) for parts in zip(*seen, strict=True))
    return Seen(tuple(xs), before, after, torch.tensor([row.answer for row in rows], device=device))


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


def _sizes(rows: Seen, gain: Tensor) -> Tensor:
    """How much more than the mean's a norm scales each row: (R, 1)."""
    linear = rows.before * gain
    return ((rows.after * linear).sum(1) / linear.square().sum(1).clamp(min=1e-30)).unsqueeze(1)


def regress(
    x: Tensor, logits: Tensor, answers: Tensor, y: Tensor, held: Tensor, held_answers: Tensor
) -> tuple[Tensor, float]:
    """Weights (C, F) that make logits + x Wᵀ predict the held-out rows y best, and their loss then.

    Ridge by ridge, each from where the stronger one ended.
    """
    unit = x.square().mean(0).sqrt().clamp(min=1e-6) * x.shape[1] ** 0.5
    mean = (x / unit).mean(0)
    level = LEVEL * mean / mean.square().sum().clamp(min=1e-30)  # of a row: LEVEL, about, whatever the row
    spread, held_spread = (torch.cat([rows / unit, (rows / unit) @ level[:, None]], 1) for rows in (x, y))
    weight = best = x.new_zeros(logits.shape[1], spread.shape[1])
    least = float("inf")
    for ridge in RIDGES:
        weight = _fit(spread, logits, answers, ridge, weight)
        loss = float(F.cross_entropy(held + held_spread @ weight.mT, held_answers))
        if loss < least:
            best, least = weight, loss
    best = best - best.mean(0)  # which changes no probability
    return (best[:, :-1] + best[:, -1:] * level) / unit, least


def _fit(x: Tensor, logits: Tensor, answers: Tensor, ridge: float, start: Tensor) -> Tensor:
    """Weights (C, F) of least cross-entropy of logits + x Wᵀ plus ridge · |W|², by L-BFGS with the gradient written."""
    w, onehot = start.clone(), F.one_hot(answers, logits.shape[1]).to(x)
    solver = torch.optim.LBFGS([w], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> float:
        said = logits + x @ w.mT
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
    q, inner = torch.linalg.qr(outwards)
    u, s, v = torch.linalg.svd(inner @ weight, full_matrices=False)
    k = min(len(a), int((s > 1e-4 * s[0]).sum()))
    u, v = q @ u, v.mT
    lengths = (x @ v[:, :k]).square().mean(0).sqrt().clamp(min=1e-12)
    usual = (x @ a.mT).square().mean().sqrt()
    a[:k] = (v[:, :k] * (usual / lengths)).mT
    b[:, :k] = u[:, :k] * (s[:k] * lengths / usual / site.layer.scale)
    engine.adapter.put_({f"{site.name}.a": a, f"{site.name}.b": b})
