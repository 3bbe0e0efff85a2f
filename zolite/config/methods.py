"""The table of methods: each a sampler × estimator × rule, with what it costs. Plain data; core/build.py makes them.

Shapes are those of a space's blocks by name: matrices (m, n) and vectors; n numbers in all. State is what is held from
step to step beside theta and the copies, in bytes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zolite.common.errors import UsageError
from zolite.config.composition import MethodPart, chain_of
from zolite.config.recipe import SPACES, ResolvedTrain

Shapes = Mapping[str, tuple[int, ...]]
FLOAT = 4  # bytes
NET_BYTES = FLOAT * (64 * 5 + 64 + 64 + 1)  # a block's network in `learned`


@dataclass(frozen=True)
class Piece:
    """What a sampler, an estimator or a rule holds, and how many points it measures."""

    summary: str
    formula: str = "0"
    state: Callable[[MethodPart, Shapes], int] = lambda m, shapes: 0
    points: Callable[[MethodPart, int], float] = lambda m, queries: 0.0  # a step, for that many directions


def _matrices(shapes: Shapes) -> list[tuple[int, int]]:
    return [(shape[0], math.prod(shape[1:])) for shape in shapes.values() if len(shape) > 1]


def _numbers(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))


def _vectors(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values() if len(shape) < 2)


def square(m: int, n: int) -> tuple[int, int]:
    """The shape nearest to a square of as many numbers."""
    size = m * n
    side = next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)
    return side, size // side


def _factors(shapes: list[tuple[int, int]], rank: int) -> int:
    return sum(min(rank, m, n) * (m + n) for m, n in shapes)


def _subspace(m: MethodPart, shapes: Shapes) -> int:
    return FLOAT * _factors([square(*shape) for shape in _matrices(shapes)], m.rank)


def _aligned(m: MethodPart, shapes: Shapes) -> int:
    found = _matrices(shapes)
    return FLOAT * (_factors(found, m.rank) + sum(min(m.rank, *shape) for shape in found))


def _factor_momentum(m: MethodPart, shapes: Shapes) -> int:
    return FLOAT * (_factors(_matrices(shapes), m.rank) + _vectors(shapes))


SAMPLERS = {
    "normal": Piece("Gaussian numbers"),
    "signs": Piece("random signs; the same bits on every device"),
    "low-rank": Piece("U Vᵀ, V the same for a while"),
    "subspace": Piece("U Z Vᵀ in an orthonormal subspace, new once in a while", "4 Σ r (m' + n')", _subspace),
    "activation": Piece(
        "along the main direction of each layer's inputs",
        "4 Σ n",
        lambda m, shapes: FLOAT * sum(n for _, n in _matrices(shapes)),
    ),
    "aligned": Piece(
        "in the space of a probed gradient, with a set part along it",
        "4 Σ r (m + n + 1)",
        _aligned,
        lambda m, queries: 2 * m.probes / m.every,
    ),
    "guided": Piece("the better half of a pool minus the worse", points=lambda m, queries: m.pool * queries),
    "greedy": Piece("the best of a pool", points=lambda m, queries: m.pool * queries),
    "learned": Piece(
        "scaled block by block by learned networks",
        f"{NET_BYTES + FLOAT} blocks + 8",
        lambda m, shapes: (NET_BYTES + FLOAT) * len(shapes) + 2 * FLOAT,
    ),
}

ESTIMATORS = {
    "two-sided": Piece("differences of losses at both sides", points=lambda m, queries: 2 * queries),
    "one-sided": Piece("differences to the loss at θ", points=lambda m, queries: queries + 1),
    "curvature": Piece(
        "two-sided, by a running diagonal of the Hessian",
        "4 n",
        lambda m, shapes: FLOAT * _numbers(shapes),
        lambda m, queries: 2 * queries + 1,
    ),
    "per-example": Piece("both sides of a direction of its own for every example", points=lambda m, queries: 2),
}

RULES = {
    "sign": Piece("the coefficient's sign"),
    "rms": Piece("the coefficient over its running root mean square", "8", lambda m, shapes: 2 * FLOAT),
    "clip": Piece("the coefficient, cut"),
    "spread": Piece("coefficients over their standard deviation"),
    "momentum": Piece("momentum", "4 n", lambda m, shapes: FLOAT * _numbers(shapes)),
    "adam": Piece("Adam's moments", "8 n", lambda m, shapes: 2 * FLOAT * _numbers(shapes)),
    "factor-momentum": Piece("momentum on U", "4 Σ r (m + n)", _factor_momentum),
}


@dataclass(frozen=True)
class Method:
    """A row: a name for a composition. Its numbers' defaults are in recipe.py."""

    name: str
    paper: str
    summary: str
    spaces: tuple[str, ...] = SPACES


