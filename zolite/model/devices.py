"""Which devices torch has here, and which of them zolite's own kernels are for.

    pick("auto")       the first GPU that torch sees: of NVIDIA or AMD (both "cuda"), Intel, Apple; else the CPU
    nvidia(device)     is it one that kernels, captured graphs and accumulating products were written for?

Every other GPU runs the generic path: torch's own operations alone, int8 and nf4 weights expanded for each product.
"""

from collections.abc import Callable

import torch

from zolite.common.errors import UsageError

COUNTS: dict[str, Callable[[], int]] = {
    "cuda": lambda: torch.cuda.device_count() if torch.cuda.is_available() else 0,  # ROCm's builds call theirs so too
    "xpu": lambda: torch.xpu.device_count() if torch.xpu.is_available() else 0,
    "mps": lambda: int(torch.backends.mps.is_available()),
}
"""How many devices of a kind there are, in the order in which `auto` asks."""
CHOICES = "auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"


def pick(wanted: str) -> torch.device:
    """One of CHOICES to a device that is really there."""
    if wanted == "auto":
        found = next((kind for kind, count in COUNTS.items() if count()), None)
        return torch.device(found, 0) if found else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UsageError(f"model.device is {wanted!r}", f"use {CHOICES}") from None
    if device.type == "cpu":
        return device
    if device.type not in COUNTS:
        raise UsageError(f"device {wanted} is not supported", f"use {CHOICES}")
    if device.type == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        raise UsageError(
            f"CUDA was asked for, but torch {torch.__version__} is a CPU build",
            "install a CUDA build of torch (`zolite doctor` says how), or leave --device out",
        )
    if (device.index or 0) >= (count := COUNTS[device.type]()):
        raise UsageError(f"{wanted} was asked for, but torch sees {count} GPUs of that kind", "`zolite doctor`")
    return torch.device(device.type, device.index or 0)


def nvidia(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None


def speed(device: torch.device) -> str:
    """Which row of a table by "cpu" and "cuda" is meant: every GPU is like one of NVIDIA's there."""
    return "cpu" if device.type == "cpu" else "cuda"
