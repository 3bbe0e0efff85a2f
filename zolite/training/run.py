"""A run: its model, rows and method, and what they do in one step. loop.py takes the steps, prepare.py makes a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zolite.common.events import Noted
from zolite.config.recipe import Recipe, ResolvedRecipe
from zolite.data.examples import Example, Spoken, can_be_said
from zolite.engine.batch import Batch, Order, bucket, longest, sample
from zolite.engine.cuda_graph import Steps
from zolite.engine.engine import Engine
from zolite.model.loss import Tokens
from zolite.training.greedy import Verbalizer
from zolite.training.samples import Samples
from zolite.zo.estimators import Estimate, Estimator, refreshed
from zolite.zo.rng import Key, Step
from zolite.zo.space import Space
from zolite.zo.state import State
from zolite.zo.updates import Rule

Examples = dict[str, Sequence[Example]]
"""Rows as token sequences, by split."""


@dataclass(frozen=True)
class Run:
    """Everything a run is made of, on its device. `state` and the engine's adapter change in place, nothing else."""

    recipe: ResolvedRecipe
    engine: Engine
    estimator: Estimator
    rule: Rule
    state: dict[str, State]  # of the estimator and the rule
    examples: Examples
    rows: Sequence[Example]  # what the steps train on
    order: Order
    lengths: tuple[int, ...]  # tokens that sequences are padded to; () for those of their batch's longest
    facts: dict[str, Any]  # what must be alike for a resume to continue the same run
    notes: tuple[Noted, ...]  # what was chosen and why, and what a person should know before the first step
    budget_bytes: int
    verbalizer: Verbalizer | None = None  # which texts are labels; None where rows have none, or nobody asks
    ahead: bool = False  # does its adapter begin with more than the model knew? Then that is measured, too
    samples: Samples | None = None  # rows that are answered while the run goes on; None where nobody asks

    @property
    def space(self) -> Space:
        return self.engine.adapter.space


def batches_of(run: Run, step: int) -> list[Batch]:
    """A step's microbatches on the host: a pure function of the seed and the step."""
    rows = rows_of(run, step)
    tokens = bucket(run.lengths, max(map(longest, rows))) if run.lengths else None
    return run.engine.batch(rows, step, run.estimator.groups, tokens)


def rows_of(run: Run, step: int) -> list[Example]:
    """The rows of a step, counted from 0."""
    return [run.rows[i] for i in run.order.batch_at(step)]


def trained(examples: Mapping[str, Sequence[Example]], recipe: Recipe) -> Sequence[Example]:
    """Rows for steps. What is to be said is trained as text: the whole answer and its end, against all other words."""
    rows = examples["train"]
    return Spoken(rows) if says(examples, recipe) else rows


def says(examples: Mapping[str, Sequence[Example]], recipe: Recipe) -> bool:
    """Are these rows with labels that the model is to say?"""
    return recipe.train.objective == "say" and can_be_said(examples["train"][0])


def dev_sample(run: Run) -> Sequence[Example]:
    """The rows of dev that an evaluation during the run reads, always the same."""
    return sample(run.examples["dev"], run.recipe.train.eval_rows)


def stepper(run: Run) -> Steps:
    """What takes a run's steps, each from its batches and its number; as CUDA graphs where the device has them."""
    return Steps(run.engine, partial(refresh, run), partial(take_step, run), run.state)


@torch.inference_mode()
def refresh(run: Run, batches: Sequence[Batch], step: int) -> Tensor | None:
    """What some methods do before a step once in a while, on its batch; the losses (K,) that it took."""
    if not run.estimator.sampler.due(step):
        return None
    objective, key = run.engine.objective([run.engine.put(b) for b in batches]), Key(run.recipe.train.seed, step)
    return refreshed(run.estimator, objective, key, run.state["estimator"], run.space)


@torch.inference_mode()
def take_step(run: Run, batches: Sequence[Tokens], step: Step) -> Estimate:
    """Step number `step`, counted from 0: measure, estimate, update. Nothing waits for the device."""
    objective = run.engine.objective(batches)
    estimate = run.estimator.estimate(objective, Key(run.recipe.train.seed, step), run.state["estimator"], run.space)
    run.space.add_(run.rule.update(estimate, step, run.state["rule"], run.space).grad)
    return estimate
