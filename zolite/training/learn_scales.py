"""Learns the networks of the method `zo-finetuner`, once per base model. The one place where zolite uses gradients.

ZO Fine-tuner, arXiv 2510.00419: small networks give every block of the adapter a scale σ; they are learned by what one
zeroth-order step with those scales does to the loss. So this needs the memory of first-order LoRA with activation
checkpointing, which zolite's training never does; `prepare` says how much and refuses what does not fit.

    task = prepare(recipe, Settings())         # rows, adapter and memory are checked; no weight is read
    for row in learn(task, file, stop):        # loads, learns, writes
        ...

n trainable numbers, B blocks. A step, on one batch, at the adapter's numbers θ (paper, section 3; the published code):

1. σ of the networks, and D = factor · σ ∘ u with noise u and `normed`'s factor, a plain number;
2. c = (L(θ + εD) − L(θ − εD)) / 2ε, a plain number too;
3. θ′ = θ − η c D, and its loss on the same batch is the meta-loss, a function of σ alone:
   ∂L(θ′)/∂σᵢ = −η c factor Σ ∇L(θ′) ∘ u over block i; from there to the networks by autograd, then SGD on them;
4. θ itself goes on by first-order SGD with momentum, its gradient clipped, at a rate that falls evenly to 0 until θ
   goes back to its start. Scales and losses, which the networks see, are not reset.

Departures. The networks start at σ = 1, which is MeZO, and not at random scales. η and ε are the adapter space's mezo
defaults, where the paper fine-tunes all weights. The model stays in evaluation mode, without dropout, in step 4 too:
then one function, θ to loss and gradient, is all that is asked of the model. Periods are counted in steps, not epochs;
the defaults are those of the published script on COPA's 300 rows.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError, listed
from zolite.common.paths import paths
from zolite.common.text import human_bytes
from zolite.config import recipe as recipes
from zolite.config.methods import MethodPart
from zolite.config.recipe import Recipe, ResolvedRecipe, ResolvedTrain, TrainPart
from zolite.data import rows as tables
from zolite.data.chat_template import chat_of, filled
from zolite.data.examples import Example
from zolite.engine import device_memory
from zolite.engine.adapter import attach
from zolite.engine.batch import Order, collate, length
from zolite.engine.engine import Engine
from zolite.model import devices
from zolite.model import load as models
from zolite.model.loss import Head, Tokens, generic, loss_sums
from zolite.planner import backprop, model_spec
from zolite.training import scale_nets
from zolite.training.journal_writer import MOST_SKIPPED
from zolite.training.prepare import encode_all, facts_of
from zolite.training.run import trained
from zolite.zo import rng as noise
from zolite.zo.direction import Combo, Dense, Noise, dense
from zolite.zo.rng import TILE, Key
from zolite.zo.samplers import INPUTS, NET, WEIGHTS, Objective, features, normed, sigmas, spread, statistics
from zolite.zo.space import Space

BASE = Recipe(train=TrainPart(steps=570, batch=8))  # as published: 15 epochs of 300 rows, in eights: 570 steps
ALLOWANCE = 0.2  # of the rest, for what allocators and libraries take on top: steps of 1.34 GiB were seen for 1.1
LOSS_SCALE = 1024.0  # keeps float16 gradients from vanishing (Micikevicius et al. 2018, arXiv 1710.03740)
SMALLER = (
    "gradients need more than training does: try --set train.microbatch=1, a shorter --context, --quant nf4, a smaller "
    "model or another machine; training with the file will not need it"
)


@dataclass(frozen=True)
class Settings:
    """What is not in a recipe, with the published values. The recipe's train.lr is η, its train.steps the steps."""

    restart_every: int = 190  # steps until θ goes back to its start
    lr_mlp: float = 0.1  # of SGD on the networks
    lr_llm: float = 1e-2  # of first-order SGD on θ, first value of each period
    momentum: float = 0.8  # of that SGD
    clip: float = 1.0  # largest norm of its gradient

    def check(self) -> None:
        """UsageError with everything that is wrong."""
        rules = (
            (self.restart_every >= 1, f"restart_every is {self.restart_every}, below 1"),
            (0 < self.lr_mlp < math.inf, f"lr_mlp is {self.lr_mlp:g}, not a number above 0"),
            (0 <= self.lr_llm < math.inf, f"lr_llm is {self.lr_llm:g}, not a number from 0 up"),
        )
        if problems := [text for holds, text in rules if not holds]:
            raise UsageError("the settings have problems:\n" + listed(problems), "`zolite learn-optimizer --help`")


