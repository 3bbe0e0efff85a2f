"""Claims about learned optimizers: their gradients, what a step does, the file, the command, and what is refused."""

import itertools
import json
import math
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zolite.cli import main, process
from zolite.common.errors import DoesNotFit, UsageError, ZoliteError
from zolite.config import sizes
from zolite.config.composition import resolved
from zolite.config.methods import MethodPart
from zolite.config.recipe import Recipe, TrainPart
from zolite.engine import device_memory
from zolite.engine.adapter import attach
from zolite.engine.engine import Engine
from zolite.model import load as models
from zolite.model.loss import Head
from zolite.planner import backprop
from zolite.training import learn_scales, scale_nets
from zolite.training.learn_scales import Oracle, Settings, State, attempt, meta_gradient, step_
from zolite.zo.build import Nets, build
from zolite.zo.direction import Combo, Dense, Noise, dense
from zolite.zo.rng import Key
from zolite.zo.samplers import WEIGHTS, normed, sigmas, spread
from zolite.zo.space import Space, make_space

Make = Callable[..., Recipe]
CPU = torch.device("cpu")


# The model's loss and gradient


@dataclass(frozen=True)
class Bench:
    engine: Engine
    gradients: learn_scales.Gradients
    oracle: Oracle

    @property
    def space(self) -> Space:
        return self.engine.adapter.space


@pytest.fixture
def bench(recipe: Make, folder: Callable[..., Path]) -> Callable[..., Bench]:
    """bench(space="lora", quant="int8"): the tiny model, with an adapter that does something, and one batch."""

    def make(space: str = "lora-b", quant: str = "float32", kind: str = "label", microbatch: int = 6) -> Bench:
        labels = ("up", "upwards", "sideways") if kind == "labels of many tokens" else ("yes", "no")
        data = str(folder(kind.partition("s ")[0], labels=labels))
        part = {"data__path": data, "adapter__space": space, "model__quant": quant, "train__microbatch": microbatch}
        part["adapter__alpha"] = 1.0 if space == "lora-core" else 16.0  # a unit of core is a large step
        task = learn_scales.prepare(recipe(**part, train__copies=2), Settings())
        loaded = models.load(task.source, quant, CPU, Path("unused"))
        engine = Engine.of(loaded, attach(loaded, task.recipe), task.recipe)
        engine.adapter.space.add_(Combo(((0.05, Noise(Key(8, 0))),)))  # B is zero at the start
        gradients = learn_scales.Gradients.of(engine)
        return Bench(engine, gradients, learn_scales.oracle_of(engine, gradients, task.rows[:6], 0))

    return make


CASES = [
    ("lora", "float32", "label", 6),
    ("lora-b", "int8", "label", 4),
    ("lora", "int8", "completion", 2),
    ("lora-b", "float32", "labels of many tokens", 6),
    ("lora-b", "float32", "messages", 6),
    ("lora-core", "int8", "label", 6),
]


@pytest.mark.parametrize(("space", "quant", "kind", "microbatch"), CASES)
@torch.no_grad()
def test_the_gradient_is_that_of_the_engines_loss(
    bench: Callable[..., Bench], space: str, quant: str, kind: str, microbatch: int
) -> None:
    """The loss at θ is the engine's; along θ's gradient and along noise it changes as the gradient says."""
    made = bench(space, quant, kind, microbatch)
    loss, gradient = made.oracle.gradient(made.space.theta)
    (same,) = made.oracle.losses([Combo()])
    assert float(loss) == pytest.approx(float(same), rel=1e-5)
    assert not loss.requires_grad and not gradient.requires_grad and gradient.norm() > 0.1
    for way in (gradient / gradient.norm(), dense(Noise(Key(3, 0)), made.space) / 100):
        h = 5e-3
        plus, minus = made.oracle.losses([Combo(((sign * h, Dense(way)),)) for sign in (1.0, -1.0)])
        assert float(plus - minus) / (2 * h) == pytest.approx(float(gradient @ way), rel=5e-3, abs=1e-4)


