"""Samplers: where directions come from.

h probes, r rank, M candidates. Directions of matrices are of the size of MeZO's, E‖D‖² = m n, where the docstring does
not say otherwise: then MeZO's learning rate and ε carry over.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from zolite.zo import rng as noise
from zolite.zo.direction import Combo, Noise, Product, Scaled, dense
from zolite.zo.lowrank import Factors, Group, core, groups, left, lengths, right, size, split, vectors
from zolite.zo.rng import Key, Step
from zolite.zo.space import Direction, Space
from zolite.zo.state import State


class Objective(Protocol):
    def __call__(self, points: Sequence[Combo], groups: int = 1) -> Tensor:
        """Points in a space to their losses (K,) float32, on one batch, at one theta.

        With groups, the batch's rows and the points are cut into as many equal runs, in their order: a point's loss is
        over the rows of its own run.
        """


class Sampler(Protocol):
    """What is not overridden does nothing: most samplers hold nothing and measure nothing."""

    def init(self, space: Space) -> State:
        return {}

    def due(self, step: int) -> bool:
        """Must `refresh` be called before this step?"""
        return False

    def refresh(self, objective: Objective, key: Key, state: State, space: Space) -> None:
        """What is done once in a while. The host knows the step's number here, so it may do what a graph cannot."""
        return

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        """n directions for one step, a pure function of the key, the state and what it measures."""
        raise NotImplementedError

    def learn(self, plus: Tensor, minus: Tensor, state: State) -> None:
        """Take in the losses (n,) at both sides of the directions drawn."""
        return

    def inputs(self, state: State, space: Space) -> dict[str, Tensor]:
        """Where to write, by block name, the main direction of a matrix's inputs (columns,) whenever θ is measured."""
        return {}


@dataclass(frozen=True)
class Independent(Sampler):
    """Every number on its own: Gaussian for MeZO, Rademacher for Spall's SPSA."""

    distribution: str = "normal"  # of rng.DISTRIBUTIONS

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        transform = noise.DISTRIBUTIONS[self.distribution]
        return [Noise(key.fold(i) if i else key, transform) for i in range(n)]


@dataclass(frozen=True)
class LowRank(Sampler):
    """U Vᵀ with a new U each step and a V that stays for a while; Gaussians for vectors.

    LOZO, Chen et al., arXiv 2410.07698, algorithm 1. E‖U Vᵀ‖² = r m n: learning rates are MeZO's over r, ε over √r. V
    is drawn from an address of its own, the window's first step, whenever it is needed: the seed fault of the released
    code (V and U from one stream, so that a refresh step applies what it did not measure) cannot arise, and nothing is
    held. The update is η c U Vᵀ as in the authors' code; the paper has a further 1 / r.
    """

    rank: int
    every: int

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        found, device = groups(space), space.theta.device
        first = replace(key, step=key.step - key.step % self.every, tag=("v",))
        v = split(noise.numbers(first, size(found, right(self.rank)), device), found, right(self.rank))
        return [self._one(key.fold("u", i), v, found, space) for i in range(n)]

    def _one(self, key: Key, v: Factors, found: list[Group], space: Space) -> Product:
        u = noise.numbers(key, size(found, left(self.rank)), space.theta.device)
        return Product(found, split(u, found, left(self.rank)), v, _vectors(key, space))


