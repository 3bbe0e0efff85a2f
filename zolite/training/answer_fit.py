"""A start that answers: an exact fit of the last layer, after which the likeliest text is a label, and then its end.

    result = fit_answers_(engine, layer, tail, lines, dev)     behind the linear probes, before the first step

Linear probes move labels against each other; every other word stays likelier than all of them. What the last layer that
writes into the residual stream says goes straight to the last norm and the head, so there the loss at a place is a
function of the layer's change that is written out, with its slope (model/tail.py). The adapter gets ΔW = U V:

V (K, F)  finds the places where something is to be said (where the prompt ends, after each beginning of a label, after
          a whole one) and what: a ridge regression of the layer's inputs onto (kind of place, token), zero at other
          tokens. Where the adapter has fewer rows, those that explain most of it.
U (D, K)  is what is said there: L-BFGS on the full-vocabulary cross-entropy. Where labels begin, what is asked for is
          the softmax over labels as the model has it by then, so that their order stays. At other tokens, some of the
          rows' own and of texts that the model itself wrote, the price is KL(before ‖ after).

Prompts are fitted as they were trained, with a space and with a new line behind them, as people type them.

N places, F inputs of the layer, D width of the stream, V words, K rows of the adapter.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor, nn

from zolite.common.progress import phase
from zolite.data.examples import Example, Tokens, answers_of
from zolite.engine.batch import by_length, length, sample
from zolite.engine.engine import Engine
from zolite.model.tail import Reading, Tail, reading
from zolite.training.linear_probe import ProbedLayer, install_, taken

ENDINGS = {"": 0.5, " ": 0.25, "\n": 0.25}
"""What stands behind a prompt, and the share of the places that are fitted so."""
Typed = Callable[[Sequence[int], str], Sequence[Tokens]]
"""Numbers of training rows and what stands behind their prompts, to these prompts' tokens."""

DEV_ROWS = 128
LEAST = 8  # rows of A
PLACES = 4096  # where something is asked for, at most: with few, what V finds is noise, and the labels' order suffers
LESS = 16  # times fewer on a CPU, where a round of the fit takes seconds
HELD = 512  # of the rows' other tokens, about, that are to stay as they are
EVERY = 2  # of a text of the model's own, every second token is held; on a CPU every fourth
TOKENS = 4096  # a forward
CHUNK = 2**22  # logits at once: 16 MiB
RIDGE = 0.02  # of V, on features of length one
OTHERS = 3.0  # weight of other tokens in that regression, where each kind of place has one
PRICES = (3.0, 10.0, 30.0)  # of KL beside cross-entropy: the first at which own text costs no more than DEAR
DEAR = 0.05  # nats a token
ROUNDS = 30  # of L-BFGS
KEPT = 2**28  # bytes of log-probabilities that a CPU's memory has room for; elsewhere they are made anew each round


@dataclass(frozen=True)
class Place:
    """Where something is to be said: `tokens` with probabilities `shares`."""

    position: int
    kind: tuple[str, Tokens]  # (what ends the prompt, nothing), ("", what was said of the label) or ("end", nothing)
    tokens: Tokens
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """A text, its places, and the positions of some of its tokens that are to stay as they are."""

    tokens: Tokens
    places: tuple[Place, ...] = ()
    held: tuple[int, ...] = ()


@dataclass(frozen=True)
class Data:
    """The places of some lines; first those where something is asked for."""

    at: Reading
    kinds: Tensor  # (asked,): numbers of their kinds
    tokens: Tensor  # (asked, L) int64
    shares: Tensor  # (asked, L); 0 where a place has fewer tokens
    answers: tuple[int, ...]  # how many of them, one behind the other, make up each answer

    @property
    def asked(self) -> int:
        return len(self.kinds)


@dataclass(frozen=True)
class Result:
    """What the fit did to places that it did not see."""

    before: float  # share of dev's rows whose likeliest text was a label and its end
    after: float
    price: float  # nats a token: KL at held-out text of the model's own

    @property
    def text(self) -> str:
        return (
            f"fitted the last layer so that labels are said: on {self.after:.0%} of dev's rows the likeliest text is a "
            f"label and nothing else ({self.before:.0%} before); other text costs {self.price:.3f} nats a token"
        )


# ---- what is to be said


