"""Sessions: one folder a run, with its recipe, its journal and its checkpoints (docs/store.md).

    with create("first", recipe, {"device": "cuda"}) as session:
        session.journal.append(rows)
        session.save(500, tensors, state)

Nothing here imports torch until tensors are read or written, so an app can look at sessions without it.
"""

import contextlib
import datetime
import difflib
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import filelock
import tomli_w

from zolite.common import files, guarded
from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Evaluated, Finished, Started
from zolite.common.paths import paths
from zolite.common.text import visible
from zolite.config import recipe as recipes
from zolite.config.recipe import ResolvedRecipe
from zolite.sessions import checkpoint, leftovers, lock
from zolite.sessions import journal as journals
from zolite.sessions.checkpoint import Checkpoint
from zolite.sessions.journal import Journal, MemoryRow, StepRow

if TYPE_CHECKING:
    import torch

__all__ = ["Chapter", "Checkpoint", "Journal", "MemoryRow", "Session", "StepRow", "Summary", "create", "list_", "open_"]

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# Windows keeps these for devices, whatever follows the dot, and drops a dot at the end.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.")
ENDINGS = ("done", "interrupted", "diverged", "ready")
MOST_TOML = 512 << 10  # bytes
FACTS = {"labels": list, "versions": dict, "frames": dict, "forked_from": dict}
"""Facts that are no texts, with their kinds; what a later version of zolite records is passed on as it is."""
TEXTS = ("model", "config", "base", "data", "tokens", "device", "now")


class Facts(dict[str, Any]):
    """What else was true of a run, by name."""

    def __missing__(self, name: str) -> Any:
        raise ZoliteError(
            f"the session does not say its {name}: its session.toml was changed", "restore the file from a copy"
        )


@dataclass(frozen=True)
class Chapter:
    """The steps after `since`, which have one recipe; `zolite resume --force` begins another."""

    since: int
    recipe: ResolvedRecipe
    facts: dict[str, Any]  # what else was true then: fingerprints of model and data, versions, the device