@dataclass(frozen=True)
class Progress:
    """A step, numbered from 1."""

    step: int
    loss: float  # L(θ)
    meta_loss: float  # L(θ′): after one zeroth-order step with the learned scales, on the same batch
    sigma_min: float  # of the blocks' scales, `normed`
    sigma_max: float
    lr: float  # of θ
    seconds: float
    peak_bytes: int
    skipped: bool  # a loss or gradient was not finite: nothing was learned


@dataclass(frozen=True)
class Task:
    """What was checked before loading."""

    recipe: ResolvedRecipe
    settings: Settings
    device: torch.device
    source: models.Source
    dataset: tables.Dataset
    rows: Sequence[Example]
    need: dict[str, int]  # bytes, by what for
    budget_bytes: int


# ---- before loading


def prepare(recipe: Recipe, settings: Settings) -> Task:
    """Check what can be checked without the weights. Raises UsageError, or DoesNotFit with the numbers."""
    settings.check()
    dataset = tables.of(recipe.data)
    recipe = recipes.resolve(
        replace(recipe, method=MethodPart("mezo")), len(dataset.labels), len(dataset.splits["train"])
    )
    device, source = devices.pick(recipe.model.device), models.source_of(recipe.model)
    tokenizer = filled(models.tokenizer(source, paths()["cache"]), chat_of(recipe.data, {}))
    examples = encode_all(dataset, tokenizer, recipe)[0].examples
    rows = trained(examples, recipe)
    held = device_memory.used_bytes(device)  # by Python and its libraries, where that is the memory that counts
    need = {"this process": held} | needs(recipe, device, rows)
    need["allowance"] = int(ALLOWANCE * sum(need.values()))
    task = Task(recipe, settings, device, source, dataset, rows, need, device_memory.budget_bytes(device))
    if sum(need.values()) > task.budget_bytes:
        raise DoesNotFit(f"{explained(task)}; that is too much", SMALLER)
    return task


def explained(task: Task) -> str:
    """What a task needs, in words."""
    parts = ", ".join(f"{what} {human_bytes(size)}" for what, size in task.need.items())
    return (
        f"gradients for {task.source.name} need about {human_bytes(sum(task.need.values()))} ({parts}) of "
        f"{human_bytes(task.budget_bytes)}"
    )


def needs(recipe: ResolvedRecipe, device: torch.device, rows: Sequence[Example]) -> dict[str, int]:
    """Bytes by what for, of the longest rows; no weight is read."""
    layout = collate(sorted(rows, key=length)[-recipe.train.microbatch :]).layout
    positions = 0 if layout.single else layout.positions
    batch = backprop.Batch(layout.sequences * layout.tokens, positions, layout.queries)
    return backprop.learning(model_spec.spec(recipe.model.name), recipe, device.type, batch)


# ---- the model: θ to loss and gradient


@dataclass(frozen=True)
class Oracle:
    """One batch as the learning sees it. Losses are float32 (); nothing it returns has an autograd graph."""

    losses: Objective
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]]  # θ (n,) → loss, ∇L(θ) (n,) float32


class Logits(Head):
    """A head whose products autograd knows (those that return float32 from 16 bits have no derivative), made again."""

    def __call__(self, hidden: Tensor, tokens: slice = slice(None)) -> Tensor:
        logits: Tensor = checkpoint(self._product, hidden, tokens, use_reentrant=False, preserve_rng_state=False)
        return logits

    def _product(self, hidden: Tensor, tokens: slice) -> Tensor:
        bias = getattr(self.module, "bias", None)
        logits = F.linear(hidden.float(), self.module.weight[tokens].float())
        return self._shaped(logits if bias is None else logits + bias[tokens])


@dataclass(frozen=True)
class Gradients:
    """Losses and gradients of a model's adapter, by transformers' own decoder, which autograd follows."""

    engine: Engine
    leaves: tuple[Tensor, ...]  # (K, …) each block's views of the copies, which its layer reads

    @classmethod
    def of(cls, engine: Engine) -> "Gradients":
        """Has each of the model's layers forget its activations until the way back, and blocks take gradients."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        model = engine.loaded.model
        for layer in [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]:
            # By hand, for transformers' own switch works in training mode only, which brings dropout.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        places = [block.name.rpartition(".") for block in engine.adapter.space.blocks]
        return cls(engine, tuple(getattr(model.get_submodule(m), f).requires_grad_() for m, _, f in places))

    def __call__(self, batches: Sequence[Tokens], theta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and its gradient (n,) float32 over the microbatches of one batch."""
        adapter = self.engine.adapter
        adapter.space.copies[0].copy_(theta)
        adapter.active.copies, adapter.active.mirrored, adapter.active.clean = 1, False, False
        total, gradient = theta.new_zeros(()), torch.zeros_like(theta)
        for batch in batches:
            loss, part = self._part(batch)
            total += loss
            gradient += part
        return total, gradient

    def _part(self, batch: Tokens) -> tuple[Tensor, Tensor]:
        model = self.engine.loaded.model
        scale = LOSS_SCALE if self.engine.adapter.space.copies.dtype == torch.float16 else 1.0
        with torch.enable_grad():
            loss = (loss_sums(generic(model), Logits.of(model), batch, 1) / batch.weight).sum()
            parts = torch.autograd.grad(loss * scale, self.leaves, materialize_grads=True)
        return loss.detach(), torch.cat([part[0].flatten().float() for part in parts]) / scale