@torch.no_grad()
def test_activations_are_made_again(bench: Callable[..., Bench]) -> None:
    """Each layer runs once on the way there and once on the way back; measuring runs it once."""
    made, runs = bench(), []
    layer = made.engine.loaded.model.model.layers[1].self_attn.q_proj
    layer.register_forward_pre_hook(lambda *_: runs.append(1))
    made.oracle.gradient(made.space.theta)
    assert len(runs) == 2
    made.oracle.losses([Combo()])
    assert len(runs) == 3


def test_the_head_that_autograd_follows_is_the_head() -> None:
    """With a bias, a scale and a cap, whole and in part."""
    module = nn.Linear(8, 12)
    hidden = torch.randn(3, 8)
    ours, theirs = (kind(module, 5.0, 0.5) for kind in (learn_scales.Logits, Head))
    for part in (slice(None), slice(4, 8)):
        assert torch.allclose(ours(hidden, part), theirs(hidden, part), atol=1e-6)


# One step


@pytest.mark.parametrize(("space", "quant"), [("lora", "float32"), ("lora-b", "int8")])
@torch.no_grad()
def test_the_meta_gradient_is_that_of_the_meta_loss(bench: Callable[..., Bench], space: str, quant: str) -> None:
    """L(θ − η c factor σ(networks) ∘ u), c and factor held: along the meta-gradient it changes as that says."""
    made, lr = bench(space, quant), 0.02
    at = made.space
    state = State.of(at, 1)
    state.nets += 0.2 * torch.randn(state.nets.shape, generator=torch.Generator().manual_seed(2))
    state.losses += torch.tensor([0.9, 1.1])
    trial = attempt(at, state, made.oracle.losses, Key(4, 0), 1e-2)

    def meta_loss(nets: Tensor) -> float:
        scale = spread(sigmas(nets, trial.inputs), at) * trial.factor
        return float(made.oracle.gradient(at.theta - lr * trial.projected_gradient * scale * trial.noise)[0])

    gradient = meta_gradient(at, state.nets, trial, made.oracle.gradient(trial.moved(at, lr))[1], lr)
    assert gradient.shape == state.nets.shape and not gradient.requires_grad
    way, h = gradient / gradient.norm(), 1e-3
    slope = (meta_loss(state.nets + h * way) - meta_loss(state.nets - h * way)) / (2 * h)
    assert slope == pytest.approx(float(gradient.norm()), rel=0.01)
    reached = made.oracle.gradient(trial.moved(at, lr))[0]
    assert float(reached) == pytest.approx(meta_loss(state.nets), rel=1e-5)


def toy(dtype: torch.dtype = torch.float32) -> tuple[Space, Oracle, Tensor]:
    """Four blocks of 20 numbers, of which only the second matters: ½ ‖x − 1‖² of it. (Space, oracle, its mask)."""
    made = make_space({f"layer{i}.b": (20, 1) for i in range(4)}, 2, dtype, CPU)
    space = replace(made, theta=made.theta.to(dtype))
    mask = torch.zeros(80, dtype=dtype)
    mask[20:40] = 1.0

    def value(theta: Tensor) -> Tensor:
        return 0.5 * (mask * (theta - 1)).square().sum()

    def losses(points: Any, groups: int = 1) -> Tensor:
        space.fill_(points)
        return torch.stack([value(copy) for copy in space.copies[: len(points)]])

    return space, Oracle(losses, lambda theta: (value(theta), mask * (theta - 1))), mask