def rows_of(row: Example) -> int:
    """Rows of an adapter that a fit takes: one for each kind of place, and more to tell labels apart at prompts."""
    beginnings = {answer[:j] for answer in answers_of(row) for j in range(1, len(answer))}
    return max(LEAST, len(ENDINGS) + len(beginnings) + 1)


def line_of(
    row: Example, prompt: Tokens, shares: Sequence[float], ending: str, made: torch.Generator, held: int = 1
) -> Line:
    """A row behind a prompt as somebody may type it. `shares` (C,): how likely each label is to be."""
    answers, answer, end = answers_of(row), row.text[row.begins : -1], row.text[-1]
    others = torch.randint(0, max(1, len(prompt) - 1), (held,), generator=made).tolist()
    found = tuple(_place(len(prompt) - 1 + j, answer[:j], ending, answers, shares, end) for j in range(len(answer) + 1))
    return Line(prompt + answer, found, tuple(others))


def _place(
    position: int, said: Tokens, ending: str, answers: Sequence[Tokens], shares: Sequence[float], end: int
) -> Place:
    """What may follow what was said of a label: the labels that begin so, by their shares, or the end."""
    total: dict[int, float] = {}
    for answer, share in zip(answers, shares, strict=True):
        if answer[: len(said)] == said:
            token = answer[len(said)] if len(said) < len(answer) else end
            total[token] = total.get(token, 0.0) + share
    whole = sum(total.values()) or 1.0
    kind = ("end", ()) if set(total) == {end} else ("", said) if said else (ending, ())
    return Place(position, kind, tuple(total), tuple(share / whole for share in total.values()))


def lines_of(engine: Engine, rows: Sequence[Example], typed: Typed, own: Sequence[Tokens]) -> list[Line]:
    """Rows behind each of ENDINGS, with the shares that the labels have by now, and texts of the model's own."""
    made, cpu, lines = torch.Generator().manual_seed(0), engine.loaded.device.type == "cpu", list[Line]()
    most = PLACES / (LESS if cpu else 1) / fmean(len(row.text) - row.begins for row in rows)  # rows
    every = max(1, round(most / HELD))
    for ending, part in ENDINGS.items():
        count = min(len(rows), max(1, round(most * part)))
        some = [i * len(rows) // count for i in range(count)]
        shares = _shares(engine, [rows[i] for i in some])
        prompts = typed(some, ending) if ending else [rows[i].text[: rows[i].begins] for i in some]
        lines += [
            line_of(rows[i], prompt, share, ending, made, int(n % every == 0))
            for n, (i, prompt, share) in enumerate(zip(some, prompts, shares, strict=True))
            if not ending or prompt != rows[i].text[: len(prompt)]  # there the ending is the answer's own beginning
        ]
    step = EVERY * (2 if cpu else 1)
    return lines + [Line(text, held=tuple(range(0, len(text), step))) for text in own]


def unseen_lines(rows: Sequence[Example], own: Sequence[Tokens]) -> list[Line]:
    """Rows of dev as they were trained, any label being as good, and texts of the model's own that are not fitted."""
    made = torch.Generator().manual_seed(0)
    lines = [line_of(row, row.text[: row.begins], [1.0] * row.candidates, "", made) for row in sample(rows, DEV_ROWS)]
    return lines + [Line(text, held=tuple(range(len(text)))) for text in own]


def _shares(engine: Engine, rows: Sequence[Example]) -> list[list[float]]:
    """The labels' probabilities among themselves, of each row."""
    scores = torch.empty(len(rows), rows[0].candidates)
    for batch in by_length([length(row) for row in rows], TOKENS):
        scores[batch] = replace(engine, joint=False).scores([rows[i] for i in batch]).cpu()
    shares: list[list[float]] = scores.softmax(1).tolist()
    return shares


# ---- what the model has there


def read(engine: Engine, layer: nn.Module, tail: Tail, lines: Sequence[Line]) -> Data:
    """One forward of every line at θ."""
    asked = [(line, place) for line in lines for place in line.places]
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(place.kind for _, place in asked))}
    others = [(line.tokens, position) for line in lines for position in line.held]
    engine.at_theta()
    at = _at(engine, layer, tail, [(line.tokens, place.position) for line, place in asked] + others)
    width, device = max(len(place.tokens) for _, place in asked), at.inputs.device
    tokens = [place.tokens + (0,) * (width - len(place.tokens)) for _, place in asked]
    shares = [place.shares + (0.0,) * (width - len(place.shares)) for _, place in asked]
    return Data(
        at,
        torch.tensor([kinds[place.kind] for _, place in asked], device=device),
        torch.tensor(tokens, device=device),
        torch.tensor(shares, device=device),
        tuple(len(line.places) for line in lines if line.places),
    )


