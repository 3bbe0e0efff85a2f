"""The kernels between products and the product of pairs, against the formulas written plainly. Interpreted on a CPU."""

import pytest
import torch
from torch import Tensor

kernels = pytest.importorskip("zolite.model.kernels")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def normed(h: Tensor, weight: Tensor, eps: float) -> Tensor:
    h = h.double()
    return h / (h.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt() * weight.double()


def decoded(codes: Tensor, scales: Tensor) -> Tensor:
    """Mean and difference to the points themselves: (S, M, D)."""
    mean, diff = (codes.double() * scales.double().unsqueeze(-1)).unflatten(0, (-1, 2)).unbind(1)
    return torch.stack([mean + diff, mean - diff], dim=1).flatten(0, 1)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    plus, minus = x.double().unflatten(0, (-1, 2)).unbind(1)
    return (plus + minus) / 2, (plus - minus) / 2


def assert_rounded(codes: Tensor, scales: Tensor, x: Tensor) -> None:
    """Each half within half a level of what it stands for, and its largest number at the last level."""
    parts = codes.double().unflatten(0, (-1, 2)).unbind(1), scales.double().unflatten(0, (-1, 2)).unbind(1)
    for code, scale, exact in zip(*parts, halves(x), strict=True):
        level = exact.abs().amax(-1) / 127
        torch.testing.assert_close(scale.double(), level, rtol=1e-4, atol=1e-12)  # a difference of nearly equals
        assert ((code * scale.unsqueeze(-1) - exact).abs() <= level.unsqueeze(-1) * 0.52 + 1e-9).all()
        assert (code.abs().amax(-1) == 127).logical_or(level == 0).all()


@pytest.mark.parametrize("width", [1, 64, 100, 576])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rms_norm_is_the_formula(width: int, dtype: torch.dtype) -> None:
    h, weight = normal(3, 5, width, dtype=dtype) * 7, normal(width, seed=1, dtype=dtype)
    want = normed(h, weight, 1e-5)
    torch.testing.assert_close(kernels.rms_norm(h, weight, 1e-5).double(), want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("points", [2, 6])
@pytest.mark.parametrize("keep", [True, False])
def test_norm_pairs_rounds_the_halves_of_the_norm(points: int, keep: bool) -> None:
    h, weight = normal(points, 5, 100), normal(100, seed=1)
    h[1::2] = h[0::2] + 0.01 * h[1::2]
    codes, scales, kept = kernels.norm_pairs(h, weight, 1e-5, slice(1, 4), keep)
    want = normed(h, weight, 1e-5)[:, 1:4]
    assert_rounded(codes, scales, want)
    if keep:
        torch.testing.assert_close(kept.double(), want, rtol=1e-5, atol=1e-5)
    else:
        assert kept is None


@pytest.mark.parametrize("width", [64, 2500])
@pytest.mark.parametrize("gated", [True, False])
def test_pairs_rounds_the_halves_of_what_it_is_given(width: int, gated: bool) -> None:
    g, u = normal(4, 3, width), normal(4, 3, width, seed=1)
    want = torch.nn.functional.silu(g.double()) * u.double() if gated else g.double()
    codes, scales = kernels.pairs(g, u if gated else None, keep=gated)
    assert_rounded(codes, scales, want)
    torch.testing.assert_close(g.double(), want, rtol=1e-5, atol=1e-5)  # kept, or never touched


def test_points_that_are_alike_have_no_difference() -> None:
    h = normal(1, 4, 64).repeat(2, 1, 1)
    codes, scales, _ = kernels.norm_pairs(h, torch.ones(64, device=DEVICE), 1e-5, slice(0, 4), False)
    assert (codes[1] == 0).all()
    assert (scales[1] == 0).all()
    assert torch.equal(*decoded(codes, scales).unbind(0))


def test_silu_mul_is_the_formula() -> None:
    g, u = normal(3, 700), normal(3, 700, seed=1)
    want = torch.nn.functional.silu(g) * u
    torch.testing.assert_close(kernels.silu_mul_(g, u), want)


@pytest.mark.parametrize(("heads", "kv", "width"), [(4, 2, 16), (3, 3, 64), (9, 3, 20)])
def test_rotary_is_transformers_own(heads: int, kv: int, width: int) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = normal(2, 7, heads, width), normal(2, 7, kv, width, seed=1)
    angles = normal(1, 9, width, seed=2)
    cos, sin = angles.cos(), angles.sin()
    want = apply_rotary_pos_emb(q, k, cos[:, :7], sin[:, :7], unsqueeze_dim=2)
    kernels.rotary_(q, k, cos[0], sin[0])
    torch.testing.assert_close((q, k), tuple(want), rtol=1e-5, atol=1e-6)


def test_expand_multiplies_codes_by_their_scales() -> None:
    codes = torch.randint(-127, 128, (5, 2500), generator=torch.Generator().manual_seed(0)).to(DEVICE, torch.int8)
    scales = normal(5, seed=1).abs()
    want = (codes.double() * scales.double().unsqueeze(1)).half()
    torch.testing.assert_close(kernels.expand(codes, scales, torch.float16), want, rtol=1e-3, atol=0.0)


def test_gated_codes_take_no_memory() -> None:
    g, u = normal(2, 3, 64, dtype=torch.float16), normal(2, 3, 64, seed=1, dtype=torch.float16)
    want = torch.nn.functional.silu(g.double()) * u.double()
    codes, scales = kernels.pairs(g, u, keep=False)
    assert codes.untyped_storage().data_ptr() == u.untyped_storage().data_ptr()
    assert_rounded(codes, scales, want)


HOPPER = DEVICE.type == "cpu" or torch.cuda.get_device_capability()[0] == 9  # the interpreter has its copies too


@pytest.mark.parametrize(
    ("rank", "add", "points", "depth", "columns"),
    [(0, False, 2, 64, 40), (4, True, 4, 100, 130), (16, False, 2, 128, 300), (20, True, 2, 64, 40)],
)
@pytest.mark.parametrize("tma", [False, pytest.param(True, marks=pytest.mark.skipif(not HOPPER, reason="no TMA"))])
def test_pair_product_is_the_product_of_what_the_codes_stand_for(
    rank: int, add: bool, points: int, depth: int, columns: int, tma: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_has_tma", lambda device: tma)
    x, bias = normal(points, 11, depth), normal(columns, seed=3)
    x[1::2] = x[0::2] + 0.01 * x[1::2]
    codes, scales = kernels.pairs(x, None, keep=False)
    weight = torch.randint(-127, 128, (columns, depth), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    weight_scales = normal(columns, seed=2).abs() / 100
    buffer = normal(points, columns * 20 + 7, seed=4)  # b is a view of a longer buffer, as a space's copies are
    b, low = buffer[:, 7 : 7 + columns * rank].view(points, columns, rank), normal(points, 11, rank, seed=5)
    out = normal(points, 15, columns, seed=6)
    want = out.double().clone()
    product = decoded(codes, scales) @ (weight.double() * weight_scales.double()[:, None]).mT + bias.double()
    product += 1.5 * low.double() @ b.double().mT
    want[:, 2:13] = want[:, 2:13] + product if add else product
    adapter = (low, b, 1.5) if rank else None
    kernels.pair_product(codes, scales, weight.to(torch.int8), weight_scales, bias, adapter, out, 2, add)
    torch.testing.assert_close(out.double(), want, rtol=1e-4, atol=1e-4)
