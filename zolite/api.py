"""The functions of the Python API. Each is thin: it says what goes in and out, and calls the package that does it.

Nothing here is imported that loads torch, until a function that needs it is called. Every error that a person can
mend is a ZoliteError with a `message` and a `hint` (zolite/common/errors.py); of these, UsageError says that what was
asked is impossible, and DoesNotFit that it needs more memory than there is. `export` is in zolite/export/__init__.py.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zolite.common.events import Evaluated, Event
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions
from zolite.sessions.session import Session

if TYPE_CHECKING:
    from zolite.planner.plan import Planning
    from zolite.training.run import Run

Stop = Callable[[], bool]
"""Asked between two steps whether a run should end there, with everything saved."""


def never() -> bool:
    return False


def prepare(recipe: Recipe) -> "Run":
    """Check everything that can be checked, cheapest first, then load the model and attach the adapter.

    The run has the resolved recipe (`run.recipe`), what was measured and chosen with the reasons (`run.notes`), the
    rows as tokens by split (`run.examples`) and the trained numbers, float32 (n,) (`run.space.theta`). It is for one
    `train`. Raises UsageError for a recipe or rows that are wrong, DoesNotFit where the memory does not suffice.
    """
    from zolite.training import prepare

    return prepare.prepare(recipe)


def train(what: "Recipe | Run", name: str | None = None, stop: Stop = never) -> Iterator[Event]:
    """A new session, from its first step to its last: the events of the run, as it takes place.

    `name` is the session's; without one it is named by the date, and the event Started says so. The run goes on only
    while it is iterated. Whoever leaves the loop early leaves a session that `resume` goes on with. Raises UsageError
    at once where the name is taken, and while iterating what `prepare` raises; ZoliteError where the loss is not a
    number for too many steps in a row, with the session saved.
    """
    sessions.ensure_free(name)
    return _trained(what, name, stop)


def _trained(what: "Recipe | Run", name: str | None, stop: Stop) -> Iterator[Event]:
    from zolite.training import loop, prepare

    run = prepare.prepare(what) if isinstance(what, Recipe) else what
    with sessions.create(name, run.recipe, run.facts) as session:
        yield from loop.train(run, session, stop)


def resume(
    name: str, settings: Mapping[str, Any] | None = None, *, force: bool = False, stop: Stop = never
) -> Iterator[Event]:
    """Go on with a session from its last step: bit for bit the run that it would have been without the break.

    `settings` changes the recipe, {"train.steps": 4000} for example. What would make another run of it (other weights,
    rows or settings) is refused with a UsageError that lists it, unless `force` is given.
    """
    from zolite.training import resume

    return resume.resume(name, dict(settings or {}), force, stop)


def evaluate(target: str, data: str | Path, settings: Mapping[str, Any] | None = None) -> Evaluated:
    """A session's adapter, or a model as it is, on rows that have not been trained on.

    `target` is a session's name, or else a model's. `data` is a file, or a folder whose test rows are taken. The
    result's `metric` is "accuracy" (0 to 1) where rows have labels, and "loss" (nats a token) elsewhere. Accuracy ranks
    the labels; `says` and `said_right` are how often greedy text is a label, and the right one, as a program gets that
    lets the model write. `majority` is the accuracy of always choosing the commonest label.
    """
    from zolite.training.score import score

    return score(target, Path(data), dict(settings or {}))


def open_session(name: str) -> Session:
    """A session, to read: also while it runs, and without torch. To be closed, or used in a `with`.

    `session.recipe` is what runs; `session.journal.steps()` yields a row a step, with its `loss`, learning rate `lr`
    and `seconds`; `session.journal.evaluations()` and `.events()` list what was measured and reported, oldest first;
    `session.steps()` the steps that have a checkpoint. Raises UsageError, with the names that come close, where there
    is no such session.
    """
    return sessions.open_(name)


def plan(
    model: str | None = None,
    *,
    vram: str | None = None,
    hardware: str | None = None,
    context: int | None = None,
    data: str | Path | None = None,
    template: str | None = None,
    columns: str = "",
    task: str = "",
    **choices: Any,
) -> "Planning":
    """What fits this machine or another, how fast it is, and where the memory goes. Loads no model, and no torch.

    Without a `model` it plans for those of the catalogue. `vram` is a size such as "8GiB"; `hardware` a card of
    profiles/hardware, such as "rtx-3060-12gb"; `context` the longest row in tokens; `template`, `columns` and `task`
    are those of a recipe. `choices` are quant, space, rank, method, batch and steps; what is left out is tried. `plans`
    of the result are the best first, each with its `recipe`, `peak_bytes` and `seconds_per_step`. Raises DoesNotFit,
    with the least that would, where nothing does.
    """
    from zolite.planner import plan as planner

    return planner.asked(model, vram, hardware, context, str(data) if data else None, template, choices, columns, task)
