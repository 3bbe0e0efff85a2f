"""Claims about what runs on this machine took: it is remembered, and corrects the next plan."""

from pathlib import Path
from typing import Any

import pytest

from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.lengths import Rows
from zolite.planner import calibration
from zolite.planner import hardware as machine
from zolite.planner.calibration import Correction, Seen
from zolite.planner.plan import plan

from .conftest import wished


def so_far() -> Correction:
    return calibration.so_far(machine.here("cpu"))


def seen(weights: str = "int8", space: float = 1.02, time_: float = 1.2, **changes: Any) -> Seen:
    values = {"machine": calibration.machine_name(), "model": "m", "weights": weights, "batch": 1, "tokens": 8}
    values |= {"device": "cpu", "rates": machine.here("cpu").origin}
    return Seen(
        **values | changes, predicted_bytes=10**9, measured_bytes=int(space * 1e9), predicted_s=1, measured_s=time_
    )


def test_correction(state: Path) -> None:
    """What runs took is remembered for this machine and its rates, by weight format, and moves the next plan so far."""
    assert so_far() == Correction()
    others = (seen(machine="another"), seen(device="cuda"), seen(rates="measured"))
    for each in (seen(), seen(), seen("nf4", 1.02, 2.0), *others):
        calibration.keep(each)
    known = so_far()
    assert (known.runs, known.bytes, known.seconds_of("int8", ""), known.seconds_of("nf4", "")) == (3, 1.02, 1.2, 2.0)
    assert known.seconds_of("bf16", "") == 1.2
    calibration.keep(seen("int8", 1.02, 1.5, model="small"))
    assert (so_far().seconds_of("int8", "small"), so_far().seconds_of("int8", "m")) == (1.5, 1.2)  # its own runs first
    hardware, asked = machine.published("rtx-3090"), wished(("qwen3-1.7b",), quant="int8")
    before, after = plan(hardware, asked).plans[0], plan(hardware, asked, known).plans[0]
    assert after.seconds_per_step == pytest.approx(1.2 * before.seconds_per_step)
    mine = sum(line.bytes for line in before.ledger if line.where != "outside")
    assert after.peak_bytes - before.peak_bytes == pytest.approx(0.02 * mine, rel=1e-3)


@pytest.mark.parametrize("took", [0.2, 0.5, 0.98, 1.0])
def test_no_plan_relies_on_runs_that_took_less(took: float) -> None:
    """Runs that took no more than was predicted leave the next plan as it is."""
    hardware, asked = machine.published("rtx-3090"), wished(("qwen3-1.7b",), quant="int8")
    before, after = plan(hardware, asked), plan(hardware, asked, Correction(3, took))
    assert [each.ledger for each in after.plans] == [each.ledger for each in before.plans]


def test_record(state: Path, tiny: Path) -> None:
    """A run that took exactly what is predicted leaves no error."""
    recipe = recipes.resolve(recipes.override(Recipe(), {"model.name": str(tiny), "data.context": 64}))
    first = calibration.record(recipe, Rows(64, 8), 64, 1, 1.0, "cpu")
    (state / calibration.FILE).unlink()
    calibration.record(recipe, Rows(64, 8), 64, first.predicted_bytes, first.predicted_s, "cpu")
    known = so_far()
    assert (known.runs, known.bytes, known.seconds, known.spread) == (1, 1.0, 1.0, 0.0)


def test_broken_store(state: Path) -> None:
    """A file that another version wrote, or that is no JSON, is forgotten, and the next run is remembered."""
    state.mkdir()
    for text in ("{", '[{"a": 1}]', "3"):
        (state / calibration.FILE).write_text(text)
        assert so_far() == Correction()
        calibration.keep(seen())
        assert so_far().runs == 1
