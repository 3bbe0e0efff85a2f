"""Runs as sessions: a new one from its first step, and an old one from where its journal ends."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from zolite.common.errors import UsageError, listed
from zolite.common.events import Event, Noted
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.engine.bases import ensure_same
from zolite.sessions import session as sessions
from zolite.sessions.session import Session
from zolite.sessions.steps import kept, refuse_done
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.replay import held, rebuild, shapes_of
from zolite.training.run import Run
from zolite.zo.state import State, split_state

ELSEWHERE = (("data", "path"), ("model", "device"), ("train", "vram_gib"), ("train", "patience"))
"""Settings under which the same run may go on in another place, in less memory, or for longer."""

FINGERPRINTS = {
    "model": "model is",
    "config": "model's config.json is",
    "data": "data is",
    "tokens": "what the rows become as tokens (by the chat template and the tokenizer) is",
}
"""Facts that make another run where they change. Sessions that were begun before there was one do without it."""


def begin(recipe: Recipe, name: str | None, stop: Callable[[], bool]) -> Iterator[Event]:
    """A new session, from its first step."""
    run = prepare(recipe)
    with sessions.create(name, run.recipe, run.facts) as session:
        yield from train(run, session, stop)


def resume(name: str, changes: dict[str, Any], force: bool, stop: Callable[[], bool]) -> Iterator[Event]:
    """A session from where its journal ends, if it still is the same run."""
    with sessions.open_(name, write=True) as session:
        recipe = recipes.override(session.recipe, changes)
        refuse_done(session, recipe.train)
        run = prepare(recipe, fresh=not session.steps(), now=began(session))
        serious, mild = differences(run, session)
        if serious and not force:
            raise UsageError(
                f"session {name} would not go on as the same run:\n" + listed(serious),
                "undo the change, or go on all the same with --force",
            )
        if serious:
            turn_to(session, run)
        else:
            ensure_same(session, run.engine.adapter.bases)
        notes = [_set_aside(session)] if session.set_aside else []
        if text := "; ".join(serious + mild):
            notes.append(Noted("warning", f"{text}: the steps from here on may not be those of an uninterrupted run"))
        yield from train(replace(run, notes=(*run.notes, *notes)), session, stop)


def _set_aside(session: Session) -> Noted:
    """What became of checkpoints that the journal does not reach."""
    steps, last = ", ".join(map(str, session.set_aside)), session.journal.last_step()
    what = f"the journal ends at step {last}, and checkpoints of later steps were there: {steps}"
    return Noted("warning", f"{what}. They are set aside as *.ahead-*, and the run goes on from step {last}")


def began(session: Session) -> datetime:
    """The time that its chat template was told; of a session that did not record it, when it was made."""
    now = session.facts.get("now")
    return datetime.fromisoformat(now) if now else datetime.fromtimestamp(int(session.created))


def differences(run: Run, session: Session) -> tuple[list[str], list[str]]:
    """What changed since the session was written: what makes it another run, and what may only change last bits."""
    old, new = session.facts, run.facts
    serious = [
        f"{FINGERPRINTS[what]} not the same: was {old[what][:24]}, is {new[what][:24]}"
        for what in FINGERPRINTS
        if what in old and old[what] != new[what]
    ]
    was, now = recipes.to_dict(session.recipe), recipes.to_dict(run.recipe)
    serious += [
        f"{part}.{key} was {was[part].get(key)!r}, is {now[part].get(key)!r}"
        for part in now
        for key in {**was[part], **now[part]}
        if was[part].get(key) != now[part].get(key) and (part, key) not in ELSEWHERE
    ]
    mild = [
        f"{n} was {old['versions'].get(n)}, is {v}" for n, v in new["versions"].items() if old["versions"].get(n) != v
    ]
    if old["device"] != new["device"]:
        mild.append(f"the device was {old['device']}, is {new['device']}")
    return serious, mild


def turn_to(session: Session, run: Run) -> None:
    """Let a session go on under another recipe, from the numbers it has; refused where they do not fit."""
    now, adapter = rebuild(session), run.engine.adapter
    same_start = not now.frozen or session.recipe.train.seed == run.recipe.train.seed
    fits = shapes_of(now.tensors()) == {b.name: b.shape for b in run.space.blocks}
    if not (fits and now.frozen == shapes_of(adapter.frozen) and same_start):
        raise UsageError(
            f"the numbers of session {session.name} do not fit that recipe: another rank, space, choice of layers or "
            "first values (seed) is another adapter",
            "start a new session with `zolite train`",
        )
    ensure_same(session, adapter.bases)
    if layout(now.state) != layout(run.state):
        raise UsageError(
            f"what {session.recipe.method.name} holds from step to step does not serve {run.recipe.method.name} with "
            "that recipe's method and numbers",
            "leave the method as it is, or start a new session with `zolite train`",
        )
    session.journal.truncate(now.step)
    contents = held(now.tensors(), now.state, now.frozen, now.given)
    session.save(now.step, *contents, keep=kept(session.journal.evaluations()))
    session.amend(run.recipe, run.facts)


def layout(state: dict[str, State]) -> tuple[set[str], dict[str, tuple[int, ...]]]:
    """Names of its plain values, and shapes of its tensors."""
    plain, tensors = split_state(state)
    return set(plain), shapes_of(tensors)
