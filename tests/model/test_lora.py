"""Claims about copies: K points in one forward are K adapters, and the base is multiplied once."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.data import rows as tables
from zolite.data.encode import encode
from zolite.data.kinds.label import answer_of, prompt_of
from zolite.engine.adapter import attach
from zolite.engine.engine import Engine
from zolite.model import load as models
from zolite.model.lora import Active, PerturbedLinear
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key

CPU = torch.device("cpu")
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)
IN, OUT, RANK, SCALE = 24, 40, 3, 1.75


class Counted(nn.Module):
    """A layer that counts its calls and the rows they carry."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = inner, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(x[..., 0].numel())
        y: Tensor = self.inner(x)
        return y


def made(device: str, copies: int, space: str = "lora", bias: bool = True) -> tuple[PerturbedLinear, Counted, Active]:
    """A layer with random factors in every copy."""
    torch.manual_seed(copies + 10 * list(SPACES).index(space))
    base, active = Counted(nn.Linear(IN, OUT, bias=bias).requires_grad_(False)), Active()
    a = torch.randn(copies, RANK, IN) if space == "lora" else torch.randn(RANK, IN)
    b = torch.randn(OUT, RANK).expand(copies, OUT, RANK) if space == "lora-core" else torch.randn(copies, OUT, RANK)
    c = torch.randn(copies, RANK, RANK).to(device) if space == "lora-core" else None
    layer = PerturbedLinear(base.to(device), a.to(device), b.to(device), SCALE, active, c)
    return layer, base, active


def dense(layer: PerturbedLinear, k: int, x: Tensor) -> Tensor:
    """One adapter, merged into one dense weight, row after row in float64."""
    a = (layer.a if layer.a.dim() == 2 else layer.a[k]).double().cpu()
    a = a if layer.c is None else layer.c[k].double().cpu() @ a
    linear: Any = layer.base.inner  # type: ignore[union-attr]
    weight = linear.weight.double().cpu() + SCALE * layer.b[k].double().cpu() @ a
    bias = linear.bias.double().cpu() if linear.bias is not None else 0.0
    return torch.stack([torch.stack([weight @ token + bias for token in row]) for row in x.double().cpu()])


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_slots_are_separate_adapters(device: str, copies: int, space: str) -> None:
    """Each copy's rows come out as if its adapter alone had been merged into the base."""
    layer, _, active = made(device, copies, space)
    active.copies = copies
    x = torch.randn(copies * 2, 5, IN, device=device)
    y = layer(x)
    assert y.shape == (copies * 2, 5, OUT)
    for k in range(copies):
        wanted = dense(layer, k, x[2 * k : 2 * k + 2])
        assert (y[2 * k : 2 * k + 2].double().cpu() - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("space", SPACES)
def test_a_part_of_the_points_is_that_part_of_all(space: str) -> None:
    """What a piece of a forward reads of the points from one on is what all of them together would have."""
    layer, _, active = made("cpu", 3, space)
    active.copies = 3
    x = torch.randn(3, 5, IN)
    whole = layer.low(x, 0)
    for first, last in ((0, 1), (1, 2), (1, 3), (2, 3)):
        assert torch.allclose(layer.low(x[first:last], first), whole[first:last], atol=1e-5)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_the_base_is_called_once(copies: int) -> None:
    """However many copies a forward carries, the frozen layer multiplies once, all rows together."""
    layer, base, active = made("cpu", 3, bias=False)
    active.copies = copies
    layer(torch.randn(copies * 4, 5, IN))
    assert base.rows == [copies * 4 * 5]


def test_fewer_active_slots_use_the_first() -> None:
    """A last wave that does not fill the copies reads the first ones, and leaves the input alone."""
    layer, _, active = made("cpu", 3)
    active.copies = 2
    x = torch.randn(4, 5, IN)
    before = x.clone()
    y = layer(x)
    for k in range(2):
        torch.testing.assert_close(
            y[2 * k : 2 * k + 2].double(), dense(layer, k, x[2 * k : 2 * k + 2]), rtol=1e-4, atol=1e-4
        )
    assert torch.equal(x, before)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("targets", ["", "q_proj,down_proj"])
@torch.inference_mode()
def test_losses_at_points_are_those_of_merged_models(
    recipe: Callable[..., Recipe], tiny: Path, tokenizer: Any, naive: ModuleType, space: str, targets: str
) -> None:
    """The engine's losses at points, in waves of two, are plain transformers' with each point merged into the base."""
    chosen = recipe(adapter__space=space, adapter__targets=targets, adapter__alpha=6.0, train__copies=2)
    source = models.resolve(str(tiny))
    loaded = models.load(source, "float32", CPU, tiny.parent)
    adapter = attach(loaded, recipes.resolve(chosen))
    adapter.space.add_(Combo(((0.05, Noise(Key(9, 0))),)))  # B is zero at the start
    data = tables.load(Path(chosen.data.path), chosen.data.template)
    rows = data.splits["train"][:5]
    examples = encode(rows, "label", data.labels, tokenizer, chosen.data.template, 128).examples
    points = [Combo(), *(Combo(((scale, Noise(Key(9, 1 + i))),)) for i, scale in enumerate((0.1, -0.1, 0.2, -0.2)))]
    got = Engine(loaded, adapter, microbatch=2).bind(examples)(points)
    assert got.shape == (5,) and got.dtype == torch.float32

    def ids(text: str, special: bool) -> Sequence[int]:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])

    template = chosen.data.template
    answers = [ids(answer_of(label, template), False) for label in data.labels]
    untouched = models.plain(source, "float32", CPU, tiny.parent)
    for k, point in enumerate(points):
        theta = adapter.space.theta.clone()
        point.add_to(theta, 1.0, adapter.space)
        model = merged(untouched, adapter.factors(theta), chosen.adapter.alpha / chosen.adapter.rank)
        losses = [
            naive.label_loss(
                model, ids(prompt_of(row, template), True), answers, data.labels.index(row.columns["label"])
            )
            for row in rows
        ]
        assert float(got[k]) == pytest.approx(sum(losses) / len(losses), rel=2e-5)
    assert got.max() - got.min() > 1e-3  # the points are not all alike


def merged(model: Any, factors: dict[str, Tensor], scale: float) -> Any:
    """A copy whose weights have the adapter added."""
    model = copy.deepcopy(model)
    layers = {name.rpartition(".")[0] for name in factors}
    for name in layers:
        model.get_submodule(name).weight += scale * factors[f"{name}.b"] @ factors[f"{name}.a"]
    return model