def _at(engine: Engine, layer: nn.Module, tail: Tail, wanted: Sequence[tuple[Tokens, int]]) -> Reading:
    """What stands at (text, position), each; a text is read once."""
    texts = list(dict.fromkeys(tokens for tokens, _ in wanted))
    where: dict[Tokens, list[tuple[int, int]]] = {text: [] for text in texts}
    for i, (tokens, position) in enumerate(wanted):
        where[tokens].append((i, position))
    parts, order, device = [], [], engine.loaded.device
    for batch in by_length([len(text) for text in texts], TOKENS):
        some = [texts[i] for i in batch]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(text) for text in some], batch_first=True)
        places = [(i, s * ids.shape[1] + position) for s, text in enumerate(some) for i, position in where[text]]
        order += [i for i, _ in places]
        indices = torch.tensor([place for _, place in places], device=device)
        parts.append(reading(engine.loaded.model, layer, tail.last_norm, ids.to(device), indices))
    back = torch.tensor(order, device=device).argsort()
    inputs, outputs, streams = (torch.cat([getattr(p, name) for p in parts])[back] for name in Reading.__annotations__)
    return Reading(inputs, outputs, streams)


# ---- the fit


def fit_answers_(engine: Engine, layer: ProbedLayer, tail: Tail, lines: Sequence[Line], dev: Sequence[Line]) -> Result:
    """Put U V into the adapter of `layer`, behind its rows that say something already.

    `lines` are fitted; `dev` has rows as they were trained and texts of the model's own that tell what came of it.
    """
    with torch.inference_mode():
        with phase("reading rows for the fit of the last layer"):
            data, unseen = (read(engine, layer.linear, tail, some) for some in (lines, dev))
        scale = data.at.inputs.square().mean(0).sqrt().clamp(min=1e-6) * data.at.inputs.shape[1] ** 0.5
        first, rank = taken(engine, layer), len(layer.linear.a)
        v = detectors(data, scale, rank - first)
        z, u = data.at.inputs @ v.mT, v.new_zeros(data.at.outputs.shape[1], len(v))
        as_it_was = Before(tail, data)
        for price in PRICES:
            u = fit(tail, data, z, price, u, as_it_was)
            said, cost = told(tail, unseen, unseen.at.inputs @ v.mT @ u.mT)
            if cost <= DEAR:
                break
        before, _ = told(tail, unseen, torch.zeros_like(unseen.at.outputs))
        install_(engine, layer, data.at.inputs, u, v, slice(first, rank))
        return Result(before, said, cost)


def detectors(data: Data, scale: Tensor, most: int) -> Tensor:
    """V (K, F), K at most `most`, each of unit size at the places where something is asked for.

    On the host, whose memory is not what a run is short of.
    """
    device, asked = data.at.inputs.device, data.asked
    inputs, kinds, tokens, scale = (t.cpu() for t in (data.at.inputs, data.kinds, data.tokens, scale))
    x = inputs / scale
    pairs, column = torch.unique(kinds[:, None] * (tokens.max() + 1) + tokens, return_inverse=True)
    wanted = torch.zeros(len(x), len(pairs), device=x.device, dtype=torch.float64)
    wanted[:asked].scatter_add_(1, column, data.shares.cpu().double())  # a place with fewer tokens has shares of 0
    counts = kinds.bincount().to(x)
    weights = torch.cat([1 / counts[kinds], x.new_full((len(x) - asked,), OTHERS / max(1, len(x) - asked))])
    root = weights.sqrt().double()[:, None]
    x = x.double() * root
    v = _ridge(x, wanted * root)
    _, sizes, main = torch.linalg.svd(x[:asked] @ v.mT, full_matrices=False)
    v = (main[: min(most, int((sizes > 1e-6 * sizes[0]).sum()))] @ v) / scale
    size = (inputs[:asked].double() @ v.mT).square().mean(0).sqrt()
    unit: Tensor = (v / size[:, None]).float()
    return unit.to(device)


