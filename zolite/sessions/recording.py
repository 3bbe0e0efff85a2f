"""A run in one file of text, to share and to replay: its journal line by line, without its weights or its rows.

    write(of(session), path)
    recording = read(path)

The first line says what was recorded; then one JSON object a line: a step, an event with the step it belongs to, or a
point of the graph of memory. No folder of the machine it comes from is in it.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from zolite.common import files
from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Event, Exported, Saved, from_json, to_json, typed
from zolite.config import recipe as recipes
from zolite.config.recipe import ResolvedRecipe
from zolite.sessions.follow import Reader
from zolite.sessions.journal import MemoryRow, StepRow
from zolite.sessions.session import Session

VERSION = 1
EVENT = "told"  # what a line of an event is called in the file
NUMBERS = ("coefs", "losses")  # columns of a step that are float32, little endian


@dataclass(frozen=True)
class Recording:
    session: str
    created: float  # unix seconds
    recipe: ResolvedRecipe
    device: str
    rows: tuple[StepRow, ...]
    events: tuple[tuple[int, Event], ...]  # with the step that they belong to
    memory: tuple[MemoryRow, ...]


def of(session: Session) -> Recording:
    """Everything a session's journal holds."""
    rows: list[StepRow] = []
    events: list[tuple[int, Event]] = []
    reader = Reader(session)
    while news := reader.read():
        if news.fresh:  # steps were rolled back meanwhile
            rows.clear()
            events.clear()
        rows += news.rows
        events += news.events
    device, memory = str(session.facts.get("device", "")), tuple(session.journal.memories())
    return Recording(session.name, session.created, session.recipe, device, tuple(rows), tuple(events), memory)


def write(recording: Recording, path: Path) -> None:
    """A new file."""
    if path.exists():
        raise UsageError(f"{path} is there already", "choose another name for the recording")
    content = "".join(f"{line}\n" for line in _lines(recording)).encode()
    with files.saving("the recording", path.parent, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, content)


def _lines(recording: Recording) -> Iterator[str]:
    head = {
        "zolite": version("zolite"),
        "recording": VERSION,
        "session": recording.session,
        "created": recording.created,
        "device": recording.device,
        "recipe": recipes.to_json(_unplaced_recipe(recording.recipe)),
    }
    yield json.dumps(head, ensure_ascii=False)
    for row in recording.rows:
        yield json.dumps({"kind": "step"} | row._asdict() | {name: _numbers(getattr(row, name)) for name in NUMBERS})
    for step, event in recording.events:
        yield json.dumps({"kind": EVENT, "at": step} | json.loads(to_json(_unplaced(event))))
    for point in recording.memory:
        yield json.dumps({"kind": "memory"} | asdict(point))


def _unplaced_recipe(recipe: ResolvedRecipe) -> ResolvedRecipe:
    """Without the folders of this machine."""
    model, adapter, data = recipe.model, recipe.adapter, recipe.data
    name = PurePath(model.name).name if model.name.startswith(("/", "~", ".")) else model.name
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(model, name=name),
        adapter=dataclasses.replace(adapter, start=PurePath(adapter.start).name),
        data=dataclasses.replace(data, path=PurePath(data.path).name),
    )


def _unplaced(event: Event) -> Event:
    return dataclasses.replace(event, path=PurePath(event.path).name) if isinstance(event, Saved | Exported) else event


def _numbers(blob: bytes) -> list[float | None]:
    """In nine digits, which name a float32; JSON knows no others than finite ones."""
    values = struct.unpack(f"<{len(blob) // 4}f", blob)
    return [float(f"{v:.9g}") if math.isfinite(v) else None for v in values]


def _blob(values: list[float | None]) -> bytes:
    return struct.pack(f"<{len(values)}f", *(math.nan if v is None else v for v in values))


def read(path: Path) -> Recording:
    """A recording from anywhere. Raises with the number of the line that is none."""
    with files.reading("the recording", path):
        try:
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except FileNotFoundError:
            raise UsageError(
                f"there is no recording at {path}", "`zolite sessions record NAME FILE` writes one"
            ) from None
    head = _head(path, lines[0])
    found: dict[str, list[Any]] = {kind: [] for kind in PARTS}
    for number, line in enumerate(lines[1:], 2):
        try:
            values = json.loads(line)
            kind = values.pop("kind")
            found[kind].append(PARTS[kind](values))
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
            raise ZoliteError(f"line {number} of {path} is no part of a recording", "record the run again") from error
    if [row.step for row in found["step"]] != list(range(1, len(found["step"]) + 1)):
        raise ZoliteError(f"steps are missing in {path}", "record the run again")
    return Recording(*head, *(tuple(rows) for rows in found.values()))


def _head(path: Path, line: str) -> tuple[str, float, ResolvedRecipe, str]:
    try:
        head = json.loads(line)
        version = head["recording"]
        known = (
            str(head["session"]),
            float(head["created"]),
            recipes.resolved_from_dict(head["recipe"]),
            str(head["device"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no recording of a run", "`zolite sessions record NAME FILE` writes one") from error
    if version != VERSION:
        raise ZoliteError(f"{path} is a recording of version {version}, not {VERSION}", "upgrade zolite")
    return known


def _step(values: dict[str, Any]) -> StepRow:
    return typed(StepRow(**(values | {name: _blob(values[name]) for name in NUMBERS})))


def _event(values: dict[str, Any]) -> tuple[int, Event]:
    step = values.pop("at")
    if not isinstance(step, int):
        raise ValueError(f"{step!r} is no step")
    return step, from_json(json.dumps(values))


def _memory(values: dict[str, Any]) -> MemoryRow:
    return typed(MemoryRow(**values))


PARTS: dict[str, Callable[[dict[str, Any]], Any]] = {"step": _step, EVENT: _event, "memory": _memory}
