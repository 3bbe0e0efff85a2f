"""Scores a session's adapter, or a model as it is, on rows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from zolite.common.events import Evaluated
from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.engine.adapter import Adapter, attach
from zolite.engine.bases import ensure_same
from zolite.engine.engine import Engine
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.sessions.session import Session
from zolite.training import out_of_memory
from zolite.training.replay import Rebuilt, rebuild


def score(target: str, data: Path, changes: dict[str, Any]) -> Evaluated:
    """`target` names a session if there is one of that name, else a model."""
    return (score_session if sessions.exists(target) else score_model)(target, data, changes)


def score_session(name: str, data: Path, changes: dict[str, Any]) -> Evaluated:
    """The adapter where the session's journal ends, on the weights it was trained on."""
    with sessions.open_(name) as session:
        recipe, labels = recipes.override(session.recipe, changes), tuple(session.facts["labels"])
        now = rebuild(session)
    return _scored(recipe, labels, data, now.step, partial(_fill, session, now))


def score_model(name: str, data: Path, changes: dict[str, Any]) -> Evaluated:
    """A model without an adapter: one of rank 1 that adds nothing stands in for it."""
    recipe = recipes.override(Recipe(), {"model.name": name, "adapter.rank": 1, **changes})
    return _scored(recipe, (), data, 0, lambda adapter: None)


def _scored(
    recipe: Recipe, labels: tuple[str, ...], data: Path, step: int, fill: Callable[[Adapter], None]
) -> Evaluated:
    recipe = recipes.resolve(recipe)
    dataset, r = tables.load_for_eval(data.expanduser(), recipe.data.template, labels), recipe.data
    source, device = models.resolve(recipe.model.name), models.pick_device(recipe.model.device)
    words = models.vocabulary(source, paths()["cache"])
    ((split, rows),) = dataset.splits.items()
    file = dataset.files[split]
    asked = (dataset.kind, dataset.labels, words.tokenizer, r.template, r.context, file, words.table)
    examples = encode(rows, *asked).examples
    loaded = models.load(source, recipe.model.quant, device, paths()["cache"])
    adapter = attach(loaded, recipe)
    fill(adapter)
    *_, found = out_of_memory.evaluate_in_parts(Engine.of(loaded, adapter, recipe), examples, Path(file).stem, step)
    assert isinstance(found, Evaluated)  # what comes before says that it took smaller forwards
    return found


def _fill(session: Session, now: Rebuilt, adapter: Adapter) -> None:
    ensure_same(session, adapter.bases)
    adapter.put_(now.tensors() | now.given)
