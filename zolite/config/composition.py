"""What follows from a method's parts, by the rows in methods.py: what is left open, what goes together, the costs."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from zolite.config.methods import (
    ESTIMATORS,
    FLOAT,
    METHODS,
    RENAMED_VALUES,
    RULES,
    SAMPLERS,
    WRAPPERS,
    MethodPart,
    Piece,
    ResolvedMethod,
    Shapes,
    Whole,
    chain_of,
)
from zolite.config.spaces import SPACES

MOST_COPIES = 8  # by default: each is another copy of the adapter, and as many rows more in a forward

# The least and the most that a setting may be; whole numbers from 1 on are never 0.
RANGES: dict[str, tuple[float, float]] = {
    "rank": (1, 4096),
    "every": (1, 10**9),
    "probes": (1, 256),
    "pool": (1, 64),
    "delta": (0, math.inf),
    "share": (0, 1),
    "smooth": (0, 1),
    "clip": (0, math.inf),
}
BELOW_ONE = ("beta", "beta2", "decay")
PARTS = {"sampler", "estimator", "rule"}
NUMBERS = {f.name for f in dataclasses.fields(MethodPart) if f.default is None} - PARTS


# --- what is left open -----------------------------------------------------------------------------------------------


def resolved(m: MethodPart) -> ResolvedMethod:
    """The method with its parts and numbers filled in, where its name and its parts say what they are.

    Raises KeyError for names that do not exist: `check` first.
    """
    if isinstance(m, ResolvedMethod):
        return m
    row = METHODS[m.name]
    sampler, estimator = m.sampler or row.sampler, m.estimator or row.estimator
    rule = row.rule if m.rule is None else m.rule
    own = defaults(pieces_of(sampler, estimator, rule)) | dict(row.numbers)
    given = {name: value for name in NUMBERS if (value := getattr(m, name)) is not None}
    numbers = {name: value for name, value in (own | given).items() if name in NUMBERS}
    return ResolvedMethod(
        name=m.name,
        sampler=sampler,
        estimator=estimator,
        rule=rule,
        unit=m.unit,
        decay=m.decay,
        optimizer=m.optimizer,
        **numbers,
    )


def written(m: MethodPart) -> MethodPart:
    """As a file holds it, and the inverse of `resolved`: numbers that no part reads and nobody gave are left open."""
    if not isinstance(m, ResolvedMethod):
        return m
    unread = {name: None for name in NUMBERS - defaults(pieces(m)).keys() if not getattr(m, name)}
    return MethodPart(**{f.name: getattr(m, f.name) for f in dataclasses.fields(m)} | unread)


def current(m: MethodPart) -> MethodPart:
    """With what zolite 0.1 wrote as 0 or "" left open: numbers that no part reads, or of which 0 is no value."""
    m = dataclasses.replace(m, sampler=m.sampler or None, estimator=m.estimator or None)
    if _unknown(m):
        return m
    read = defaults(pieces(resolved(m)))
    zero = {name for name in NUMBERS if getattr(m, name) == 0}
    opened: dict[str, Any] = {n: None for n in zero if n not in read or RANGES.get(n, (0,))[0] > 0}
    return dataclasses.replace(m, **opened)


def renamed(path: str, value: Any) -> Any:
    """A setting's value with names that were others before by those of today."""
    names = RENAMED_VALUES.get(path)
    if names is None or not isinstance(value, str | list | tuple):
        return value
    if isinstance(value, str):
        return re.sub(r"[\w-]+", lambda word: names.get(word[0], word[0]), value)
    return [names.get(name, name) for name in value]


def queries_of(m: MethodPart) -> int:
    """Directions a step where the recipe leaves them open."""
    return int((defaults(pieces(m)) | dict(METHODS[m.name].numbers)).get("queries", 1))


def defaults(used: Iterable[Piece]) -> dict[str, Any]:
    """The settings that these pieces read, with the pieces' own values."""
    return {name: value for piece in used for name, value in piece.numbers.items()}


def pieces(m: MethodPart) -> list[Piece]:
    """Everything that a method is made of: samplers from the outside in, the estimator, the rules in order."""
    m = resolved(m)
    return pieces_of(m.sampler, m.estimator, m.rule)


def pieces_of(sampler: str, estimator: str, rule: tuple[str, ...]) -> list[Piece]:
    *around, innermost = chain_of(sampler)
    samplers = [*(WRAPPERS[name] for name in around), SAMPLERS[innermost]]
    return [*samplers, ESTIMATORS[estimator], *(RULES[name] for name in rule)]


# --- what goes together ----------------------------------------------------------------------------------------------


def check(m: MethodPart, queries: int | None, batch: int) -> list[str]:
    """Everything wrong with a method: what does not exist, what does not go together, and why."""
    problems = _unknown(m) or [*_out_of_range(written(m))]
    if problems:
        return problems
    whole = Whole(resolved(m), queries or queries_of(m), batch)
    return [*_clashes(whole), *_unmet(whole)]


