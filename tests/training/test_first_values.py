"""What an adapter begins with (zolite/training/first_values.py)."""

from types import SimpleNamespace
from typing import Any

import pytest

from zolite.training import first_values, linear_probe
from zolite.training.linear_probe import Result

PROBED, MORE = Result("started from a linear probe", 900, 0.6), Result("of more layers", 700, 0.59)


@pytest.mark.parametrize(
    ("probed", "now", "most", "found"),
    [
        (PROBED, 0.7, 1000, MORE),
        (PROBED, 0.6, 1000, Result("", 0)),  # the fit cost nothing
        (PROBED, 0.7, 100, Result("", 0)),  # a short run
        (Result("", 0, 0.6), 0.7, 1000, Result("", 0)),  # no layer was worth a probe before
        (None, 0.7, 1000, Result("", 0)),  # memory ran out
    ],
)
def test_probes_go_on_where_the_fit_cost_loss_and_the_run_can_pay(
    monkeypatch: pytest.MonkeyPatch, probed: Result | None, now: float, most: int, found: Result
) -> None:
    """A layer reads train once and dev twice: 140 rows here."""
    run: Any = SimpleNamespace(engine=None, recipe=None, examples={"train": range(100), "dev": range(20)})
    monkeypatch.setattr(linear_probe, "loss_on", lambda engine, rows: now)
    monkeypatch.setattr(first_values, "linear_probe_rows", lambda recipe: most * first_values.MENDING)
    monkeypatch.setattr(
        first_values, "start_from_probe_", lambda engine, examples, rows: MORE if rows == most else None
    )
    assert first_values._mended(run, probed) == found
