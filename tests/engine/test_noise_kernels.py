"""Claims about the kernel that writes points and updates: it does what the torch code of zolite/core does.

Where there is no CUDA, Triton's interpreter runs the kernel on the CPU. It cuts numbers off to bfloat16 instead of
rounding them, so that type is left to CUDA.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zolite.config.recipe import Recipe, resolve
from zolite.engine import adapter, noise_kernels
from zolite.model.load import Loaded
from zolite.zo import rng as noise
from zolite.zo.direction import Combo, Direction, Noise, Scalar
from zolite.zo.estimators import Estimate
from zolite.zo.rng import TILE, Key, Step
from zolite.zo.space import Space, Writer, make_space
from zolite.zo.updates import Descend, schedule

pytest.importorskip("triton")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
TRANSFORMS = (noise.normal, noise.rademacher)
GUARD = 7.0

every_transform = pytest.mark.parametrize("transform", TRANSFORMS)
every_size = pytest.mark.parametrize("n", [1, TILE - 1, TILE, TILE + 1, 10_000])


def copy_of_kernels(name: str) -> Any:
    """The module once more, its kernels made under the environment of the moment."""
    spec = importlib.util.spec_from_file_location(name, str(noise_kernels.__file__))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def interpreted() -> Any:
    """The kernels on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        return copy_of_kernels("interpreted_kernels")


@pytest.fixture(scope="module", params=[CPU, pytest.param(GPU, marks=ON_GPU)], ids=["cpu", "cuda"])
def place(request: pytest.FixtureRequest, interpreted: Any) -> SimpleNamespace:
    """A device, and a writer that works there."""
    made = interpreted.TritonWriter() if request.param == CPU else noise_kernels.writer(request.param)
    assert made is not None
    return SimpleNamespace(device=request.param, writer=made)


def space_of(
    n: int, copies: int, device: torch.device, dtype: torch.dtype = torch.float32, writer: Writer | None = None
) -> Space:
    """A space whose theta is noise, and lies, as its copies do, before numbers that are none of its own."""
    held = torch.full((n + TILE,), GUARD, device=device)
    rows = torch.full((copies * n + TILE,), GUARD, dtype=dtype, device=device)
    space = Space(
        make_space({"w": (n,)}, 0, dtype, device).blocks, held[:n], rows[: copies * n].view(copies, n), writer
    )
    Noise(Key(5, 0, ("theta",))).add_to(space.theta.zero_(), 1.0, space)
    return space


def beyond(tensor: Tensor) -> Tensor:
    """What lies behind a space's numbers."""
    return tensor.new_empty(0).set_(tensor.untyped_storage())[tensor.numel() :]


def points(key: Key, transform: Callable[[Tensor], Tensor], kind: Callable[[float], Scalar] = float) -> list[Combo]:
    """A pair along one direction, theta itself, a sum of one term, and a long sum of sums."""
    z = [Noise(key.fold(i) if i else key, transform) for i in range(5)]
    pair = [Combo(((kind(sign * 1e-2), z[0]),)) for sign in (1.0, -1.0)]
    inner = Combo(((kind(0.3), z[3]), (2.0, z[4])))
    return [*pair, Combo(), Combo(((0.7, z[1]),)), Combo(((kind(-1.5), z[0]), (0.1, inner), (kind(1.0), z[2])))]


def agree(found: Tensor, expected: Tensor, transform: Callable[[Tensor], Tensor], reach: float = 3.0) -> bool:
    """Signs to the bit; normal numbers to the last bits of a sum whose coefficients add up to `reach` at most."""
    if transform is noise.rademacher:
        return torch.equal(found, expected)
    return float((found.double() - expected.double()).abs().max()) < 2.0**-19 * (1 + reach)


@every_transform
@every_size
@pytest.mark.parametrize("step", [0, 2**32 - 1, 2**40 + 12])
@pytest.mark.parametrize("device_step", [False, True])
def test_fill(
    place: SimpleNamespace, n: int, transform: Callable[[Tensor], Tensor], step: int, device_step: bool
) -> None:
    """Every copy holds what the reference writes there, whatever the sums; nothing else is touched."""
    wanted = points(Key(2**62 + 5, step, ("x",)), transform)
    now = torch.tensor(step, device=place.device) if device_step else step
    fast, slow = (space_of(n, len(wanted) + 1, place.device) for _ in range(2))
    assert place.writer.fill_(fast, points(Key(2**62 + 5, now, ("x",)), transform))
    slow.fill_(wanted)
    assert agree(fast.copies[:-1], slow.copies[:-1], transform)
    assert torch.equal(fast.copies[2], fast.theta) and torch.equal(fast.theta, slow.theta)
    assert (fast.copies[-1] == GUARD).all() and (beyond(fast.copies) == GUARD).all()


