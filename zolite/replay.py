"""Theta from a session: the newest whole checkpoint and the journal rows after it, without the model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zolite.core.build import build
from zolite.core.estimator import Estimator, Playback, refreshed
from zolite.core.key import Key
from zolite.core.methods import deterministic
from zolite.core.rule import Rule
from zolite.core.space import Space, make_space
from zolite.core.state import State, restore_state, split_state
from zolite.engine.adapter import start
from zolite.errors import ZoliteError
from zolite.session import Checkpoint, Session


@torch.inference_mode()
def catch_up_(
    session: Session, after: int, space: Space, estimator: Estimator, rule: Rule, state: dict[str, State]
) -> int:
    """Take the journal's steps after a given one again, by the losses it has; the last one taken.

    The same products and sums as when they were measured: the same bits on the same device.
    """
    step, seed = after, session.recipe.train.seed
    for row in session.journal.steps(after=after):
        losses = torch.frombuffer(bytearray(row.losses), dtype=torch.float32).to(space.theta.device)
        measured, key = Playback(losses), Key(seed, row.step - 1)
        refreshed(estimator, measured, key, state["estimator"], space)
        estimate = estimator.estimate(measured, key, state["estimator"], space)
        space.add_(rule.update(estimate, row.step - 1, state["rule"], space).grad)
        step = row.step
    return step


@dataclass(frozen=True)
class Rebuilt:
    """A session's numbers on the CPU, where its journal ends."""

    step: int
    space: Space
    state: dict[str, State]
    frozen: dict[str, tuple[int, ...]]  # shapes of the factors that are not trained

    def tensors(self) -> dict[str, Tensor]:
        return {b.name: b.of(self.space.theta).clone() for b in self.space.blocks}


def base(session: Session) -> Checkpoint | None:
    """The newest whole checkpoint, from which the journal is replayed; None where nothing was saved yet.

    Never one from before the recipe changed: the rows between are of another recipe.
    """
    checkpoint, problems = session.newest()
    since = session.facts.get("recipe_since", 0)
    if (checkpoint is None and problems) or (checkpoint is not None and checkpoint.step < since):
        raise ZoliteError(
            f"session {session.name} has no whole checkpoint from step {since} on: {'; '.join(problems)}",
            "restore its folder from a copy, or start a new session",
        )
    return checkpoint


@torch.inference_mode()
def rebuild(session: Session) -> Rebuilt:
    """The newest whole checkpoint and the journal rows after it, under the recipe that they were written by."""
    checkpoint = base(session)
    if checkpoint is None:
        raise ZoliteError(f"session {session.name} has saved nothing yet", f"`zolite resume {session.name}` goes on")
    cpu, recipe = torch.device("cpu"), session.recipe
    tensors, held = checkpoint.tensors(), checkpoint.state()
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if not name.startswith("state.")}
    space = make_space(shapes, 0, torch.float32, cpu)
    estimator, rule = build(recipe.method, recipe.train)
    state = {"estimator": estimator.init(space), "rule": rule.init(space)}
    read_(tensors, held["method"], space, state)
    step = checkpoint.step
    if deterministic(recipe.method):
        step = catch_up_(session, step, space, estimator, rule, state)
    return Rebuilt(step, space, state, {name: tuple(shape) for name, shape in held["frozen"].items()})


def last_factors(session: Session) -> tuple[int, dict[str, Tensor]]:
    """(step, every factor of the adapter by block name, float32) where the journal ends."""
    now, seed, cpu = rebuild(session), session.recipe.train.seed, torch.device("cpu")
    return now.step, now.tensors() | {name: start(seed, name, shape, cpu) for name, shape in now.frozen.items()}


def save(
    session: Session, step: int, tensors: dict[str, Tensor], state: dict[str, State], frozen: dict[str, tuple[int, ...]]
) -> Checkpoint:
    """A checkpoint that `rebuild` reads."""
    plain, held = split_state(state)
    shapes = {name: list(shape) for name, shape in frozen.items()}
    return session.save(step, tensors | held, {"method": plain, "frozen": shapes}, keep=(0,))


def read_(tensors: dict[str, Tensor], plain: dict[str, object], space: Space, state: dict[str, State]) -> None:
    """A checkpoint's numbers into theta and the method's state."""
    for block in space.blocks:
        block.of(space.theta).copy_(tensors[block.name])
    restore_state(state, plain, tensors)