@torch.no_grad()
def test_the_meta_gradient_in_double_precision() -> None:
    """On a quadratic, number by number: the central difference of a quadratic is exact."""
    space, oracle, _ = toy(torch.float64)
    state, lr, h = State.of(space, 1), 0.01, 1e-4
    state.nets += 0.2 * torch.randn(state.nets.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    trial = attempt(space, state, oracle.losses, Key(4, 0), 1e-3)
    gradient = meta_gradient(space, state.nets, trial, oracle.gradient(trial.moved(space, lr))[1], lr)

    def meta_loss(nets: Tensor) -> float:
        scale = spread(sigmas(nets, trial.inputs), space) * trial.factor
        return float(oracle.gradient(space.theta - lr * trial.projected_gradient * scale * trial.noise)[0])

    for block, number in itertools.product(range(4), (0, 7, 330, 400, 448)):
        away = torch.zeros_like(state.nets)
        away[block, number] = h
        slope = (meta_loss(state.nets + away) - meta_loss(state.nets - away)) / (2 * h)
        assert slope == pytest.approx(float(gradient[block, number]), rel=1e-4, abs=1e-10)


@torch.no_grad()
def test_theta_goes_on_by_first_order_sgd_and_back_to_its_start() -> None:
    """As torch's SGD, clipping and linear decay have it; scales and losses outlive the restart."""
    space, oracle, _ = toy()
    s, t = Settings(restart_every=4, lr_llm=0.1), TrainPart(lr=1e-3, eps=1e-3, steps=6)
    state = State.of(space, 0)
    for step in range(6):
        if step % 4 == 0:
            twin = nn.Parameter(torch.zeros(80))
            sgd = torch.optim.SGD([twin], lr=0.1, momentum=0.8)
            decay = torch.optim.lr_scheduler.LinearLR(sgd, 1.0, 0.0, total_iters=4)
        before = state.losses, state.sigma
        row = step_(space, state, oracle, step, t, s)
        assert row.lr == pytest.approx(sgd.param_groups[0]["lr"]) and not row.skipped
        assert not torch.equal(before[0], state.losses) and (step == 0 or not torch.equal(before[1], state.sigma))
        twin.grad = oracle.gradient(twin.detach())[1]
        nn.utils.clip_grad_norm_([twin], 1.0)
        sgd.step()
        decay.step()
        assert torch.allclose(space.theta, twin, atol=1e-6)


@torch.no_grad()
def test_a_step_that_is_not_finite_leaves_everything() -> None:
    """Neither networks nor θ nor what they remember takes part in it."""
    space, oracle, _ = toy()
    nothing = replace(oracle, gradient=lambda theta: (torch.tensor(math.nan), theta))
    state, t = State.of(space, 0), TrainPart(lr=1e-3, eps=1e-3)
    nets, theta = state.nets.clone(), space.theta.clone()
    assert step_(space, state, nothing, 0, t, Settings()).skipped
    assert torch.equal(nets, state.nets) and torch.equal(theta, space.theta) and not state.losses.any()


def descended(nets: Nets, steps: int) -> float:
    """The toy's loss after so many two-sided steps with those networks."""
    space, oracle, _ = toy()
    part = resolved(MethodPart("zo-finetuner", optimizer="given"))
    t = TrainPart(lr=2e-3, eps=1e-3, steps=steps, queries=1, seed=9)
    estimator, rule = build(part, t, nets)
    state, rules = estimator.init(space), rule.init(space)
    with torch.no_grad():
        for step in range(steps):
            estimate = estimator.estimate(oracle.losses, Key(t.seed, step), state, space)
            space.add_(rule.update(estimate, step, rules, space).grad)
        return float(oracle.gradient(space.theta)[0])


def test_the_block_that_matters_gets_the_larger_scale() -> None:
    """Its σ grows beyond the others', and as many forwards then reach a lower loss than with σ = 1."""
    space, oracle, _ = toy()
    state, t = State.of(space, 0), TrainPart(lr=2e-3, eps=1e-3, steps=200)
    start = state.nets.clone()
    assert torch.equal(attempt(space, state, oracle.losses, Key(0, 0), 1e-3).scaled, torch.ones(4))
    for step in range(200):
        step_(space, state, oracle, step, t, Settings(restart_every=50))
    scaled = normed(state.sigma, space)
    assert scaled.argmax() == 1 and scaled[1] > 1.3 and all(scaled[i] < 0.9 for i in (0, 2, 3))
    plain, better = descended(lambda _: start, 60), descended(lambda _: state.nets, 60)
    assert better < 0.8 * plain


# The file


def nets_of(space: Space) -> dict[str, Tensor]:
    return {block.name: torch.full((WEIGHTS,), float(i)) for i, block in enumerate(space.blocks)}


def space_of(factors: str = "b", rank: int = 4) -> Space:
    shapes = {f"model.layers.{i}.q_proj.{f}": {"a": (rank, 16), "b": (8, rank)}[f] for i in range(3) for f in factors}
    return make_space(shapes, 0, torch.float32, CPU)


ABOUT = {"model": "these weights", "space": "lora-b", "rank": 4}


def test_a_file_comes_back(tmp_path: Path) -> None:
    """Networks in the space's order, whatever the file's; a run with fewer layers takes those that it has."""
    path, space = tmp_path / "o.safetensors", space_of()
    scale_nets.write(path, dict(reversed(nets_of(space).items())), ABOUT)
    found = scale_nets.networks(str(path), "these weights")(space)
    assert found.shape == (3, WEIGHTS) and found[:, 0].tolist() == [0.0, 1.0, 2.0]
    fewer = make_space({space.blocks[2].name: (8, 4)}, 0, torch.float32, CPU)
    assert scale_nets.networks(str(path), "these weights")(fewer)[0, 0] == 2.0
    assert not scale_nets.networks("", "any")(space).any()
    assert sorted(os.listdir(tmp_path)) == ["o.safetensors", "o.safetensors.json"]


@pytest.mark.parametrize(
    ("fingerprint", "space", "blamed"),
    [
        ("others", space_of(), "its model is these weights, this run's is others"),
        ("these weights", space_of("ab"), "its space is lora-b, this run's is lora"),
        ("these weights", space_of(rank=2), "its rank is 4, this run's is 2"),
    ],
)
def test_a_file_for_another_adapter_is_refused(tmp_path: Path, fingerprint: str, space: Space, blamed: str) -> None:
    path = tmp_path / "o.safetensors"
    scale_nets.write(path, nets_of(space_of()), ABOUT)
    with pytest.raises(UsageError, match=blamed) as caught:
        scale_nets.networks(str(path), fingerprint)(space)
    assert "learn one for this run" in caught.value.hint


def test_a_file_without_a_block_is_refused(tmp_path: Path) -> None:
    path, space = tmp_path / "o.safetensors", space_of()
    nets = nets_of(space)
    nets.pop(space.blocks[1].name)
    scale_nets.write(path, nets, ABOUT)
    with pytest.raises(UsageError, match=r"no network for 1 of 3 blocks, model\.layers\.1"):
        scale_nets.read(path, "these weights", space)


def test_a_broken_pair_is_refused(tmp_path: Path) -> None:
    """No file, no document beside it, another's document, and a file cut short."""
    path, space = tmp_path / "o.safetensors", space_of()
    other = tmp_path / "p.safetensors"

    def refused(text: str) -> None:
        with pytest.raises(UsageError, match=text):
            scale_nets.read(path, "these weights", space)

    refused("no learned optimizer: .*No such file")
    scale_nets.write(path, nets_of(space), ABOUT)
    scale_nets.write(other, {name: net + 1 for name, net in nets_of(space).items()}, ABOUT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused("its [0-9]+ bytes are not those")
    path.write_bytes(whole)
    scale_nets.beside(path).write_bytes(scale_nets.beside(other).read_bytes())
    refused("are not those that o.safetensors.json was written with")
    scale_nets.beside(path).unlink()
    refused("No such file")


# Published checkpoints


def published(hidden: int = 64) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, 1))


