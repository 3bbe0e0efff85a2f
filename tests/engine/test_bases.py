"""Claims about cores and their bases: found once, the same bits from the cache, and an ordinary adapter in the end."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.methods import METHODS
from zolite.config.recipe import Recipe
from zolite.engine import bases as module
from zolite.engine.adapter import attach
from zolite.engine.bases import PARTS, Bases, bases, basis, digest, varying
from zolite.engine.engine import Engine
from zolite.export import export as exports
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.sessions.manage import fork
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.replay import factors_at
from zolite.training.resume import resume
from zolite.training.run import Run
from zolite.training.verify import verify
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key

Make = Callable[..., Recipe]
CPU = torch.device("cpu")
QUANTS = ("int8", "nf4", "bf16", "float32")


@pytest.fixture
def core(recipe: Make) -> Make:
    """The quick recipe in this space."""
    return lambda **changes: recipes.resolve(recipe(**{"adapter__space": "lora-core"} | changes))


def loaded(recipe: Recipe) -> models.Loaded:
    return models.load(models.resolve(recipe.model.name), recipe.model.quant, CPU, paths()["cache"])


def cached() -> list[Path]:
    return sorted((paths()["cache"] / "frames").glob("*"))


def found(recipe: Recipe) -> Bases:
    model = loaded(recipe)
    return bases(model, models.select(model.model, recipe.adapter.targets), recipe)


def run_all(recipe: Recipe, name: str = "run", stop: Callable[[], bool] = lambda: False) -> Run:
    """A session; its run, with theta where it ended."""
    run = prepare(recipe)
    with sessions.create(name, run.recipe, run.facts) as session:
        list(train(run, session, stop))
    return run


def after(steps: int) -> Callable[[], bool]:
    counter: Iterator[int] = iter(range(10**6))
    return lambda: next(counter) >= steps


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("not to be called")


# One frozen basis


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (6, 30)])
def test_a_frame_is_the_main_directions(shape: tuple[int, int]) -> None:
    """Orthonormal to float16's rounding, it holds of outputs and inputs what an exact SVD does; twice the same bits."""
    torch.manual_seed(3)
    weight, r = torch.randn(shape), min(8, *shape)
    y, x = (torch.randn(200, side) * 2.0 ** -torch.arange(side) @ orthonormal(side) for side in shape)
    one, again = (basis(weight, x, y, 8) for _ in range(2))
    assert one.u.shape == (shape[0], r) and one.v.shape == (r, shape[1])
    for columns, rows in ((one.u.float(), y), (one.v.float().T, x)):
        assert (columns.T @ columns - torch.eye(r)).abs().max() < 1e-3
        assert (rows @ columns).norm() > 0.999 * torch.linalg.svdvals(rows)[:r].norm()
    assert float(one.unit) == pytest.approx(float(weight.norm()) / r**0.5, rel=1e-5)
    assert all(torch.equal(getattr(one, part), getattr(again, part)) for part in PARTS)


def orthonormal(side: int) -> Tensor:
    return torch.linalg.qr(torch.randn(side, side))[0]