class Session:
    """An open session. Made by `create` and `open_`; `held` is the lock of the one process that writes."""

    def __init__(self, path: Path, about: "_About", journal: Journal, held: filelock.BaseFileLock | None) -> None:
        self.name = path.name
        self.path = path
        self.chapters = about.chapters  # oldest first
        self.created = about.created  # unix seconds
        self.journal = journal
        self._lock = held
        self.set_aside: list[int] = []  # steps of checkpoints that were ahead of the journal when it was opened

    @property
    def recipe(self) -> ResolvedRecipe:
        """The one that the next step has."""
        return self.chapters[-1].recipe

    @property
    def facts(self) -> dict[str, Any]:
        """What else is true of the next step."""
        return self.chapters[-1].facts

    def stretches(self, after: int, upto: int) -> Iterator[tuple[ResolvedRecipe, int, int]]:
        """(recipe, after, upto) of the steps after `after`, up to `upto`, one for each recipe that they had."""
        ends = [*(c.since for c in self.chapters[1:]), upto]
        for chapter, end in zip(self.chapters, ends, strict=True):
            first, last = max(chapter.since, after), min(end, upto)
            if first < last:
                yield chapter.recipe, first, last

    def amend(self, recipe: ResolvedRecipe, facts: dict[str, Any]) -> None:
        """From here on another recipe, model or data."""
        since = self.journal.last_step()
        kept = tuple(c for c in self.chapters if c.since < since)
        self._rewrite((*kept, Chapter(since, recipe, facts)))

    def _rewrite(self, chapters: tuple[Chapter, ...]) -> None:
        with files.saving(f"session {self.name}", self.path):
            files.replace(self.path / "session.toml", _toml(_About(chapters, self.created)))
        self.chapters = chapters

    def mend(self) -> None:
        """Forgets recipes of steps that are no longer there: a rewind was killed before it could."""
        last = self.journal.last_step()
        kept = self.chapters[:1] + tuple(c for c in self.chapters[1:] if c.since <= last)
        if kept != self.chapters:
            self._rewrite(kept)

    def save(
        self, step: int, tensors: Mapping[str, "torch.Tensor"], state: Mapping[str, Any], keep: Collection[int] = ()
    ) -> Checkpoint:
        """A checkpoint after `step`. The newest three stay, as far as the recipe's disk goes, and those in `keep`."""
        if step > self.journal.last_step():
            raise ZoliteError(
                f"checkpoint {step} of session {self.name} would be ahead of its journal, which ends at step"
                f" {self.journal.last_step()}",
                "append the steps first",
            )
        self.journal.commit()
        budget = self.recipe.train.disk_gib * 2**30
        return checkpoint.save(self.path / "checkpoints", step, tensors, state, keep, budget)

    def newest(self, upto: int | None = None) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint (not after `upto`), and what is wrong with those that are newer.

        Never one ahead of the journal: what followed it there were other numbers.
        """
        last = self.journal.last_step()
        return checkpoint.newest(self.path / "checkpoints", last if upto is None else min(upto, last))

    def at(self, step: int) -> Checkpoint | None:
        """The checkpoint of that step, if there is one and it is whole."""
        return checkpoint.at(self.path / "checkpoints", step) if step <= self.journal.last_step() else None

    def steps(self) -> list[int]:
        """The steps of the journal that have a checkpoint, whole or not."""
        last = self.journal.last_step()
        return [step for step in checkpoint.steps(self.path / "checkpoints") if step <= last]

    def ahead(self) -> list[int]:
        """Steps with a checkpoint that the journal does not reach: an older one was put back, or its end was lost."""
        last = self.journal.last_step()
        return [step for step in checkpoint.steps(self.path / "checkpoints") if step > last]

    def rewind(self, step: int) -> None:
        """Takes back everything after `step`. Checkpoints first: none may ever be ahead of the journal."""
        folder = self.path / "checkpoints"
        checkpoint.remove(folder, [s for s in checkpoint.steps(folder) if s > step])
        with files.saving(f"session {self.name}", folder):
            files.fsync_folder(folder)
        if left := [s for s in checkpoint.steps(folder) if s > step]:
            raise ZoliteError(
                f"checkpoint {left[0]} in {folder} cannot be removed", "remove it by hand, then rewind again"
            )
        self.journal.truncate(step)
        self.mend()

    def running(self) -> bool:
        """Whether a process writes it."""
        return lock.is_held(self.path)

    def ending(self) -> str:
        """How its last run ended: done, interrupted or diverged; stopped, if it could not say; ready, if none did."""
        # A run that was resumed and killed has an end in its journal, but before its last start.
        end = self.journal.latest(Started, Finished)
        return end.reason if isinstance(end, Finished) and end.reason in ENDINGS else "stopped"

    def close(self) -> None:
        """Commits what was added and lets the next writer in, also when the commit fails."""
        try:
            self.journal.close()
        finally:
            lock.release(self.path, self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class Summary:
    """One line of the list of sessions."""

    name: str
    created: float  # unix seconds
    status: str  # running, done, interrupted, diverged, ready, stopped or damaged
    bytes: int  # on the disk
    step: int = 0
    steps: int = 0
    model: str = ""
    method: str = ""
    best: Evaluated | None = None  # of the same split and metric as `last`
    last: Evaluated | None = None
    problem: str = ""  # why it is damaged

    def plain(self) -> dict[str, Any]:
        """As JSON has it; dataclasses.asdict takes ten times as long."""
        scores = {"best": self.best and vars(self.best), "last": self.last and vars(self.last)}
        return vars(self) | scores


@dataclass(frozen=True)
class _About:
    """session.toml."""

    chapters: tuple[Chapter, ...]  # at least one
    created: float


def create(name: str | None, recipe: ResolvedRecipe, facts: dict[str, Any]) -> Session:
    """A new session, open for writing. Built under a hidden name and renamed, so that it appears whole."""
    ensure_free(name)

    def build(folder: Path) -> None:
        journals.create(folder / "journal.db")
        write_about(folder, (Chapter(0, recipe, facts),))

    return _open_first(made(name, build))


def made(name: str | None, build: Callable[[Path], None]) -> Path:
    """A session's folder, filled by `build` under a hidden name."""
    root = paths()["sessions"]
    with files.saving("the session", root):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        leftovers.sweep(root)
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=root))  # 0700
        try:
            (folder / "checkpoints").mkdir(mode=0o700)
            build(folder)
            files.fsync_folder(folder)
            folder = _claim(folder, name)
            files.fsync_folder(root)
        except BaseException:
            leftovers.discard(folder)
            raise
    return folder


def write_about(folder: Path, chapters: tuple[Chapter, ...]) -> None:
    """A new session.toml."""
    files.write_new(folder / "session.toml", _toml(_About(chapters, time.time())))


