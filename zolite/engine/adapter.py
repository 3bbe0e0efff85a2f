"""Adapters as a space: which numbers are trained, where they start, and how the model's layers read them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zolite.config.recipe import ResolvedRecipe
from zolite.config.spaces import SPACES
from zolite.engine.bases import Bases, bases
from zolite.engine.noise_kernels import writer
from zolite.model.load import Loaded, select
from zolite.model.lora import Active, PerturbedLinear
from zolite.model.quant import activations, replace_
from zolite.zo import rng as noise
from zolite.zo.rng import TILE, Key
from zolite.zo.space import Block, Space, make_space


@dataclass(frozen=True)
class Adapter:
    """A model whose linear layers read the space's copies."""

    space: Space
    active: Active
    frozen: dict[str, Tensor]  # float32 factors that are not trained, by block name
    layers: dict[str, PerturbedLinear]  # by full name
    moved: set[str]  # frozen factors that are no longer as the seed draws them
    bases: Bases | None = None  # what cores stand between

    def factors(self, theta: Tensor) -> dict[str, Tensor]:
        """Every factor by block name ("model.layers.0.….a"), float32, at the given theta (n,)."""
        trained = {b.name: b.of(theta) for b in self.space.blocks}
        return self.bases.factors(trained) if self.bases else trained | self.frozen

    @property
    def given(self) -> dict[str, Tensor]:
        """What of the frozen factors a checkpoint has to hold."""
        return {name: self.frozen[name] for name in sorted(self.moved)}

    def put_(self, factors: dict[str, Tensor]) -> None:
        """Other values for some factors, by block name, trained or not."""
        ours = {b.name: b.of(self.space.theta) for b in self.space.blocks} | self.frozen
        for name, value in factors.items():
            ours[name].copy_(value)
            if name in self.frozen:
                self.layers[name.rpartition(".")[0]].a.copy_(value)
                self.moved.add(name)


def attach(loaded: Loaded, recipe: ResolvedRecipe) -> Adapter:
    """Wrap the chosen linear layers. A starts uniform in ±1/√in as LoRA's Kaiming start does, B and cores at zero."""
    model, part, row = loaded.model, recipe.adapter, SPACES[recipe.adapter.space]
    names = select(model, part.targets, loaded.uncalled)
    found = bases(loaded, names, recipe) if row.bases else None
    layers = {name: model.get_submodule(name) for name in names}
    shapes = {name: row.shapes(each.in_features, each.out_features, part.rank) for name, each in layers.items()}
    every = {f"{name}.{factor}": shape for name, of in shapes.items() for factor, shape in of.items()}
    trained = {name: shape for name, shape in every.items() if name[-1] in row.trained}
    dtype = activations(recipe.model.quant, loaded.device)
    space = make_space(trained, recipe.train.copies, dtype, loaded.device, writer=writer(loaded.device))
    drawn = [name for name in every if name.endswith(".a")] if found is None else []
    starts = {name: start(recipe.train.seed, name, every[name], loaded.device) for name in drawn}
    blocks = {b.name: b for b in space.blocks}
    for name in starts.keys() & blocks.keys():
        blocks[name].of(space.theta).copy_(starts[name])
    frozen = {name: start for name, start in starts.items() if name not in blocks}
    adapter = Adapter(space, Active(), frozen, {}, set(), found)
    for name in names:
        _wrap(model, name, adapter, blocks, part.alpha / part.rank, dtype)
    return adapter


def watch(model: Any, places: dict[str, Tensor]) -> None:
    """Have layers note the main direction of a factor's inputs, by block name, whenever θ itself is measured."""
    for name, place in places.items():
        layer, _, factor = name.rpartition(".")
        model.get_submodule(layer).watch[factor] = place


def _wrap(model: Any, name: str, adapter: Adapter, blocks: dict[str, Block], scale: float, dtype: torch.dtype) -> None:
    def factor(which: str) -> Tensor:
        full = f"{name}.{which}"
        return blocks[full].of(adapter.space.copies) if full in blocks else adapter.frozen[full].to(dtype)

    base, active, copies = model.get_submodule(name), adapter.active, adapter.space.copies
    if adapter.bases is None:
        layer = PerturbedLinear(base, factor("a"), factor("b"), scale, active)
    else:
        basis = adapter.bases.layers[name]
        u, v = (t.to(copies.device, dtype) for t in (basis.u, basis.v))
        layer = PerturbedLinear(
            base, v, u.expand(len(copies), *u.shape), scale * float(basis.unit), active, factor("c")
        )
    adapter.layers[name] = layer
    replace_(model, name, layer)


def start(seed: int, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A layer's own numbers, whatever other layers carry adapters."""
    count = math.prod(shape)
    words = noise.words(Key(seed, 0, ("start", name)), 0, -(-count // TILE) * TILE, device)
    return (noise.uniform(words)[:count] * 2 - 1).view(shape) / math.sqrt(shape[1])