def test_no_generator_is_moved() -> None:
    """Frozen bases are drawn from fixed numbers, and leave the process' own generator as it was."""
    x = torch.randn(30, 9, generator=torch.Generator().manual_seed(1))
    before = torch.random.get_rng_state()
    one = basis(torch.eye(9), x, x, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(one.u, basis(torch.eye(9), x, x, 3).u)


@pytest.mark.parametrize("quant", QUANTS)
@torch.inference_mode()
def test_frames_hold_most_of_what_a_layer_reads_and_writes(core: Make, quant: str) -> None:
    """In every format: of inputs' and outputs' differences between its tokens nearly all that so few directions can."""
    recipe = core(model__quant=quant, adapter__targets="q_proj,down_proj", adapter__rank=8)
    model, made, ways = loaded(recipe), found(recipe), dict[str, tuple[Tensor, Tensor]]()
    assert len(made.layers) == 4
    for name in made.layers:

        def look(module: Any, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            ways[name] = varying(inputs[0]), varying(output)

        model.model.get_submodule(name).register_forward_hook(look)
    model.model(torch.randint(300, module.TOKENS, generator=torch.Generator().manual_seed(0)))
    for name, (x, y) in ways.items():
        for rows, columns in ((x, made.layers[name].v.float().T), (y, made.layers[name].u.float())):
            assert (rows @ columns).norm() > 0.98 * torch.linalg.svdvals(rows)[:8].norm()
    assert not any(module._forward_hooks for module in loaded(recipe).model.modules())


def test_a_layer_that_sees_nothing_has_its_weights_directions(core: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no rows come by, or numbers that are none, frozen bases are still orthonormal and the run can start."""
    recipe, real = core(), module.varying
    rank = recipe.adapter.rank
    for broken in (lambda x: real(x)[: rank - 1], lambda x: real(x) * math.inf):
        shutil.rmtree(paths()["cache"], ignore_errors=True)
        monkeypatch.setattr(module, "varying", broken)
        for name, one in found(recipe).layers.items():
            weight = loaded(recipe).model.get_submodule(name).weight
            assert (one.v.float() @ one.v.float().T - torch.eye(rank)).abs().max() < 1e-3
            assert (weight @ one.v.float().T).norm() > 0.95 * torch.linalg.svdvals(weight)[:rank].norm()


# The cache


def test_the_cache_has_the_same_bits(core: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found once; asked again they are read, not found, bit for bit; another rank, format or choice is another file."""
    first = found(core())
    (file,) = cached()
    for other in (core(adapter__rank=3), core(model__quant="int8"), core(adapter__targets="q_proj")):
        assert found(other).digest != first.digest
    assert len(cached()) == 4
    monkeypatch.setattr(module, "basis", forbidden)
    again = found(core(adapter__targets="q_proj,k_proj,v_proj,o_proj,up_proj,gate_proj,down_proj"))
    assert again.digest == first.digest and again.device == first.device and again.rank == 4
    for name, one in again.layers.items():
        assert all(torch.equal(getattr(one, part), getattr(first.layers[name], part)) for part in PARTS)
    assert digest(again.layers) == first.digest and file in cached()


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text", "a folder's"])
def test_a_damaged_cache_is_found_anew(core: Make, damage: str) -> None:
    """Whatever has become of the file, the frozen bases are the first ones and the file is whole again."""
    first = found(core())
    (file,) = cached()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    broken = {"cut": whole[:-100], "empty": b"", "flipped": bytes(flipped), "text": b"frames", "a folder's": None}[
        damage
    ]
    file.unlink()
    if broken is not None:
        file.write_bytes(broken)
    assert found(core()).digest == first.digest
    assert file.read_bytes() == whole and cached() == [file]


def test_a_disk_that_refuses_leaves_nothing(core: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen bases that cannot be written are an error in words, with no part of a file behind it."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.files, "write_new", full)
    with pytest.raises(ZoliteError, match="frames"):
        found(core())
    assert not cached()


# The adapter


@pytest.mark.parametrize("quant", QUANTS)
@torch.inference_mode()
def test_a_core_of_zeros_is_the_base_model(core: Make, quant: str) -> None:
    """At the start every score is, bit for bit, that of the same adapter with its bases at zero: nothing is added."""
    recipe = core(model__quant=quant)
    run = prepare(recipe)
    assert not run.space.theta.any() and {b.shape for b in run.space.blocks} == {(4, 4)}
    rows = run.examples["test"]
    at_zero = run.engine.scores(rows).clone()
    for layer in run.engine.loaded.model.modules():
        if hasattr(layer, "watch"):
            layer.b = torch.zeros_like(layer.b)
    assert torch.equal(run.engine.scores(rows), at_zero)
    assert not any(b.any() for name, b in run.engine.adapter.factors(run.space.theta).items() if name.endswith(".b"))


@torch.inference_mode()
def test_thin_layers_have_smaller_cores(core: Make, tiny: Path) -> None:
    """A core is no larger than its layer's smaller side, and its factors are filled up to the recipe's rank."""
    recipe = core(adapter__rank=48, adapter__alpha=24.0)
    model = loaded(recipe)
    adapter = attach(model, recipe)
    sizes = {b.name.split(".")[-2]: b.shape for b in adapter.space.blocks}
    assert sizes["k_proj"] == sizes["v_proj"] == (32, 32) and sizes["q_proj"] == sizes["up_proj"] == (48, 48)
    adapter.space.add_(Combo(((0.1, Noise(Key(4, 0))),)))
    factors = adapter.factors(adapter.space.theta)
    assert {t.shape[name.endswith(".b")] for name, t in factors.items()} == {48}
    layer, name = model.model.model.layers[1].self_attn.k_proj, "model.layers.1.self_attn.k_proj"
    Engine.of(model, adapter, recipe)._fill([Combo()])
    x = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1))
    gain = x @ (0.5 * factors[f"{name}.b"] @ factors[f"{name}.a"]).T
    torch.testing.assert_close(layer(x) - layer.base(x), gain, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_unit_of_core_is_as_much_in_every_layer(core: Make) -> None:
    """With C = 1 a layer gains alpha / rank of the norm that its weight has."""
    recipe = core(adapter__alpha=2.0)
    adapter = attach(loaded(recipe), recipe)
    theta = adapter.space.theta
    for block in adapter.space.blocks:
        block.of(theta).copy_(torch.eye(4))
    factors, weights = adapter.factors(theta), loaded(recipe).model
    for name in {name.rpartition(".")[0] for name in factors}:
        gain = 0.5 * factors[f"{name}.b"] @ factors[f"{name}.a"]
        norm = weights.get_submodule(name).weight.norm()
        assert float(gain.norm() / norm) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("quant", ["int8", "float32"])
@torch.inference_mode()
def test_two_points_at_once_are_one_at_a_time(core: Make, quant: str) -> None:
    """The losses at four points do not depend on how many of them a forward carries."""
    losses = []
    for copies in (4, 2, 1):
        run = prepare(core(model__quant=quant, train__copies=copies, adapter__rank=5))
        run.space.add_(Combo(((0.2, Noise(Key(9, 0))),)))
        points = [Combo(((c, Noise(Key(9, i))),)) for i in (1, 2) for c in (0.1, -0.1)]
        losses.append(run.engine.bind(run.examples["train"][:6])(points))
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-5, atol=1e-6)
    assert losses[0].max() - losses[0].min() > 1e-3


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"zo-finetuner"}))
def test_every_method_trains_cores(core: Make, method: str) -> None:
    """Three steps of any method, of larger ranks than a core's too, move it; a replay has the same bits."""
    recipe = core(method__name=method, method__every=2, train__steps=3, adapter__rank=2)
    run = run_all(recipe)
    assert run.space.theta.isfinite().all() and run.space.theta.any()
    with sessions.open_("run") as session:
        assert all(verdict.state == "same" for verdict in verify(session, CPU))
        assert same(factors_at(session)[1], run.engine.adapter.factors(run.space.theta))


