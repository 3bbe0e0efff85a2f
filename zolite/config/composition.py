"""Which sampler, estimator and rule make a method, which go together, and their published numbers. Plain data."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from zolite.config.fields import setting

# (learning rate, ε) of mezo where the recipe leaves them open. MeZO's published LoRA values (ε 1e-2, 1e-4) are for 13B;
# these were measured on small models (docs/log.md). lora-core's are lora-b's by the curvature along its coordinates,
# which is a hundred times as large: it then takes the same share of a step.
STEP_SIZES = {"lora": (3e-4, 1e-2), "lora-b": (3e-3, 1e-2), "lora-core": (2e-5, 1e-3)}

MOST_COPIES = 8  # by default: each is another copy of the adapter, and as many rows more in a forward
INNERMOST = ("normal", "signs", "low-rank", "subspace", "aligned", "activation")
FROM_THE_MODEL = ("activation",)  # samplers that look at more than losses, so that a journal does not say it all
AROUND = ("guided", "greedy", "learned")  # samplers of another sampler's directions
ESTIMATORS = ("two-sided", "one-sided", "curvature", "per-example")
RULES = ("sign", "rms", "clip", "spread", "momentum", "adam", "factor-momentum")

# A row of the table of methods: its parts, and the numbers in which it departs from its parts' own (NUMBERS below).
Row = dict[str, Any]
ROWS: dict[str, Row] = {
    "mezo": {},
    "mezo-sign": {"rule": ("sign",)},
    "mezo-rms": {"rule": ("rms",)},
    "mezo-momentum": {"rule": ("momentum",)},
    "mezo-adam": {"rule": ("adam",)},
    "spsa": {"sampler": "signs"},
    "lozo": {"sampler": "low-rank"},
    "lozo-m": {"sampler": "low-rank", "rule": ("factor-momentum",)},
    "pgap": {"sampler": "aligned"},
    "mezo-gv": {"sampler": "guided(normal)"},
    "mezo-greedy": {"sampler": "greedy(normal)"},
    "zo-finetuner": {"sampler": "learned(normal)"},
    "hizoo": {"estimator": "curvature"},
    "subzero": {"sampler": "subspace"},
    "agzo": {"sampler": "activation", "estimator": "one-sided", "queries": 1},
    "fzoo": {"sampler": "signs", "estimator": "one-sided", "rule": ("spread",)},
    "grzo": {"estimator": "per-example"},
    "qzo": {"rule": ("clip",)},
}

# Learning rates by space of what takes the slope's size away: change a number and step, about. Those of lora-b are
# measured (docs/log.md), the others have rms's proportions.
RATES: dict[str, dict[str, float]] = {
    "sign": {"lora": 9e-5, "lora-b": 9e-4, "lora-core": 9e-5},
    "rms": {"lora": 3e-4, "lora-b": 3e-3, "lora-core": 3e-4},
    "adam": {"lora": 9e-5, "lora-b": 9e-4, "lora-core": 9e-5},
    "spread": {"lora": 3e-4, "lora-b": 3e-3, "lora-core": 3e-4},
    "per-example": {"lora": 3e-3, "lora-b": 3e-2, "lora-core": 3e-3},
}

# Published defaults of the parts, for LoRA where their papers have any (docs/methods.md).
NUMBERS: dict[str, dict[str, Any]] = {
    "low-rank": {"rank": 2, "every": 50},
    "subspace": {"rank": 8, "every": 1000},
    "aligned": {"rank": 8, "every": 100, "probes": 10, "delta": 2.0},
    "guided": {"pool": 4, "share": 0.5},
    "greedy": {"pool": 4},
    "curvature": {"smooth": 1e-6},
    "one-sided": {"queries": 8},
    "clip": {"clip": 100.0},
    "rms": {"beta2": 0.99},
    "momentum": {"beta": 0.9},
    "adam": {"beta": 0.9, "beta2": 0.999},
    "factor-momentum": {"beta": 0.9},
}


@dataclass(frozen=True)
class MethodPart:
    name: str = setting(
        "mezo-rms",
        "a row of `zolite methods`; it decides what is left open below",
        flags=("--method",),
        choices=tuple(ROWS),
    )
    sampler: str = setting(
        "", "where directions come from: normal, signs, low-rank, subspace, aligned, activation; guided(…) and the like"
    )
    estimator: str = setting("", "what is measured: two-sided, one-sided, curvature or per-example")
    rule: tuple[str, ...] = setting(
        (),
        "what is made of it, in order: sign, rms, clip, spread, momentum, adam, factor-momentum",
    )
    rank: int = setting(0, "rank of low-rank, subspace and aligned directions")
    every: int = setting(0, "steps until their basis is new")
    probes: int = setting(0, "directions that aligned looks along for a new basis")
    delta: float = setting(
        0.0, "squared part along the probed gradient that aligned starts with; falls to 0 over the run"
    )
    pool: int = setting(0, "candidates that guided and greedy rank")
    share: float = setting(0.0, "share of them that guided takes for the better ones")
    unit: bool = setting(False, "guided's direction as long as a candidate's")
    smooth: float = setting(0.0, "weight of a step in curvature's running diagonal")
    clip: float = setting(0.0, "largest slope that clip lets through")
    beta: float = setting(0.0, "what momentum keeps of itself each step; adam's first moment too")
    beta2: float = setting(0.0, "what adam's second moment keeps of itself")
    decay: float = setting(0.0, "weight decay of matrices")
    optimizer: str = setting("", "file of `zolite learn-optimizer`, for learned")


def chain_of(sampler: str) -> list[str]:
    """The names in "guided(low-rank)", from the outside in."""
    return sampler.replace(" ", "").rstrip(")").split("(")


def deterministic(m: MethodPart) -> bool:
    """Do a step's losses say all that it did, so that a journal replays without the model? Of a composed method."""
    return not set(chain_of(m.sampler)) & set(FROM_THE_MODEL)


