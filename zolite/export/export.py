"""Exports a session's adapter in any format of the registry: whole and checked, or not at all."""

import dataclasses
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zolite.common import files
from zolite.common.errors import UsageError, ZoliteError
from zolite.common.text import human_bytes
from zolite.export import model_card, ollama, parity, registry, uses
from zolite.export.source import Trained, tokenizer_of, trained
from zolite.export.writer import Writer
from zolite.sessions.session import Session

REPORT = "export.json"  # in every folder that an export made


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
    `dtype` one of the format's, its first if empty. `force` replaces what an earlier export left in the folder.

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
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".zolite-export-") as parent:
            partial = Path(parent) / folder.name
            partial.mkdir()
            writer.write(chosen, partial, dtype)
            done = _described(chosen, partial, folder, writer, dtype, verify)
            (partial / REPORT).write_text(json.dumps(about(done, session, format_), indent=1), encoding="utf-8")
            _appear(partial, folder, Path(parent) / "old")
    return done


def _described(trained: Trained, partial: Path, folder: Path, writer: Writer, dtype: str, verify: bool) -> Done:
    """With a Modelfile and a card, which says what the check found."""
    tokenizer = tokenizer_of(trained)
    notes = [] if trained.encoder else ollama.write(trained, partial, writer.ollama(trained), tokenizer)
    reports = parity.check(trained, partial, writer, dtype) if verify else []
    uses_ = [use for use in writer.card.uses if use.encoders == trained.encoder]
    known = [use for use in uses_ if (partial / use.needs).exists()]
    card = model_card.card(trained, writer.card, uses.anywhere(trained, tokenizer), known, reports)
    (partial / "README.md").write_text(card, encoding="utf-8")
    here = uses.place(trained, folder, tokenizer)
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
    if not (folder / REPORT).is_file():
        raise UsageError(f"{folder} was not made by an export: it has no {REPORT}", "choose another folder with --to")


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
        os.rename(folder, old)
    try:
        os.rename(partial, folder)
    except BaseException:
        if old.exists():
            os.rename(old, folder)
        raise
    files.fsync_folder(folder.parent)