# Sessions


def test_checkpoints_hold_cores_alone(core: Make, home: Path) -> None:
    """Nothing but r² numbers a layer is in a checkpoint; the session notes the bases' digest and their device."""
    run = run_all(core(train__steps=2))
    with sessions.open_("run") as session:
        checkpoint = session.at(2)
        assert checkpoint is not None
        tensors = checkpoint.tensors()
        assert {tuple(t.shape) for name, t in tensors.items() if not name.startswith("state.")} == {(4, 4)}
        adapter = run.engine.adapter
        assert adapter.bases is not None and session.facts["frames"] == adapter.bases.facts
    assert run.space.size == 14 * 16


def test_frames_are_found_again_where_the_cache_is_gone(core: Make, home: Path, tmp_path: Path) -> None:
    """Factors, exports and a resume of a stopped run, its fork too, are the same bits with an emptied cache."""
    run = run_all(core(train__steps=6), "straight")
    wanted = {name: t.clone() for name, t in run.engine.adapter.factors(run.space.theta).items()}
    run_all(core(train__steps=6), "stopped", after(3))
    fork("stopped", "forked", 2)
    for name in ("stopped", "forked"):
        shutil.rmtree(paths()["cache"])
        list(resume(name, {}, False, lambda: False))
        shutil.rmtree(paths()["cache"])
        with sessions.open_(name) as session:
            assert same(factors_at(session)[1], wanted)
            assert exports.export(session, tmp_path / name).steps == (6,)


def test_other_frames_are_refused(core: Make, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where bases come out otherwise, resume (forced or not) and export refuse with both digests and a way out."""
    recipe = core(train__steps=6)
    run_all(recipe, stop=after(3))
    shutil.rmtree(paths()["cache"])
    real = module.basis
    monkeypatch.setattr(module, "basis", lambda *given: dataclasses.replace(real(*given), u=-real(*given).u))
    with sessions.open_("run") as session:
        was = session.facts["frames"]["digest"][:16]
        for attempt in (lambda: factors_at(session), lambda: exports.export(session, tmp_path / "out")):
            with pytest.raises(ZoliteError, match=was) as caught:
                attempt()
            assert "frames" in caught.value.hint
    for changes, force in (({}, False), ({}, True), ({"train.lr": "1e-3"}, True)):
        with pytest.raises(ZoliteError, match=was):
            list(resume("run", changes, force, lambda: False))


def test_a_core_starts_from_no_adapter(recipe: Make) -> None:
    """An adapter to go on from is refused for this space before anything is loaded."""
    with pytest.raises(UsageError, match="a core cannot hold"):
        recipe(adapter__space="lora-core", adapter__start="somewhere")
