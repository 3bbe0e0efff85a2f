"""Measures the machine for the planner: memory, and the rates of exactly the operations that a step is made of."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

from zolite.common.paths import paths
from zolite.engine import device_memory
from zolite.model import quant
from zolite.model.devices import speed
from zolite.model.load import quiet
from zolite.model.quant import weight16
from zolite.planner import hardware as machine
from zolite.planner.hardware import Gpu, Hardware
from zolite.tools import bench

ROWS, WIDE = 4096, {"cuda": (8192, 4096), "cpu": (2048, 2048)}  # of a point; a layer's outputs and inputs


def measure(device: torch.device) -> dict[str, Any]:
    """Measure, store, and say what was found. Other processes' work while this runs shows in the rates."""
    began = time.monotonic()
    gpu = machine.first_gpu() if device.type == "cuda" else None
    context = context_bytes(device, gpu)
    with quiet():
        found = hardware(device, gpu, context)
    details = surroundings(gpu) | {"seconds": time.monotonic() - began}
    where = machine.store(found, details)
    stored = machine.profile() or {}
    return {**stored, "path": str(where)}


def context_bytes(device: torch.device, gpu: Gpu | None) -> int:
    """What the process takes before it has a tensor: on a GPU all that its use grows by beyond torch's own count."""
    if device.type != "cuda":
        import bitsandbytes  # noqa: F401  its library counts too
        from transformers import AutoModelForCausalLM  # noqa: F401

        return int(psutil.Process().memory_info().rss)
    before = gpu.total - gpu.free if gpu else 0
    n = torch.ones(256, 256, dtype=torch.bfloat16, device=device)
    (n @ n).sum().item()  # loads cuBLAS
    quant.triton_kernels(device)
    free, total = torch.cuda.mem_get_info(device)
    taken = total - free - before - torch.cuda.memory_reserved(device) if gpu else 0
    return max(taken, machine.CONTEXT_CUDA)  # graphs and more kernels come with the first steps


def hardware(device: torch.device, gpu: Gpu | None, context: int) -> Hardware:
    rates = bench.rates(device)
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    memory = psutil.virtual_memory()
    return Hardware(
        name=device_memory.device_name(device),
        device=device.type,
        total_bytes=gpu.total if gpu else memory.total,
        others_bytes=max(0, gpu.total - gpu.free - gpu.ours) if gpu else memory.total - memory.available,
        context_bytes=context,
        copy_per_s=rates.copy_bytes_per_s,
        float32_per_s=rates.float32_flops_per_s,
        tensor16_per_s=rates.bf16_flops_per_s,
        pairs_per_s=pairs_rate(device),
        expand_per_s={name: expand_rate(name, device) for name in ("int8", "nf4")},
        capability=capability,
        origin="measured",
    )


def expand_rate(weights: str, device: torch.device) -> float:
    """Bytes written a second where a layer's codes become the weights that are multiplied."""
    size, dtype = WIDE[speed(device)], quant.activations(weights, device)
    layer = bench.LAYERS[weights](size, dtype, device)
    return size[0] * size[1] * dtype.itemsize / best_s(lambda: weight16(layer, dtype), device)


def pairs_rate(device: torch.device) -> float:
    """Operations a second of the product of int8 pairs; 0 where its kernel does not run."""
    kernels = quant.triton_kernels(device)
    if kernels is None:
        return 0.0
    (n, k), dtype = WIDE[speed(device)], torch.float16
    layer = bench.LAYERS["int8"]((n, k), dtype, device)
    rows = torch.randn(2, ROWS, k, device=device, dtype=dtype)
    codes, scales = kernels.pairs(rows, None, False)
    out = torch.empty(2, ROWS, n, device=device, dtype=dtype)

    def product() -> None:
        kernels.pair_product(codes, scales, layer.codes, layer.scales, None, None, out, 0, False)

    return 2 * 2 * ROWS * n * k / best_s(product, device)


def surroundings(gpu: Gpu | None) -> dict[str, Any]:
    """What else a person may want to know; free memory is of this moment."""
    memory = psutil.virtual_memory()
    places = {name: paths()[name] for name in ("data", "cache", "hub")}
    near = {name: next(p for p in (path, *path.parents) if p.exists()) for name, path in places.items()}
    return {
        "gpu": {"name": gpu.name, "total": gpu.total, "free": gpu.free} if gpu else None,
        "memory": {"total": memory.total, "available": memory.available},
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "disk_free": {name: shutil.disk_usage(path).free for name, path in near.items()},
    }


def best_s(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, the best of several: what nothing else holds up."""
    calls = 10 if device.type == "cuda" else 1
    times = [bench.elapsed_ms(lambda: [work() for _ in range(calls)], device) for _ in range(5)]
    return min(times[1:]) / calls / 1e3