METHODS = {
    m.name: m
    for m in (
        Method("mezo", "Malladi et al. 2023, arXiv 2305.17333", "two-sided differences along Gaussian directions"),
        Method("mezo-sign", "Zhang et al. 2024, arXiv 2402.11592 (ZO-signSGD)", "mezo by the slope's sign alone"),
        Method(
            "mezo-rms", "Kingma and Ba 2015, arXiv 1412.6980, of the slope alone", "mezo in steps of about one length"
        ),
        Method("mezo-momentum", "Zhang et al. 2024, arXiv 2402.11592 (ZO-SGD-MMT)", "mezo with momentum"),
        Method("mezo-adam", "Malladi et al. 2023, arXiv 2305.17333, section 2.2", "mezo through Adam's moments"),
        Method("spsa", "Spall 1992, IEEE TAC 37(3)", "mezo along random signs; the same bits on every device"),
        Method("lozo", "Chen et al. 2024, arXiv 2410.07698", "directions U Vᵀ of low rank, V kept for a while"),
        Method("lozo-m", "Chen et al. 2024, arXiv 2410.07698, algorithm 2", "lozo with momentum on U"),
        Method("pgap", "Mi et al. 2025, arXiv 2510.18228", "directions in the space of a probed gradient"),
        Method("mezo-gv", "Jin et al. 2026, arXiv 2601.04710", "along the better half of a pool minus the worse"),
        Method("mezo-greedy", "Jin et al. 2026, arXiv 2601.04710, algorithm 3", "along the best of a pool"),
        Method("zo-finetuner", "arXiv 2510.00419", "mezo with a learned scale for every block"),
        Method("hizoo", "Zhao et al. 2024, arXiv 2402.15173", "scaled by a running diagonal of the Hessian"),
        Method("subzero", "Yu et al. 2024, arXiv 2410.08989", "directions in a random orthonormal subspace"),
        Method("agzo", "arXiv 2601.17261", "along the main direction of each layer's inputs"),
        Method("fzoo", "Dang et al. 2025, arXiv 2506.09034", "eight one-sided signs, the step over their spread"),
        Method("grzo", "arXiv 2606.02857", "a direction for every example, modulated from a shared one"),
        Method("qzo", "Zhou et al. 2025, arXiv 2505.13430", "mezo with the slope clipped"),
    )
}


def method(name: str) -> Method:
    """A row by name."""
    if name not in METHODS:
        raise UsageError(f"no method {name!r}", f"choose one of {', '.join(METHODS)} (`zolite methods` explains them)")
    return METHODS[name]


def pieces(m: MethodPart) -> list[Piece]:
    """Everything that a resolved method is made of."""
    samplers = [SAMPLERS[name] for name in chain_of(m.sampler)]
    return [*samplers, ESTIMATORS[m.estimator], *(RULES[name] for name in m.rule)]


def forwards_per_step(m: MethodPart, train: ResolvedTrain) -> float:
    """Points measured in a step, each one forward of the batch: the mean over steps."""
    return sum(piece.points(m, train.queries) for piece in pieces(m))


def state_bytes(m: MethodPart, shapes: Shapes) -> int:
    """Bytes held from step to step beside theta and the copies."""
    return sum(piece.state(m, shapes) for piece in pieces(m))


def state_formula(m: MethodPart) -> str:
    """The same in words: n numbers in all, r rank, m and n a matrix's sides (m' and n' of its nearest square)."""
    return " + ".join(piece.formula for piece in pieces(m) if piece.formula != "0") or "0"
