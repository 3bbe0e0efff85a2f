"""Claims about sample answers: the same rows each time, no more than a few per cent of a run, and no trace in it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zolite.common.events import Event, Noted, Sampled, from_json, to_json
from zolite.config.recipe import Recipe
from zolite.monitor.log import sample_text
from zolite.monitor.run_state import RunState, advance
from zolite.sessions import session as sessions
from zolite.training import loop, sampling
from zolite.training.journal_writer import JournalWriter
from zolite.training.prepare import prepare
from zolite.training.samples import Samples
from zolite.training.sampling import SHARE, Sampling

Make = Callable[..., Recipe]


class Timed(Samples):
    """Answers that take a second for each token, and three more."""

    now = 0.0

    def answers(self, engine: Any, most: int) -> list[str]:
        Timed.now += most + 3
        return [f"{most} tokens"] * 3

    before = answers


def timed(steps: int, most: int = 20) -> Sampling:
    Timed.now = 0.0
    samples = Timed(((1, 2),) * 3, ("a?",) * 3, ("b",) * 3, most, frozenset(), lambda ids: "")
    return Sampling(samples, steps, clock=lambda: Timed.now)


@given(steps=st.integers(1, 3000), seconds=st.floats(0.1, 30), every=st.integers(1, 400))
def test_they_take_a_few_per_cent(steps: int, seconds: float, every: int) -> None:
    """Whatever a step takes: beside the first try and the last answers, which are foreseen, all within the share."""
    run, run_seconds = timed(steps), steps * seconds
    events: list[Event] = []
    for step in [*range(0, steps, every), steps]:
        events += run.at(step, None, run_seconds)  # type: ignore[arg-type]
    taken = sorted({event.step for event in events if isinstance(event, Sampled)})
    assert Timed.now <= SHARE * run_seconds + 2 * (8 + 3) or run.most == 0
    assert len(taken) <= sampling.TIMES + 1 and (not taken or (taken[0], taken[-1]) == (0, steps))
    if steps < sampling.SHORT:
        assert not events and Timed.now == 0
    elif not taken:
        assert isinstance(events[0], Noted) and "no sample answers" in events[0].message and Timed.now == 8 + 3
    else:
        assert len([e for e in events if isinstance(e, Sampled)]) == 3 * len(taken)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a few steps have samples, however long they take."""
    monkeypatch.setattr(sampling, "SHORT", 1)
    monkeypatch.setattr(JournalWriter, "run_seconds", lambda writer: 1e6)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["label", "completion", "messages"])
def test_a_run_tells_what_it_writes(recipe: Make, folder: Callable[..., Path], kind: str) -> None:
    """Before training and now, of three rows of dev, in the journal too; and the run itself is as it is without."""
    made = recipe(data__path=str(folder(kind)), train__steps=4, train__lr=0.05, train__eval_every=2)
    told = list(ran(made, "told"))
    found = [event for event in told if isinstance(event, Sampled)]
    assert [(event.step, event.row) for event in found] == [(step, row) for step in (0, 2, 4) for row in (1, 2, 3)]
    for row in (1, 2, 3):
        one = [event for event in found if event.row == row]
        assert len({(event.prompt, event.before, event.reference) for event in one}) == 1 and one[0].prompt
        assert one[0].now == one[0].before  # nothing has been learned yet
    assert len({event.now for event in found}) > 0 and found[0].reference
    with sessions.open_("told") as session:
        assert [event for event in session.journal.events() if isinstance(event, Sampled)] == found
        steps = [(row.coefs, row.losses) for row in session.journal.steps()]
    list(ran(made, "silent", samples=False))
    with sessions.open_("silent") as session:
        assert steps == [(row.coefs, row.losses) for row in session.journal.steps()]


def ran(recipe: Recipe, name: str, samples: bool = True) -> Iterator[Event]:
    run = prepare(recipe)
    run = run if samples else replace(run, samples=None)
    with sessions.create(name, run.recipe, run.facts) as session:
        yield from loop.train(run, session)


def test_before_is_the_base_model(recipe: Make, folder: Callable[..., Path]) -> None:
    """Whatever the adapter is, and the adapter is as it was."""
    run = prepare(recipe(data__path=str(folder("completion"))))
    assert run.samples is not None
    base = run.samples.answers(run.engine, 12)
    with torch.inference_mode():
        run.space.theta.normal_()
    theta = run.space.theta.clone()
    assert run.samples.before(run.engine, 12) == base != run.samples.answers(run.engine, 12)
    assert torch.equal(run.space.theta, theta)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), step=st.integers(0, 10**6), row=st.integers(1, 3))
def test_they_are_read_as_they_were_written(texts: tuple[str, str, str, str], step: int, row: int) -> None:
    event = Sampled(step, row, *texts)
    assert from_json(to_json(event)) == event
    state = RunState()
    advance(state, event)
    assert state.samples == {row: event} and not state.log and len(sample_text(event).splitlines()) == 1
