"""The table of methods, each a sampler × estimator × rule. Plain data: composition.py reads it, zo/build.py makes them.

A row (`Piece`) says everything that is known of a sampler, an estimator or a rule without torch: a new one costs its
class and its row. Another package adds one by `ESTIMATORS["mine"] = Piece(…)`, or to SAMPLERS, WRAPPERS or RULES.

Shapes are those of a space's blocks by name: matrices (m, n) and vectors; n numbers in all. State is what is held from
step to step beside theta and the copies, in bytes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zolite.common.errors import UsageError
from zolite.config.fields import setting
from zolite.config.spaces import SPACES

Shapes = Mapping[str, tuple[int, ...]]
FLOAT = 4  # bytes
NET_BYTES = FLOAT * (64 * 5 + 64 + 64 + 1)  # a block's network in `learned`


@dataclass(frozen=True)
class Whole:
    """A method with nothing open, and the run's sizes that decide with it what a step measures."""

    method: "ResolvedMethod"
    queries: int
    batch: int

    @property
    def wrappers(self) -> list[str]:
        """Samplers around the innermost one, from the outside in."""
        return chain_of(self.method.sampler)[:-1]

    @property
    def innermost(self) -> str:
        return chain_of(self.method.sampler)[-1]

    @property
    def directions(self) -> int:
        """Directions, and so coefficients, of a step."""
        return self.batch if ESTIMATORS[self.method.estimator].per_example else self.queries


@dataclass(frozen=True)
class Need:
    """What a piece goes together with. In `reason`, {sampler}, {estimator}, {pool} and so on are filled in."""

    holds: Callable[[Whole], bool]
    reason: str


@dataclass(frozen=True)
class Piece:
    """A sampler, a wrapper of samplers, an estimator or a rule.

    `make` is its class as "module:Class", or the class itself. Its fields are filled by name: with the settings of
    MethodPart, with train's eps, queries, batch and steps, with `sampler` (an estimator's), `inner` and `nets` (a
    wrapper's), and with what `fixed` says.
    """

    summary: str
    make: str | Callable[..., Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)  # the settings that it reads, and its defaults for them
    needs: tuple[Need, ...] = ()

    # What it costs.
    formula: str = "0"  # bytes of state, in words …
    state: Callable[["ResolvedMethod", Shapes], int] = lambda m, shapes: 0  # … and in numbers
    points: Callable[[Whole], float] = lambda w: 0  # measured in a step by this piece, the mean over steps
    at_once: Callable[[Whole], int] = lambda w: 0  # the most points that it wants in one forward
    in_kernel: bool = True  # engine/noise_kernels.py draws its directions; else they are written out in float32
    replays: bool = True  # a journal's losses say all that it did; else it needs the model again

    # What it does to the learning rate and ε (composition.step_sizes).
    length: Callable[["ResolvedMethod"], float] = lambda m: 1.0  # of its directions, root mean square, over MeZO's
    damping: Callable[["ResolvedMethod"], float] = lambda m: 1.0  # what the learning rate is multiplied by
    step: Callable[[float], float] | None = None  # of what takes the gradient's size away: ε to step length over rms's

    # Samplers and wrappers.
    independent: bool = False  # every number is drawn on its own
    ranks: bool = False  # measures a pool of candidates, one point each, before it chooses

    # Estimators.
    mirrored: bool = False  # points are pairs θ ± εd, measured together
    theta_first: bool = False  # measures θ itself before it draws
    per_example: bool = False  # every row of the batch has points of its own

    # Rules.
    moment: bool = False  # keeps past estimates, and leaves no coefficients to the rules behind it


# --- sizes of states -------------------------------------------------------------------------------------------------


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


def _subspace(m: "ResolvedMethod", shapes: Shapes) -> int:
    return FLOAT * _factors([square(*shape) for shape in _matrices(shapes)], m.rank)


def _aligned(m: "ResolvedMethod", shapes: Shapes) -> int:
    found = _matrices(shapes)
    return FLOAT * (_factors(found, m.rank) + sum(min(m.rank, *shape) for shape in found))