@dataclass(frozen=True)
class Subspace(Sampler):
    """√(m n) / r · U Z Vᵀ: Z Gaussian each step, U and V orthonormal and new every so often; Gaussians for vectors.

    SubZero, Yu et al., arXiv 2410.08989, algorithms 1 and 2. Thin matrices are folded to near squares first, as the
    authors do for LoRA. Q R has a positive diagonal here, which makes Q uniform; the authors take what the library
    returns (SubZero+, arXiv 2608.15665, adds the same). It holds U and V of every matrix, folded.
    """

    rank: int
    every: int

    def init(self, space: Space) -> State:
        found = groups(space, square=True)
        zeros = space.theta.new_zeros
        return {"u": zeros(size(found, left(self.rank))), "v": zeros(size(found, right(self.rank)))}

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def refresh(self, objective: Objective, key: Key, state: State, space: Space) -> None:
        found = groups(space, square=True)
        for name, shape in (("u", left(self.rank)), ("v", right(self.rank))):
            drawn = noise.numbers(key.fold("basis", name), size(found, shape), space.theta.device)
            for basis, x in zip(split(state[name], found, shape), split(drawn, found, shape), strict=True):
                basis.copy_(_orthonormal(x))

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        found = groups(space, square=True)
        u, v = split(state["u"], found, left(self.rank)), split(state["v"], found, right(self.rank))
        directions: list[Direction] = []
        for i in range(n):
            z = split(
                noise.numbers(key.fold("z", i), size(found, core(self.rank)), space.theta.device),
                found,
                core(self.rank),
            )
            lifted = [a @ b * _span(g, self.rank) for g, a, b in zip(found, u, z, strict=True)]
            directions.append(Product(found, lifted, v, _vectors(key.fold("z", i), space)))
        return directions


@dataclass(frozen=True)
class Aligned(Sampler):
    """Directions in the space of a probed gradient, with a set component along it; Gaussians for vectors.

    P-GAP, Mi et al., arXiv 2510.18228. Every so often, before the step: G = 1/h Σ ρⱼ Qⱼ from h two-sided probes of the
    step's own batch, and its truncated singular value decomposition U S Vᵀ. Each step, for each matrix: Z₀ Gaussian (r,
    r), ξ = ±1, Z = Z₀ − (⟨S, Z₀⟩ − ξ √δ ‖S‖) / ‖S‖² · S, so that ⟨S, Z⟩ = ξ √δ ‖S‖: S is diagonal, and only the
    diagonal changes. δ falls evenly to 0 over the run. The paper applies U Z Vᵀ, whose norm² is r² − 1 + δ. Here it is
    scaled by √(m n) / r, as SubZero's is, which is to raise ε by that factor and η by its square: MeZO's defaults carry
    over (the paper's LoRA settings, ε 0.1 and η 1e-2 to 5e-2, are ε 0.0056 and η 3e-5 to 1.6e-4 here for a factor of 8
    × 2560, about MeZO's for LoRA). ξ is drawn for each matrix, and vectors are Gaussian; of both the paper does not
    say. A singular vector's sign is such that its largest number is positive: libraries differ in it, and the noise
    between the two would turn with it. It holds U, S and V of every matrix. There is no public code; of the paper,
    abstract and introduction were read.
    """

    rank: int
    every: int
    probes: int
    delta: float
    eps: float
    steps: int

    def init(self, space: Space) -> State:
        found, zeros = groups(space), space.theta.new_zeros
        sizes = {"u": left(self.rank), "s": self._diagonal, "v": right(self.rank)}
        return {name: zeros(size(found, shape)) for name, shape in sizes.items()}

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def refresh(self, objective: Objective, key: Key, state: State, space: Space) -> None:
        gradient, found = self.probe(objective, key, space), groups(space)
        u, s, v = self._basis(state, found)
        for i, group in enumerate(found):
            r = group.rank(self.rank)
            left, values, right = _svd(group.of(gradient))
            largest = left.gather(1, left.abs().argmax(dim=1, keepdim=True))
            sign = torch.where(largest < 0, -1.0, 1.0)
            u[i].copy_((left * sign)[..., :r])
            s[i].copy_(values[:, :r].unsqueeze(1))
            v[i].copy_((right * sign)[..., :r])

    def probe(self, objective: Objective, key: Key, space: Space) -> Tensor:
        """G (n,), the mean of the probes; those whose losses are not finite count for nothing."""
        directions = [Noise(key.fold("probe", j)) for j in range(self.probes)]
        losses = objective([Combo(((sign * self.eps, d),)) for d in directions for sign in (1.0, -1.0)])
        rho = (losses[0::2] - losses[1::2]) / (2 * self.eps * self.probes)
        rho = torch.where(rho.isfinite(), rho, torch.zeros_like(rho))
        return dense(Combo(tuple(zip(rho.unbind(), directions, strict=True))), space)

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        found = groups(space)
        u, s, v = self._basis(state, found)
        directions: list[Direction] = []
        for i in range(n):
            z = self.coordinates(key.fold("z", i), s, found)
            lifted = [a @ b * _span(g, self.rank) for g, a, b in zip(found, u, z, strict=True)]
            directions.append(Product(found, lifted, v, _vectors(key.fold("z", i), space)))
        return directions

    def coordinates(self, key: Key, s: Factors, found: list[Group]) -> Factors:
        """Z (G, r, r) of every group."""
        device = s[0].device if s else torch.device("cpu")
        z = split(noise.numbers(key, size(found, core(self.rank)), device), found, core(self.rank))
        signs = noise.numbers(key.fold("xi"), sum(len(g.blocks) for g in found), device, noise.rademacher)
        delta = _left(key.step, self.steps, device) * self.delta
        for values, numbers, xi in zip(s, z, torch.split(signs, [len(g.blocks) for g in found]), strict=True):
            values, diagonal = values.squeeze(1), numbers.diagonal(dim1=1, dim2=2)
            values = values / values.amax(dim=1, keepdim=True).clamp(min=1e-30)  # whose squares might overflow
            norm = values.square().sum(dim=1, keepdim=True)
            off = (values * diagonal).sum(dim=1, keepdim=True) - xi.unsqueeze(1) * (delta * norm).sqrt()
            diagonal.sub_(torch.where(norm > 0, off / norm, torch.zeros_like(norm)) * values)
        return z

    def _basis(self, state: State, found: list[Group]) -> tuple[Factors, Factors, Factors]:
        shapes = {"u": left(self.rank), "s": self._diagonal, "v": right(self.rank)}
        u, s, v = (split(state[name], found, shape) for name, shape in shapes.items())
        return u, s, v

    def _diagonal(self, group: Group) -> tuple[int, int]:
        return 1, group.rank(self.rank)


