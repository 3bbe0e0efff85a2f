"""A report as files: the page alone, or in a folder with its curves as pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

from zolite.common import files
from zolite.common.errors import UsageError
from zolite.planner.hardware import Hardware
from zolite.report import figures
from zolite.report.curves import alone, drawn
from zolite.report.page import MARK, page
from zolite.report.subject import Subject, subject

LOOKED = 80  # bytes in which it is


def written(names: Sequence[str], to: Path | None, machine: Callable[[], Hardware]) -> list[Path]:
    """The files, the page first. `to` is a file.html, or a folder for the page and its curves as SVG; without it the
    page is NAME-report.html in the folder that this runs in.

    Raises UsageError for a name that no session has, and where a file is there that no report is.
    """
    subjects = [subject(name, machine) for name in dict.fromkeys(names)]
    place = to or Path(f"{subjects[0].name if len(subjects) == 1 else 'compared'}-report.html")
    alone_ = place.suffix.lower() in (".html", ".htm")
    made = {place if alone_ else place / "report.html": page(subjects)}
    if not alone_:
        made |= {place / f"{name}.svg": svg for name, svg in curves(subjects).items()}
    for path in made:
        _ensure_ours(path)
    for path, text in made.items():
        with files.saving("the report", path.parent, len(text)):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, text.encode())
    return list(made)


def curves(subjects: Sequence[Subject]) -> dict[str, str]:
    """SVG files by name: loss, and each metric of validation rows."""
    states = [each.state for each in subjects if each.status != "damaged"]
    pictures = [(picture.title.replace(" ", "-"), drawn(picture)) for picture in figures.of(states)] if states else []
    return {name: f"{MARK}{alone(svg)}\n" for name, svg in pictures if svg}


def _ensure_ours(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"name a file in it, such as {path / 'report.html'}")
    if path.exists() and MARK.encode() not in path.read_bytes()[:LOOKED]:
        raise UsageError(f"{path} is there already, and is no report of zolite", "choose another place with --to")
