"""`zolite methods`: the estimators zolite has, and what each costs."""

import json
from typing import Any

from zolite.cli.process import Json
from zolite.config import composition
from zolite.config.methods import METHODS, Method, MethodPart
from zolite.config.recipe import TrainPart


def methods(as_json: Json = False) -> None:
    """The estimators zolite has, and what each costs."""
    rows = [_row(m) for m in METHODS.values()]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['name']:14} {row['summary']}\n{'':14} {row['paper']}")
        print(f"{'':14} {row['forwards_per_step']:g} forwards a step; bytes held: {row['state_bytes']}")


def _row(m: Method) -> dict[str, Any]:
    part, batch = composition.resolved(MethodPart(m.name)), TrainPart().batch
    return {
        "name": m.name,
        "paper": m.paper,
        "summary": m.summary,
        "sampler": part.sampler,
        "estimator": part.estimator,
        "rule": list(part.rule),
        "forwards_per_step": composition.forwards_per_step(part, composition.queries_of(part), batch),
        "state_bytes": composition.state_formula(part),
        "spaces": list(m.spaces),
        "deterministic": composition.replays(part),
    }