def _factor_momentum(m: "ResolvedMethod", shapes: Shapes) -> int:
    return FLOAT * (_factors(_matrices(shapes), m.rank) + _vectors(shapes))


def _guided_length(m: "ResolvedMethod") -> float:
    first = int(m.share * m.pool)
    return 1.0 if m.unit else math.sqrt(1 / first + 1 / (m.pool - first))


# --- samplers --------------------------------------------------------------------------------------------------------

SAMPLERS: dict[str, Piece] = {
    "normal": Piece(
        "Gaussian numbers",
        "zolite.zo.samplers:Independent",
        fixed={"distribution": "normal"},
        independent=True,
    ),
    "rademacher": Piece(
        "random signs; the same bits on every device",
        "zolite.zo.samplers:Independent",
        fixed={"distribution": "rademacher"},
        independent=True,
    ),
    "low-rank": Piece(
        "U Vᵀ, V the same for a while",
        "zolite.zo.samplers:LowRank",
        numbers={"rank": 2, "every": 50},
        in_kernel=False,
        length=lambda m: math.sqrt(m.rank),
    ),
    "subspace": Piece(
        "U Z Vᵀ in an orthonormal subspace, new once in a while",
        "zolite.zo.samplers:Subspace",
        numbers={"rank": 8, "every": 1000},
        formula="4 Σ r (m' + n')",
        state=_subspace,
        in_kernel=False,
    ),
    "aligned": Piece(
        "in the space of a probed gradient, with a set part along it",
        "zolite.zo.samplers:Aligned",
        numbers={"rank": 8, "every": 100, "probes": 10, "delta": 2.0},
        formula="4 Σ r (m + n + 1)",
        state=_aligned,
        points=lambda w: 2 * w.method.probes / w.method.every,
        in_kernel=False,
    ),
    "activation": Piece(
        "along the main direction of each layer's inputs",
        "zolite.zo.samplers:Activation",
        needs=(
            Need(
                lambda w: ESTIMATORS[w.method.estimator].theta_first and not w.wrappers,
                "sampler activation needs θ measured before it draws, not {sampler} with {estimator}; take activation "
                "with one-sided",
            ),
        ),
        formula="4 Σ n",
        state=lambda m, shapes: FLOAT * sum(n for _, n in _matrices(shapes)),
        in_kernel=False,
        replays=False,
    ),
}

POOL = Need(
    lambda w: w.method.pool > 2,
    "method.pool is {pool}: the estimate is even in z₁ − z₂, so ranking two changes nothing and the step is mezo's at "
    "twice the cost; take 3 or more",
)

# Samplers of another sampler's directions.
WRAPPERS: dict[str, Piece] = {
    "guided": Piece(
        "the better half of a pool minus the worse",
        "zolite.zo.samplers:Guided",
        fixed={"greedy": False},
        numbers={"pool": 4, "share": 0.5},
        needs=(
            POOL,
            Need(
                lambda w: 1 <= int(w.method.share * w.method.pool) < w.method.pool,
                "method.share {share:g} of a pool of {pool} leaves one side empty",
            ),
        ),
        points=lambda w: w.method.pool * w.queries,
        at_once=lambda w: w.method.pool,
        length=_guided_length,
        ranks=True,
    ),
    "greedy": Piece(
        "the best of a pool",
        "zolite.zo.samplers:Guided",
        fixed={"greedy": True},
        numbers={"pool": 4},
        needs=(POOL,),
        points=lambda w: w.method.pool * w.queries,
        at_once=lambda w: w.method.pool,
        ranks=True,
    ),
    "learned": Piece(
        "scaled block by block by learned networks",
        "zolite.zo.samplers:Learned",
        needs=(
            Need(
                lambda w: w.wrappers[-1] == "learned",
                "method.sampler {sampler!r} would scale a direction after it was ranked; put learned inside",
            ),
            Need(
                lambda w: bool(w.method.optimizer),
                "sampler learned needs method.optimizer, a file that `zolite learn-optimizer` writes",
            ),
        ),
        formula=f"{NET_BYTES + FLOAT} blocks + 8",
        state=lambda m, shapes: (NET_BYTES + FLOAT) * len(shapes) + 2 * FLOAT,
        in_kernel=False,
    ),
}

