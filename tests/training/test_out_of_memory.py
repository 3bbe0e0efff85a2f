"""Claims about running out of memory: less goes into a forward, the steps stay what they are, and nothing is lost."""

import gc
import itertools
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from zolite.common.errors import DoesNotFit
from zolite.common.events import Evaluated, Event, Finished, Noted, StepDone
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.examples import Example, Query
from zolite.engine import device_memory
from zolite.engine import engine as engines
from zolite.engine.batch import Batch, collate
from zolite.model.loss import Tokens
from zolite.planner.plan import layouts, smaller
from zolite.sessions import session as sessions
from zolite.training import out_of_memory
from zolite.training import run as run_module
from zolite.training.prepare import prepare
from zolite.training.replay import CPU, factors_at
from zolite.training.resume import begin, resume
from zolite.training.verify import verify

Make = Callable[..., Recipe]


def never() -> bool:
    return False


def only(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


class Card:
    """Forwards of more rows than `room` are out of memory, after some; `largest` is what went through."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int, after: int = 0) -> None:
        self.room, self.after, self.forwards, self.largest = room, after, 0, 0
        for name in ("loss_sums", "candidate_scores"):
            patch.setattr(engines, name, self.limited(getattr(engines, name)))

    def limited(self, real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(decode: Any, head: Any, batch: Tokens, points: int) -> Tensor:
            rows = points // len(batch.weight) * batch.ids.shape[0] * batch.layout.sequences
            self.forwards += 1
            if self.forwards > self.after and rows > self.room:
                raise torch.OutOfMemoryError(f"CUDA out of memory: {rows} rows")
            self.largest = max(self.largest, rows)
            return real(decode, head, batch, points)

        return forward


def journal(name: str) -> tuple[list[int], Tensor]:
    """Numbers of the steps, and all their losses."""
    with sessions.open_(name) as session:
        rows = list(session.journal.steps())
        losses = torch.cat([torch.frombuffer(bytearray(row.losses), dtype=torch.float32) for row in rows])
        return [row.step for row in rows], losses


def theta(name: str) -> Tensor:
    with sessions.open_(name) as session:
        return torch.cat([factor.flatten() for _, factor in sorted(factors_at(session)[1].items())])


METHODS = {
    "mezo": {},
    "lozo": {"method__every": 3},
    "fzoo": {"train__slots": 8},
    "hizoo": {},
    "pgap": {"method__every": 3, "method__probes": 2, "method__rank": 2},
    "mezo-gv": {},
    "mezo-adam": {},
    "grzo": {},
    "agzo": {},
}


# One of each family; the others with ZOLITE_LONG=1.
FAMILIES = [(name, 1) for name in ("mezo", "fzoo", "pgap", "grzo", "agzo")]
EVERY = [*((name, 1) for name in METHODS), ("mezo", 4), ("fzoo", 4)]


@pytest.mark.parametrize(("name", "room"), EVERY if os.environ.get("ZOLITE_LONG") else FAMILIES)
def test_the_same_steps_in_less_memory(recipe: Make, name: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose card shrinks in the middle says so, and ends with the numbers of one that had room, but for rounding.

    Its journal has every step once, replays to its checkpoints, and what it says at the end is what is in it.
    """
    settings = recipe(method__name=name, train__steps=7, train__save_every=3, train__eval_every=100, **METHODS[name])
    with monkeypatch.context() as patch:
        card = Card(patch, room=99)
        list(begin(settings, "straight", never))
    with monkeypatch.context() as patch:
        less = Card(patch, room, after=card.forwards // 2)
        events = list(begin(settings, "less", never))
    notes = [note.message for note in only(events, Noted)]
    assert less.largest > room and any("out of memory after step" in note for note in notes)
    numbers, losses = journal("less")
    assert numbers == [1, 2, 3, 4, 5, 6, 7] and only(events, Finished)[0].reason == "done"
    if name != "agzo":  # whose directions follow what went through the last forward
        torch.testing.assert_close(losses, journal("straight")[1], rtol=2e-4, atol=1e-5)
        torch.testing.assert_close(theta("less"), theta("straight"), rtol=1e-3, atol=1e-4)
    with sessions.open_("less") as session:
        assert all(each.sound for each in verify(session, CPU))
        assert [event.message for event in session.journal.events() if isinstance(event, Noted)] == notes


def test_nothing_of_a_failed_step_is_left(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out when theta has moved already moves it once: the step is taken again from the journal."""
    settings = recipe(method__name="mezo-momentum", train__steps=6, train__batch=1, train__save_every=100)
    list(begin(settings, "straight", never))
    real, count = run_module.take_step, itertools.count()

    def late(*given: Any) -> Any:
        estimate = real(*given)
        if next(count) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return estimate

    monkeypatch.setattr(run_module, "take_step", late)
    events = list(begin(settings, "run", never))
    (warning,) = (note.message for note in only(events, Noted) if note.level == "warning")
    assert "after step 3" in warning
    torch.testing.assert_close(theta("run"), theta("straight"), rtol=1e-4, atol=1e-6)
    assert [event.step for event in only(events, StepDone)] == [1, 2, 3, 4, 5, 6]


def test_a_device_without_any_room_ends_the_run(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even a row and a point fit the run ends in words, journalled; with room again it goes on to the end."""
    settings = recipe(train__steps=6, train__save_every=100, train__eval_every=100)
    list(begin(settings, "straight", never))
    with monkeypatch.context() as patch:
        Card(patch, room=0, after=6)
        with pytest.raises(DoesNotFit, match="one row and one perturbed copy a forward") as refused:
            list(begin(settings, "run", never))
    assert "zolite resume" in refused.value.hint
    with sessions.open_("run") as session:
        assert session.journal.last_step() == 4 and session.steps() == [0]
    list(resume("run", {}, False, never))
    assert torch.equal(theta("run"), theta("straight"))


def test_evaluations_shrink_too(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are those of forwards with room, and a note says how many tokens go into one now."""
    run = prepare(recipe())
    rows = run.examples["dev"]
    (whole,) = out_of_memory.evaluate_in_parts(run.engine, rows, "dev", 0)
    freed: list[int] = []
    with monkeypatch.context() as patch:
        card = Card(patch, room=2)
        *notes, less = out_of_memory.evaluate_in_parts(run.engine, rows, "dev", 0, free=lambda: freed.append(1))
    assert isinstance(whole, Evaluated) and isinstance(less, Evaluated)
    assert less.value == whole.value and card.largest <= 2 < len(rows)
    assert len(freed) == len(notes) > 0 and "tokens a forward" in notes[-1].message  # type: ignore[union-attr]
    with monkeypatch.context() as patch:
        Card(patch, room=0)
        with pytest.raises(DoesNotFit, match="in an evaluation after step 7"):
            list(out_of_memory.evaluate_in_parts(run.engine, rows, "dev", 7))


def test_what_a_failed_attempt_held_is_free() -> None:
    """By the time that an attempt is given up its tensors are gone, so that the next finds the memory."""
    held: list[weakref.ref[Tensor]] = []

    def work() -> None:
        big = torch.zeros(10)
        held.append(weakref.ref(big))
        raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()
    try:
        assert out_of_memory.attempt(work) is None and held[0]() is None
    finally:
        gc.enable()
    with pytest.raises(RuntimeError, match=r"shapes|size"):
        out_of_memory.attempt(lambda: torch.zeros(2, 2) @ torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("expected scalar type Half"), False),
    ],
)
def test_out_of_memory_has_many_names(error: RuntimeError, is_memory: bool) -> None:
    """Every library's word for it counts, also where a capture that it ended failed in turn; other errors do not."""
    assert device_memory.out_of_memory(error) is is_memory
    later = RuntimeError("operation failed due to a previous error during capture")
    later.__context__ = error
    assert device_memory.out_of_memory(later) is is_memory


def batch(tokens: int) -> list[Batch]:
    return [collate([Example((tuple(range(tokens)),), (Query(0, 1, 2, 0),), 0, 1)])]


def flushed(tracker: out_of_memory.StepTracker, seconds: float, first: int) -> None:
    """A journal batch of two steps goes by."""

    def events() -> Iterator[Event]:
        for step in (first, first + 1):
            yield StepDone(step, 1.0, 0.1, seconds, 0, 0)

    for step in (first, first + 1):
        tracker.begins(step, batch(8 * step))
    assert len(list(tracker.observe(events()))) == 2


def test_spilling_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take several times as long for a while, on a full card, where drivers spill: all of it or nothing."""
    full = {"now": True}
    monkeypatch.setattr(device_memory, "full", lambda _: full["now"])

    def tracked(can_spill: bool, jump: float, often: int) -> out_of_memory.StepTracker:
        tracker = out_of_memory.StepTracker(CPU, can_spill)
        for i in range(20):
            flushed(tracker, 0.1 + 0.01 * (i % 3), 2 * i + 1)
        for i in range(often):
            flushed(tracker, jump, 2 * i + 41)
        return tracker

    assert tracked(True, 1.0, 3).spilled
    assert (
        not tracked(True, 1.0, 2).spilled and not tracked(True, 0.3, 9).spilled and not tracked(False, 1.0, 9).spilled
    )
    full["now"] = False
    assert not tracked(True, 1.0, 9).spilled
    tracker = tracked(True, 1.0, 2)
    assert [tokens for *_, tokens in tracker.steps] == [8 * step for step in range(1, 45)] and not tracker.tokens


def test_a_run_that_spills_shrinks(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spilling does what running out of memory does; at the smallest layout the run goes on, slowly."""
    settings = recipe(train__steps=5, train__batch=2)
    list(begin(settings, "straight", never))
    spilled = itertools.count()
    monkeypatch.setattr(
        out_of_memory.StepTracker, "spilled", property(lambda self: self.can_spill and next(spilled) < 9)
    )
    monkeypatch.setattr(out_of_memory.machine, "spills", lambda: True)
    events = list(begin(settings, "run", never))
    notes = [note.message for note in only(events, Noted) if note.level == "warning"]
    assert (
        "1 row and 2 perturbed copies" in notes[0]
        and "1 row and 1 perturbed copy " in notes[1]
        and "slowly" in notes[2]
    )
    assert journal("run")[0] == [1, 2, 3, 4, 5]
    torch.testing.assert_close(theta("run"), theta("straight"), rtol=1e-3, atol=1e-4)


def test_layouts_go_down_to_one_of_each() -> None:
    """Ever less at a time, rows first, down to one row and one point; per-example has one row a point as it is."""
    changes = {"train.batch": 10, "train.copies": 8}
    recipe = recipes.resolve(recipes.override(Recipe(), changes))
    found = [(r.train.microbatch, r.train.copies) for r in layouts(recipe)]
    assert found == [(10, 8), (5, 8), (3, 8), (2, 8), (1, 8), (1, 4), (1, 2), (1, 1)]
    each = recipes.resolve(recipes.override(Recipe(), {"method.name": "grzo", "train.batch": 4}))
    assert [r.train.copies for r in layouts(each)] == [8, 4, 2, 1] and smaller([*layouts(each)][-1]) is None
