"""Exports a session's adapter in any format of the registry: whole and checked, or not at all."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zolite.common import files, guarded
from zolite.common.errors import UsageError, ZoliteError, listed
from zolite.common.text import human_bytes, visible
from zolite.export import model_card, ollama, parity, places, registry
from zolite.export.source import Trained, tokenizer_of, trained
from zolite.export.writer import Writer
from zolite.sessions import leftovers, lock
from zolite.sessions.session import Session

REPORT = "export.json"  # in every folder that an export made, with the digests of its other files
MOST_REPORT = 16 << 20  # bytes
PLACE = ".zolite-export-"  # begins the name of the folder beside, in which an export is made
ABANDONED_SECONDS = 86400.0


@dataclass(frozen=True)
class Done:
    steps: tuple[int, ...]
    dtype: str
    folder: Path
    base: str
    reports: list[parity.Report]
    notes: list[str]
    uses: dict[str, str]  # commands that load it, by program


def export(
    session: Session,
    folder: Path,
    format_: str = "peft",
    step: str = "last",
    dtype: str = "",
    force: bool = False,
    verify: bool = True,
) -> Done:
    """Write a session's adapter to a new folder, read it back as others would, and only then let it appear.

    `format_` is a row of export/registry.py; `step` a number, last, best, or several with commas, whose mean is taken;
    `dtype` one of the format's, its first if empty. `force` replaces what an earlier export left, as
    long as nothing else is there and nothing of it was changed.

    Raises UsageError for what cannot be exported so, DoesNotFit where memory is short, and ZoliteError where the export
    is not what was trained; nothing is left behind then.
    """
    known, folder = registry.named(format_), folder.resolve()
    dtype = known.dtype(dtype)
    _check_free(folder, force)
    chosen, writer = trained(session, step), known.writer()
    _check_readers(chosen, known)
    _check_disk(folder, writer.size(chosen, dtype))
    with files.saving("the export", folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _workplace(folder.parent) as place:
            partial = place / "new" / folder.name
            partial.mkdir(parents=True)
            writer.write(chosen, partial, dtype)
            done = _described(chosen, partial, folder, writer, dtype, verify)
            report = about(done, session, format_) | {"files": {file.name: _noted(file) for file in partial.iterdir()}}
            (partial / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
            _check_free(folder, force)  # once more: somebody may have put something there meanwhile
            _appear(partial, folder, place / "old" / folder.name)
    return done


def export_file(
    session: Session, file: Path, format_: str, step: str = "last", dtype: str = "", force: bool = False,
    verify: bool = True,
) -> Done:  # fmt: skip
    """The one .gguf file of a format that has one, in the place that was asked for; the same checks before it appears.

    `force` replaces a file that is there. Raises as `export` does, and UsageError for a format of other files.
    """
    known, file = registry.named(format_), file.resolve()
    (name,) = [each for each in known.files if each.endswith(".gguf")] or [""]
    if not name:
        raise UsageError(
            f"--format {format_} is no .gguf file", "--format gguf or merged-gguf; or give a folder as --to"
        )
    if file.is_dir() or (file.exists() and not force):
        raise UsageError(f"{file} exists", "choose another name with --to, or replace a file with --force")
    with files.saving("the export", file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    with _workplace(file.parent) as place:
        done = export(session, place / "file", format_, step, dtype, False, verify)
        with files.saving("the export", file.parent):
            os.replace(done.folder / name, file)
        whole = {program: text for program, text in done.uses.items() if "Modelfile" not in text}
        there, here = f"{shlex.quote(str(done.folder))}/{name}", shlex.quote(str(file))
        moved = {program: text.replace(there, here) for program, text in whole.items()}
        needed = {program: text for program, text in moved.items() if str(done.folder) not in text}
    return dataclasses.replace(done, folder=file, uses=needed)


@contextlib.contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A folder beside the export, removed in the end; what killed exports left there is removed first."""
    for left in parent.glob(f"{PLACE}*"):
        _sweep(left)
    place = Path(tempfile.mkdtemp(dir=parent, prefix=PLACE))
    try:
        with lock.held(place):
            yield place
    finally:
        _discard(place)


def _sweep(left: Path) -> None:
    """Removes a dead export's folder. What it had moved out of the way goes back where nothing came in its place."""
    with contextlib.suppress(OSError, ValueError, ZoliteError):
        guarded.ensure_folder(left)
        if not (left / lock.LOCK).exists() and time.time() - left.stat().st_mtime < ABANDONED_SECONDS:
            return  # it is being made, or was by a version that left no lock
        with lock.held(left):
            for old in (left / "old").glob("*"):
                if not os.path.lexists(left.parent / old.name):
                    old.rename(left.parent / old.name)
            _discard(left)