def composed(m: MethodPart) -> MethodPart:
    """A method with its parts and numbers filled in, where its name and its parts say what they are."""
    row = {"sampler": "normal", "estimator": "two-sided", "rule": (), **ROWS[m.name]}
    parts = {name: getattr(m, name) or row[name] for name in ("sampler", "estimator", "rule")}
    used = [*chain_of(parts["sampler"]), parts["estimator"], *parts["rule"]]
    numbers = {name: value for part in used for name, value in NUMBERS.get(part, {}).items() if name != "queries"}
    open_ = {name: value for name, value in numbers.items() if not getattr(m, name)}
    return dataclasses.replace(m, **parts, **open_)


def check(m: MethodPart, queries: int, batch: int) -> list[str]:
    """Everything wrong with a method: what does not exist, what does not go together, and why."""
    if m.name not in ROWS:
        return [f"method.name is {m.name!r}, not one of {', '.join(ROWS)}"]
    m = composed(m)
    *around, innermost = chain_of(m.sampler)
    known = (
        (innermost in INNERMOST, f"method.sampler {m.sampler!r} does not end in one of {', '.join(INNERMOST)}"),
        (set(around) <= set(AROUND), f"method.sampler {m.sampler!r}: only {', '.join(AROUND)} go around another"),
        (m.estimator in ESTIMATORS, f"method.estimator is {m.estimator!r}, not one of {', '.join(ESTIMATORS)}"),
        (set(m.rule) <= set(RULES), f"method.rule is {', '.join(m.rule)}; there are {', '.join(RULES)}"),
    )
    problems = [message for holds, message in known if not holds]
    return problems or [
        message for holds, message in _together(m, queries or queries_of(m), batch, around, innermost) if not holds
    ]


