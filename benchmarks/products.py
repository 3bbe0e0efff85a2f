"""Claim: which way to multiply by 8-bit weights costs no time, by shape, on this GPU.

Rows (two points' tokens) × columns × depth of the layers of 1.7B and 8B Llamas. The ways:

bf16                       16-bit weights, the vendor's library: what the others are measured against
fp16                       the same in float16, which int8's weight-only product computes in
expand + fp16              codes expanded into one layer's scratch, then fp16: model/kernels.expand
fused w8a16                codes converted inside a Triton product, written here: what a fused kernel would be
int8 × int8 → int32        torch._int_mm, without the passes that scale its result
bitsandbytes               its own quantization of the activations and its product
pairs                      model/kernels.pair_product: mean and difference in int8, scales and sum included
pairs + LoRA               the same with an adapter of rank 8 added inside

python benchmarks/products.py [OUT]        needs CUDA and Triton
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401 - registers its operations
import torch
import triton
import triton.language as tl
from common import RESULTS, write

from zolite.model import kernels
from zolite.tools.bench import elapsed_ms

SHAPES = (
    (8192, 14336, 4096),
    (8192, 4096, 14336),
    (8192, 4096, 4096),
    (8192, 8192, 2048),
    (8192, 2048, 8192),
    (8192, 2048, 2048),
    (2048, 8192, 2048),
)
DEVICE = torch.device("cuda")


@triton.jit
def _w8a16(
    a: tl.tensor, w: tl.tensor, scales: tl.tensor, out: tl.tensor, M: tl.tensor, N: tl.tensor, K: tl.tensor,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
) -> None:  # fmt: skip
    """out (M, N) = a (M, K) float16 × (w (N, K) int8 · scales (N,))ᵀ."""
    tile, across = tl.program_id(0), tl.cdiv(N, BN)
    band = tile // (GROUP * across)
    height = min(tl.cdiv(M, BM) - band * GROUP, GROUP)
    rows = (band * GROUP + tile % (GROUP * across) % height) * BM + tl.arange(0, BM)
    cols = tile % (GROUP * across) // height * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    at_a, at_w = a + rows[:, None] * K + k[None, :], w + cols[None, :] * K + k[:, None]
    total = tl.zeros((BM, BN), tl.float32)
    for _ in range(0, K, BK):
        total = tl.dot(tl.load(at_a), tl.load(at_w).to(tl.float16), total)
        at_a += BK
        at_w += BK
    total = total * tl.load(scales + cols)[None, :]
    tl.store(out + rows[:, None] * N + cols[None, :], total.to(tl.float16))


def ways(m: int, n: int, k: int) -> dict[str, Callable[[], object]]:
    """Each a call that computes the product once, on the same weights."""
    x = torch.randn(m, k, device=DEVICE, dtype=torch.float16)
    codes = (torch.randn(n, k, device=DEVICE) * 40).clamp(-127, 127).to(torch.int8)
    scales = torch.rand(n, device=DEVICE) * 1e-3 + 1e-3
    weight, out = kernels.expand(codes, scales, torch.float16), torch.empty(m, n, device=DEVICE, dtype=torch.float16)
    low, b = torch.randn(2, m // 2, 8, device=DEVICE).half(), torch.randn(2, n, 8, device=DEVICE).half()
    pair_codes, pair_scales = kernels.pairs(x.view(2, m // 2, k), None, keep=False)
    quantized, rounded = pair_codes.view(m, k), torch.ops.bitsandbytes.int8_vectorwise_quant
    x16, w16, out16 = x.bfloat16(), weight.bfloat16(), out.bfloat16()

    def pairs(adapter: Any) -> Callable[[], None]:
        given = (pair_codes, pair_scales, codes, scales, None, adapter, out.view(2, m // 2, n), 0, False)
        return lambda: kernels.pair_product(*given)

    def theirs() -> None:
        rows, row_scales, _ = rounded(x)
        torch.ops.bitsandbytes.int8_scaled_mm(rows, codes, row_scales, scales * 127, dtype=torch.float16)

    grid = (triton.cdiv(m, 128) * triton.cdiv(n, 128),)
    return {
        "bf16": lambda: torch.mm(x16, w16.mT, out=out16),
        "fp16": lambda: torch.mm(x, weight.mT, out=out),
        "expand + fp16": lambda: torch.mm(x, kernels.expand(codes, scales, torch.float16).mT, out=out),
        "fused w8a16": lambda: _w8a16[grid](
            x, codes, scales, out, m, n, k, BM=128, BN=128, BK=64, GROUP=8, num_warps=8, num_stages=3
        ),
        "int8 × int8 → int32": lambda: torch._int_mm(quantized, codes.mT),
        "bitsandbytes": theirs,
        "pairs": pairs(None),
        "pairs + LoRA": pairs((low, b, 2.0)),
    }


def repeated_ms(call: Callable[[], object]) -> float:
    """The median of three stretches of twenty calls, a call."""
    call()
    stretches = [elapsed_ms(lambda: [call() for _ in range(20)], DEVICE) / 20 for _ in range(3)]
    return sorted(stretches)[1]


def rows() -> list[dict[str, Any]]:
    found = []
    for m, n, k in SHAPES:
        times = {what: repeated_ms(call) for what, call in ways(m, n, k).items()}
        for what, ms in times.items():
            about = {"rows": m, "columns": n, "depth": k, "what": what, "ms": round(ms, 4)}
            found.append(about | {"tflops": round(2e-9 * m * n * k / ms), "over_bf16": round(ms / times["bf16"], 2)})
    return found


if __name__ == "__main__":
    gpu = torch.cuda.get_device_name().lower().replace(" ", "-")
    write(f"products-{gpu}", rows(), Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
