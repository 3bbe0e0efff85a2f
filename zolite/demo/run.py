"""The demo, start to finish, as events."""

import dataclasses
import gc
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from importlib import resources
from pathlib import Path

from zolite import recipe as recipes
from zolite import session as sessions
from zolite.engine import probe
from zolite.evaluate import evaluate
from zolite.events import Evaluated, Event, Exported, Finished, Noted
from zolite.export import check, peft
from zolite.model import load as models
from zolite.paths import paths
from zolite.recipe import Recipe
from zolite.train import Run, prepare, train

AFTER = "test, by transformers + peft"


def demo_recipe() -> Recipe:
    """The recipe beside this file, on the messages beside this file."""
    folder = Path(str(resources.files("zolite.demo")))
    recipe = recipes.load(folder / "recipe.toml")
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=str(folder / "data")))


def demo(recipe: Recipe, stop: Callable[[], bool]) -> Iterator[Event]:
    """Test accuracy, training, test accuracy, export, and the same accuracy from plain transformers and peft."""
    began = time.monotonic()
    yield Noted("info", "loading the model; the first time its weights are unpacked, which takes half a minute")
    run = prepare(recipe)
    with sessions.create(None, run.recipe, run.facts) as session:
        before = evaluate(run.engine, run.examples["test"], "test", 0)
        yield before
        finished = yield from _trained(run, session, stop)
        if finished.reason != "done":
            return
        after = evaluate(run.engine, run.examples["test"], "test", finished.step)
        session.journal.event(after)
        yield after
        folder = session.path / "adapter"
        if folder.exists():
            shutil.rmtree(folder)
        peft.export(session, folder)
        yield Exported(finished.step, str(folder))
        again = _reloaded(run, folder, finished.step)
        yield again
        yield _summary(run, session.name, before, after, again, time.monotonic() - began)


def _trained(run: Run, session: sessions.Session, stop: Callable[[], bool]) -> Generator[Event, None, Finished]:
    """Training's events; returns the last."""
    event: Event | None = None
    for event in train(run, session, stop):
        yield event
    assert isinstance(event, Finished)  # train ends with it, or raises
    return event


def _reloaded(run: Run, folder: Path, step: int) -> Evaluated:
    """Accuracy on test as another program would have it: none of zolite's layers, logits or losses."""
    began, rows, loaded = time.monotonic(), run.examples["test"], run.engine.loaded
    gc.collect()
    base = models.plain(loaded.source, run.recipe.model.quant, loaded.device, paths()["cache"])
    value = check.accuracy(check.reloaded(base, folder), rows)
    return Evaluated(step, AFTER, "accuracy", value, len(rows), time.monotonic() - began)


def _summary(run: Run, name: str, before: Evaluated, after: Evaluated, again: Evaluated, seconds: float) -> Noted:
    gain = 100 * (after.value - before.value)
    same = "the same" if again.value == after.value else f"{100 * abs(again.value - after.value):.1f} points away"
    peak = probe.peak_bytes(run.engine.loaded.device) / 2**20
    return Noted(
        "info",
        f"test accuracy {100 * before.value:.1f}% → {100 * after.value:.1f}% ({gain:+.1f} points); "
        f"the exported adapter in plain transformers + peft gives {100 * again.value:.1f}%, {same}; "
        f"{seconds:.0f} s, peak memory {peak:.0f} MiB; session {name}",
    )
