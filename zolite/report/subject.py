"""What a report is about: a session as it lies there, sound or damaged, read without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zolite.common import files
from zolite.common.errors import ZoliteError
from zolite.config.recipe import ResolvedRecipe
from zolite.data.rows import Dataset
from zolite.monitor.run_state import About, RunState, updated
from zolite.planner import estimates
from zolite.planner.hardware import Hardware
from zolite.planner.memory import Ledger
from zolite.sessions import damage, scores
from zolite.sessions import session as sessions
from zolite.sessions.follow import Reader
from zolite.sessions.scores import Kept
from zolite.sessions.session import MemoryRow, Session


@dataclass(frozen=True)
class Subject:
    """Of a damaged session there is its name, and what is wrong with it."""

    name: str
    status: str  # one of monitor.states.STATES
    created: float = 0.0  # unix seconds
    state: RunState = field(default_factory=RunState)
    recipe: ResolvedRecipe | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    memory: tuple[MemoryRow, ...] = ()
    dataset: Dataset | None = None  # its rows, where they are as they were
    planned: Ledger | None = None
    scores: Kept | None = None
    encoder: bool = False
    problems: tuple[str, ...] = ()


def subject(name: str, machine: Callable[[], Hardware]) -> Subject:
    """UsageError where there is no session of that name."""
    path = sessions.folder_of(name)
    try:
        with sessions.open_(path.name) as session:
            return _read(session, machine)
    except (ZoliteError, *files.DAMAGE) as error:
        found = damage.problems(path) or [error.message if isinstance(error, ZoliteError) else str(error)]
        return Subject(path.name, "damaged", problems=tuple(found))


def _read(session: Session, machine: Callable[[], Hardware]) -> Subject:
    recipe, facts = session.recipe, session.facts
    device = str(facts.get("device", ""))
    state, reader = RunState(About.of(session.name, recipe, device)), Reader(session)
    while news := reader.read():
        state = updated(state, news)
    state.running = session.running()
    alike = (machine().device == "cpu") == device.startswith("CPU")  # else the plan would be of another device
    return Subject(
        name=session.name,
        status=state.status if state.running else session.ending(),
        created=session.created,
        state=state,
        recipe=recipe,
        facts=facts,
        memory=tuple(session.journal.memories()),
        dataset=estimates.dataset(recipe, facts.get("data")),
        planned=estimates.planned(recipe, machine) if alike else None,
        scores=scores.kept(session.path, session.journal.last_step()),
        encoder=estimates.encoder(recipe.model.name),
    )