def test_a_published_checkpoint_is_converted(tmp_path: Path) -> None:
    """A layer's adapter gets the network of its weight, which computes what the module did, in half precision too."""
    modules = {f"model.layers.{i}.q_proj.weight": published() for i in range(3)} | {"model.norm.weight": published()}
    modules["model.layers.2.q_proj.weight"].half()
    source, target = tmp_path / "theirs.pt", tmp_path / "ours.safetensors"
    torch.save(modules, source)
    assert scale_nets.convert(source, target) == 4
    for factors in ("b", "ab"):
        space = space_of(factors, rank=2)
        nets, inputs = scale_nets.read(target, "any model", space), torch.randn(len(space.blocks), 5)
        for i, block in enumerate(space.blocks):
            module = modules[f"{block.name.rpartition('.')[0]}.weight"].float()
            assert torch.allclose(sigmas(nets, inputs)[i], module(inputs[i]).abs()[0], atol=1e-5)


class Attack:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another width": (lambda _: {"a.weight": published(32)}, r"a\.weight has a \(32, 5\) for \(64, 5\)"),
    "another module": (lambda _: {"a.weight": nn.Linear(5, 1)}, r"a\.weight is made of Linear"),
    "another order": (lambda _: {"a.weight": nn.Sequential(nn.Tanh())}, r"a\.weight is made of Tanh"),
    "weights alone": (lambda _: {"a.weight": published().state_dict()}, r"a\.weight is made of OrderedDict"),
    "a list": (lambda _: [published()], "holds no networks by name"),
    "nothing": (lambda _: {}, "holds no networks by name"),
    "a class that is not theirs": (lambda _: {"a.weight": nn.ReLU()}, "was not read: UnpicklingError"),
    "an attack": (lambda there: {"a.weight": Attack(there)}, "was not read: UnpicklingError"),
    "an attack within": (lambda there: {"a.weight": hooked(there)}, "was not read: UnpicklingError"),
}