def _unknown(m: MethodPart) -> list[str]:
    """Names that the tables do not have."""
    if m.name not in METHODS:
        return [f"method.name is {m.name!r}, not one of {', '.join(METHODS)}"]
    row = METHODS[m.name]
    sampler, estimator = m.sampler or row.sampler, m.estimator or row.estimator
    rule = row.rule if m.rule is None else m.rule
    *around, innermost = chain_of(sampler)
    known = (
        (innermost in SAMPLERS, f"method.sampler {sampler!r} does not end in one of {', '.join(SAMPLERS)}"),
        (set(around) <= set(WRAPPERS), f"method.sampler {sampler!r}: only {', '.join(WRAPPERS)} go around another"),
        (estimator in ESTIMATORS, f"method.estimator is {estimator!r}, not one of {', '.join(ESTIMATORS)}"),
        (set(rule) <= set(RULES), f"method.rule is {', '.join(rule)}; there are {', '.join(RULES)}"),
    )
    return [message for holds, message in known if not holds]


def _out_of_range(m: MethodPart) -> Iterator[str]:
    for name, (least, most) in RANGES.items():
        value = getattr(m, name)
        if value is not None and not least <= value <= most:
            allowed = f"below {least:g}" if most == math.inf else f"not {least:g} to {most:g}"
            yield f"method.{name} is {value:g}, {allowed}"
    for name in BELOW_ONE:
        value = getattr(m, name)
        if value is not None and not 0 <= value < 1:
            yield f"method.{name} is {value:g}, not 0 to below 1"


def _clashes(w: Whole) -> Iterator[str]:
    """What no two pieces of a kind may do."""
    sampler, around, rule = w.method.sampler, w.wrappers, w.method.rule
    if len(set(around)) < len(around):
        yield f"method.sampler {sampler!r} goes around itself; name each once"
    ranking = {name: None for name in around if WRAPPERS[name].ranks}
    if len(ranking) > 1:
        yield f"method.sampler: {' and '.join(ranking)} rank the same pool; choose one"
    moments = [name for name in rule if RULES[name].moment]
    if len(moments) > 1:
        yield f"method.rule has {' and '.join(moments)}; one kind of momentum is enough"
    late = [name for name in rule[rule.index(moments[0]) :] if name not in moments] if moments else []
    if late:
        yield f"method.rule: {', '.join(late)} must come before {', '.join(moments)}, which leaves no coefficients"


def _unmet(w: Whole) -> Iterator[str]:
    """What the pieces ask of each other."""
    words = {f.name: getattr(w.method, f.name) for f in dataclasses.fields(w.method)}
    words |= {"queries": w.queries, "batch": w.batch, "innermost": w.innermost}
    for need in dict.fromkeys(need for piece in pieces(w.method) for need in piece.needs):
        if not need.holds(w):
            yield need.reason.format(**words)


# --- what it costs, and does -----------------------------------------------------------------------------------------


def replays(m: MethodPart) -> bool:
    """Do a step's losses say all that it did, so that a journal replays it without the model?"""
    return all(piece.replays for piece in pieces(m))


def mirrored(m: MethodPart) -> bool:
    """Are a step's points pairs θ ± εd, measured together?"""
    return any(piece.mirrored for piece in pieces(m))


def ranks(m: MethodPart) -> bool:
    """Are candidates measured before a direction is chosen, one point each?"""
    return any(piece.ranks for piece in pieces(m))


def per_example(m: MethodPart) -> bool:
    """Has every row of a batch points of its own?"""
    return any(piece.per_example for piece in pieces(m))


def forwards_per_step(m: MethodPart, queries: int, batch: int) -> float:
    """Points measured in a step, each one forward of the batch: the mean over steps."""
    return sum(piece.points(Whole(resolved(m), queries, batch)) for piece in pieces(m))


def points_at_once(m: MethodPart, queries: int, batch: int) -> int:
    """The most points that a step wants in one forward: any order of them, as the pieces have it."""
    return max(piece.at_once(Whole(resolved(m), queries, batch)) for piece in pieces(m))


def state_bytes(m: MethodPart, shapes: Shapes) -> int:
    """Bytes held from step to step beside theta and the copies."""
    return sum(piece.state(resolved(m), shapes) for piece in pieces(m))


def state_formula(m: MethodPart) -> str:
    """The same in words: n numbers in all, r rank, m and n a matrix's sides (m' and n' of its nearest square)."""
    return " + ".join(piece.formula for piece in pieces(m) if piece.formula != "0") or "0"


def direction_bytes(m: MethodPart) -> int:
    """Bytes a trained number while copies are filled: a direction and what it is added to, unless a kernel draws it."""
    return 0 if all(piece.in_kernel for piece in pieces(m)) else 2 * FLOAT


def step_sizes(m: MethodPart, space: str, measured: tuple[float, float, float] | None = None) -> tuple[float, float]:
    """(learning rate, ε) where the recipe leaves them open: MeZO's, by the length of the method's directions.

    A direction c times as long takes ε / c and η / c². Of pieces that take the gradient's size away, the last one says
    how long a step is. `measured`: MeZO's learning rate and ε, and mezo-rms's, in the place of the space's own.
    """
    m, used = resolved(m), pieces(m)
    lr, eps, step = measured or SPACES[space].step_sizes
    length = math.prod(piece.length(m) for piece in used)
    lr, eps = lr / length**2 * math.prod(piece.damping(m) for piece in used), eps / length
    sized = [piece.step for piece in used if piece.step]
    return (step * sized[-1](eps) / length if sized else lr), eps