def _discard(place: Path) -> None:
    """The lock goes last: a kill halfway leaves what the next export still knows as dead."""
    for each in place.glob("*"):
        if each.name != lock.LOCK:
            leftovers.discard(each)
    leftovers.discard(place)


def _noted(file: Path) -> dict[str, Any]:
    """What a report says of a file."""
    with guarded.opened(file) as opened:
        return {"sha256": hashlib.file_digest(opened, "sha256").hexdigest(), "bytes": os.fstat(opened.fileno()).st_size}


def _described(trained: Trained, partial: Path, folder: Path, writer: Writer, dtype: str, verify: bool) -> Done:
    """With a Modelfile and a card, which says what the check found."""
    tokenizer = tokenizer_of(trained)
    notes = [] if trained.encoder else ollama.write(trained, partial, writer.ollama(trained), tokenizer)
    reports = parity.check(trained, partial, writer, dtype) if verify else []
    uses_ = [use for use in writer.card.uses if use.encoders == trained.encoder]
    known = [use for use in uses_ if (partial / use.needs).exists()]
    card = model_card.card(trained, writer.card, places.anywhere(trained, tokenizer), known, reports)
    (partial / "README.md").write_text(card, encoding="utf-8")
    here = places.here(trained, folder, tokenizer)
    commands = {use.program: use.text(here) for use in known}
    return Done(trained.steps, dtype, folder, trained.source.base, reports, notes, commands)


def about(done: Done, session: Session, format_: str) -> dict[str, Any]:
    """What REPORT holds."""
    return {
        "session": session.name,
        "steps": list(done.steps),
        "format": format_,
        "dtype": done.dtype,
        "base": done.base,
        "versions": session.facts["versions"],
        "checks": [dataclasses.asdict(report) for report in done.reports],
        "notes": done.notes,
    }


def summary(done: Done, name: str, format_: str) -> list[str]:
    """The same for people, in lines: where it is, whether it says what it should, and how it is used."""
    step = " and ".join(str(step) for step in done.steps)
    lines = [f"{done.folder}: {name} at step {step} as {format_} in {done.dtype}, for {done.base}"]
    lines += [line for report in done.reports for line in parity.summary(report)] or ["not checked"]
    lines += [f"note: {note}" for note in done.notes]
    for program, text in done.uses.items():
        lines += ["", f"with {program}:", *(f"  {line}" for line in text.splitlines())]
    return lines


def _check_free(folder: Path, force: bool) -> None:
    """Only what an export made is ever replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise UsageError(
            f"{folder} exists and is not empty", "choose another folder with --to, or replace it with --force"
        )
    if foreign := sorted(_foreign(folder)):
        raise UsageError(
            f"{folder} has what no export made, or what was changed since:\n{listed(foreign)}",
            "move it elsewhere, or choose another folder with --to",
        )


def _foreign(folder: Path) -> Iterator[str]:
    """Names in a folder that an export did not leave there as they are."""
    try:
        guarded.ensure_folder(folder)
        report = guarded.json_of(folder / REPORT, MOST_REPORT)
        noted = dict(report["files"])
    except (OSError, ValueError, TypeError, KeyError):
        yield f"{REPORT} is not there, or no report with the digests of the files" if folder.is_dir() else folder.name
        return
    for path in folder.iterdir():
        known = noted.get(path.name)
        if path.name != REPORT and not (known and _matches(path, known)):
            yield visible(path.name)


def _matches(path: Path, known: Any) -> bool:
    try:
        return bool(path.lstat().st_size == known["bytes"] and _noted(path) == known)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _check_readers(trained: Trained, known: registry.Format) -> None:
    """Raises UsageError for an encoder in a format of programs that only write text."""
    if trained.encoder and not known.encoders:
        others = " or ".join(each.name for each in registry.FORMATS.values() if each.encoders)
        raise UsageError(
            f"{trained.architecture} is an encoder, and llama.cpp has no head that says what stands at a mask",
            f"export --format {others}, for transformers",
        )


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(next(p for p in folder.parents if p.exists())).free
    if needed > free:
        raise ZoliteError(
            f"the export takes {human_bytes(needed)}; {human_bytes(free)} are free at {folder.parent}",
            "make room, or choose a folder on another disk with --to",
        )


def _appear(partial: Path, folder: Path, old: Path) -> None:
    """Onto the disk, readable like files around it, then under its name; what stood there goes back if that fails."""
    mode = (partial / REPORT).stat().st_mode  # as any new file has it here; safetensors' files are the owner's alone
    for file in partial.iterdir():
        file.chmod(mode)
        with file.open("r+b") as f:
            os.fsync(f.fileno())
    files.fsync_folder(partial)
    if folder.exists():
        old.parent.mkdir()
        os.rename(folder, old)
    try:
        os.rename(partial, folder)
    except BaseException:
        if old.exists():
            os.rename(old, folder)
        raise
    files.fsync_folder(folder.parent)
