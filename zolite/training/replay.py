"""Theta from a session: the newest whole checkpoint and the journal rows after it, without the model."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from zolite.common.errors import ZoliteError
from zolite.config.spaces import SPACES
from zolite.engine.adapter import start
from zolite.engine.bases import recorded
from zolite.sessions.session import Checkpoint, Session, StepRow
from zolite.sessions.steps import base, end, reach, replayable
from zolite.training.run import Run
from zolite.zo.build import build
from zolite.zo.estimators import Playback, refreshed
from zolite.zo.rng import Key
from zolite.zo.space import Space, make_space
from zolite.zo.state import State, restore_state, split_state

CPU = torch.device("cpu")
GIVEN = "frozen."  # before the names of a checkpoint's factors that are not trained
MOST = 2**31  # numbers that a factor may have: far more than any has, and no allocation that a machine dies of


@torch.inference_mode()
def catch_up_(session: Session, after: int, upto: int, space: Space, state: dict[str, State]) -> None:
    """Take the journal's steps after one up to another again, by the losses it has, each under its own recipe.

    The same products and sums as when they were measured: the same bits on the same device.
    """
    for recipe, first, last in session.stretches(after, upto):
        estimator, rule = build(recipe.method, recipe.train)
        for row in session.journal.steps(first, last):
            with intact(session, f"step {row.step} of the journal"):
                measured, key = Playback(_losses(row, space)), Key(recipe.train.seed, row.step - 1)
                refreshed(estimator, measured, key, state["estimator"], space)
                estimate = estimator.estimate(measured, key, state["estimator"], space)
                if measured.used != len(measured.losses):
                    raise ValueError(f"{len(measured.losses)} losses where {measured.used} are measured")
                space.add_(rule.update(estimate, row.step - 1, state["rule"], space).grad)


def _losses(row: StepRow, space: Space) -> Tensor:
    if not row.losses or len(row.losses) % 4:
        raise ValueError("its losses are no float32 numbers")
    return torch.frombuffer(bytearray(row.losses), dtype=torch.float32).to(space.theta.device)


@contextmanager
def intact(session: Session, what: str) -> Iterator[None]:
    """What does not hold together inside the block becomes one ZoliteError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZoliteError(
            f"{what} in session {session.name} is damaged: {error}",
            f"`zolite sessions verify {session.name}` says what is sound",
        ) from error


@dataclass(frozen=True)
class Rebuilt:
    """A session's numbers after a step."""

    step: int
    space: Space
    state: dict[str, State]
    frozen: dict[str, tuple[int, ...]]  # shapes of the factors that are not trained
    given: dict[str, Tensor]  # those of them that are not as the seed draws them

    def tensors(self) -> dict[str, Tensor]:
        return {b.name: b.of(self.space.theta).clone() for b in self.space.blocks}


@torch.inference_mode()
def rebuild(session: Session, step: int | None = None, device: torch.device = CPU) -> Rebuilt:
    """A session's numbers after `step`, or the last that are known, without the model."""
    wanted = end(session) if step is None else step
    now = loaded(session, reach(session, wanted), device)
    catch_up_(session, now.step, wanted, now.space, now.state)
    return dataclasses.replace(now, step=wanted)


@torch.inference_mode()
def loaded(session: Session, checkpoint: Checkpoint, device: torch.device) -> Rebuilt:
    """A checkpoint's numbers."""
    tensors, state = checkpoint.tensors(), checkpoint.state()
    with intact(session, f"checkpoint {checkpoint.step}"):
        shapes = {name: tuple(t.shape) for name, t in tensors.items() if not name.startswith(("state.", GIVEN))}
        space = make_space(shapes, 0, torch.float32, device)
        estimator, rule = build(session.recipe.method, session.recipe.train)
        fresh = {"estimator": estimator.init(space), "rule": rule.init(space)}
        read_(tensors, state["method"], space, fresh)
        frozen = {name: _shape(sides) for name, sides in state["frozen"].items()}
        return Rebuilt(checkpoint.step, space, fresh, frozen, given_of(tensors, frozen))


def given_of(tensors: dict[str, Tensor], frozen: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A checkpoint's factors that are not trained and not as the seed draws them. ValueError where they do not fit."""
    given = {name.removeprefix(GIVEN): t for name, t in tensors.items() if name.startswith(GIVEN)}
    if wrong := [name for name, t in given.items() if frozen.get(name) != tuple(t.shape)]:
        raise ValueError(f"{wrong[0]} is no factor of that shape")
    return given


def _shape(sides: list[int]) -> tuple[int, ...]:
    if not sides or not all(isinstance(side, int) and 0 < side < MOST for side in sides) or math.prod(sides) >= MOST:
        raise ValueError(f"a factor cannot have the shape {sides}")
    return tuple(sides)


def factors_at(session: Session, step: int | None = None) -> tuple[int, dict[str, Tensor]]:
    """(step, every factor of the adapter by block name, float32) after a step, or where the journal ends."""
    now, seed = rebuild(session, step), session.chapters[0].recipe.train.seed
    if SPACES[session.recipe.adapter.space].bases:
        cores = now.tensors()
        return now.step, recorded(session, [name.rpartition(".")[0] for name in cores]).factors(cores)
    drawn = {name: start(seed, name, shape, CPU) for name, shape in now.frozen.items() if name not in now.given}
    return now.step, now.tensors() | drawn | now.given


def held(
    tensors: dict[str, Tensor],
    state: dict[str, State],
    frozen: dict[str, tuple[int, ...]],
    given: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """A checkpoint's tensors, and what else is in it."""
    plain, more = split_state(state)
    more |= {GIVEN + name: t for name, t in given.items()}
    return tensors | more, {"method": plain, "frozen": {name: list(shape) for name, shape in frozen.items()}}


def read_(tensors: dict[str, Tensor], plain: dict[str, object], space: Space, state: dict[str, State]) -> None:
    """A checkpoint's numbers into theta and the method's state. Raises ValueError or KeyError where they do not fit."""
    wanted = {b.name: b.shape for b in space.blocks} | {n: tuple(t.shape) for n, t in split_state(state)[1].items()}
    if wanted != {name: tuple(t.shape) for name, t in tensors.items() if not name.startswith(GIVEN)}:
        raise ValueError("its tensors are not those of the recipe")
    for block in space.blocks:
        block.of(space.theta).copy_(tensors[block.name])
    restore_state(state, plain, tensors)


@torch.inference_mode()
def restore(run: Run, session: Session) -> int:
    """Put theta and the method's state where the session's journal ends; returns the number of steps taken."""
    checkpoint, step = base(session), 0
    if checkpoint is not None:
        step = checkpoint.step
        with intact(session, f"checkpoint {step}"):
            tensors, adapter = checkpoint.tensors(), run.engine.adapter
            read_(tensors, checkpoint.state()["method"], run.space, run.state)
            adapter.put_(given_of(tensors, shapes_of(adapter.frozen)))
    end = session.journal.last_step()
    if not replayable(session, step, end):
        session.rewind(step)  # the journal cannot say what the steps since have done: they are taken again
        return step
    catch_up_(session, step, end, run.space, run.state)
    return end


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in tensors.items()}
