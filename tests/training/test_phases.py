"""The claim that nobody waits in silence: each part of preparing a run is told before it begins."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from zolite.common.events import Evaluated, Finished, Working
from zolite.common.progress import Listener, listening
from zolite.config.recipe import Recipe
from zolite.data import encode
from zolite.data import rows as tables
from zolite.model import load as models
from zolite.monitor.log import BASE
from zolite.sessions import session as sessions
from zolite.training import answer_fit, linear_probe, own_text, prepare, step_size
from zolite.training.evaluate import evaluate
from zolite.training.loop import train
from zolite.training.run import dev_sample

PARTS: dict[str, tuple[ModuleType, str]] = {
    "reading rows": (tables, "of"),
    "looking at the model and its tokenizer": (models, "vocabulary"),
    "tokenizing rows": (encode, "encode_all"),
    "looking for rows of dev in train": (prepare, "find"),
    "loading the model": (models, "load"),
    "proving that the model reads as it should": (models, "prove"),
    "putting adapters into the model": (prepare, "assemble"),
    "measuring the first batch": (prepare, "refuse_overflow"),
    "letting the model write texts of its own: tokens": (own_text, "_sampled"),
    "linear probes of the layers": (linear_probe, "features_of"),
    "reading rows for the fit of the last layer": (answer_fit, "read"),
    "fitting the last layer at a price of 3: tries": (answer_fit, "loss_and_slope"),
    "searching the step size": (step_size, "Combo"),
}
"""What is said, and the work that it is said of."""


def test_every_part_of_preparing_is_told_before_it_begins(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When each part is entered or at work, its phase is what a person was told or would be told next."""
    found: list[Working] = []
    listener = Listener(found.append, lambda: 0.0, 0.0)
    doing: dict[str, set[str]] = {name: set() for name in PARTS}

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def entered(*given: Any, **named: Any) -> Any:
            doing[name].add(listener.now.phase if listener.now else "nothing")
            return work(*given, **named)

        return entered

    for name, (module, function) in PARTS.items():
        monkeypatch.setattr(module, function, watched(name, getattr(module, function)))
    asked = recipe(adapter__linear_probe=True, train__objective="say", adapter__rank=16)
    asked = replace(asked, train=replace(asked.train, lr=None, eps=None, steps=200))
    with listening(listener):
        prepare.prepare(asked)
    told = [event.phase for event in found]
    for name, phases in doing.items():
        assert name in phases or (name.endswith("tokens") and phases), (name, phases)
    counted = {"letting the model write texts of its own: tokens", "searching the step size"}  # said while they go on
    assert set(PARTS) - counted <= set(told)


def test_what_the_model_knew_is_measured_where_its_adapter_begins_with_more(recipe: Callable[..., Recipe]) -> None:
    """Without the adapter, on the same rows, before anything else; and the adapter is as it was then."""
    run = prepare.prepare(recipe(train__steps=1))
    known = evaluate(run.engine, dev_sample(run), "dev", 0).value
    run.space.theta.normal_()
    begun = run.space.theta.clone()
    with sessions.create("run", run.recipe, run.facts) as session:
        events = train(replace(run, ahead=True), session)
        scores = [event for event in events if isinstance(event, Evaluated) and event.step == 0]
        first = session.at(0)
    assert [(e.split, e.rows) for e in scores] == [(BASE, 8), ("dev", 8)]
    assert scores[0].value == known
    assert first is not None and all(
        bool((tensor == begun.view(-1)[: tensor.numel()].view_as(tensor)).all())
        for tensor in list(first.tensors().values())[:1]
    )


def test_who_ends_a_run_does_not_wait_for_its_evaluation(recipe: Callable[..., Recipe]) -> None:
    """Asked in the middle of the first one, it is given up, and the session is saved as after any other end."""
    run = prepare.prepare(recipe(train__steps=3))
    listener = Listener(lambda event: None, lambda: 0.0, 0.0, stop=lambda: True)
    with listening(listener), sessions.create("run", run.recipe, run.facts) as session:
        events = list(train(run, session, lambda: True))
        assert session.ending() == "interrupted" and session.steps() == [0]
    assert not [event for event in events if isinstance(event, Evaluated)]
    assert isinstance(events[-1], Finished) and events[-1].step == 0
