"""To which steps a session can go back, and which of them a person means. Without torch: the app asks too."""

from collections.abc import Sequence
from dataclasses import dataclass

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Evaluated
from zolite.config.composition import replays
from zolite.config.recipe import TrainPart
from zolite.sessions.session import Checkpoint, Session, best_of


def base(session: Session, step: int | None = None) -> Checkpoint | None:
    """The newest whole checkpoint (not after `step`), from which the journal is replayed; None if none was saved."""
    checkpoint, problems = session.newest(step)
    if checkpoint is None and problems:
        raise ZoliteError(
            f"session {session.name} has no whole checkpoint: {'; '.join(problems)}",
            "restore its folder from a copy, or start a new session",
        )
    return checkpoint


def replayable(session: Session, after: int, upto: int) -> bool:
    """Does the journal say what the steps after one up to another did?"""
    return all(replays(recipe.method) for recipe, _, _ in session.stretches(after, upto))


def reach(session: Session, step: int) -> Checkpoint:
    """The checkpoint from which the numbers after `step` are rebuilt. Raises where they cannot be."""
    within(session, step)
    checkpoint = base(session, step)
    if checkpoint is None:
        raise ZoliteError(f"session {session.name} has saved nothing yet", f"`zolite resume {session.name}` goes on")
    if not replayable(session, checkpoint.step, step):
        whole = [str(s) for s in reversed(session.steps())]
        raise UsageError(
            f"step {step} of session {session.name} cannot be rebuilt: {session.recipe.method.name} looks at more than "
            "the losses that the journal holds",
            f"choose a step that has a checkpoint: {', '.join(whole)}",
        )
    return checkpoint


def end(session: Session) -> int:
    """The last step whose numbers are known: the journal's, but for methods that it does not replay."""
    last = session.journal.last_step()
    checkpoint = base(session)
    if checkpoint is None or replayable(session, checkpoint.step, last):
        return last
    return checkpoint.step


def within(session: Session, step: int) -> int:
    """A step that the session has taken."""
    last = session.journal.last_step()
    if not 0 <= step <= last:
        raise UsageError(
            f"session {session.name} has no step {step}: it has taken {last}", f"name one from 0 to {last}"
        )
    return step


def chosen(session: Session, what: str) -> int:
    """A step by its number, or by what it is: last, or best (of the evaluations on dev)."""
    if what == "last":
        return end(session)
    if what == "best":
        return best_step(session)
    if what.isascii() and what.isdigit() and len(what) < 19:
        return within(session, int(what))
    raise UsageError(f"{what!r} is no step", "give a number, last or best")


@dataclass(frozen=True)
class Later:
    """What a session has after a step."""

    step: int
    last: int
    checkpoints: tuple[int, ...]  # their steps, in order
    evaluations: int
    best: Evaluated | None  # the best on dev of the whole run, where it is among them


def later(session: Session, step: int) -> Later:
    """What would be gone if a session were taken back to a step."""
    evaluations = session.journal.evaluations()
    best = _best_on_dev(evaluations)
    return Later(
        step=step,
        last=session.journal.last_step(),
        checkpoints=tuple(s for s in reversed(session.steps()) if s > step),
        evaluations=sum(e.step > step for e in evaluations),
        best=best if best and best.step > step else None,
    )


def best_step(session: Session) -> int:
    """The step of the best evaluation on dev."""
    best = _best_on_dev(session.journal.evaluations())
    if best is None:
        raise UsageError(f"session {session.name} was never evaluated on dev", "name a step, or last")
    return best.step


def kept(evaluations: Sequence[Evaluated]) -> set[int]:
    """Steps whose checkpoints always stay: the start, from which everything can be replayed, and the best on dev."""
    best = _best_on_dev(evaluations)
    return {0} if best is None else {0, best.step}


def _best_on_dev(evaluations: Sequence[Evaluated]) -> Evaluated | None:
    return best_of([e for e in evaluations if e.split == "dev"])


def stopped_early(evaluations: Sequence[Evaluated], patience: float) -> bool:
    """Were so many evaluations on dev in a row no better than one before? Never, if `patience` is inf."""
    dev = [e for e in evaluations if e.split == "dev"]
    best = _best_on_dev(dev)
    return best is not None and sum(e.step > best.step for e in dev) >= patience


def refuse_done(session: Session, t: TrainPart) -> None:
    """UsageError for a session that has nothing left to do, with the command that goes on."""
    name = session.name
    if session.ending() == "done" and session.journal.last_step() >= t.steps:
        raise UsageError(
            f"session {name} has taken all its {t.steps} steps",
            f"`zolite resume {name} --steps {2 * t.steps} --force` goes on",
        )
    if session.ending() == "done" and stopped_early(session.journal.evaluations(), t.patience):
        raise UsageError(
            f"session {name} is done: it stopped early, as dev was no better {t.patience:g} evaluations in a row",
            f"`zolite resume {name} --set train.patience=never` goes on",
        )
