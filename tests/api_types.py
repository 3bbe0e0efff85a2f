"""What a type checker sees of the Python API. Nothing here runs: `mypy zolite tui tests/api_types.py` is the test.

It fails where a function takes or gives something else, and, since unused ignores are errors, where a name that there
is not goes unnoticed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import zolite
from zolite import Recipe, evaluate, export, open_session, plan, prepare, resume, train
from zolite.common.events import Evaluated, Event
from zolite.export.export import Done
from zolite.planner.plan import Planning
from zolite.sessions.session import Session
from zolite.training.run import Run


def used() -> None:
    recipe = Recipe.of({"train.steps": 3})
    assert_type(recipe, Recipe)
    assert_type(prepare(recipe), Run)
    assert_type(train(recipe, "first"), Iterator[Event])
    assert_type(train(prepare(recipe), stop=lambda: True), Iterator[Event])
    assert_type(resume("first", {"train.steps": 6}, force=True), Iterator[Event])
    assert_type(evaluate("first", Path("rows")), Evaluated)
    assert_type(export("first", "adapter", "gguf", step=400), Done)
    assert_type(open_session("first"), Session)
    assert_type(plan("model", vram="8GiB", quant="int8"), Planning)
    assert_type(zolite.__version__, str)


def refused() -> None:
    zolite.trian(Recipe())  # type: ignore[attr-defined]
    train("first")  # type: ignore[arg-type]
    evaluate("first")  # type: ignore[call-arg]