# ---- the mathematics, of any space and oracle


@dataclass
class State:
    """What a step leaves to the next, besides θ."""

    nets: Tensor  # (B, WEIGHTS) float32
    sigma: Tensor  # (B,)
    losses: Tensor  # (2,)
    start: Tensor  # (n,)
    velocity: Tensor  # (n,)

    @classmethod
    def of(cls, space: Space, seed: int) -> "State":
        """Before the first step: networks whose σ is 1, and θ where it is."""
        count, new = len(space.blocks), space.theta.new_zeros
        nets = initial(count, seed, space.theta.device)
        return cls(nets.to(space.theta), new(count) + 1, new(2), space.theta.clone(), torch.zeros_like(space.theta))


def initial(count: int, seed: int, device: torch.device) -> Tensor:
    """Networks (count, WEIGHTS) with σ = 1 whatever their inputs; first layers as torch starts them."""
    words = noise.words(Key(seed, 0, ("nets",)), 0, -(-count * WEIGHTS // TILE) * TILE, device)
    nets = (noise.uniform(words)[: count * WEIGHTS].view(count, WEIGHTS) * 2 - 1) / math.sqrt(INPUTS)
    nets[:, -NET - 1 :], nets[:, -1] = 0.0, 1.0
    return nets


@dataclass(frozen=True)
class Trial:
    """A zeroth-order step as it would be taken: what θ′ is made of, the networks aside."""

    inputs: Tensor  # (B, 5)
    sigma: Tensor  # (B,)
    scaled: Tensor  # (B,): factor · σ
    noise: Tensor  # u (n,)
    losses: Tensor  # (2,): L₊ and L₋
    projected_gradient: Tensor  # c ()

    @property
    def factor(self) -> Tensor:
        """What `normed` multiplies by, ()."""
        total = self.sigma.sum()
        return torch.where(total > 0, self.scaled.sum() / total, torch.ones_like(total))

    def moved(self, space: Space, lr: float) -> Tensor:
        """θ′ (n,)."""
        return space.theta - lr * self.projected_gradient * self.noise * spread(self.scaled, space)


def attempt(space: Space, state: State, losses: Objective, key: Key, eps: float) -> Trial:
    """Steps 1 and 2: the networks' scales, and the projected gradient along the direction that they make."""
    stats = torch.stack([statistics(b.of(space.theta)) for b in space.blocks])
    inputs = features(stats, state.losses, state.sigma)
    sigma, u = sigmas(state.nets, inputs), dense(Noise(key), space)
    scaled = normed(sigma, space)
    direction = Dense(u * spread(scaled, space))
    found = losses([Combo(((eps, direction),)), Combo(((-eps, direction),))])
    return Trial(inputs, sigma, scaled, u, found, (found[0] - found[1]) / (2 * eps))


def meta_gradient(space: Space, nets: Tensor, trial: Trial, gradient: Tensor, lr: float) -> Tensor:
    """Step 3: the meta-loss' gradient (B, WEIGHTS) to the networks, from ∇L(θ′) (n,)."""
    sums = torch.stack([block.of(gradient * trial.noise).sum() for block in space.blocks])
    with torch.enable_grad():
        leaf = nets.detach().requires_grad_()
        scales = sigmas(leaf, trial.inputs)
        (found,) = torch.autograd.grad(scales, leaf, -lr * trial.projected_gradient * trial.factor * sums)
    return found


@torch.no_grad()
def step_(space: Space, state: State, oracle: Oracle, step: int, t: ResolvedTrain, s: Settings) -> Progress:
    """Step number `step`, counted from 0: θ, the networks and what they see of the past are changed in place."""
    began, rate = time.monotonic(), s.lr_llm * (1 - step % s.restart_every / s.restart_every)
    if step % s.restart_every == 0:
        space.theta.copy_(state.start)
        state.velocity.zero_()
    trial = attempt(space, state, oracle.losses, Key(t.seed, step), t.eps)
    meta_loss, pull = oracle.gradient(trial.moved(space, t.lr))
    loss, gradient = oracle.gradient(space.theta)
    state.sigma = trial.sigma
    skipped = not all(bool(x.isfinite().all()) for x in (trial.losses, meta_loss, pull, loss, gradient))
    if not skipped:
        state.nets -= s.lr_mlp * meta_gradient(space, state.nets, trial, pull, t.lr)
        state.losses = trial.losses
        advance_(space.theta, state.velocity, gradient, rate, s)
    low, high = (float(x) for x in trial.scaled.aminmax())
    seconds, peak = time.monotonic() - began, device_memory.peak_bytes(space.theta.device)
    return Progress(step + 1, float(loss), float(meta_loss), low, high, rate, seconds, peak, skipped)


def advance_(theta: Tensor, velocity: Tensor, gradient: Tensor, rate: float, s: Settings) -> None:
    """Step 4, as torch.optim.SGD and clip_grad_norm_ have it."""
    velocity.mul_(s.momentum).add_(gradient * (s.clip / (gradient.norm() + 1e-6)).clamp(max=1.0))
    theta.sub_(velocity, alpha=rate)


# ---- the loop


def learn(task: Task, target: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
    """Load and learn; `target` is written whenever θ is about to go back to its start, and at the end.

    Raises DoesNotFit where the device runs out of memory all the same, and ZoliteError after MOST_SKIPPED steps in a
    row that were not finite.
    """
    job, done, bad = Job.of(task), list[Progress](), 0
    while len(done) < task.recipe.train.steps and bad < MOST_SKIPPED and not stop():
        row = job.step(len(done))
        bad = bad + 1 if row.skipped else 0
        done.append(row)
        yield row
        if len(done) % task.settings.restart_every == 0:
            job.save(target, done)
    if len(done) % task.settings.restart_every:
        job.save(target, done)
    if bad == MOST_SKIPPED:
        raise ZoliteError(
            f"losses or gradients were not numbers for {bad} steps in a row, up to step {len(done)}; {target} has what "
            "was learned before",
            f"try --lr-llm {task.settings.lr_llm / 10:.2g}, or --quant bf16",
        )


@dataclass(frozen=True)
class Job:
    """A task with its model loaded."""

    task: Task
    engine: Engine
    gradients: Gradients
    state: State
    order: Order
    about: dict[str, Any]  # what the file says of itself besides its progress

    @classmethod
    def of(cls, task: Task) -> "Job":
        t = task.recipe.train
        loaded = models.load(task.source, task.recipe.model.quant, task.device, paths()["cache"])
        if loaded.own_logits:
            what = f"{task.source.name} does more behind its last hidden states than multiply them by its head"
            raise UsageError(what, "scales are learned on models whose head is all, such as Llama, Qwen or SmolLM")
        engine = Engine.of(loaded, attach(loaded, task.recipe), task.recipe)
        state = State.of(engine.adapter.space, t.seed)
        order = Order(tuple(length(row) for row in task.rows), t.batch, t.seed)
        return cls(task, engine, Gradients.of(engine), state, order, described(task, loaded))

    def step(self, step: int) -> Progress:
        rows, train = [self.task.rows[i] for i in self.order.batch_at(step)], self.task.recipe.train
        oracle = oracle_of(self.engine, self.gradients, rows, step)
        try:
            return step_(self.engine.adapter.space, self.state, oracle, step, train, self.task.settings)
        except torch.OutOfMemoryError as error:
            raise DoesNotFit(f"step {step + 1} ran out of memory: {explained(self.task)}", SMALLER) from error

    def save(self, target: Path, done: Sequence[Progress]) -> None:
        """The networks as they are now."""
        blocks = self.engine.adapter.space.blocks
        nets = {block.name: net for block, net in zip(blocks, self.state.nets, strict=True)}
        course = [[rounded(row.loss), rounded(row.meta_loss)] for row in done]
        scale_nets.write(target, nets, self.about | {"steps": len(done), "losses": course})


def oracle_of(engine: Engine, gradients: Gradients, rows: Sequence[Example], step: int) -> Oracle:
    """One batch, on the device."""
    batches = [engine.put(batch) for batch in engine.batch(rows, step)]
    return Oracle(engine.objective(batches), partial(gradients, batches))


def described(task: Task, loaded: models.Loaded) -> dict[str, Any]:
    """Model, data, versions, adapter and settings, for who reads a file."""
    recipe, t = task.recipe, task.recipe.train
    return {
        **facts_of(loaded, task.dataset),
        **recipes.to_dict(recipe)["adapter"],  # space, rank, alpha, targets
        "name": recipe.model.name,
        "quant": recipe.model.quant,
        "template": recipe.data.template,
        "context": recipe.data.context,
        "settings": {name: getattr(t, name) for name in ("batch", "lr", "eps", "seed")} | asdict(task.settings),
    }


def rounded(x: float) -> float | None:
    """Six digits; JSON knows no NaN."""
    return float(f"{x:.6g}") if math.isfinite(x) else None