def _ridge(x: Tensor, wanted: Tensor) -> Tensor:
    """Weights (pairs, F) of the ridge regression of x (N, F) onto (N, pairs), in the form whose matrix is smaller."""
    dual = len(x) < x.shape[1]
    gram = x @ x.mT if dual else x.mT @ x
    gram.diagonal().add_(RIDGE)
    found: Tensor = torch.linalg.solve(gram, wanted if dual else x.mT @ wanted)
    return found.mT @ x if dual else found.mT


class Before:
    """Log-probabilities (n, V) at held places as they were, which every round of a fit compares with."""

    def __init__(self, tail: Tail, data: Data) -> None:
        self.tail, self.streams = tail, data.at.streams[data.asked :]
        room = self.streams.device.type == "cpu" and len(self.streams) * tail.head.vocabulary * 4 <= KEPT
        self.kept: dict[int, Tensor] | None = {} if room else None

    def __call__(self, cut: slice) -> Tensor:
        if self.kept is None:
            return self._logs(cut)
        if cut.start not in self.kept:
            self.kept[cut.start] = self._logs(cut)
        return self.kept[cut.start]

    def _logs(self, cut: slice) -> Tensor:
        return self.tail.logits(self.streams[cut]).log_softmax(1)


def fit(tail: Tail, data: Data, z: Tensor, price: float, start: Tensor, before: Before) -> Tensor:
    """U (D, K) of least loss, given z = x Vᵀ (N, K), from where another price ended."""
    u = start.clone()
    solver = torch.optim.LBFGS(
        [u], max_iter=ROUNDS, max_eval=2 * ROUNDS, history_size=20, line_search_fn="strong_wolfe"
    )

    tries = itertools.count(1)
    with phase(f"fitting the last layer at a price of {price:g}: tries", 2 * ROUNDS) as tried:

        def loss() -> float:
            total, u.grad = loss_and_slope(tail, data, z, u, price, before)
            tried(next(tries))
            return total

        solver.step(loss)  # type: ignore[no-untyped-call]
    return u


def loss_and_slope(tail: Tail, data: Data, z: Tensor, u: Tensor, price: float, before: Before) -> tuple[float, Tensor]:
    """Cross-entropy of an answer, all its tokens together, + price · mean KL; and its slope (D, K) at U."""
    total, slope = 0.0, torch.zeros_like(u)
    for cut in _cuts(tail, data.asked):
        at, change = data.at[cut], z[cut] @ u.mT
        stream = tail.stream(at, change)
        logits = tail.logits(stream)
        logs, tokens, shares = logits.log_softmax(1), data.tokens[cut], data.shares[cut]
        total -= float((shares * logs.gather(1, tokens)).sum()) / len(data.answers)
        g = logs.exp().scatter_add(1, tokens, -shares) / len(data.answers)
        slope += tail.slope(at, change, stream, logits, g).mT @ z[cut]
    held = len(z) - data.asked
    for cut in _cuts(tail, held):
        at, low = data.at[data.asked :][cut], z[data.asked :][cut]
        change = low @ u.mT
        stream = tail.stream(at, change)
        logits = tail.logits(stream)
        base, logs = before(cut), logits.log_softmax(1)
        shares = base.exp()
        total += price * float((shares * (base - logs)).sum()) / held
        slope += tail.slope(at, change, stream, logits, logs.exp().sub_(shares).mul_(price / held)).mT @ low
    return total, slope


def _cuts(tail: Tail, count: int) -> Iterator[slice]:
    size = max(1, CHUNK // tail.head.vocabulary)
    return (slice(i, min(i + size, count)) for i in range(0, count, size))


def told(tail: Tail, data: Data, change: Tensor) -> tuple[float, float]:
    """(share of answers whose every token is one that is asked for, mean KL at held places) after a change (N, D)."""
    good = torch.ones(data.asked, dtype=torch.bool, device=change.device)
    for cut in _cuts(tail, data.asked):
        best = tail.logits(tail.stream(data.at[cut], change[cut])).argmax(1, keepdim=True)
        good[cut] = ((best == data.tokens[cut]) & (data.shares[cut] > 0)).any(1)
    cost, held = 0.0, len(change) - data.asked
    for cut in _cuts(tail, held):
        at = data.at[data.asked :][cut]
        base = tail.logits(at.streams).log_softmax(1)
        logs = tail.logits(tail.stream(at, change[data.asked :][cut])).log_softmax(1)
        cost += float((base.exp() * (base - logs)).sum())
    answers = torch.split(good, list(data.answers))
    return sum(bool(answer.all()) for answer in answers) / len(answers), cost / max(1, held)
