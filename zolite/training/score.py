"""Scores a session's adapter, or a model as it is, on rows; the base model without the adapter beside it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zolite.common.errors import UsageError
from zolite.common.events import Evaluated, Noted
from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe, ResolvedRecipe
from zolite.data import rows as tables
from zolite.data.chat_template import Chat, chat_of, filled
from zolite.data.encode import encode_all
from zolite.data.examples import Example
from zolite.data.kinds.kind import Row
from zolite.data.kinds.registry import KINDS
from zolite.data.rows import Dataset
from zolite.engine.adapter import Adapter, attach
from zolite.engine.bases import ensure_same
from zolite.engine.engine import Engine
from zolite.model import load as models
from zolite.monitor.classification import Report, report_of
from zolite.sessions import session as sessions
from zolite.sessions.session import Session
from zolite.training.evaluate import Prediction, evaluate, figures, predictions
from zolite.training.greedy import Verbalizer
from zolite.training.out_of_memory import in_parts
from zolite.training.replay import Rebuilt, rebuild


@dataclass(frozen=True)
class Scored:
    """One model on the rows. Without labels there are no predictions and no report."""

    event: Evaluated
    predictions: Sequence[Prediction] = ()
    report: Report | None = None


@dataclass(frozen=True)
class Scores:
    """A target on rows. `base`: the same weights without the adapter; None where a model was asked for, or nobody."""

    target: str
    labels: tuple[str, ...]
    rows: Sequence[Row]
    prompts: tuple[str, ...]  # as they are put into tokens
    tuned: Scored
    base: Scored | None


@dataclass(frozen=True)
class _Target:
    """What is scored: how its model is put together, which labels it knows, and after which step."""

    name: str
    recipe: Recipe
    labels: tuple[str, ...]
    step: int
    fill: Callable[[Adapter], None] | None  # None: there is no adapter
    chat: Chat


def score(target: str, data: Path, changes: dict[str, Any]) -> Evaluated:
    """`target` names a session if there is one of that name, else a model."""
    return scores(target, data, changes, beside_base=False).tuned.event


def scores(
    target: str, data: Path, changes: dict[str, Any], beside_base: bool = True, labelled: bool = False
) -> Scores:
    """The same with all that was found. `labelled`: UsageError where the rows have no labels, before a model loads."""
    found = (_session if sessions.exists(target) else _model)(target, changes)
    recipe = recipes.resolve(found.recipe)
    dataset = tables.load_for_eval(
        data, recipe.data.template, found.labels, recipe.data.columns, recipe.data.verbalizer
    )
    if labelled and not dataset.labels:
        raise UsageError(f"the rows at {data} have no labels, so there is no label to predict", "leave out --out")
    return _scored(found, recipe, dataset, beside_base)


def _session(name: str, changes: dict[str, Any]) -> _Target:
    """The adapter where the session's journal ends, on the weights it was trained on."""
    with sessions.open_(name) as session:
        recipe, labels = recipes.override(session.recipe, changes), tuple(session.facts["labels"])
        now = rebuild(session)
        chat = chat_of(recipe.data, session.facts)
    return _Target(name, recipe, labels, now.step, partial(_fill, session, now), chat)


def _model(name: str, changes: dict[str, Any]) -> _Target:
    """A model without an adapter: one of rank 1 that adds nothing stands in for it."""
    recipe = recipes.override(Recipe(), {"model.name": name, "adapter.rank": 1, **changes})
    return _Target(name, recipe, (), 0, None, chat_of(recipe.data, {}))


def _scored(target: _Target, recipe: ResolvedRecipe, dataset: Dataset, beside_base: bool) -> Scores:
    r, source, device = recipe.data, models.resolve(recipe.model.name), models.pick_device(recipe.model.device)
    words = models.vocabulary(source, paths()["cache"])
    tokenizer = filled(words.tokenizer, target.chat)
    ((split, rows),) = dataset.splits.items()
    file = dataset.files[split]
    examples = encode_all(dataset, tokenizer, r.template, r.context, words.table).examples[split]
    loaded = models.load(source, recipe.model.quant, device, paths()["cache"])
    adapter = attach(loaded, recipe)
    engine, verbalizer = Engine.of(loaded, adapter, recipe), Verbalizer.of(dataset.labels, tokenizer, loaded.model)
    measure, base = partial(_measured, engine, examples, Path(file).stem, verbalizer), None
    if target.fill is not None:
        target.fill(adapter)
    tuned = measure(target.step)
    if target.fill is not None and beside_base:
        with torch.inference_mode():
            adapter.space.theta.zero_()  # every adapter is a product with one of its numbers
        base = measure(0)
    prompts = tuple(_prompt(row, dataset.kind, r.template) for row in rows)
    return Scores(target.name, dataset.labels, rows, prompts, tuned, base)


def _fill(session: Session, now: Rebuilt, adapter: Adapter) -> None:
    ensure_same(session, adapter.bases)
    adapter.put_(now.tensors() | now.given)


def _measured(engine: Engine, rows: Sequence[Example], split: str, verbalizer: Verbalizer, step: int) -> Scored:
    """At theta, as evaluations of a run are; in smaller forwards where the memory is short."""
    *_, found = in_parts(partial(_of_rows, engine, rows, split, verbalizer, step), rows, step)
    assert not isinstance(found, Noted)  # those come before, and say that it took smaller forwards
    return found


def _of_rows(
    engine: Engine, rows: Sequence[Example], split: str, verbalizer: Verbalizer, step: int, tokens: int
) -> Scored:
    if not verbalizer.labels:
        return Scored(evaluate(engine, rows, split, step, tokens))
    began = time.monotonic()
    found = predictions(engine, rows, tokens, verbalizer)
    seconds = time.monotonic() - began
    event = Evaluated(step, split, rows[0].metric, rows=len(rows), seconds=seconds, **figures(found))
    report = report_of(verbalizer.labels, [p.right for p in found], [p.ranked for p in found])
    return Scored(event, found, report)


def _prompt(row: Row, kind: str, template: str) -> str:
    return "".join(piece.text for piece in KINDS[kind].pieces(row, template) if not piece.trained)


# --- row by row -------------------------------------------------------------------------------------------------------


def records(found: Scores) -> Iterator[dict[str, Any]]:
    """A row with a label each: where it stands, its prompt and label, what was chosen with which shares, what was said.

    What was said goes to its end, or to where it could be no label any more. `base` has the same of the base model,
    where it was scored.
    """
    base = found.base.predictions if found.base else [None] * len(found.rows)
    for row, prompt, tuned, bare in zip(found.rows, found.prompts, found.tuned.predictions, base, strict=True):
        about = {"line": row.line, "prompt": prompt, "label": found.labels[tuned.right]}
        beside = {"base": _chosen(bare, found.labels)} if bare else {}
        yield about | _chosen(tuned, found.labels) | beside


def _chosen(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    shares = {label: round(share, 6) for label, share in zip(labels, prediction.shares, strict=True)}
    said = {"said": prediction.said.text, "says_label": prediction.said.label is not None} if prediction.said else {}
    return {"ranked": labels[prediction.ranked], "probabilities": shares, **said}
