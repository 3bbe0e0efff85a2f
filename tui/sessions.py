"""Sessions as Home lists them: what their folders say."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from zolite.common import guarded
from zolite.common.errors import ZoliteError, process_error
from zolite.common.events import Continued, Paused, Started
from zolite.common.paths import paths
from zolite.common.text import one_line
from zolite.monitor.states import ALIVE
from zolite.sessions import session as sessions
from zolite.sessions.session import Session, Summary
from zolite.sessions.steps import best_step, end
from zolite.sessions.summaries import Summaries

MOST_LOG = 64 << 10  # bytes: an error stands at the end
NO_ERROR = (
    "its process ended without a word: it was killed, for its memory perhaps, or the machine went off. "
    "Nothing that was saved is lost"
)


@dataclass(frozen=True)
class Listed:
    """A session as it is at a moment. `state` is one of monitor.states.STATES."""

    summary: Summary
    state: str
    active: float  # unix seconds of its last sign of life
    memory_bytes: int  # that its process has taken, 0 if none runs
    trouble: ZoliteError | None  # what went wrong

    @property
    def name(self) -> str:
        return self.summary.name


class Sessions:
    """All of them, as they were when they were last read. For one thread at a time."""

    def __init__(self) -> None:
        self._summaries = Summaries()
        self._listed: dict[str, Listed] = {}

    def read(self) -> list[Listed]:
        """Those that live first, then the newest. Of a session that did not change it is the same object as before."""
        found = [self._of(summary) for summary in self._summaries.list_()]
        self._listed = {each.name: each for each in found}
        return sorted(found, key=lambda each: each.state not in ALIVE)

    def _of(self, summary: Summary) -> Listed:
        before = self._listed.get(summary.name)
        return before if before and before.summary is summary else _listed(summary)


def _listed(summary: Summary) -> Listed:
    folder = paths()["sessions"] / summary.name
    state, memory = summary.status, 0
    if state == "running":
        try:
            state, memory = _alive(summary.name)
        except ZoliteError:  # it was removed or damaged since
            memory = 0
    return Listed(summary, state, _active(folder, summary.created), memory, _trouble(summary, folder))


def _alive(name: str) -> tuple[str, int]:
    """(running or paused, bytes in use)."""
    with sessions.open_(name) as session:
        change, memory = session.journal.latest(Started, Paused, Continued), session.journal.last_memory()
    return "paused" if isinstance(change, Paused) else "running", memory.now_bytes if memory else 0


def _active(folder: Path, created: float) -> float:
    """When its journal was last written."""
    times = [created]
    for name in ("journal.db", "journal.db-wal"):
        try:
            times.append((folder / name).lstat().st_mtime)
        except OSError:
            continue
    return max(times)


def choices(name: str) -> list[tuple[str, str]]:
    """What a step can be chosen by, the likeliest first: (in words, as a command takes it)."""
    with sessions.open_(name) as session:
        found = {}
        with contextlib.suppress(ZoliteError):  # never evaluated on dev
            if best := best_step(session):  # at step 0 there is nothing that was learnt
                found["best"] = f"best on validation, step {best:,}"
        found["last"] = f"last, step {end(session):,}"
        found |= {str(step): f"step {step:,}" for step in reversed(session.steps())}
    return [(text, key) for key, text in found.items()]


def trouble_of(session: Session) -> ZoliteError | None:
    """What went wrong with a session that nobody writes."""
    return _trouble(Summary(session.name, session.created, session.ending(), 0), session.path)


def _trouble(summary: Summary, folder: Path) -> ZoliteError | None:
    if summary.status == "damaged":
        return ZoliteError(one_line(summary.problem), "restore its folder from a copy, or delete it")
    if summary.status == "diverged":
        return ZoliteError(
            "ten losses in a row were not numbers: the steps were too large",
            "rewind to before that and resume with a lower learning rate, or fork the best step",
        )
    if summary.status != "stopped":
        return None
    try:
        log = guarded.tail(folder / "trainer.log", MOST_LOG)
    except (OSError, ValueError):
        log = ""
    return process_error(1, log) if "error: " in log else ZoliteError(NO_ERROR, "resume goes on where it stopped")