def _together(
    m: MethodPart, queries: int, batch: int, around: list[str], innermost: str
) -> tuple[tuple[bool, str], ...]:
    moments = [rule for rule in m.rule if rule in ("momentum", "adam", "factor-momentum")]
    per_direction = [rule for rule in m.rule if rule in ("sign", "rms", "clip", "spread")]
    pooled = "guided" in around or "greedy" in around
    limits = {"rank": 4096, "every": 10**9, "probes": 256, "pool": 64}
    return (
        (len(set(around)) == len(around), f"method.sampler {m.sampler!r} goes around itself; name each once"),
        (
            "learned" not in around or around[-1] == "learned",
            f"method.sampler {m.sampler!r} would scale a direction after it was ranked; put learned inside",
        ),
        (not {"guided", "greedy"} <= set(around), "method.sampler: guided and greedy rank the same pool; choose one"),
        (
            not pooled or m.pool > 2,
            f"method.pool is {m.pool}: the estimate is even in z₁ − z₂, so ranking two changes nothing and the step is "
            "mezo's at twice the cost; take 3 or more",
        ),
        *(
            (0 <= getattr(m, k) <= most, f"method.{k} is {getattr(m, k)}, not 1 to {most}")
            for k, most in limits.items()
        ),
        (
            "guided" not in around or 1 <= int(m.share * m.pool) < m.pool,
            f"method.share {m.share:g} of a pool of {m.pool} leaves one side empty",
        ),
        (
            m.estimator != "per-example" or m.sampler == "normal",
            f"estimator per-example draws its own directions around normal ones, not {m.sampler}; take two-sided",
        ),
        (
            m.estimator != "per-example" or queries == 1,
            f"estimator per-example has a direction for every row of the batch, so train.queries cannot be {queries}",
        ),
        (
            m.estimator != "per-example" or batch > 1,
            "estimator per-example compares rows: train.batch must be 2 or more",
        ),
        (
            m.estimator != "curvature" or innermost in ("normal", "signs"),
            f"estimator curvature has a number a coordinate, which {innermost} directions mix; take normal or signs",
        ),
        (
            m.estimator != "curvature" or not around,
            f"estimator curvature scales directions itself and cannot take {m.sampler}; take {innermost}",
        ),
        (
            "spread" not in m.rule or queries > 1 or m.estimator == "per-example",
            "rule spread needs a standard deviation: train.queries must be 2 or more",
        ),
        (len(moments) < 2, f"method.rule has {' and '.join(moments)}; one kind of momentum is enough"),
        (
            not moments or not per_direction or m.rule.index(moments[0]) > max(map(m.rule.index, per_direction)),
            f"method.rule: {', '.join(per_direction)} must come before {', '.join(moments)}, which leaves no slopes",
        ),
        (
            "factor-momentum" not in m.rule
            or (innermost == "low-rank" and "learned" not in around and m.estimator != "curvature"),
            f"rule factor-momentum keeps the U of U Vᵀ, which {m.sampler} has not; take low-rank, or momentum",
        ),
        (
            innermost != "activation" or (m.estimator == "one-sided" and not around),
            f"sampler activation needs θ measured before it draws, not {m.sampler} with {m.estimator}; take activation "
            "with one-sided",
        ),
        (
            "learned" not in around or bool(m.optimizer),
            "sampler learned needs method.optimizer, a file that `zolite learn-optimizer` writes",
        ),
        (m.smooth >= 0 and m.smooth <= 1, f"method.smooth is {m.smooth:g}, not 0 to 1"),
        (m.delta >= 0, f"method.delta is {m.delta:g}, below 0"),
        (m.clip >= 0, f"method.clip is {m.clip:g}, below 0"),
        (
            0 <= m.beta < 1 and 0 <= m.beta2 < 1,
            f"method.beta and beta2 are {m.beta:g} and {m.beta2:g}, not 0 to below 1",
        ),
        (0 <= m.decay < 1, f"method.decay is {m.decay:g}, not 0 to below 1"),
    )


def at_once(m: MethodPart, queries: int, batch: int) -> int:
    """The most points that a step wants at a time: any order of them, as the estimators and samplers have it."""
    pool = m.pool if {"guided", "greedy"} & set(chain_of(m.sampler)) else 0
    sides = {"one-sided": queries, "curvature": 2 * queries + 1, "per-example": 2 * batch}
    return max(pool, sides.get(m.estimator, 2 * queries))


def queries_of(m: MethodPart) -> int:
    return int({**NUMBERS.get(m.estimator, {}), **ROWS[m.name]}.get("queries", 1))


def step_sizes(m: MethodPart, space: str, measured: tuple[float, float, float] | None = None) -> tuple[float, float]:
    """(learning rate, ε) of a composed method where the recipe leaves them open: mezo's, by the directions' size.

    A direction c times as long takes ε / c and η / c². Rules that take the slope's size away have rates of their own.
    `measured`: mezo's learning rate, ε, and that of mezo-rms, in the place of the tables'.
    """
    lr, eps, length_of_steps = measured or (*STEP_SIZES[space], RATES["rms"][space])
    wider = length_of_steps / RATES["rms"][space]
    *around, innermost = chain_of(m.sampler)
    length = m.rank**0.5 if innermost == "low-rank" else 1.0
    if "guided" in around and not m.unit:
        first = int(m.share * m.pool)
        length *= (1 / first + 1 / (m.pool - first)) ** 0.5
    lr, eps = lr / length**2, eps / length
    if "momentum" in m.rule:
        lr *= 1 - m.beta
    for part, rate in RATES.items():
        if part in m.rule or part == m.estimator:
            lr = wider * rate[space] / length * (eps if part == "per-example" else 1.0)
    return lr, eps