@dataclass(frozen=True)
class Activation(Sampler):
    """√n · r aᵀ with a new Gaussian r each step and a the main direction of the matrix's inputs; Gaussians for vectors.

    AGZO, arXiv 2601.17261, at its best rank, 1: a linear layer's gradient is made of its inputs. a is found by power
    iteration while θ itself is measured, on the step's own batch (engine/adapter.py), three rounds from the last
    step's; the authors' starts anew. The paper applies r aᵀ; √n gives it MeZO's size, E‖D‖² = m n. It holds a (n,) of
    every matrix. The paper trains all weights: in space lora-b a matrix's inputs are as few as the rank, so that little
    is left to select. ε, where it is measured, is that of central differences, but is used one-sidedly.
    """

    def init(self, space: Space) -> State:
        found = groups(space)
        starts = [space.theta.new_full((len(g.blocks) * g.n,), g.n**-0.5) for g in found]
        return {"a": torch.cat([space.theta.new_zeros(0), *starts])}

    def inputs(self, state: State, space: Space) -> dict[str, Tensor]:
        found = groups(space)
        pairs = zip(found, split(state["a"], found, right(1)), strict=True)
        return {
            block.name: a.squeeze(1) for group, parts in pairs for block, a in zip(group.blocks, parts, strict=True)
        }

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        found = groups(space)
        a = [part * group.n**0.5 for group, part in zip(found, split(state["a"], found, right(1)), strict=True)]
        directions: list[Direction] = []
        for i in range(n):
            r = noise.numbers(key.fold("r", i), size(found, left(1)), space.theta.device)
            directions.append(Product(found, split(r, found, left(1)), a, _vectors(key.fold("r", i), space)))
        return directions