def hooked(path: Path) -> nn.Sequential:
    module = published()
    module.extra = Attack(path)  # type: ignore[assignment]
    return module


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_a_published_checkpoint_is_refused(tmp_path: Path, case: str) -> None:
    """By what it holds, and without running any of it."""
    make, blamed = BAD[case]
    source, target, there = tmp_path / "theirs.pt", tmp_path / "ours.safetensors", tmp_path / "made"
    torch.save(make(there), source)
    with pytest.raises(UsageError, match=blamed):
        scale_nets.convert(source, target)
    assert not there.exists() and not target.exists()


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    source, there = tmp_path / "theirs.pt", tmp_path / "made"
    for content in (pickle.dumps(Attack(there), protocol=2), b"no pickle", b""):
        source.write_bytes(content)
        with pytest.raises(UsageError, match="was not read"):
            scale_nets.convert(source, tmp_path / "ours.safetensors")
    assert not there.exists()


# The command


@pytest.fixture
def zolite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """zolite("train", …) → (exit code, stdout, stderr) of main() in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["zolite", *map(str, words)])
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


Zolite = Callable[..., tuple[int, str, str]]
QUICK = ("--quant", "float32", "--device", "cpu", "--rank", 4, "--batch", 6, "--context", 128)


def test_learned_then_trained_then_resumed(
    zolite: Zolite, tiny: Path, folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The command writes a file that a run trains with and resumes with, and another rank's run refuses."""
    file, data = tmp_path / "o.safetensors", folder()
    words = ("learn-optimizer", tiny, "--data", data, "--out", file, *QUICK, "--steps", 3, "--restart-every", 2)
    code, out, err = zolite(*words, "--json")
    assert code == 0 and "gradients for" in err and "weights" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3] and all(row["event"] == "learned" for row in rows)
    assert [row["lr"] for row in rows] == [0.01, 0.005, 0.01]
    about = json.loads(scale_nets.beside(file).read_bytes())
    assert (about["space"], about["rank"], about["steps"], len(about["losses"])) == ("lora-b", 4, 3, 3)
    assert about["settings"]["lr_mlp"] == 0.1 and about["settings"]["batch"] == 6 and about["versions"]["torch"]

    code, _, err = zolite(*words)
    assert code == 2 and f"{file} exists already" in err
    method = ("--method", "zo-finetuner", "--set", f"method.optimizer={file}")
    train = ("train", tiny, "--data", folder("completion"), *QUICK, *method, "--steps", 3, "--json")
    code, out, err = zolite(*train, "--name", "one")
    assert code == 0, err
    done = [json.loads(line) for line in out.splitlines()]
    assert [row["step"] for row in done if row["event"] == "stepdone"] == [1, 2, 3]
    code, _, err = zolite(*train, "--rank", 2)
    assert code == 2 and "its rank is 4, this run's is 2" in err
    file.unlink()  # the networks are in the session's checkpoints
    code, out, err = zolite("resume", "one", "--set", "train.steps=4", "--force", "--json")
    assert code == 0 and '"step": 4' in out, err


