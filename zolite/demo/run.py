"""The demo, start to finish, as events."""

import dataclasses
import gc
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import resources
from pathlib import Path

import torch

from zolite.common.events import Evaluated, Event, Exported, Finished, Noted
from zolite.common.paths import paths
from zolite.common.text import human_bytes, human_seconds
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.examples import Example
from zolite.export import parity
from zolite.export.export import export
from zolite.export.readers import reloaded
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.training.evaluate import evaluate
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.run import Run

AFTER = "test, by transformers + peft"


def demo_recipe() -> Recipe:
    """The recipe beside this file, on the messages beside this file."""
    folder = Path(str(resources.files("zolite.demo")))
    recipe = recipes.load(folder / "recipe.toml")
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=str(folder / "data")))


def demo(recipe: Recipe, stop: Callable[[], bool]) -> Iterator[Event]:
    """Test accuracy, training, test accuracy, export, and the accuracy of the export in other hands."""
    began = time.monotonic()
    run = prepare(recipe)
    with sessions.create(None, run.recipe, run.facts) as session:
        before = _of_base(run)
        session.journal.event(before)
        yield before
        finished = yield from _trained(run, session, stop)
        if finished.reason != "done":
            return
        after = evaluate(run.engine, run.examples["test"], "test", finished.step, verbalizer=run.verbalizer)
        session.journal.event(after)
        yield after
        folder = session.path / "adapter"
        export(session, folder, verify=False)  # what follows is more than that
        yield Exported(finished.step, str(folder))
    rows, source, device = run.examples["test"], run.engine.loaded.source, run.engine.loaded.device
    del run  # one model at a time
    gc.collect()
    again = _reloaded(source, recipe.model.quant, device, folder, rows, finished.step)
    yield again
    yield _summary(session.name, before, after, again, time.monotonic() - began, finished.peak_bytes)


def _of_base(run: Run) -> Evaluated:
    """Accuracy on test of the model as it is, without what the adapter begins with."""
    with run.engine.as_base():
        return evaluate(run.engine, run.examples["test"], "test", 0, verbalizer=run.verbalizer)


def _trained(run: Run, session: sessions.Session, stop: Callable[[], bool]) -> Generator[Event, None, Finished]:
    """Training's events; returns the last."""
    event: Event | None = None
    for event in train(run, session, stop):
        yield event
    assert isinstance(event, Finished)  # train ends with it, or raises
    return event


def _reloaded(
    source: models.Source, quant: str, device: torch.device, folder: Path, rows: Sequence[Example], step: int
) -> Evaluated:
    """Accuracy on test as another program would have it: none of zolite's layers, logits or losses."""
    began = time.monotonic()
    base = models.plain(source, quant, device, paths()["cache"])
    value = parity.accuracy(reloaded(base, folder), rows)
    return Evaluated(step, AFTER, "accuracy", value, len(rows), time.monotonic() - began)


def _summary(name: str, before: Evaluated, after: Evaluated, again: Evaluated, seconds: float, peak: int) -> Noted:
    gain, apart = 100 * (after.value - before.value), 100 * abs(again.value - after.value)
    verdict = f"{apart:.1f} points away" if apart else "the same"
    return Noted(
        "info",
        f"test accuracy {100 * before.value:.1f}% → {100 * after.value:.1f}% ({gain:+.1f} points); "
        f"says a label {before.says:.1%} → {after.says:.1%}, the right one {after.said_right:.1%}; "
        f"the exported adapter in plain transformers + peft: {100 * again.value:.1f}%, {verdict}; "
        f"{human_seconds(seconds)} in all, peak memory of the training {human_bytes(peak)}; session {name}",
    )