@dataclass(frozen=True)
class Guided(Sampler):
    """v = mean of the candidates with the lower losses − mean of the others, of any sampler's candidates.

    MeZO-GV, Jin et al., arXiv 2601.04710, equation 5 and algorithm 1; with `greedy` the candidate of the lowest loss
    alone (algorithm 3), whose loss is measured again at both sides. Candidates are measured at θ + ε zᵢ on the step's
    own batch. v is a weighted sum of keys, so what was ranked is what is used; the released code starts another stream
    for each tensor. The vector is as long as the paper has it, ‖v‖² = n (1/n₁ + 1/n₂), n for a pool of 4; `unit`
    divides by that root. The estimate is even in v, so a pool of 2 is MeZO with other step sizes and twice the cost,
    and is refused (config/methods.py). No released code runs a pool of 4: the variant that it imports has two
    candidates.
    """

    inner: Sampler
    pool: int
    share: float
    greedy: bool
    unit: bool
    eps: float

    def init(self, space: Space) -> State:
        return self.inner.init(space)

    def due(self, step: int) -> bool:
        return self.inner.due(step)

    def refresh(self, objective: Objective, key: Key, state: State, space: Space) -> None:
        self.inner.refresh(objective, key, state, space)

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        return [self._one(key.fold("pool", i), state, objective, space) for i in range(n)]

    def _one(self, key: Key, state: State, objective: Objective, space: Space) -> Combo:
        candidates = self.inner.draw(key, self.pool, state, objective, space)
        losses = objective([Combo(((self.eps, d),)) for d in candidates])
        ranked = torch.where(losses.isfinite(), losses, torch.inf).argsort(stable=True)
        weights = torch.empty_like(losses).index_copy_(0, ranked, self.weights(losses.device))
        return Combo(tuple(zip(weights.unbind(), candidates, strict=True)))

    def weights(self, device: torch.device) -> Tensor:
        """By rank, (M,): the lowest loss first."""
        first, places = math.floor(self.share * self.pool), torch.arange(self.pool, device=device)
        if self.greedy:
            return (places == 0).float()
        low, high = 1 / first, 1 / (self.pool - first)
        length = math.sqrt(low + high) if self.unit else 1.0
        return torch.where(places < first, low / length, -high / length)

    def learn(self, plus: Tensor, minus: Tensor, state: State) -> None:
        self.inner.learn(plus, minus, state)


NET = 64  # hidden units of a block's network
INPUTS = 5
WEIGHTS = NET * INPUTS + NET + NET + 1  # numbers a network


@dataclass(frozen=True)
class Learned(Sampler):
    """Another sampler's directions, each block times a scale σ that a small learned network gives it.

    ZO Fine-tuner, arXiv 2510.00419: σᵢ = |w₂ tanh(w₁ xᵢ + b₁) + b₂| from xᵢ = (mean θᵢ, variance θᵢ, L₊ and L₋ of the
    step before, σᵢ of the step before); all are scaled by √(Σ dᵢ / Σ dᵢ σᵢ²) (dᵢ the block's size), which keeps the
    whole direction's size. Before the first step σ is 1 and both losses are 0. The networks do not change; they are
    held in the state, so that a session is whole without the file that they came from. Departures: the authors' code
    takes an embedding's d from the batch size, and serves full fine-tuning only. Published networks were learned on the
    mean and variance of full weights; lora-b's B starts at 0 and 0, outside of that range, and the paper says nothing
    for it. It holds the networks, σ and two losses.
    """

    inner: Sampler
    nets: Callable[[Space], Tensor]  # (blocks, WEIGHTS) float32, in the space's order

    def init(self, space: Space) -> State:
        new = space.theta.new_zeros
        nets = self.nets(space).to(space.theta)
        return self.inner.init(space) | {"nets": nets, "sigma": new(len(space.blocks)) + 1, "losses": new(2)}

    def due(self, step: int) -> bool:
        return self.inner.due(step)

    def refresh(self, objective: Objective, key: Key, state: State, space: Space) -> None:
        self.inner.refresh(objective, key, state, space)

    def draw(self, key: Key, n: int, state: State, objective: Objective, space: Space) -> list[Direction]:
        stats = torch.stack([statistics(b.of(space.theta)) for b in space.blocks])
        sigma = sigmas(state["nets"], features(stats, state["losses"], state["sigma"]))
        state["sigma"].copy_(sigma)
        by = spread(normed(sigma, space), space)
        return [Scaled(d, by) for d in self.inner.draw(key, n, state, objective, space)]

    def learn(self, plus: Tensor, minus: Tensor, state: State) -> None:
        new = torch.stack((plus.mean(), minus.mean()))
        state["losses"].copy_(torch.where(new.isfinite(), new, state["losses"]))
        self.inner.learn(plus, minus, state)