def test_text_and_interruption(
    zolite: Zolite, tiny: Path, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person gets lines; what Ctrl-C stops leaves what was learned, and the exit code says so."""
    file, asked = tmp_path / "o.safetensors", itertools.count()
    monkeypatch.setattr(process.Interrupt, "__call__", lambda self: next(asked) >= 2)
    code, out, err = zolite("learn-optimizer", tiny, "--data", folder(), "--out", file, *QUICK, "--space", "lora")
    assert code == main.INTERRUPTED and out.startswith("1/570  loss ") and f"{file}: learned in 2 steps" in err
    assert json.loads(scale_nets.beside(file).read_bytes())["steps"] == 2


def test_the_command_converts(zolite: Zolite, tmp_path: Path) -> None:
    source, file = tmp_path / "theirs.pt", tmp_path / "o.safetensors"
    torch.save({"a.weight": published()}, source)
    code, out, _ = zolite("learn-optimizer", "--convert", source, "--out", file, "--json")
    assert code == 0 and json.loads(out) == {"path": str(file), "networks": 1}


def test_what_the_command_refuses(zolite: Zolite, tiny: Path, folder: Callable[..., Path], tmp_path: Path) -> None:
    """Each with exit code 2, before anything is loaded."""
    file, data = tmp_path / "o.safetensors", folder()
    for words, blamed in {
        ("--out", file): "needs MODEL and --data",
        (tiny, "--data", data, "--out", tmp_path / "no" / "o"): "there is no folder",
        (tiny, "--data", data, "--out", file, "--restart-every", 0): "restart_every is 0, below 1",
        (tiny, "--data", data, "--out", file, "--lr-mlp", "nan"): "lr_mlp is nan",
        (tiny, "--data", data, "--out", file, "--targets", "nope"): "no linear layer is called nope",
    }.items():
        code, _, err = zolite("learn-optimizer", *words)
        assert code == 2 and blamed in err and "hint: " in err
    assert not file.exists()


def test_what_does_not_fit_is_not_loaded(
    zolite: Zolite, tiny: Path, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, what it needs part by part, and what there is."""
    monkeypatch.setattr(device_memory, "budget_bytes", lambda device: 10 * 2**20)
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("loaded"))
    code, _, err = zolite("learn-optimizer", tiny, "--data", folder(), "--out", tmp_path / "o", *QUICK)
    assert code == 3 and "of 10 MiB; that is too much" in err and "activations" in err and "microbatch=1" in err


def test_a_device_that_runs_out_all_the_same(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate may be wrong: then there are the numbers and a way on, not a traceback."""

    def full(points: Any, groups: int = 1) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(learn_scales, "oracle_of", lambda *_: Oracle(full, lambda theta: (theta.sum(), theta)))
    with pytest.raises(DoesNotFit, match=r"step 1 ran out of memory: gradients for .* need about"):
        list(learn_scales.learn(learn_scales.prepare(recipe(), Settings()), tmp_path / "o"))


@pytest.mark.parametrize(("space", "quant", "kind"), [("lora", "int8", "label"), ("lora-b", "float32", "completion")])
def test_the_need_is_that_of_the_model(
    recipe: Make, folder: Callable[..., Path], space: str, quant: str, kind: str
) -> None:
    """Weights as they are held, the adapter's numbers as attached, and logits where a sum over words needs them."""
    chosen = recipe(adapter__space=space, model__quant=quant, data__path=str(folder(kind)), adapter__targets="q_proj")
    task = learn_scales.prepare(chosen, Settings())
    loaded = models.load(task.source, quant, CPU, Path("unused"))
    held = [
        *loaded.model.parameters(),
        *(b for n, b in loaded.model.named_buffers() if n.endswith(("codes", "scales", "bias"))),
    ]
    assert task.need["weights"] == sum(t.numel() * t.element_size() for t in held)
    n = attach(loaded, task.recipe).space.size
    item = 4  # bytes: activations on a CPU
    assert task.need["adapter"] == n * (4 * backprop.VECTORS + 2 * task.recipe.train.copies * item)
    words = task.need["logits"] - 4 * 3 * sizes.CHUNK_NUMBERS
    assert words > 6 * 4 * 300 if kind == "completion" else words < 6 * 4 * 1000


def test_it_gives_up_where_nothing_is_finite(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten such steps in a row, with the file written and a way on."""
    broken = Oracle(lambda points, groups=1: torch.full((len(points),), math.nan), lambda theta: (theta.sum(), theta))
    monkeypatch.setattr(learn_scales, "oracle_of", lambda *_: broken)
    task = learn_scales.prepare(recipe(train__steps=20), Settings())
    with pytest.raises(ZoliteError, match="10 steps in a row"):
        list(learn_scales.learn(task, tmp_path / "o"))
    assert json.loads((tmp_path / "o.json").read_bytes())["steps"] == 10
