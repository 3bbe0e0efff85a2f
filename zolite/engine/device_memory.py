"""Measures the machine: memory in use now, at its peak, and free."""

import contextlib
import ctypes
import sys
from collections.abc import Callable

import psutil
import torch

if sys.platform != "win32":
    import resource

FULL = 0.03  # free of all
NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # CUDA's, the CPU's and cuBLAS' errors


Ask = Callable[[torch.device], int]
ALLOCATED: dict[str, Ask] = {
    "cuda": lambda d: torch.cuda.memory_allocated(d),
    "xpu": lambda d: torch.xpu.memory_allocated(d),
    "mps": lambda d: torch.mps.current_allocated_memory(),
}
MOST: dict[str, Ask] = {
    "cuda": lambda d: torch.cuda.max_memory_allocated(d),
    "xpu": lambda d: torch.xpu.max_memory_allocated(d),
    "mps": lambda d: torch.mps.driver_allocated_memory(),  # what torch took from the system, which it keeps
}
FREE: dict[str, Ask] = {
    "cuda": lambda d: torch.cuda.mem_get_info(d)[0] + torch.cuda.memory_reserved(d),
    "xpu": lambda d: torch.xpu.mem_get_info(d)[0] + torch.xpu.memory_reserved(d),
    "mps": lambda d: torch.mps.recommended_max_memory(),  # a part of the system's memory
}
NAMES: dict[str, Callable[[torch.device], str]] = {
    "cuda": lambda d: torch.cuda.get_device_name(d),
    "xpu": lambda d: torch.xpu.get_device_name(d),
    "mps": lambda d: "Apple GPU",
}


def used_bytes(device: torch.device) -> int:
    """Memory this process holds on the device: torch's allocations on a GPU, resident memory on a CPU."""
    if device.type in ALLOCATED:
        return int(ALLOCATED[device.type](device))
    return int(psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device) -> int:
    """The most that `used_bytes` has been."""
    if device.type in MOST:
        return int(MOST[device.type](device))
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tidy() -> None:
    """Give back to the system what glibc keeps of memory that was freed: a gigabyte after large work on a CPU."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl's has no such thing
            ctypes.CDLL(None).malloc_trim(0)


def budget_bytes(device: torch.device) -> int:
    """What this process could hold: what it holds already and what is free now."""
    if device.type in FREE:
        return int(FREE[device.type](device))
    return int(psutil.virtual_memory().available) + used_bytes(device)


def hold_to(device: torch.device, budget_bytes: int | None, beside_bytes: int = 0) -> None:
    """Let torch take no more of a card than a budget, less what the process takes beside it; None lets it go again.

    Beyond it torch raises OutOfMemoryError, as on a smaller card. A CPU has no such limit.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = 1.0 if budget_bytes is None else (budget_bytes - beside_bytes) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, share)), device)


def full(device: torch.device) -> bool:
    """Is next to nothing of a card's memory free?"""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free < FULL * total


def out_of_memory(error: BaseException | None) -> bool:
    """torch's own error, and those of libraries that have another word for it, or that came of it."""
    known = isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)
    return error is not None and (known or out_of_memory(error.__context__))


def device_name(device: torch.device) -> str:
    """For people and for a session's facts."""
    if device.type in NAMES:
        return str(NAMES[device.type](device))
    return f"CPU, {torch.get_num_threads()} threads"