def statistics(x: Tensor) -> Tensor:
    """Mean and unbiased variance of a block, (2,); a single number varies by 0."""
    return torch.stack((x.mean(), x.var(correction=min(1, x.numel() - 1))))


def features(stats: Tensor, losses: Tensor, sigma: Tensor) -> Tensor:
    """A network's inputs: mean and variance (B, 2), losses (2,), last scales (B,) → (B, 5)."""
    return torch.cat((stats, losses.expand(len(stats), 2), sigma.unsqueeze(1)), dim=1)


def sigmas(nets: Tensor, inputs: Tensor) -> Tensor:
    """Scales (B,) of B networks (B, WEIGHTS), each on its own inputs (B, 5)."""
    w1, b1, w2, b2 = torch.split(nets, [NET * INPUTS, NET, NET, 1], dim=1)
    hidden = torch.tanh(torch.bmm(w1.view(-1, NET, INPUTS), inputs.unsqueeze(2)).squeeze(2) + b1)
    return ((w2 * hidden).sum(dim=1) + b2.squeeze(1)).abs()


def normed(sigma: Tensor, space: Space) -> Tensor:
    """√(Σ d / Σ d σ²) · σ, (B,), d being the blocks' sizes; as they are where all are 0."""
    total = spread(sigma.square(), space).sum()
    return sigma * torch.where(total > 0, (space.size / total).sqrt(), torch.ones_like(total))


def spread(values: Tensor, space: Space) -> Tensor:
    """One value a block (B,) to one a number (n,)."""
    parts = zip(values.unbind(), lengths(space.blocks), strict=True)
    return torch.cat([value.expand(count) for value, count in parts])


def _vectors(key: Key, space: Space) -> Tensor:
    count = sum(lengths(vectors(space)))
    return noise.numbers(key.fold("vectors"), count, space.theta.device) if count else space.theta.new_zeros(0)


def _svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (G, m, k), S (G, k) and V (G, n, k) of x (G, m, n), k the smaller side, by way of the square factor of x."""
    if x.shape[1] < x.shape[2]:
        v, s, u = _svd(x.mT)
        return u, s, v
    q, square = torch.linalg.qr(x)  # what is thin becomes small: libraries are slow at many thin matrices
    u, s, vt = torch.linalg.svd(square)
    return q @ u, s, vt.mT


def _orthonormal(x: Tensor) -> Tensor:
    q, r = torch.linalg.qr(x)
    signed: Tensor = q * torch.where(r.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0).unsqueeze(1)
    return signed


def _span(group: Group, rank: int) -> float:
    return math.sqrt(group.m * group.n) / group.rank(rank)


def _left(step: Step, steps: int, device: torch.device) -> Tensor:
    """The share of a run that is left, () float32."""
    now = step if isinstance(step, Tensor) else torch.full((), step, dtype=torch.int64, device=device)
    return (1 - now / steps).clamp(min=0)
