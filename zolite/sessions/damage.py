"""What is wrong with a session that cannot be opened, part by part, and what is left of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zolite.common import files
from zolite.common.errors import ZoliteError, listed
from zolite.common.text import visible
from zolite.sessions import checkpoint, session
from zolite.sessions.journal import Journal


def problems(path: Path) -> list[str]:
    """Of a session's folder, whatever it is: of the folder itself, session.toml, the journal and each checkpoint."""
    if (found := _of(lambda: session.read_about(path))) and not files.is_folder(path):
        return found
    found += _of(lambda: _checked(path / "journal.db"))
    if files.is_folder(path / "checkpoints"):
        looked = (checkpoint.inspect(path / "checkpoints" / f"{step:06d}") for step in _steps(path))
        found += [visible(each) for each in looked if isinstance(each, str)]
    return found


def known(path: Path) -> dict[str, Any]:
    """What can be said of it all the same."""
    return {
        "name": path.name,
        "path": str(path),
        "state": "damaged",
        "problems": problems(path),
        "bytes": files.size(path) if files.is_folder(path) else 0,
        "checkpoints": _steps(path) if files.is_folder(path / "checkpoints") else [],
    }


def error(path: Path, first: str) -> ZoliteError:
    """All of them at once; `first` where each part is sound alone."""
    name = visible(path.name)
    return ZoliteError(
        f"session {name} is damaged:\n{listed(problems(path) or [first])}",
        f"restore its folder from a copy; `zolite sessions rm '{name}'` removes it",
    )


def _steps(path: Path) -> list[int]:
    return checkpoint.steps(path / "checkpoints")


def _checked(path: Path) -> None:
    journal = Journal(path)
    try:
        journal.check()
    finally:
        journal.close()


def _of(look: Callable[[], object]) -> list[str]:
    try:
        look()
    except (ZoliteError, *files.DAMAGE) as error:
        return [visible(error.message if isinstance(error, ZoliteError) else f"{type(error).__name__}: {error}")]
    return []
