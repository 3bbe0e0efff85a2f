"""A Triton kernel that writes points and updates with noise drawn by address inside it: no z is ever in memory.

The numbers are those of zo/rng.py, whose torch code is the reference: the generator is Philox4x32-10 (Salmon, Moraes,
Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a tile is 4,096 numbers of 1,024 counters, and a
counter is (element's low word, its high word, step, tag).

K points, n trainable numbers, J terms in all: noise times a coefficient, those of a point one behind the other.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from zolite.model.devices import nvidia
from zolite.zo import rng as noise
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import TILE, Key, Step
from zolite.zo.space import Direction, Scalar, Space, Writer

try:
    import triton
    import triton.language as tl
except ImportError:  # torch runs on systems that Triton does not
    triton = None

jit: Any = triton.jit if triton else lambda kernel: kernel

NORMAL: dict[Callable[[Tensor], Tensor], bool] = {noise.normal: True, noise.rademacher: False}  # what the kernel knows
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@jit
def _philox(c0: tl.tensor, c1: tl.tensor, c2: tl.tensor, c3: tl.tensor, k0: tl.tensor, k1: tl.tensor) -> tl.tensor:
    """Philox4x32-10: four counter words and two key words, uint32, to four words."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), tl.mul(c0, 0xD2511F53, sanitize_overflow=False)
        high2, low2 = tl.umulhi(c2, 0xCD9E8D57), tl.mul(c2, 0xCD9E8D57, sanitize_overflow=False)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@jit
def _normal(radius: tl.tensor, angle: tl.tensor) -> tl.tensor:
    """Two words to two numbers of N(0, 1) by the operations of zo/rng.normal in their order (Box and Muller 1958)."""
    uniform = (radius.to(tl.float32) + 0.5) * 2.0**-32
    r = tl.sqrt_rn(tl.maximum(tl.log(uniform) * -2.0, 0.0))  # at 0 where the word was rounded up to 2³²
    phi = angle.to(tl.float32) * (6.283185307179586 * 2.0**-32)
    return r * tl.cos(phi), r * tl.sin(phi)


@jit
def _sign(word: tl.tensor) -> tl.tensor:
    return 1.0 - 2.0 * (word >> 31).to(tl.float32)


@jit
def _numbers(w0: tl.tensor, w1: tl.tensor, w2: tl.tensor, w3: tl.tensor, NORMAL: tl.constexpr) -> tl.tensor:
    """A counter's four words to its numbers in a tile's four runs; w0 and w1 give radii, w2 and w3 the angles."""
    if NORMAL:
        z0, z2 = _normal(w0, w2)
        z1, z3 = _normal(w1, w3)
    else:
        z0, z1, z2, z3 = _sign(w0), _sign(w1), _sign(w2), _sign(w3)
    return z0, z1, z2, z3


@jit
def _write_kernel(
    out: tl.tensor,  # (K, n) of any float
    theta: tl.tensor,  # (n,) float32, perhaps out's own memory: a program reads what it writes, and nothing else
    coefs: tl.tensor,  # (J,) float32
    words: tl.tensor,  # (2 + J,) int64: the seed's two words, then the terms' tags
    starts: tl.tensor,  # (K + 1,) int64: point k has the terms from starts[k] to starts[k + 1]
    step: tl.tensor,  # () int64
    n: tl.tensor,
    stride: tl.tensor,  # from point to point
    RUN: tl.constexpr,
    NORMAL: tl.constexpr,
) -> None:
    """out[k, i] = theta[i] + Σ coef · z(seed, step, tag)[i], summed in float32 in the terms' order and rounded once."""
    tile, point = tl.program_id(0).to(tl.int64), tl.program_id(1)
    counter = tile * RUN + tl.arange(0, RUN)
    low, high = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    seed_low, seed_high = tl.load(words).to(tl.uint32), tl.load(words + 1).to(tl.uint32)
    now = tl.load(step).to(tl.uint32)
    i0 = tile * (4 * RUN) + tl.arange(0, RUN)
    i1, i2, i3 = i0 + RUN, i0 + 2 * RUN, i0 + 3 * RUN
    x0, x1 = tl.load(theta + i0, mask=i0 < n), tl.load(theta + i1, mask=i1 < n)
    x2, x3 = tl.load(theta + i2, mask=i2 < n), tl.load(theta + i3, mask=i3 < n)
    for j in range(tl.load(starts + point), tl.load(starts + point + 1)):
        tag, coef = tl.load(words + 2 + j).to(tl.uint32), tl.load(coefs + j)
        w0, w1, w2, w3 = _philox(low, high, now, tag, seed_low, seed_high)
        z0, z1, z2, z3 = _numbers(w0, w1, w2, w3, NORMAL)
        x0, x1, x2, x3 = x0 + z0 * coef, x1 + z1 * coef, x2 + z2 * coef, x3 + z3 * coef
    row = out + point.to(tl.int64) * stride
    tl.store(row + i0, x0, mask=i0 < n)  # here they are rounded to out's type
    tl.store(row + i1, x1, mask=i1 < n)
    tl.store(row + i2, x2, mask=i2 < n)
    tl.store(row + i3, x3, mask=i3 < n)


