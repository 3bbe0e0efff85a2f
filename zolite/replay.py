"""Theta from a session: the newest whole checkpoint and the journal rows after it, without the model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zolite.core.build import build
from zolite.core.estimator import Playback, refreshed
from zolite.core.key import Key
from zolite.core.space import Space, make_space
from zolite.core.state import State, restore_state, split_state
from zolite.engine.adapter import start
from zolite.history import end, reach
from zolite.session import Checkpoint, Session

CPU = torch.device("cpu")


@torch.inference_mode()
def catch_up_(session: Session, after: int, upto: int, space: Space, state: dict[str, State]) -> None:
    """Take the journal's steps after one up to another again, by the losses it has, each under its own recipe.

    The same products and sums as when they were measured: the same bits on the same device.
    """
    for recipe, first, last in session.stretches(after, upto):
        estimator, rule = build(recipe.method, recipe.train)
        for row in session.journal.steps(first, last):
            losses = torch.frombuffer(bytearray(row.losses), dtype=torch.float32).to(space.theta.device)
            measured, key = Playback(losses), Key(recipe.train.seed, row.step - 1)
            refreshed(estimator, measured, key, state["estimator"], space)
            estimate = estimator.estimate(measured, key, state["estimator"], space)
            space.add_(rule.update(estimate, row.step - 1, state["rule"], space).grad)


@dataclass(frozen=True)
class Rebuilt:
    """A session's numbers after a step."""

    step: int
    space: Space
    state: dict[str, State]
    frozen: dict[str, tuple[int, ...]]  # shapes of the factors that are not trained

    def tensors(self) -> dict[str, Tensor]:
        return {b.name: b.of(self.space.theta).clone() for b in self.space.blocks}


@torch.inference_mode()
def rebuild(session: Session, step: int | None = None, device: torch.device = CPU) -> Rebuilt:
    """A session's numbers after `step`, or the last that are known, without the model."""
    wanted = end(session) if step is None else step
    checkpoint = reach(session, wanted)
    tensors, held = checkpoint.tensors(), checkpoint.state()
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if not name.startswith("state.")}
    space = make_space(shapes, 0, torch.float32, device)
    estimator, rule = build(session.recipe.method, session.recipe.train)
    state = {"estimator": estimator.init(space), "rule": rule.init(space)}
    read_(tensors, held["method"], space, state)
    catch_up_(session, checkpoint.step, wanted, space, state)
    return Rebuilt(wanted, space, state, {name: tuple(shape) for name, shape in held["frozen"].items()})


def factors_at(session: Session, step: int | None = None) -> tuple[int, dict[str, Tensor]]:
    """(step, every factor of the adapter by block name, float32) after a step, or where the journal ends."""
    now, seed = rebuild(session, step), session.chapters[0].recipe.train.seed
    return now.step, now.tensors() | {name: start(seed, name, shape, CPU) for name, shape in now.frozen.items()}


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
