"""What a person asks to be scored: a session's adapter on its weights, or a model as it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe, ResolvedRecipe
from zolite.data.chat_template import Chat, chat_of, filled
from zolite.engine.adapter import Adapter, attach
from zolite.engine.bases import ensure_same
from zolite.engine.engine import Engine
from zolite.model import devices
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.sessions.session import Session
from zolite.training.generate import positions
from zolite.training.replay import Rebuilt, rebuild


@dataclass(frozen=True)
class Target:
    """How its model is put together, which labels it knows, and after which step."""

    name: str
    recipe: ResolvedRecipe
    labels: tuple[str, ...]
    step: int
    fill: Callable[[Adapter], None] | None  # None: there is no adapter
    chat: Chat
    trained_on: Path | None  # the rows

    @classmethod
    def of(cls, name: str, changes: dict[str, Any]) -> "Target":
        """`name` names a session if there is one of that name, else a model; `changes` are settings of its recipe."""
        return (_session if sessions.exists(name) else _model)(name, changes)

    def words(self) -> models.Vocabulary:
        """Its tokenizer, with a chat template filled in as in training, and the size of its table of embeddings."""
        found = models.vocabulary(models.source_of(self.recipe.model), paths()["cache"])
        return replace(found, tokenizer=filled(found.tokenizer, self.chat))


def _session(name: str, changes: dict[str, Any]) -> Target:
    """The adapter where the session's journal ends, on the weights it was trained on."""
    with sessions.open_(name) as session:
        recipe = recipes.resolve(recipes.override(session.recipe, changes))
        now, chat, labels = rebuild(session), chat_of(recipe.data, session.facts), tuple(session.facts["labels"])
    fill = partial(_fill, session, now)
    return Target(name, recipe, labels, now.step, fill, chat, Path(session.recipe.data.path))


def _model(name: str, changes: dict[str, Any]) -> Target:
    """A model without an adapter: one of rank 1 that adds nothing stands in for it."""
    recipe = recipes.resolve(recipes.override(Recipe(), {"model.name": name, "adapter.rank": 1, **changes}))
    return Target(name, recipe, (), 0, None, chat_of(recipe.data, {}), None)


def _fill(session: Session, now: Rebuilt, adapter: Adapter) -> None:
    ensure_same(session, adapter.bases)
    adapter.put_(now.tensors() | now.given)


def opened(target: Target, tokens: int = 0) -> Engine:
    """The model at the session's numbers, for rows of the recipe's context, or of `tokens` where it has positions."""
    recipe, device = target.recipe, devices.pick(target.recipe.model.device)
    loaded = models.load(models.source_of(recipe.model), recipe.model.quant, device, paths()["cache"])
    adapter, room = attach(loaded, recipe), max(recipe.data.context, min(tokens, positions(loaded.model)))
    engine = Engine.of(loaded, adapter, replace(recipe, data=replace(recipe.data, context=room)))
    if target.fill is not None:
        target.fill(adapter)
    return engine
