"""Claims about benchmarks/quality.py: what counts in its table."""

import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def row(metric: str, dev: float, test: float, lr: float) -> dict[str, Any]:
    return {"task": "t", "what": "first_order", "seed": 0, "space": "lora", "lr": lr, "dev": dev, metric: test}


@pytest.mark.parametrize(("metric", "best"), [("accuracy", "90"), ("loss", "1.25")])
def test_the_best_run_on_dev_has_the_highest_accuracy_or_the_lowest_loss(
    metric: str, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # its neighbours are imported by their names
    quality = runpy.run_path(str(BENCHMARKS / "quality.py"))
    values = {"accuracy": [(88.0, 91.0), (89.0, 90.0)], "loss": [(1.5, 1.0), (1.2, 1.25)]}[metric]
    rows = [row(metric, dev, test, lr) for lr, (dev, test) in zip((1e-3, 1e-4), values, strict=True)]
    assert quality["_cell"](rows, "first_order") == f"{best} ({best} to {best})"
