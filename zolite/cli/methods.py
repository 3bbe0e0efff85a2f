"""`zolite methods`: the estimators zolite has, and what each costs."""

from typing import Any

from zolite.cli.process import Json
from zolite.cli.terminal import say_json
from zolite.config.composition import forwards_per_step, queries_of, replays, resolved, state_formula
from zolite.config.methods import METHODS, Method, MethodPart
from zolite.config.recipe import TrainPart


def methods(as_json: Json = False) -> None:
    """The estimators zolite has, and what each costs."""
    rows = [_row(m) for m in METHODS.values()]
    if as_json:
        say_json(rows)
        return
    for row in rows:
        print(f"{row['name']:14} {row['summary']}\n{'':14} {row['paper']}")
        print(f"{'':14} {row['forwards_per_step']:g} forwards a step; bytes held: {row['state_bytes']}")


def _row(row: Method) -> dict[str, Any]:
    m = resolved(MethodPart(row.name))
    return {
        "name": row.name,
        "paper": row.paper,
        "summary": row.summary,
        "sampler": m.sampler,
        "estimator": m.estimator,
        "rule": list(m.rule),
        "forwards_per_step": forwards_per_step(m, queries_of(m), TrainPart.batch),
        "state_bytes": state_formula(m),
        "spaces": list(row.spaces),
        "deterministic": replays(m),
    }