# --- estimators ------------------------------------------------------------------------------------------------------

INDEPENDENT = " or ".join(name for name, piece in SAMPLERS.items() if piece.independent)

ESTIMATORS: dict[str, Piece] = {
    "two-sided": Piece(
        "differences of losses at both sides",
        "zolite.zo.estimators:TwoSided",
        points=lambda w: 2 * w.queries,
        at_once=lambda w: 2 * w.queries,
        mirrored=True,
    ),
    "one-sided": Piece(
        "differences to the loss at θ",
        "zolite.zo.estimators:OneSided",
        numbers={"queries": 8},
        points=lambda w: w.queries + 1,
        at_once=lambda w: w.queries,
        theta_first=True,
    ),
    "population": Piece(
        "differences to the mean loss of all directions",
        "zolite.zo.estimators:Population",
        numbers={"queries": 8},
        needs=(
            Need(
                lambda w: w.queries > 1,
                "estimator population compares directions with each other: train.queries must be 2 or more",
            ),
        ),
        points=lambda w: w.queries,
        at_once=lambda w: w.queries,
    ),
    "curvature": Piece(
        "two-sided, by a running diagonal of the Hessian",
        "zolite.zo.estimators:Curvature",
        numbers={"smooth": 1e-6},
        needs=(
            Need(
                lambda w: SAMPLERS[w.innermost].independent,
                "estimator curvature has a number a coordinate, which {innermost} directions mix; take " + INDEPENDENT,
            ),
            Need(
                lambda w: not w.wrappers,
                "estimator curvature scales directions itself and cannot take {sampler}; take {innermost}",
            ),
        ),
        formula="4 n",
        state=lambda m, shapes: FLOAT * _numbers(shapes),
        points=lambda w: 2 * w.queries + 1,
        at_once=lambda w: 2 * w.queries + 1,
        in_kernel=False,
    ),
    "per-example": Piece(
        "both sides of a direction of its own for every example",
        "zolite.zo.estimators:PerExample",
        needs=(
            Need(
                lambda w: w.method.sampler == "normal",
                "estimator per-example draws its own directions around normal ones, not {sampler}; take two-sided",
            ),
            Need(
                lambda w: w.queries == 1,
                "estimator per-example has a direction for every row of the batch, so train.queries cannot be "
                "{queries}",
            ),
            Need(
                lambda w: w.batch > 1,
                "estimator per-example compares rows: train.batch must be 2 or more",
            ),
        ),
        points=lambda w: 2,
        at_once=lambda w: 2 * w.batch,
        in_kernel=False,
        step=lambda eps: 10 * eps,  # its coefficients are still over ε
        mirrored=True,
        per_example=True,
    ),
}

# --- rules -----------------------------------------------------------------------------------------------------------

