"""Triton kernels of the forward: what stands between two products, and the product of int8 weights with point pairs.

S points, P = S / 2 pairs of points, M rows a point (sequences × tokens), D width. Rows lie point by point: the two rows
of a pair are M apart. Everything is summed in float32.

A pair's activations x₊ and x₋ are nearly alike. Written as a mean m = (x₊ + x₋) / 2 and a difference d = (x₊ − x₋) / 2,
each rounded to int8 with a scale of its own, what is rounded away of m is the same for both points and what is rounded
away of d is small beside d, so that L(θ₊) − L(θ₋) survives a product of int8 by int8 (docs/log.md).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

EXACT = {"enable_fp_fusion": False}  # x₊ − x₋ must be 0 where they are alike: no product may skip its rounding


@triton.jit
def _codes_of(x: tl.tensor, top: tl.tensor) -> tl.tensor:
    """Nearest of 255 levels: x · 127 / top, half up."""
    return tl.floor(x * (127.0 / tl.maximum(top, 1e-30)) + 0.5).to(tl.int8)


@triton.jit
def _norm_kernel(
    h: tl.tensor, weight: tl.tensor, out: tl.tensor, eps: tl.tensor, D: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    x = tl.load(h + row * D + cols, mask=cols < D, other=0.0).to(tl.float32)
    w = tl.load(weight + cols, mask=cols < D, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, 0) / D + eps) * w
    tl.store(out + row * D + cols, y.to(out.dtype.element_ty), mask=cols < D)


def rms_norm(h: Tensor, weight: Tensor, eps: float) -> Tensor:
    """h / √(mean h² + ε) · weight over the last dimension (Zhang and Sennrich, arXiv 1910.07467)."""
    width, out = h.shape[-1], torch.empty_like(h)
    block = triton.next_power_of_2(width)
    _norm_kernel[(h.numel() // width,)](h, weight, out, eps, D=width, BLOCK=block, num_warps=_warps(block), **EXACT)
    return out


@triton.jit
def _store_pair(
    a: tl.tensor, b: tl.tensor, codes: tl.tensor, scales: tl.tensor, plus: tl.tensor, minus: tl.tensor,
    cols: tl.tensor, D: tl.constexpr, STRIDE: tl.constexpr,
) -> None:  # fmt: skip
    """Codes and scale of (a + b) / 2 into the row `plus` and of (a − b) / 2 into the row `minus`, STRIDE apart."""
    mean, diff = (a + b) * 0.5, (a - b) * 0.5
    top_mean, top_diff = tl.max(tl.abs(mean), 0), tl.max(tl.abs(diff), 0)
    tl.store(codes + plus * STRIDE + cols, _codes_of(mean, top_mean), mask=cols < D)
    tl.store(codes + minus * STRIDE + cols, _codes_of(diff, top_diff), mask=cols < D)
    tl.store(scales + plus, top_mean / 127.0)
    tl.store(scales + minus, top_diff / 127.0)


@triton.jit(do_not_specialize=["M", "first", "rows"])
def _norm_pairs_kernel(
    h: tl.tensor, weight: tl.tensor, out: tl.tensor, codes: tl.tensor, scales: tl.tensor,
    M: tl.tensor, first: tl.tensor, rows: tl.tensor, eps: tl.tensor,
    D: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    source = row // rows * 2 * M + first + row % rows
    plus = row // rows * 2 * rows + row % rows
    minus = plus + rows
    cols = tl.arange(0, BLOCK)
    live = cols < D
    w = tl.load(weight + cols, mask=live, other=0.0).to(tl.float32)
    a = tl.load(h + source * D + cols, mask=live, other=0.0).to(tl.float32)
    b = tl.load(h + (source + M) * D + cols, mask=live, other=0.0).to(tl.float32)
    a = a * tl.rsqrt(tl.sum(a * a, 0) / D + eps) * w
    b = b * tl.rsqrt(tl.sum(b * b, 0) / D + eps) * w
    if KEEP:
        tl.store(out + plus * D + cols, a.to(out.dtype.element_ty), mask=live)
        tl.store(out + minus * D + cols, b.to(out.dtype.element_ty), mask=live)
    _store_pair(a, b, codes, scales, plus, minus, cols, D, D)


def norm_pairs(h: Tensor, weight: Tensor, eps: float, rows: slice, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """rms_norm of h[:, rows] of h (S, M, D): pair codes (S, rows, D) int8, their scales (S, rows), itself if kept.

    Of each pair the first point's place holds the mean, the second's the difference.
    """
    points, m, width = h.shape
    count = rows.stop - rows.start
    codes = h.new_empty(points, count, width, dtype=torch.int8)
    scales = h.new_empty(points, count, dtype=torch.float32)
    out, block = h.new_empty(points, count, width) if keep else None, triton.next_power_of_2(width)
    _norm_pairs_kernel[(points // 2 * count,)](
        h, weight, h if out is None else out, codes, scales, m, rows.start, count, eps,
        D=width, KEEP=keep, BLOCK=block, num_warps=_warps(block), **EXACT,
    )  # fmt: skip
    return codes, scales, out


@triton.jit
def _value(g: tl.tensor, u: tl.tensor, at: tl.tensor, live: tl.tensor, GATED: tl.constexpr) -> tl.tensor:
    x = tl.load(g + at, mask=live, other=0.0).to(tl.float32)
    if GATED:
        x = x * tl.sigmoid(x) * tl.load(u + at, mask=live, other=0.0).to(tl.float32)
    return x


@triton.jit(do_not_specialize=["M"])
def _pairs_kernel(
    g: tl.tensor, u: tl.tensor, codes: tl.tensor, scales: tl.tensor, M: tl.tensor,
    D: tl.constexpr, STRIDE: tl.constexpr, GATED: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    live = cols < D
    plus = row // M * 2 * M + row % M
    minus = plus + M
    a = _value(g, u, plus * D + cols, live, GATED)
    b = _value(g, u, minus * D + cols, live, GATED)
    _store_pair(a, b, codes, scales, plus, minus, cols, D, STRIDE)
    if KEEP:
        tl.store(g + plus * D + cols, a.to(g.dtype.element_ty), mask=live)
        tl.store(g + minus * D + cols, b.to(g.dtype.element_ty), mask=live)


def pairs(g: Tensor, u: Tensor | None, keep: bool) -> tuple[Tensor, Tensor]:
    """Pair codes and scales, as `norm_pairs` has them, of g (S, M, D) or of silu(g) · u, which `keep` writes into g.

    The codes of the latter lie in the first half of each of u's rows, read by then: they take no memory.
    """
    points, rows, width = g.shape
    codes = u.view(torch.int8)[..., :width] if u is not None else torch.empty_like(g, dtype=torch.int8)
    scales = g.new_empty(points, rows, dtype=torch.float32)
    gated, block = u is not None, triton.next_power_of_2(width)
    _pairs_kernel[(points // 2 * rows,)](
        g, u if u is not None else g, codes, scales, rows, D=width, STRIDE=codes.stride(1),
        GATED=gated, KEEP=keep and gated, BLOCK=block, num_warps=_warps(block), **EXACT,
    )  # fmt: skip
    return codes, scales


@triton.jit(do_not_specialize=["n"])
def _silu_mul_kernel(g: tl.tensor, u: tl.tensor, n: tl.tensor, BLOCK: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = _value(g, u, at, at < n, True)
    tl.store(g + at, x.to(g.dtype.element_ty), mask=at < n)


def silu_mul_(g: Tensor, u: Tensor) -> Tensor:
    """g ← silu(g) · u (SwiGLU, arXiv 2002.05202)."""
    _silu_mul_kernel[(triton.cdiv(g.numel(), 2048),)](g, u, g.numel(), BLOCK=2048, num_warps=4, **EXACT)
    return g


@triton.jit
def _rotate(
    x: tl.tensor,
    at: tl.tensor,
    c1: tl.tensor,
    s1: tl.tensor,
    c2: tl.tensor,
    s2: tl.tensor,
    live: tl.tensor,
    HALF: tl.constexpr,
) -> None:
    a = tl.load(x + at, mask=live, other=0.0).to(tl.float32)
    b = tl.load(x + at + HALF, mask=live, other=0.0).to(tl.float32)
    tl.store(x + at, (a * c1[None, :] - b * s1[None, :]).to(x.dtype.element_ty), mask=live)
    tl.store(x + at + HALF, (b * c2[None, :] + a * s2[None, :]).to(x.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["T"])
def _rotary_kernel(
    q: tl.tensor, k: tl.tensor, cos: tl.tensor, sin: tl.tensor, T: tl.tensor,
    HQ: tl.constexpr, HK: tl.constexpr, HALF: tl.constexpr, BQ: tl.constexpr, BH: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    cols, heads = tl.arange(0, BH), tl.arange(0, BQ)
    inside = cols < HALF
    place = row % T * 2 * HALF + cols
    c1 = tl.load(cos + place, mask=inside, other=0.0)
    s1 = tl.load(sin + place, mask=inside, other=0.0)
    c2 = tl.load(cos + place + HALF, mask=inside, other=0.0)
    s2 = tl.load(sin + place + HALF, mask=inside, other=0.0)
    at = heads[:, None] * 2 * HALF + cols[None, :]
    _rotate(q, row * HQ * 2 * HALF + at, c1, s1, c2, s2, (heads < HQ)[:, None] & inside[None, :], HALF)
    _rotate(k, row * HK * 2 * HALF + at, c1, s1, c2, s2, (heads < HK)[:, None] & inside[None, :], HALF)


def rotary_(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn q (rows, T, Hq, d) and k (rows, T, Hk, d) in place by tables (≥ T, d) float32 (RoPE, arXiv 2104.09864)."""
    rows, tokens, heads, width = q.shape
    _rotary_kernel[(rows * tokens,)](
        q, k, cos, sin, tokens, HQ=heads, HK=k.shape[2], HALF=width // 2,
        BQ=triton.next_power_of_2(heads), BH=triton.next_power_of_2(width // 2), num_warps=4, **EXACT,
    )  # fmt: skip


@triton.jit
def _expand_kernel(codes: tl.tensor, scales: tl.tensor, out: tl.tensor, D: tl.tensor, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    scale = tl.load(scales + row)
    for first in range(0, D, BLOCK):
        cols = first + tl.arange(0, BLOCK)
        x = tl.load(codes + row * D + cols, mask=cols < D, other=0).to(tl.float32) * scale
        tl.store(out + row * D + cols, x.to(out.dtype.element_ty), mask=cols < D)


def expand(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """codes (out, in) int8 · scales (out,) float32, rounded once."""
    out = torch.empty_like(codes, dtype=dtype)
    _expand_kernel[(codes.shape[0],)](codes, scales, out, codes.shape[1], BLOCK=2048, num_warps=4, **EXACT)
    return out


@triton.jit
def _tile_origin(
    tile: tl.tensor, rows: tl.tensor, N: tl.tensor, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """First row and column of a tile. Tiles that share rows run together, so that their weights are read once."""
    across = tl.cdiv(N, BN)
    band = tile // (GROUP * across)
    height = min(tl.cdiv(rows, BM) - band * GROUP, GROUP)
    return (band * GROUP + tile % (GROUP * across) % height) * BM, tile % (GROUP * across) // height * BN


@triton.jit
def _codes_at(
    mean: tl.tensor, diff: tl.tensor, weight: tl.tensor, inside: tl.tensor, WHOLE: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Tiles of codes by their pointers, zero where K ends within them."""
    if WHOLE:
        x, y, w = tl.load(mean), tl.load(diff), tl.load(weight)
    else:
        x = tl.load(mean, mask=inside[None, :], other=0)
        y = tl.load(diff, mask=inside[None, :], other=0)
        w = tl.load(weight, mask=inside[:, None], other=0)
    return x, y, w


@triton.jit
def _with_adapter(
    y: tl.tensor, low: tl.tensor, b: tl.tensor, alpha: tl.tensor, row_live: tl.tensor, col_live: tl.tensor,
    R: tl.constexpr, BR: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """y (BM, BN) plus alpha · low Bᵀ, from pointers to the rows of low (BM, R) and of B (BN, R)."""
    r = tl.arange(0, BR)
    x = tl.load(low + r[None, :], mask=row_live[:, None] & (r < R)[None, :], other=0.0)
    w = tl.load(b + r[:, None], mask=col_live[None, :] & (r < R)[:, None], other=0.0)
    return tl.dot((x.to(tl.float32) * alpha).to(x.dtype), w, y, input_precision="ieee")


@triton.jit(do_not_specialize=["rows", "M", "first", "low_stride", "b_stride"])  # else each bucket compiles anew
def _pair_product_kernel(
    codes: tl.tensor,  # (S · rows, K) int8, STRIDE from row to row; with TMA a descriptor of its tiles (BM, BK)
    scales: tl.tensor,  # (S, rows) float32
    weight: tl.tensor,  # (N, K) int8; with TMA a descriptor of its tiles (BN, BK)
    weight_scales: tl.tensor,  # (N,) float32
    bias: tl.tensor,  # (N,)
    low: tl.tensor,  # (S, rows, R): x Aᵀ, `low_stride` from row to row
    b: tl.tensor,  # (S, N, R), `b_stride` from point to point
    out: tl.tensor,  # (S, M, N), of which the rows from `first` on are written
    rows: tl.tensor, M: tl.tensor, first: tl.tensor, N: tl.tensor, K: tl.tensor, low_stride: tl.tensor,
    b_stride: tl.tensor, alpha: tl.tensor,
    STRIDE: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, R: tl.constexpr, WHOLE: tl.constexpr,
    TMA: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, GROUP: tl.constexpr,
) -> None:  # fmt: skip
    pair = tl.program_id(1)
    row0, col0 = _tile_origin(tl.program_id(0), rows, N, BM, BN, GROUP)
    row, col = row0 + tl.arange(0, BM), col0 + tl.arange(0, BN)
    k = tl.arange(0, BK)
    row_live, col_live = row < rows, col < N
    source = pair.to(tl.int64) * 2 * rows + tl.where(row_live, row, 0)
    mean = tl.zeros((BM, BN), tl.int32)
    diff = tl.zeros((BM, BN), tl.int32)
    if TMA:
        at = pair * 2 * rows + row0  # a tile may reach into other rows: what it computes there is not stored
        for done in range(0, K, BK):
            w = weight.load([col0, done]).T
            mean = tl.dot(codes.load([at, done]), w, mean, out_dtype=tl.int32)
            diff = tl.dot(codes.load([at + rows, done]), w, diff, out_dtype=tl.int32)
    else:
        at_mean = codes + source[:, None] * STRIDE + k[None, :]
        at_diff = at_mean + rows.to(tl.int64) * STRIDE
        at_weight = weight + tl.where(col_live, col, 0)[None, :].to(tl.int64) * K + k[:, None]
        for done in range(0, K, BK):
            x, y, w = _codes_at(at_mean, at_diff, at_weight, k + done < K, WHOLE)
            mean = tl.dot(x, w, mean, out_dtype=tl.int32)
            diff = tl.dot(y, w, diff, out_dtype=tl.int32)
            at_mean += BK
            at_diff += BK
            at_weight += BK
    column = tl.load(weight_scales + col, mask=col_live, other=0.0)[None, :]
    m = mean.to(tl.float32) * tl.load(scales + source)[:, None] * column
    d = diff.to(tl.float32) * tl.load(scales + source + rows)[:, None] * column
    if BIAS:
        m += tl.load(bias + col, mask=col_live, other=0.0).to(tl.float32)[None, :]
    live = row_live[:, None] & col_live[None, :]
    for sign in tl.static_range(2):
        y = m + d if sign == 0 else m - d
        point = 2 * pair.to(tl.int64) + sign
        if R > 0:
            y = _with_adapter(
                y, low + (point * rows + row)[:, None] * low_stride, b + point * b_stride + col[None, :] * R, alpha,
                row_live, col_live, R, BR,
            )  # fmt: skip
        to = out + (point * M + first + row)[:, None] * N + col[None, :]
        if ADD:
            y += tl.load(to, mask=live, other=0.0).to(tl.float32)
        tl.store(to, y.to(out.dtype.element_ty), mask=live)


def pair_product(
    codes: Tensor,
    scales: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    adapter: tuple[Tensor, Tensor, float] | None,
    out: Tensor,
    first: int,
    add: bool,
) -> None:
    """x Wᵀ + bias + α · low Bᵀ into out[:, first : first + rows], or added to what is there, for pairs of points x.

    codes (S, rows, K) and scales (S, rows) are x as `norm_pairs` has it, weight (N, K) int8, weight_scales (N,);
    adapter is (low (S, rows, R) = x Aᵀ, perhaps columns of a wider one, B (≥ S, N, R), α); out is (S, M, N). Sums of
    integers are exact, so the tile's shape cannot change a bit of the result.
    """
    (points, rows, k), n = codes.shape, weight.shape[0]
    tile, tma = _tile(codes.device), _has_tma(codes.device) and k % 16 == 0
    low, b, alpha = adapter if adapter is not None else (out, out, 0.0)
    rank = low.shape[-1] if adapter is not None else 0
    grid = (triton.cdiv(rows, tile["BM"]) * triton.cdiv(n, tile["BN"]), points // 2)
    _pair_product_kernel[grid](
        _tiles(codes, tile["BM"], tile["BK"]) if tma else codes, scales,
        _tiles(weight, tile["BN"], tile["BK"]) if tma else weight, weight_scales,
        out if bias is None else bias, low, b, out,
        rows, out.shape[1], first, n, k, low.stride(1), b.stride(0), alpha,
        STRIDE=codes.stride(1), ADD=add, BIAS=bias is not None, R=rank, WHOLE=k % tile["BK"] == 0, TMA=tma,
        BR=max(16, triton.next_power_of_2(max(1, rank))), GROUP=8, **tile, **EXACT,
    )  # fmt: skip


def _tiles(x: Tensor, height: int, width: int) -> TensorDescriptor:
    """What Hopper's copy engine (TMA) needs to know of x (…, K) to fetch tiles of its rows."""
    rows, stride = x.numel() // x.shape[-1], x.stride(-2)
    return TensorDescriptor(x, [rows, x.shape[-1]], [stride, 1], [height, width])


def _tile(device: torch.device) -> dict[str, int]:
    """Such that two blocks share a multiprocessor: one's products run while the other stores (docs/log.md)."""
    tile = {"BM": 64, "BN": 128, "num_warps": 4}
    held = _shared_bytes(device)
    for deep, stages in ((128, 3), (64, 4)):
        if held >= 2 * (256 * deep * stages + 1024):
            return tile | {"BK": deep, "num_stages": stages}
    return tile | {"BK": 64, "num_stages": 3}


def _has_tma(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def _shared_bytes(device: torch.device) -> int:
    """A multiprocessor's shared memory."""
    return torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor if device.type == "cuda" else 0


def _warps(block: int) -> int:
    return min(16, max(1, block // 512))
