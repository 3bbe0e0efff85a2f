"""Claims about the time of a step: it is what was measured."""

from typing import Any

import pytest

from zolite.planner.step_time import step_seconds

from .conftest import STEPS, case, h100, named


@pytest.mark.parametrize("row", STEPS, ids=named)
def test_measured_times(row: dict[str, Any]) -> None:
    """The time of every step measured so far is what its kernels take, to 15%."""
    assert 0.85 < 1e3 * step_seconds(h100(), *case(row)) / row["ms"] < 1.15