RULES: dict[str, Piece] = {
    "sign": Piece("the coefficient's sign", "zolite.zo.updates:Sign", step=lambda eps: 0.3),
    "rms": Piece(
        "the coefficient over its running root mean square",
        "zolite.zo.updates:Rms",
        numbers={"beta2": 0.99},
        formula="8",
        state=lambda m, shapes: 2 * FLOAT,
        step=lambda eps: 1.0,
    ),
    "clip": Piece("the coefficient, cut", "zolite.zo.updates:Clip", numbers={"clip": 100.0}),
    "std-normalize": Piece(
        "coefficients over their standard deviation",
        "zolite.zo.updates:StdNormalize",
        needs=(
            Need(
                lambda w: w.directions > 1,
                "rule std-normalize needs a standard deviation: train.queries must be 2 or more",
            ),
        ),
        step=lambda eps: 1.0,
    ),
    "momentum": Piece(
        "momentum",
        "zolite.zo.updates:Momentum",
        numbers={"beta": 0.9},
        formula="4 n",
        state=lambda m, shapes: FLOAT * _numbers(shapes),
        damping=lambda m: 1 - m.beta,
        moment=True,
    ),
    "adam": Piece(
        "Adam's moments",
        "zolite.zo.updates:Adam",
        numbers={"beta": 0.9, "beta2": 0.999},
        formula="8 n",
        state=lambda m, shapes: 2 * FLOAT * _numbers(shapes),
        step=lambda eps: 0.3,
        moment=True,
    ),
    "factor-momentum": Piece(
        "momentum on U",
        "zolite.zo.updates:FactorMomentum",
        numbers={"beta": 0.9},
        needs=(
            Need(
                lambda w: (
                    w.innermost == "low-rank"
                    and all(WRAPPERS[name].in_kernel for name in w.wrappers)
                    and ESTIMATORS[w.method.estimator].in_kernel
                ),
                "rule factor-momentum keeps the U of U Vᵀ, which {sampler} with {estimator} has not; take low-rank, or "
                "momentum",
            ),
        ),
        formula="4 Σ r (m + n)",
        state=_factor_momentum,
        moment=True,
    ),
}


# --- methods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A published composition: a name, where it is from, its parts, and the numbers in which it departs from theirs."""

    name: str
    paper: str
    summary: str
    sampler: str = "normal"
    estimator: str = "two-sided"
    rule: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    spaces: tuple[str, ...] = tuple(SPACES)


METHODS = {
    m.name: m
    for m in (
        Method("mezo", "Malladi et al. 2023, arXiv 2305.17333", "two-sided differences along Gaussian directions"),
        Method(
            "mezo-sign",
            "Zhang et al. 2024, arXiv 2402.11592 (ZO-signSGD)",
            "mezo by the projected gradient's sign alone",
            rule=("sign",),
        ),
        Method(
            "mezo-rms",
            "arXiv 2605.03869 (MEAZO), with a cut; Kingma and Ba 2015, arXiv 1412.6980",
            "mezo in steps of about one length",
            rule=("rms",),
        ),
        Method(
            "mezo-momentum",
            "Zhang et al. 2024, arXiv 2402.11592 (ZO-SGD-MMT)",
            "mezo with momentum",
            rule=("momentum",),
        ),
        Method(
            "mezo-adam",
            "Malladi et al. 2023, arXiv 2305.17333, section 2.2",
            "mezo through Adam's moments",
            rule=("adam",),
        ),
        Method(
            "spsa",
            "Spall 1992, IEEE TAC 37(3)",
            "mezo along random signs; the same bits on every device",
            sampler="rademacher",
        ),
        Method(
            "lozo",
            "Chen et al. 2024, arXiv 2410.07698",
            "directions U Vᵀ of low rank, V kept for a while",
            sampler="low-rank",
        ),
        Method(
            "lozo-m",
            "Chen et al. 2024, arXiv 2410.07698, algorithm 2",
            "lozo with momentum on U",
            sampler="low-rank",
            rule=("factor-momentum",),
        ),
        Method(
            "pgap",
            "Mi et al. 2025, arXiv 2510.18228",
            "directions in the space of a probed gradient",
            sampler="aligned",
        ),
        Method(
            "mezo-gv",
            "Jin et al. 2026, arXiv 2601.04710",
            "along the better half of a pool minus the worse",
            sampler="guided(normal)",
        ),
        Method(
            "mezo-greedy",
            "Jin et al. 2026, arXiv 2601.04710, algorithm 3",
            "along the best of a pool",
            sampler="greedy(normal)",
        ),
        Method(
            "zo-finetuner", "arXiv 2510.00419", "mezo with a learned scale for every block", sampler="learned(normal)"
        ),
        Method(
            "hizoo",
            "Zhao et al. 2024, arXiv 2402.15173",
            "scaled by a running diagonal of the Hessian",
            estimator="curvature",
        ),
        Method(
            "subzero",
            "Yu et al. 2024, arXiv 2410.08989",
            "directions in a random orthonormal subspace",
            sampler="subspace",
        ),
        Method(
            "agzo",
            "arXiv 2601.17261",
            "along the main direction of each layer's inputs",
            sampler="activation",
            estimator="one-sided",
            numbers={"queries": 1},
        ),
        Method(
            "fzoo",
            "Dang et al. 2025, arXiv 2506.09034",
            "eight one-sided signs, the step over their standard deviation",
            sampler="rademacher",
            estimator="one-sided",
            rule=("std-normalize",),
        ),
        Method(
            "es",
            "Qiu et al. 2025, arXiv 2509.24372",
            "a population of one-sided directions, the step over the standard deviation of their losses",
            estimator="population",
            rule=("std-normalize",),
            numbers={"queries": 30},
        ),
        Method(
            "grzo",
            "arXiv 2606.02857",
            "a direction for every example, modulated from a shared one",
            estimator="per-example",
        ),
        Method(
            "qzo", "Shang et al. 2025, arXiv 2505.13430", "mezo with the projected gradient clipped", rule=("clip",)
        ),
    )
}


