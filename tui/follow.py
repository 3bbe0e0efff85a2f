"""Reading a session while another process writes it: pages of news, and what can be known about the run besides."""

from collections.abc import Callable
from pathlib import Path

from zolite.common.errors import ZoliteError
from zolite.config import catalog
from zolite.config.recipe import ResolvedRecipe
from zolite.data.lengths import Rows, mean_tokens, survey
from zolite.monitor.run_state import About, News
from zolite.planner import model_spec
from zolite.planner.hardware import Hardware
from zolite.planner.memory import Ledger, ledger
from zolite.sessions import session as sessions
from zolite.sessions.session import Session

LARGEST = 16 << 20  # bytes of a data file whose rows are counted


class Reader:
    """One session's journal, a page at a time. For one thread at a time."""

    def __init__(self, name: str) -> None:
        self.session: Session = sessions.open_(name)
        self.step = self.seen = 0
        self.remembered = 0.0  # time of the last point of memory

    def look(self) -> News:
        """What is new since the last look; all of it once more where steps were taken back."""
        written, journal = self.session.running(), self.session.journal
        fresh = journal.last_step() < self.step
        if fresh:
            self.step = self.seen = 0
            self.remembered = 0.0
        rows, told = journal.news(self.step, self.seen)
        memory = journal.memories(self.remembered) if rows else []
        self.step = rows[-1].step if rows else self.step
        self.seen = told[-1][0] if told else self.seen
        self.remembered = max((m.time for m in memory), default=self.remembered)
        return News(rows, [event for _, event in told], memory, written, fresh)

    def close(self) -> None:
        self.session.close()


def about(name: str, recipe: ResolvedRecipe, device: str) -> About:
    """What a recipe says of a run."""
    r = recipe
    return About(
        name, r.model.name, r.model.quant, r.method.name, r.adapter.space, r.adapter.rank, r.train.batch,
        r.train.steps, device,
    )  # fmt: skip


def about_session(session: Session) -> About:
    return about(session.name, session.recipe, str(session.facts.get("device", "")))


def planned(recipe: ResolvedRecipe, machine: Callable[[], Hardware]) -> Ledger | None:
    """Where the planner would say that the memory goes; None where it cannot know without the network."""
    if not _here(recipe.model.name):
        return None
    try:
        return ledger(machine(), model_spec.spec(recipe.model.name), recipe, _rows(recipe))
    except (ZoliteError, OSError, ValueError, KeyError):
        return None


def _here(model: str) -> bool:
    """Whether its numbers lie on this machine."""
    if model.startswith("builtin:") or Path(model).expanduser().exists() or model_spec.place(model):
        return True
    return any(model.lower() in (short, known.hub.lower()) for short, known in catalog.models().items())


def _rows(recipe: ResolvedRecipe) -> Rows:
    path, longest = Path(recipe.data.path), recipe.data.context
    if not _small(path):
        return Rows(longest, -(-longest // 8))
    return survey(path, recipe.data.template, None, longest)


def tokens_per_step(recipe: ResolvedRecipe, points: int) -> float:
    """About how many tokens a step reads, of all its points; 0 where the rows cannot be looked at."""
    path = Path(recipe.data.path)
    try:
        mean = mean_tokens(path, recipe.data.template, recipe.data.context) if _small(path) else 0.0
    except ZoliteError:
        return 0.0
    return mean * recipe.train.batch * points


def _small(path: Path) -> bool:
    """Whether it is there, and its rows are quickly read."""
    try:
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        return 0 < sum(file.stat().st_size for file in files) <= LARGEST
    except OSError:
        return False
