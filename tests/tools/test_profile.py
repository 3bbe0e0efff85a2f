"""Claims about measuring a machine."""

import json
from pathlib import Path

import pytest

from zolite.planner import calibration
from zolite.planner import hardware as machine


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for what is known of the machine."""
    monkeypatch.setattr(machine, "paths", lambda: {"state": tmp_path / "state"})
    monkeypatch.setattr(calibration, "paths", lambda: {"state": tmp_path / "state"})
    return tmp_path / "state"


def test_measuring(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zolite profile` measures every rate that this device has, stores it, and plans use it from then on."""
    from zolite.model.devices import pick as pick_device
    from zolite.tools import profile

    device = pick_device("auto")
    monkeypatch.setattr(profile, "WIDE", {"cpu": (64, 128), "cuda": (64, 128)})
    monkeypatch.setattr(profile.bench, "rates", lambda _: profile.bench.Rates(1e9, 2e9, 3e9))
    document = profile.measure(device)
    rates = document["hardware"]
    assert rates["copy_per_s"] == 1e9 and rates["tensor16_per_s"] == 2e9
    assert min(*rates["expand_per_s"].values(), rates["context_bytes"]) > 0
    assert (machine.here().copy_per_s, machine.here().origin) == (1e9, "measured")
    assert json.loads(machine.profile_path().read_text())["details"]["disk_free"]["data"] > 0