def method(name: str) -> Method:
    """A row by name."""
    if name not in METHODS:
        raise UsageError(f"no method {name!r}", f"choose one of {', '.join(METHODS)} (`zolite methods` explains them)")
    return METHODS[name]


# --- settings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MethodPart:
    """What was asked for: None leaves a choice to the method's row and to its parts' rows."""

    name: str = setting(
        "mezo-rms",
        "a row of `zolite methods`; it decides what is left open below",
        flags=("--method",),
        choices=tuple(METHODS),
    )
    sampler: str | None = setting(
        None, f"where directions come from: {', '.join(SAMPLERS)}; {', '.join(f'{w}(…)' for w in WRAPPERS)} of these"
    )
    estimator: str | None = setting(None, f"what is measured: {', '.join(ESTIMATORS)}")
    rule: tuple[str, ...] | None = setting(None, f"what is made of it, in order: {', '.join(RULES)}")
    rank: int | None = setting(None, "rank of low-rank, subspace and aligned directions")
    every: int | None = setting(None, "steps until their basis is new")
    probes: int | None = setting(None, "directions that aligned probes for a new basis")
    delta: float | None = setting(
        None, "squared part along the probed gradient that aligned starts with; falls to 0 over the run"
    )
    pool: int | None = setting(None, "candidates that guided and greedy rank")
    share: float | None = setting(None, "share of them that guided takes for the better ones")
    unit: bool = setting(False, "guided's direction as long as a candidate's")
    smooth: float | None = setting(None, "weight of a step in curvature's running diagonal")
    clip: float | None = setting(None, "largest projected gradient that clip lets through")
    beta: float | None = setting(None, "what momentum keeps of itself each step; adam's first moment too")
    beta2: float | None = setting(None, "what the second moment of rms and adam keeps of itself")
    decay: float = setting(0.0, "weight decay of matrices")
    optimizer: str = setting("", "file of `zolite learn-optimizer`, for learned")


@dataclass(frozen=True)
class ResolvedMethod(MethodPart):
    """A method with nothing open, as composition.resolved makes it. Numbers that none of its parts reads are 0."""

    sampler: str = field(kw_only=True)
    estimator: str = field(kw_only=True)
    rule: tuple[str, ...] = field(kw_only=True)
    rank: int = 0
    every: int = 0
    probes: int = 0
    delta: float = 0.0
    pool: int = 0
    share: float = 0.0
    smooth: float = 0.0
    clip: float = 0.0
    beta: float = 0.0
    beta2: float = 0.0


RENAMED_VALUES = {
    "method.sampler": {"signs": "rademacher"},
    "method.rule": {"spread": "std-normalize"},
}
"""Values by the names that they had before, by setting: sessions and recipe files of old may hold them."""


def chain_of(sampler: str) -> list[str]:
    """The names in "guided(low-rank)", from the outside in."""
    return sampler.replace(" ", "").rstrip(")").split("(")
