"""What a plan may count on: a card or a CPU in numbers, measured, published or asked of the driver. No torch.

here()                       this machine: the stored profile where it is still true, else what can be known at once
published("rtx-3060-12gb")   a card of the catalogue
typical(bytes)               a common one of that memory
pretended(hardware, bytes)   the same with another budget
driver()                     what NVML says, for doctor too
"""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil

from zolite.common import files
from zolite.common.paths import paths
from zolite.config import catalog
from zolite.config.catalog import Card

MIB = 2**20
PROFILE = "machine.json"
VERSIONED = ("zolite", "torch", "transformers", "bitsandbytes")

# What is reached of the published rates, measured on an H100: copies 3.01 of 3.35 TB/s, products 780 of 989 TFLOP/s.
REACHED_COPY, REACHED_PRODUCT = 0.9, 0.79
# The product of int8 pairs, 8,192 rows, there: 1.2 of 1,979 TOP/s.
REACHED_PAIRS = 0.61
# Bytes written where weights are expanded to 16 bits, beside the copy rate: two of three, and of 2.56, at 0.75 of it.
EXPAND = {"int8": 0.5, "nf4": 0.58}

# The driver's context, the code of torch, cuBLAS and Triton kernels, captured graphs: on a GPU nobody allocates these.
CONTEXT_CUDA = 512 * MIB
CONTEXT_CPU = 700 * MIB  # Python with torch, transformers and bitsandbytes loaded
DESKTOP = 300 * MIB  # of a card that shows a screen, and what its driver keeps for itself

# Planned for where there is no card and a budget is all that is known: by memory, ascending.
TYPICAL = (
    "rtx-3050-laptop-4gb", "rtx-4050-laptop", "rtx-4060", "rtx-3060-12gb", "rtx-4060-ti-16gb", "rtx-3090", "rtx-5090",
)  # fmt: skip

# A core that nobody measured: 16 float32 operations a cycle at 2.5 GHz, and its share of two channels of memory.
CORE_FLOAT32, CORE_COPY = 40e9, 8e9


@dataclass(frozen=True)
class Hardware:
    """Memory in bytes; rates in bytes, operations or additions and multiplications a second, as they are reached."""

    name: str
    device: str  # cuda or cpu
    total_bytes: int
    others_bytes: int  # what other processes hold
    context_bytes: int
    copy_per_s: float  # device to device: bytes read plus bytes written
    float32_per_s: float
    tensor16_per_s: float  # products of 16-bit numbers
    pairs_per_s: float  # zolite's product of int8 pairs
    expand_per_s: Mapping[str, float]  # bytes written where 8- or 4-bit weights are expanded, by format
    capability: tuple[int, int] = (0, 0)
    origin: str = "published"  # or measured, estimated, or typical: published, and chosen for its memory alone

    @property
    def free_bytes(self) -> int:
        """What others leave."""
        return max(0, self.total_bytes - self.others_bytes)

    @property
    def fused(self) -> bool:
        """Do zolite's own kernels run here? (model/quant.py: triton_kernels)"""
        return self.capability >= (8, 0)


_FIELDS = {each.name for each in fields(Hardware)}  # what another version measured besides is left out


def published(name: str) -> Hardware:
    """A card of the catalogue, with a desktop on it and nothing else."""
    return replace(_of_card(catalog.card(name)), others_bytes=DESKTOP)


def typical(budget_bytes: int) -> Hardware:
    """The smallest of the common cards that has so much memory, or the largest."""
    cards = [_of_card(catalog.card(name)) for name in TYPICAL]
    found = next((card for card in cards if card.total_bytes >= budget_bytes), cards[-1])
    return replace(found, origin="typical")


def pretended(hardware: Hardware, budget_bytes: int) -> Hardware:
    """The same rates with so much memory for this process alone."""
    return replace(hardware, total_bytes=budget_bytes, others_bytes=0)


def here(device: str = "") -> Hardware:
    """This machine: its first GPU, else its CPU, or that alone where "cpu" is asked for. What is free is asked anew."""
    gpu, stored = None if device == "cpu" else first_gpu(), profile()
    now = _of_gpu(gpu) if gpu else _of_cpu()
    if stored is None or stored["hardware"]["device"] != now.device:
        return now
    measured = {name: value for name, value in stored["hardware"].items() if name in _FIELDS} | {
        "capability": tuple(stored["hardware"]["capability"]),
        "total_bytes": now.total_bytes,
        "others_bytes": now.others_bytes,
    }
    return Hardware(**measured)


# --- the stored profile ----------------------------------------------------------------------------------------------


def profile_path() -> Path:
    return paths()["state"] / PROFILE


def profile() -> dict[str, Any] | None:
    """What `zolite profile` stored, if it was this machine with this driver and these versions."""
    try:
        stored: dict[str, Any] = json.loads(profile_path().read_bytes())
        return stored if stored["about"] == about() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(hardware: Hardware, details: Mapping[str, Any]) -> Path:
    """Whole or not at all."""
    path = profile_path()
    document = {"about": about(), "hardware": asdict(hardware), "details": dict(details)}
    with files.saving("the machine's profile", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, (json.dumps(document, indent=1) + "\n").encode())
    return path