@every_transform
@every_size
@pytest.mark.parametrize("device_step", [False, True])
def test_add(place: SimpleNamespace, n: int, transform: Callable[[Tensor], Tensor], device_step: bool) -> None:
    """Theta moves as the reference moves it, by coefficients on the device; nothing else is touched."""
    now = torch.tensor(9, device=place.device) if device_step else 9
    update = points(Key(4, now), transform, lambda c: torch.tensor(c, device=place.device))[-1]
    fast, slow = (space_of(n, 2, place.device) for _ in range(2))
    assert place.writer.add_(fast, update)
    slow.add_(update)
    assert agree(fast.theta, slow.theta, transform) and not torch.equal(fast.theta, space_of(n, 2, place.device).theta)
    assert (beyond(fast.theta) == GUARD).all() and (fast.copies == GUARD).all()


@pytest.mark.parametrize(("step", "number", "word"), [(874, 1482, 30), (32_818, 1762, 2**32 - 20)])
def test_rare_words(place: SimpleNamespace, step: int, number: int, word: int) -> None:
    """The largest and the smallest radii, from words near 0 and so near 2³² that they round to it, are as they were."""
    key, fast, slow = Key(1, step), *(make_space({"w": (TILE,)}, 0, torch.float32, place.device) for _ in range(2))
    assert int(noise.words(key, 0, TILE, CPU)[number]) == word
    assert place.writer.add_(fast, Combo(((1.0, Noise(key)),)))
    slow.add_(Combo(((1.0, Noise(key)),)))
    assert agree(fast.theta, slow.theta, noise.normal, 1.0)
    radius = fast.theta[[number, number + TILE // 2]].norm()
    assert 6 < radius < 6.2 if word < 100 else radius == 0


@every_transform
def test_rounded_once(place: SimpleNamespace, transform: Callable[[Tensor], Tensor]) -> None:
    """A copy of half precision holds the float32 sum, rounded."""
    wanted = points(Key(1, 1), transform)
    full = space_of(TILE + 5, len(wanted), place.device)
    assert place.writer.fill_(full, wanted)
    for dtype in (torch.float16,) if place.device == CPU else (torch.float16, torch.bfloat16):
        half = space_of(TILE + 5, len(wanted), place.device, dtype)
        assert place.writer.fill_(half, wanted)
        assert torch.equal(half.copies, full.copies.to(dtype)) and (beyond(half.copies) == GUARD).all()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 99) | st.integers(2**31, 2**63 - 1),
    step=st.integers(0, 99) | st.integers(2**31, 2**34),
    tags=st.lists(st.lists(st.integers(0, 300) | st.text(max_size=5), max_size=3).map(tuple), min_size=1, max_size=4),
    coefs=st.lists(st.floats(-4, 4, width=64), min_size=4, max_size=4),
    n=st.integers(1, 2 * TILE + 1),
    transform=st.sampled_from(TRANSFORMS),
)
def test_any_sum(
    interpreted: Any,
    seed: int,
    step: int,
    tags: list[tuple[int | str, ...]],
    coefs: list[float],
    n: int,
    transform: Callable[[Tensor], Tensor],
) -> None:
    """Any sum is the reference's, and the same bits with its step or its coefficients on the device."""
    fast, slow, writer = space_of(n, 2, CPU), space_of(n, 1, CPU), interpreted.TritonWriter()
    on_device = torch.tensor(step)

    def combo(step: Step, kind: Callable[[float], Scalar]) -> Combo:
        return Combo(tuple((kind(c), Noise(Key(seed, step, t), transform)) for c, t in zip(coefs, tags, strict=False)))

    assert writer.fill_(fast, [combo(step, float), combo(step, torch.tensor)])
    slow.fill_([combo(step, float)])
    assert torch.equal(fast.copies[0], fast.copies[1])
    assert agree(fast.copies[0], slow.copies[0], transform, sum(map(abs, coefs)))
    assert writer.fill_(fast, [combo(on_device, float)]) and torch.equal(fast.copies[0], fast.copies[1])


