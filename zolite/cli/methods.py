"""`zolite methods`: the estimators zolite has, and what each costs."""

import json
from typing import Any

from zolite.cli.process import Json
from zolite.config import methods as table
from zolite.config import recipe as recipes
from zolite.config.composition import deterministic


def methods(as_json: Json = False) -> None:
    """The estimators zolite has, and what each costs."""
    rows = [_row(m) for m in table.METHODS.values()]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['name']:14} {row['summary']}\n{'':14} {row['paper']}")
        print(f"{'':14} {row['forwards_per_step']:g} forwards a step; bytes held: {row['state_bytes']}")


def _row(m: table.Method) -> dict[str, Any]:
    given = {"optimizer": "FILE"} if m.name == "zo-finetuner" else {}
    recipe = recipes.resolve(
        recipes.override(recipes.Recipe(), {f"method.{k}": v for k, v in ({"name": m.name} | given).items()})
    )
    part = recipe.method
    return {
        "name": m.name,
        "paper": m.paper,
        "summary": m.summary,
        "sampler": part.sampler,
        "estimator": part.estimator,
        "rule": list(part.rule),
        "forwards_per_step": table.forwards_per_step(part, recipe.train),
        "state_bytes": table.state_formula(part),
        "spaces": list(m.spaces),
        "deterministic": deterministic(part),
    }