def about() -> dict[str, Any]:
    """What a profile depends on."""
    found, gpu = driver(), first_gpu()
    return {
        "machine": f"{gpu.name}, {gpu.total >> 20} MiB" if gpu else f"{platform.machine()}, {_cores()} cores",
        "driver": found.version if found else "",
        "versions": {name: _version(name) for name in VERSIONED},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


# --- what the driver says --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """Memory in bytes, and what a card of no catalogue is judged by; 0 where the driver does not tell.

    Of processes it does not tell under WSL.
    """

    name: str
    total: int
    free: int
    used: int
    capability: tuple[int, int]
    ours: int = 0  # bytes of this process
    programs: int = 0  # that compute on it, this one apart
    cores: int = 0
    clock_hz: float = 0.0
    memory_per_s: float = 0.0


@dataclass(frozen=True)
class Driver:
    """What NVML says, whatever torch can do."""

    version: str
    cuda: tuple[int, int]  # the newest CUDA it serves
    gpus: tuple[Gpu, ...]


def driver() -> Driver | None:
    """None where there is no NVIDIA driver, or one that does not answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
            gpus = tuple(_gpu(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount()))
            return Driver(pynvml.nvmlSystemGetDriverVersion(), (cuda // 1000, cuda % 1000 // 10), gpus)
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001  a missing library, an old driver, a container without the card: all mean None
        return None


def first_gpu() -> Gpu | None:
    """The first GPU that CUDA would see."""
    found = driver()
    return found.gpus[_visible()] if found and _visible() < len(found.gpus) else None


def spills(version: Path = Path("/proc/version")) -> bool:
    """Does the driver move GPU memory into RAM where a card is full, without an error? Windows' does, for WSL too."""
    return sys.platform == "win32" or wsl(version)


def wsl(version: Path = Path("/proc/version")) -> bool:
    return version.exists() and "microsoft" in version.read_text(errors="replace").lower()


def _visible() -> int:
    """The number in CUDA_VISIBLE_DEVICES' first place; a UUID there, or nothing, is taken for the first."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return int(first) if first.isdigit() else 0


def _gpu(handle: Any) -> Gpu:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    running = _told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle), ())
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        total=memory.total,
        free=memory.free,
        used=memory.used,
        capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        ours=sum(p.usedGpuMemory or 0 for p in running if p.pid == os.getpid()),
        programs=sum(p.pid != os.getpid() for p in running),
        cores=_told(lambda: pynvml.nvmlDeviceGetNumGpuCores(handle), 0),
        clock_hz=1e6 * _told(lambda: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM), 0),
        memory_per_s=_told(lambda: _memory_rate(handle), 0.0),
    )


def _memory_rate(handle: Any) -> float:
    """Two transfers a cycle over the bus."""
    import pynvml

    clock = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM)
    return float(2e6 * clock * pynvml.nvmlDeviceGetMemoryBusWidth(handle) / 8)


def _told(ask: Any, otherwise: Any) -> Any:
    """What the driver answers, or `otherwise` where it does not support the question."""
    import pynvml

    try:
        return ask()
    except pynvml.NVMLError:
        return otherwise


# --- to numbers ------------------------------------------------------------------------------------------------------


def _of_card(card: Card) -> Hardware:
    copy = card.memory_bytes_per_s * REACHED_COPY
    return Hardware(
        name=card.title,
        device="cuda",
        total_bytes=card.memory_bytes,
        others_bytes=0,
        context_bytes=CONTEXT_CUDA,
        copy_per_s=copy,
        float32_per_s=card.float32_per_s * REACHED_PRODUCT,
        tensor16_per_s=card.tensor16_per_s * REACHED_PRODUCT,
        pairs_per_s=card.int8_per_s * REACHED_PAIRS,
        expand_per_s={"int8": copy * EXPAND["int8"], "nf4": copy * EXPAND["nf4"]},
        capability=card.capability,
    )


def _of_gpu(gpu: Gpu) -> Hardware:
    """By the catalogue if it has the card, else by what the driver says of its cores and clocks."""
    alike = (card for card in catalog.cards().values() if card.driver_name == gpu.name)
    fitting = [card for card in alike if abs(gpu.total / card.memory_bytes - 1) < 0.1]
    card = fitting[0] if fitting else _estimated(gpu)
    others = max(0, gpu.total - gpu.free - gpu.ours)
    found = replace(_of_card(card), total_bytes=gpu.total, others_bytes=others)
    return found if fitting else replace(found, origin="estimated")


def _estimated(gpu: Gpu) -> Card:
    """GeForce ratios: the smallest that a card of its kind has."""
    float32 = 2.0 * gpu.cores * gpu.clock_hz or 5e12
    return Card(
        name=gpu.name,
        title=gpu.name,
        driver_name=gpu.name,
        memory_bytes=gpu.total,
        memory_bytes_per_s=gpu.memory_per_s or 2e11,
        float32_per_s=float32,
        tensor16_per_s=2 * float32,
        int8_per_s=8 * float32,
        capability=gpu.capability,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _of_cpu() -> Hardware:
    memory, cores = psutil.virtual_memory(), _cores()
    copy, float32 = CORE_COPY * cores, CORE_FLOAT32 * cores
    return Hardware(
        name=f"CPU, {cores} cores",
        device="cpu",
        total_bytes=memory.total,
        others_bytes=memory.total - memory.available,
        context_bytes=CONTEXT_CPU,
        copy_per_s=copy,
        float32_per_s=float32,
        tensor16_per_s=float32 / 2,
        pairs_per_s=0.0,
        expand_per_s={"int8": copy / 2, "nf4": copy / 8},
        origin="estimated",
    )