@every_transform
def test_measured_is_applied(place: SimpleNamespace, transform: Callable[[Tensor], Tensor]) -> None:
    """What a point measures is what an update adds, to the bit: coefficient · z, rounded, of the z that 1 · z reads."""
    n, terms = 3 * TILE + 1, [(c, Noise(Key(8, 3).fold(i), transform)) for i, c in enumerate((1e-2, -1.7, 0.3))]
    for point in (Combo(tuple(terms[:1])), Combo(tuple(terms))):
        measured, applied = (space_of(n, 1, place.device) for _ in range(2))
        expected = measured.theta.clone()
        for coefficient, direction in point.terms:
            z = space_of(n, 0, place.device)
            z.theta.zero_()
            assert place.writer.add_(z, Combo(((1.0, direction),)))
            expected += z.theta * coefficient
        assert place.writer.fill_(measured, [point]) and place.writer.add_(applied, point)
        assert torch.equal(measured.copies[0], expected) and torch.equal(applied.theta, expected)


class Ones:
    """A direction that no kernel knows."""

    def add_to(self, out: Tensor, alpha: Scalar, space: Space) -> None:
        out.add_(torch.ones_like(out) * alpha)


A = Key(1, 2)
STEP = torch.tensor(2)
UNKNOWN: dict[str, Sequence[Direction]] = {
    "no terms": [],
    "another direction": [Noise(A), Ones()],
    "another transform": [Noise(A, noise.uniform)],
    "two transforms": [Noise(A), Noise(A, noise.rademacher)],
    "two seeds": [Noise(A), Noise(replace(A, seed=2))],
    "two steps": [Noise(A), Noise(replace(A, step=3))],
    "a step and a tensor": [Noise(A), Noise(replace(A, step=STEP))],
    "two tensors": [Noise(replace(A, step=STEP)), Noise(replace(A, step=STEP.clone()))],
}