def exists(name: str) -> bool:
    """Whether there is a session of that name; any text may be asked about."""
    return bool(NAME.fullmatch(name)) and (paths()["sessions"] / name).is_dir()


def _claim(built: Path, name: str | None) -> Path:
    """Gives a whole folder in the sessions' folder a name, or the first dated one that is free."""
    root = paths()["sessions"]
    for candidate in _dated() if name is None else [name]:
        if not (root / candidate).exists() and _renamed(built, root / candidate):
            return root / candidate
    raise _taken(str(name))


def ensure_free(name: str | None) -> None:
    """Refuses a name that cannot be a session's, or is one's already: before a model is loaded in vain."""
    if name is not None:
        _check_name(name)
        if exists(name):
            raise _taken(name)


def open_(name: str, write: bool = False) -> Session:
    """A session that is there; `write` takes its lock, which one process has at a time."""
    path = _find(name)
    _ensure_inside(path)
    held = lock.acquire(path) if write else None
    try:
        about = _read(path)
        journal = Journal(path / "journal.db", write)
        if write:
            leftovers.sweep_session(path)
            (path / "checkpoints").mkdir(mode=0o700, exist_ok=True)
            journal.take()  # "stop", left for a writer that is gone, is not meant for this one
        session = Session(path, about, journal, held)
        if write:
            session.set_aside = checkpoint.set_aside(path / "checkpoints", journal.last_step())
            session.mend()
        return session
    except BaseException:
        lock.release(path, held)
        raise


@contextlib.contextmanager
def making_room(name: str) -> Iterator[Session]:
    """A session that nobody writes, for what makes room: to open it takes none, and nothing is brought up to date."""
    path = _find(name)
    _ensure_inside(path)
    with lock.held(path), Session(path, _read(path), Journal(path / "journal.db", write=True, old=True), None) as found:
        yield found


def folders() -> list[Path]:
    """Of all sessions, sound or not; a link is one too, so that it can be seen and removed."""
    root = paths()["sessions"]
    try:
        with os.scandir(root) as found:
            return [root / e.name for e in found if not e.name.startswith(".") and (e.is_symlink() or e.is_dir())]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ZoliteError(
            f"the sessions in {root} cannot be read: {error.strerror}",
            "see who may read that folder, or set ZOLITE_HOME to another one",
        ) from error


def folder_of(name: str) -> Path:
    """A session's folder, sound or not, by its name or by what a terminal shows of it."""
    if NAME.fullmatch(name) and os.path.lexists(path := paths()["sessions"] / name):
        return path
    found = [path for path in folders() if name in (path.name, visible(path.name))]
    return found[0] if found else _find(name)


def list_() -> list[Summary]:
    """Every session, newest first, each looked at anew; summaries.py remembers those that did not change."""
    return sorted((summary_of(path) for path in folders()), key=lambda s: (s.created, s.name), reverse=True)


def summary_of(path: Path) -> Summary:
    """A session's line of the list; one that cannot be read is damaged."""
    try:
        with open_(path.name) as session:
            return summarised(session)
    except (ZoliteError, *files.DAMAGE) as error:  # it must not hide the others
        try:
            created = path.lstat().st_mtime
        except OSError:
            created = 0.0
        return Summary(path.name, created, "damaged", files.size(path), problem=str(error))


def summarised(session: Session) -> Summary:
    """Its line of the list."""
    evaluations = session.journal.evaluations()
    last = evaluations[-1] if evaluations else None
    return Summary(
        name=session.name,
        created=session.created,
        status=_status(session),
        bytes=files.size(session.path),
        step=session.journal.last_step(),
        steps=session.recipe.train.steps,
        model=session.recipe.model.name,
        method=session.recipe.method.name,
        best=best_of(evaluations),
        last=last,
    )


def _status(session: Session) -> str:
    return "running" if session.running() else session.ending()


def best_of(evaluations: list[Evaluated]) -> Evaluated | None:
    if not evaluations:
        return None
    split, metric = evaluations[-1].split, evaluations[-1].metric
    same = [e for e in evaluations if (e.split, e.metric) == (split, metric)]
    known = [e for e in same if e.value == e.value] or same  # not a number is never the best
    return min(known, key=lambda e: -e.value if metric == "accuracy" else e.value)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or RESERVED.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a session's name",
            "use 1 to 64 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit, such as first-try",
        )


