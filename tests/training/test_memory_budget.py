"""Claims about budgets: what does not fit is refused before anything is loaded, and runs are remembered for plans."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zolite.common.errors import DoesNotFit, UsageError
from zolite.common.events import Event, Started
from zolite.common.text import parsed_bytes
from zolite.config.recipe import Recipe
from zolite.engine import device_memory
from zolite.model import load as models
from zolite.planner import calibration, model_spec
from zolite.planner import hardware as machine
from zolite.planner.calibration import Correction
from zolite.planner.memory import ledger, peak
from zolite.training import memory_budget, out_of_memory
from zolite.training.prepare import prepare
from zolite.training.resume import begin, resume

Make = Callable[..., Recipe]
GIB = 2**30
CPU = torch.device("cpu")


def never() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    counter = itertools.count()
    return lambda: next(counter) >= steps


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose own part of the memory is nothing, so that a tiny model's budget is about its rows."""
    real = machine.here
    monkeypatch.setattr(machine, "here", lambda device="": _bare(real(device)))
    monkeypatch.setattr("zolite.planner.memory.LEAST_MARGIN", 0)


def _bare(hardware: machine.Hardware) -> machine.Hardware:
    return dataclasses.replace(hardware, context_bytes=0)


def needs(recipe: Recipe) -> int:
    """By the ledger, with the rows that the data has."""
    run = prepare(recipe)
    rows = memory_budget.rows_of(run.examples, run.recipe)
    return peak(ledger(machine.pretended(machine.here("cpu"), 0), model_spec.spec(recipe.model.name), run.recipe, rows))


@pytest.mark.usefixtures("small")
def test_a_budget_decides_how_much_goes_into_a_forward(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and points a forward are as many as fit, those that were asked for stay, and less is refused unloaded."""
    whole, least = needs(recipe()), needs(recipe(train__microbatch=1, train__copies=1))
    assert least < whole
    middle = (whole + least) / 2 / GIB
    made = prepare(recipe(train__vram_gib=middle)).recipe.train
    assert 1 <= made.microbatch < 6
    assert prepare(recipe(train__vram_gib=1.0)).recipe.train.microbatch == 6
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(DoesNotFit) as fixed:
        prepare(recipe(train__vram_gib=middle, train__microbatch=6))
    assert f"microbatch={made.microbatch}" in fixed.value.hint and "float32" in fixed.value.hint
    with pytest.raises(DoesNotFit) as small:
        prepare(recipe(train__vram_gib=1e-6))
    assert small.value.exit_code == 3 and "the smallest that would is" in small.value.hint
    assert f"of {memory_budget.human_bytes(1e-6 * GIB)}" in small.value.message


@pytest.mark.usefixtures("small")
def test_another_format_is_offered(recipe: Make) -> None:
    """Where only fewer bits fit, the hint says which."""
    int8 = needs(recipe(model__quant="int8", train__microbatch=1, train__copies=1))
    with pytest.raises(DoesNotFit, match="float32") as refused:
        prepare(recipe(train__vram_gib=int8 * 1.001 / GIB))
    assert "--quant int8" in refused.value.hint or "--quant nf4" in refused.value.hint


def test_a_card_is_held_to_its_budget(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch may take the budget less the driver's context; the next run without one may take everything again."""
    shares: list[float] = []
    card = SimpleNamespace(total_memory=24 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: shares.append(share))
    monkeypatch.setattr(machine, "here", lambda _: machine.published("rtx-3090"))
    run = prepare(recipe())
    device, t = torch.device("cuda", 0), run.recipe.train
    held = dataclasses.replace(run.recipe, train=dataclasses.replace(t, vram_gib=6.0))
    memory_budget.within(held, held.train, run.examples, device)
    memory_budget.within(run.recipe, t, run.examples, device)
    assert shares == [pytest.approx((6 * GIB - machine.CONTEXT_CUDA) / (24 * GIB)), 1.0]


def test_a_budget_is_no_part_of_what_a_run_is(recipe: Make) -> None:
    """A session goes on under another budget without being forced; what is free is told by it."""
    settings = recipe(train__steps=4, train__vram_gib=4.0)
    events: list[Event] = list(begin(settings, "run", after(2)))
    started = next(event for event in events if isinstance(event, Started))
    assert started.budget_bytes <= 4 * GIB
    list(resume("run", {"train.vram_gib": 5.0}, False, never))


def so_far() -> Correction:
    return calibration.so_far(machine.here("cpu"))


def test_runs_are_remembered(recipe: Make) -> None:
    """A run of twenty steps or more, finished or not, says how wrong its prediction was; a shorter one does not."""
    list(begin(recipe(train__steps=19), "short", never))
    assert so_far().runs == 0
    list(begin(recipe(train__steps=40), "interrupted", after(21)))
    assert so_far().runs == 1
    list(resume("interrupted", {}, False, after(5)))
    assert so_far().runs == 1
    list(begin(recipe(train__steps=21), "whole", never))
    known = so_far()
    assert known.runs == 2 and known.bytes > 0 and known.seconds > 0
    rows = json.loads(calibration.file().read_text())
    assert {(row["weights"], row["batch"], row["device"]) for row in rows} == {("float32", 6, "cpu")}


def test_what_cannot_be_predicted_is_not_remembered(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run does not fail over a model that the planner does not know, nor count where its layout had to change."""
    run, tracker = prepare(recipe(train__steps=30)), out_of_memory.StepTracker(CPU)
    tracker.steps.extend((step, 0.1, 16) for step in range(1, 31))
    tracker.changed = True
    memory_budget.remember(run, tracker)
    assert so_far().runs == 0
    tracker.changed = False
    monkeypatch.setattr(model_spec, "spec", _unknown)
    memory_budget.remember(run, tracker)
    assert so_far().runs == 0


def _unknown(name: str) -> Any:
    raise UsageError(f"no model {name}")


def test_steps_before_the_kernels_are_warm_do_not_count(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that is remembered is the median after the first ten steps, at the mean length of those."""
    run, tracker, seen = prepare(recipe(train__steps=30)), out_of_memory.StepTracker(CPU), []
    monkeypatch.setattr(calibration, "record", lambda *given: seen.append(given))
    tracker.steps.extend((step, 9.0, 99) for step in range(1, 11))
    tracker.steps.extend((step, 0.1 * step, 16) for step in range(11, 31))
    memory_budget.remember(run, tracker)
    ((_, rows, tokens, peak_bytes, seconds, device),) = seen
    assert (tokens, seconds, device) == (16, pytest.approx(2.05), "cpu")
    assert rows.tokens == max(len(s) for e in run.examples["train"] for s in e.sequences) and rows.positions == 1
    assert peak_bytes == pytest.approx(device_memory.peak_bytes(CPU), rel=0.1)


@pytest.mark.parametrize("text", ["8GiB", "6 GB", "500M"])
def test_vram_on_the_command_line(text: str) -> None:
    """--vram takes sizes as people write them."""
    from zolite.cli.flags import gib

    assert int(float(gib(text) or 0) * GIB) == pytest.approx(parsed_bytes(text), abs=1)
    with pytest.raises(UsageError, match="not a size"):
        gib("lots")
