"""Claims about what a machine is known by: its stored profile, its driver, the catalogue."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zolite.config import catalog
from zolite.planner import hardware as machine
from zolite.planner.hardware import Hardware

from .conftest import GIB


def test_profile_is_kept(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored profile is used while the machine and its versions are the same, and no longer."""
    fast = machine.pretended(machine.here(), 2**40)
    stored = Hardware(**{**fast.__dict__, "copy_per_s": 123.0, "origin": "measured"})
    machine.store(stored, {})
    assert (machine.here().copy_per_s, machine.here().origin) == (123.0, "measured")
    assert machine.here().total_bytes != 2**40  # what is there is asked anew
    monkeypatch.setattr(machine, "VERSIONED", ("zolite",))
    assert machine.here().origin != "measured"


class NVMLError(Exception):
    pass


class Driver:
    """An NVML that answers as under WSL: nothing about processes, cores or clocks."""

    NVMLError, NVML_CLOCK_SM, NVML_CLOCK_MEM = NVMLError, 1, 2

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetHandleByIndex": object(),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=12 * GIB - 2**27, free=10 * GIB, used=2 * GIB),
            "nvmlDeviceGetCount": 1,
            "nvmlSystemGetCudaDriverVersion_v2": 13000,
            "nvmlDeviceGetName": "NVIDIA GeForce RTX 3060",
            "nvmlSystemGetDriverVersion": "580.1",
            "nvmlDeviceGetCudaComputeCapability": (8, 6),
        }

        def answer(*_: Any) -> Any:
            if name not in answers:
                raise NVMLError("Not Supported")
            return answers[name]

        return answer


def test_driver_that_tells_little(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver says nothing of processes and clocks, the card is known by its name and memory."""
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    found = machine.here()
    assert (found.name, found.device, found.origin) == ("GeForce RTX 3060 12 GB", "cuda", "published")
    assert found.total_bytes == 12 * GIB - 2**27 and found.others_bytes == 2 * GIB - 2**27
    monkeypatch.setattr(catalog, "cards", dict)
    unknown = machine.here()
    assert unknown.origin == "estimated" and unknown.copy_per_s > 0 and unknown.tensor16_per_s > 0


@pytest.mark.parametrize("mine", [0, GIB // 2, 2 * GIB])
def test_what_this_process_holds_is_not_others(state: Path, monkeypatch: pytest.MonkeyPatch, mine: int) -> None:
    """Of what is in use on the card, this process' own is taken off, and another's is not."""
    driver = Driver()
    running = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=mine), SimpleNamespace(pid=1, usedGpuMemory=GIB)]
    driver.nvmlDeviceGetComputeRunningProcesses = lambda _: running  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    assert machine.here().others_bytes == max(0, 2 * GIB - 2**27 - mine)


def test_rates_of_another_version(state: Path) -> None:
    """What a profile has besides is left out, so that an older one is still of use."""
    machine.store(machine.here(), {})
    path = machine.profile_path()
    document = json.loads(path.read_text())
    document["hardware"]["host_per_s"] = 1.0
    path.write_text(json.dumps(document))
    assert machine.here().copy_per_s == document["hardware"]["copy_per_s"]