def _taken(name: str) -> UsageError:
    return UsageError(
        f"session {name} is there already", f"`zolite resume {name}` goes on with it, or give another --name"
    )


def _find(name: str) -> Path:
    _check_name(name)
    root = paths()["sessions"]
    if (root / name).is_dir():
        return root / name
    known = [path.name for path in root.glob("*") if not path.name.startswith(".")]
    close = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "`zolite sessions list` shows what there is"
    raise UsageError(f"there is no session {name} among the {len(known)} in {root}", hint)


def _toml(about: _About) -> bytes:
    created = datetime.datetime.fromtimestamp(about.created, datetime.UTC)
    *earlier, now = map(_table, about.chapters)
    text = tomli_w.dumps({"created": created, **now, "earlier": earlier}).encode()
    if len(text) > MOST_TOML:
        raise ZoliteError(
            f"what a session records of its run has {len(text):,} bytes, more than {MOST_TOML:,}",
            "shorter labels, or fewer of them, take less",
        )
    return text


def _table(chapter: Chapter) -> dict[str, Any]:
    return {"since": chapter.since, "recipe": recipes.to_dict(chapter.recipe), "facts": chapter.facts}


def _chapter(table: dict[str, Any]) -> Chapter:
    kinds = {"since": int, "recipe": dict, "facts": dict}
    if wrong := [key for key, kind in kinds.items() if not isinstance(table.get(key), kind)]:
        raise ValueError(f"{', '.join(wrong)} missing")
    try:
        return Chapter(table["since"], recipes.resolved_from_dict(table["recipe"]), _checked(table["facts"]))
    except UsageError as error:  # it was not this command that was wrong
        raise ValueError(error.message) from error


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of the kinds that they should have."""
    kinds = FACTS | dict.fromkeys(TEXTS, str)
    if wrong := [key for key, value in facts.items() if not isinstance(value, kinds.get(key, object))]:
        raise ValueError(f"its {wrong[0]} is no {kinds[wrong[0]].__name__}")
    for key in ("labels", "versions"):
        texts = facts.get(key, [])
        if not all(isinstance(text, str) for text in (texts.values() if isinstance(texts, dict) else texts)):
            raise ValueError(f"its {key} are not all texts")
    if "now" in facts:
        datetime.datetime.fromisoformat(facts["now"])
    return Facts(facts)


def _renamed(built: Path, path: Path) -> bool:
    """A folder with something in it cannot be renamed over, so of two processes one wins and the other sees it."""
    try:
        built.rename(path)
    except OSError:
        if path.exists():
            return False
        raise
    return True


def _dated() -> Iterator[str]:
    today, counter = datetime.date.today().isoformat(), 0
    while True:
        counter += 1
        yield f"{today}-{counter}"


def _open_first(path: Path) -> Session:
    try:
        return open_(path.name, write=True)
    except BaseException:
        if not lock.is_held(path):  # unless another process was quicker: it is theirs then
            leftovers.discard(path)
        raise


def _ensure_inside(path: Path) -> None:
    """Nothing outside of a session's folder is read into it or removed: its folders are no links."""
    with files.reading(f"session {visible(path.name)}", path):
        guarded.ensure_folder(path)
        with contextlib.suppress(FileNotFoundError):  # somebody made room
            guarded.ensure_folder(path / "checkpoints")


def read_about(path: Path) -> _About:
    """What a session's folder says of itself."""
    _ensure_inside(path)
    return _read(path)


def _read(path: Path) -> _About:
    with files.reading(f"session {path.name}", path / "session.toml"):
        values = guarded.toml_of(path / "session.toml", MOST_TOML)
        if not isinstance(created := values.get("created"), datetime.datetime):
            raise ValueError("created missing")
        if not datetime.datetime.min.year < created.year < datetime.datetime.max.year:
            raise ValueError(f"it cannot have been created in the year {created.year}")
        earlier = values.get("earlier", [])
        if not isinstance(earlier, list) or not all(isinstance(table, dict) for table in earlier):
            raise ValueError("earlier is no list of tables")
        chapters = tuple(map(_chapter, (*earlier, values)))
        if [c.since for c in chapters] != sorted({0, *(c.since for c in chapters)}):
            raise ValueError("its recipes do not follow each other from step 0 on")
    return _About(chapters, created.timestamp())