@pytest.mark.parametrize("directions", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown(interpreted: Any, directions: Sequence[Direction]) -> None:
    """What the kernel does not know it leaves alone, and the space then does as without it."""
    point = Combo(tuple((0.5, d) for d in directions))
    writer = interpreted.TritonWriter()
    space, slow = (space_of(TILE + 1, 2, CPU, writer=w) for w in (writer, None))
    before = space.theta.clone()
    assert not writer.fill_(space, [Combo(), point]) and not writer.add_(space, point)
    assert (space.copies == GUARD).all() and torch.equal(space.theta, before)
    for each in (space, slow):
        each.fill_([Combo(), point])
        each.add_(point)
    assert torch.equal(space.copies, slow.copies) and torch.equal(space.theta, slow.theta)


def test_unknown_type(interpreted: Any) -> None:
    """Copies of another type are left to the reference, as is a coefficient that is elsewhere."""
    space, writer = space_of(10, 1, CPU, torch.float64), interpreted.TritonWriter()
    assert not writer.fill_(space, [Combo(((1.0, Noise(A)),))])
    assert not writer.add_(space, Combo(((torch.zeros((), device="meta"), Noise(A)),)))


def test_too_many_points(interpreted: Any) -> None:
    """Points beyond the copies are refused, and written nowhere."""
    space = space_of(TILE, 1, CPU, writer=interpreted.TritonWriter())
    with pytest.raises(ValueError, match="longer"):
        space.fill_(points(A, noise.normal)[:2])
    assert (beyond(space.copies) == GUARD).all()


def test_space_uses_it(interpreted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space with a writer leaves known sums to it alone."""
    space = make_space({"w": (TILE + 1,)}, 2, torch.float32, CPU, writer=interpreted.TritonWriter())
    pair = points(A, noise.rademacher)[:2]
    monkeypatch.setattr(Noise, "add_to", None)
    space.fill_(pair)
    space.add_(pair[0])
    assert torch.equal(space.copies[0], -space.copies[1]) and torch.equal(space.copies[0], space.theta)
    assert space.theta.all()


def test_attached(interpreted: Any, monkeypatch: pytest.MonkeyPatch, tiny: Path, recipe: Callable[..., Recipe]) -> None:
    """An adapter's space writes with what there is for its device."""
    from transformers import AutoModelForCausalLM

    seen: list[torch.device] = []

    def writer(device: torch.device) -> Any:
        seen.append(device)
        return interpreted.TritonWriter()

    monkeypatch.setattr(adapter, "writer", writer)
    loaded = Loaded(AutoModelForCausalLM.from_pretrained(tiny), CPU, "", SimpleNamespace())  # type: ignore[arg-type]
    assert adapter.attach(loaded, resolve(recipe())).space.writer == interpreted.TritonWriter() and seen == [CPU]


def test_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no writer for a CPU, nor, where Triton is missing, for anything; the module loads all the same."""
    assert noise_kernels.writer(CPU) is None
    monkeypatch.setitem(sys.modules, "triton", None)
    without: ModuleType = copy_of_kernels("kernels_without_triton")
    assert without.triton is None and without.writer(GPU) is None


@pytest.mark.parametrize("error", [RuntimeError("no C compiler"), OSError("no Python.h")])
def test_cannot_build(
    interpreted: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Where Triton cannot build there is no writer either, and the reason is told."""

    class Broken:
        def __getitem__(self, grid: object) -> None:
            raise error

    monkeypatch.setattr(interpreted, "_write_kernel", Broken())
    assert not interpreted._builds(CPU)
    assert str(error) in caplog.text


def gpu(test: Any) -> Any:
    for mark in ON_GPU:
        test = mark(test)
    return test


@gpu
@every_transform
def test_many(transform: Callable[[Tensor], Tensor]) -> None:
    """Four million numbers are the CPU's: signs to the bit, normal numbers to their last bits, also the rare ones."""
    n = 2**22 + 1
    there, here = space_of(n, 0, GPU, writer=noise_kernels.writer(GPU)), space_of(n, 0, CPU)
    for space in (there, here):
        space.theta.zero_()
        space.add_(Combo(((1.0, Noise(A, transform)),)))
    assert agree(there.theta.cpu(), here.theta, transform)
    if transform is noise.normal:
        torch.testing.assert_close(there.theta.cpu(), here.theta, rtol=2e-6, atol=1e-9)


@gpu
@pytest.mark.parametrize("mode", ["default", "error"])
def test_no_waiting(mode: Literal["default", "error"]) -> None:
    """After one call of a kind, later ones with new steps and coefficients neither copy to the device nor wait."""
    space = space_of(10_000, 5, GPU, writer=noise_kernels.writer(GPU))
    steps: list[Step] = [0, 3, *(torch.tensor(i, device=GPU) for i in range(3))]
    coefs = torch.rand(3, 2, device=GPU)

    def step(now: Step, pair: Tensor) -> None:
        space.fill_(points(Key(1, now), noise.normal))
        rate = schedule("linear", 0.1, 10)(now)
        update = Combo(tuple((c, Noise(Key(1, now).fold(i))) for i, c in enumerate(pair.unbind())))
        space.add_(update.scaled(rate))

    step(7, coefs[0])
    torch.cuda.set_sync_debug_mode(mode)
    try:
        for now, pair in product(steps, coefs):
            step(now, pair)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@every_transform
def test_graph(transform: Callable[[Tensor], Tensor]) -> None:
    """A step captured once draws, replayed, the noise of the step that its tensor then says, and its learning rate."""
    now, rule = torch.zeros((), dtype=torch.int64, device=GPU), Descend(schedule("linear", 0.3, 7))
    captured, eager = (space_of(TILE + 1, 5, GPU, torch.float16, noise_kernels.writer(GPU)) for _ in range(2))
    coefs = torch.tensor([0.7, -0.1], device=GPU)

    def take(space: Space, step: Step) -> None:
        space.fill_(points(Key(3, step), transform))
        grad = Combo(tuple((c, Noise(Key(3, step).fold(i), transform)) for i, c in enumerate(coefs.unbind())))
        space.add_(rule.update(Estimate(grad, coefs, coefs), step, {}, space).grad)

    take(space_of(TILE + 1, 5, GPU, torch.float16, noise_kernels.writer(GPU)), now)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        take(captured, now)
    for step in (5, 2, 2**32 + 1, 0):
        now.fill_(step)
        graph.replay()
        take(eager, step)
        assert torch.equal(captured.copies, eager.copies) and torch.equal(captured.theta, eager.theta)
    assert captured.copies.isfinite().all()


@gpu
@pytest.mark.parametrize("count", [2**31, 2**34])
def test_far(count: int) -> None:
    """Numbers past 2³¹, and past 2³² counters, have the words of their own addresses."""
    n = count + TILE + 1
    if torch.cuda.mem_get_info()[0] < 4 * n + 2**30:
        pytest.skip(f"needs {4 * n / 1e9 + 1:.0f} GB of free memory")
    space = make_space({"w": (n,)}, 0, torch.float32, GPU, writer=noise_kernels.writer(GPU))
    space.add_(Combo(((1.0, Noise(A, noise.rademacher)),)))
    for tile in (0, count - TILE, count, count + TILE):
        expected = noise.rademacher(noise.words(A, tile, TILE, GPU))
        assert torch.equal(space.theta[tile : tile + TILE], expected[: n - tile])