@dataclass(frozen=True)
class TritonWriter:
    """Sums of normal or Rademacher noise, all of one seed and step, in one kernel.

    Nothing waits for the device. What is known beforehand (tags, seeds, coefficients that are numbers) is copied there
    by the first call that needs it; later ones copy nothing, so that a call made once may be captured into a graph.
    """

    def fill_(self, space: Space, points: Sequence[Direction]) -> bool:
        return len(points) <= len(space.copies) and _write_(space.copies, space.theta, points)

    def add_(self, space: Space, update: Direction) -> bool:
        return _write_(space.theta[None], space.theta, [update])


@cache
def writer(device: torch.device) -> Writer | None:
    """The kernel's writer; None where the device is not CUDA, or Triton is missing or cannot build."""
    return TritonWriter() if triton and nvidia(device) and _builds(device) else None


def _builds(device: torch.device) -> bool:
    """Triton compiles a launcher on the spot: it wants a C compiler and Python's headers, which many a system lacks."""
    theta = torch.zeros(1, device=device)
    try:
        return _write_(theta[None], theta, [Combo(((1.0, Noise(Key(0, 0))),))])
    except (RuntimeError, OSError, AssertionError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).warning("noise is made without Triton, more slowly: %s", error)
        return False


def _write_(out: Tensor, theta: Tensor, points: Sequence[Direction]) -> bool:
    """out[k] = theta + points[k], if the kernel can: out (≥ K, n), theta (n,) float32, perhaps the same memory."""
    sums = [list(point.flat()) if isinstance(point, Combo) else [(1.0, point)] for point in points]
    coefs = [coefficient for terms in sums for coefficient, _ in terms]
    noises = _alike([direction for terms in sums for _, direction in terms])
    here = all(c.device == theta.device for c in coefs if isinstance(c, Tensor))
    if not (noises and here and out.dtype in DTYPES):
        return False
    device, n, first = theta.device, theta.numel(), noises[0]
    words = (*noise.seed_words(first.key.seed), *(noise.tag_word(d.key.tag) for d in noises))
    starts = tuple(accumulate(map(len, sums), initial=0))
    with torch.cuda.device(theta.get_device()):  # Triton launches on the current device
        _write_kernel[(-(-n // TILE), len(points))](
            out, theta, _coefs(coefs, device), _constant(words, torch.int64, device),
            _constant(starts, torch.int64, device), _step(first.key.step, device), n, out.stride(0),
            RUN=TILE // 4, NORMAL=NORMAL[first.transform], num_warps=8,
            enable_fp_fusion=False,  # the reference rounds products
        )  # fmt: skip
    return True


def _alike(directions: Sequence[Direction]) -> list[Noise]:
    """All of them, if they are noise of a transform that the kernel knows and differ in their tags alone; else none."""
    noises = [d for d in directions if isinstance(d, Noise)]
    alike = all(d.transform is noises[0].transform and _same_time(d.key, noises[0].key) for d in noises)
    return noises if len(noises) == len(directions) and alike and all(d.transform in NORMAL for d in noises) else []


def _same_time(a: Key, b: Key) -> bool:
    if isinstance(a.step, Tensor) or isinstance(b.step, Tensor):
        return a.seed == b.seed and a.step is b.step  # to compare values would be to wait for the device
    return a.seed == b.seed and a.step == b.step


def _coefs(values: Sequence[Scalar], device: torch.device) -> Tensor:
    """(J,) float32, each rounded once."""
    if not any(isinstance(value, Tensor) for value in values):
        return _constant(tuple(values), torch.float32, device)
    tensors = [v if isinstance(v, Tensor) else _constant((v,), torch.float32, device)[0] for v in values]
    return torch.stack(tensors).float()


def _step(step: Step, device: torch.device) -> Tensor:
    """() int64. A number is an argument of the kernel that fills the tensor, so that nothing is copied."""
    return step if isinstance(step, Tensor) else torch.full((), step, dtype=torch.int64, device=device)


@cache
def _constant(values: tuple[Scalar, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Copied to the device once and kept for good: a captured graph may read it whenever it is replayed."""
    return torch.tensor(values, dtype=dtype, device=device)
