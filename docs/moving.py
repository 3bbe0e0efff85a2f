"""A moving picture of the app, docs/pictures/moving.svg, made from the app itself while it follows a run.

python docs/moving.py [RECORDING]     of a run that `zolite sessions record` wrote; without one, of tests/data/run.jsonl

The steps of the recording are written into a session as a trainer does, in shorter time, and the app is watched: Home,
the run as it goes on, and its end. A row of the terminal that stays the same is drawn once, for as long as it stays.
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from pictures import CARD, PICTURES, RECORDED, home, plain, until
from textual.pilot import Pilot

SIZE = (100, 32)
FRAMES = 20  # of the run
SECONDS, LAST_SECONDS = 0.5, 4.0  # that a frame is seen, and those of Home and of the end
NAME = "support-desk"
MOST_BYTES = 1 << 20

Frame = dict[float, list[str]]
"""Elements by the y of their row."""


def main() -> None:
    with home():
        frames = asyncio.run(filmed(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDED))
    target = PICTURES / "moving.svg"
    target.write_text(text := moving(frames), encoding="utf-8")
    print(f"{target}: {len(frames)} frames, {len(text.encode()):,} bytes")
    if len(text.encode()) > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES:,} bytes: take fewer frames")


# --- what is filmed ---------------------------------------------------------------------------------------------------


async def filmed(file: Path) -> list[tuple[str, float]]:
    """(screenshot, seconds that it is seen), in order."""
    from zolite.tui.app import ZoliteApp

    from zolite.planner import hardware as machine
    from zolite.sessions import recording
    from zolite.sessions import session as sessions

    recorded = recording.read(file)
    card = replace(machine.published("rtx-3060-12gb"), others_bytes=int(0.9 * 2**30))
    app = ZoliteApp(machine=lambda: card, config=Path("app.toml"))
    app.animation_level = "none"
    frames: list[tuple[str, float]] = []
    with sessions.create(NAME, recorded.recipe, CARD) as session:
        parts = list(played(recorded))
        add(session, parts[0])
        async with app.run_test(size=SIZE) as pilot:
            await until(pilot, NAME)
            frames.append((taken(pilot), LAST_SECONDS / 2))
            await pilot.press("enter")
            for part in parts[1:]:
                add(session, part)
                await until(pilot, f"step {part[0][-1].step:,} of")
                await pilot.pause(0.4)
                frames.append((taken(pilot), SECONDS))
            session.close()
            await until(pilot, "Rewind")
            await pilot.pause(1.0)
            frames.append((taken(pilot), LAST_SECONDS))
    return frames


def played(recorded: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(steps, events, points of memory) of each frame."""
    rows = recorded.rows
    ends = [max(1, len(rows) * i // FRAMES) for i in range(FRAMES + 1)]
    for first, last in zip([0, *ends], ends, strict=False):
        if first < last:
            happened = [(step, event) for step, event in recorded.events if first < max(1, step) <= last]
            yield rows[first:last], happened, [m for m in recorded.memory if first < m.step <= last]


def add(session: Any, part: tuple[Any, Any, Any]) -> None:
    from zolite.common.events import Started

    rows, events, memory = part
    session.journal.append(rows)
    for point in memory:
        session.journal.memory(point)
    for _, event in events:
        session.journal.event(replace(event, session=NAME, **CARD) if isinstance(event, Started) else event)
    session.journal.commit()


def taken(pilot: Pilot[None]) -> str:
    return plain(pilot.app.export_screenshot(title="zolite"))


# --- how it becomes one picture ---------------------------------------------------------------------------------------

RULE = re.compile(r"\.([\w-]+-r\d+) \{([^}]*)\}")
ELEMENT = re.compile(r'<(?:rect|text)\b[^>]*? y="([\d.]+)"[^>]*?(?:/>|>.*?</text>)')
BODY = re.compile(r'(<g transform="[^"]*" clip-path="[^"]*">)(.*)</g>\s*</svg>', re.DOTALL)


def moving(frames: list[tuple[str, float]]) -> str:
    """Each row is a group for every look that it has, seen while it has it."""
    starts, total = [0.0], sum(seconds for _, seconds in frames)
    for _, seconds in frames:
        starts.append(starts[-1] + seconds)
    styles: dict[str, str] = {}
    rows = [parted(svg, styles) for svg, _ in frames]
    groups = []
    for y in sorted({y for frame in rows for y in frame}):
        looks = ["".join(frame.get(y, [])) for frame in rows]
        for look, places in groupby(range(len(rows)), key=looks.__getitem__):
            at = list(places)
            groups.append(shown(look, starts[at[0]] / total, starts[at[-1] + 1] / total, total) if look else "")
    first = frames[0][0]
    found = BODY.search(first)
    assert found is not None
    rules = "\n".join(f".{name} {{{rule}}}" for rule, name in styles.items())
    head = first[: found.start()].replace("</style>", f"{rules}</style>", 1)
    matrix = re.search(r'<g class="[\w-]+-matrix">', first)
    assert matrix is not None
    return re.sub(r"(?m)^\s+", "", f"{RULE.sub('', head)}{found.group(1)}{matrix[0]}{''.join(groups)}</g></g></svg>\n")


def parted(svg: str, styles: dict[str, str]) -> Frame:
    """A screenshot's rows; classes get names by what they say, since each screenshot counts its own."""
    own = {name: styles.setdefault(rule.strip(), f"s{len(styles)}") for name, rule in RULE.findall(svg)}
    found = BODY.search(svg)
    assert found is not None
    rows: Frame = {}
    for element in ELEMENT.finditer(found.group(2)):
        text = re.sub(r' (?:clip-path|shape-rendering)="[^"]*"', "", element.group(0))
        text = re.sub(r'class="([\w-]+)"', lambda m: f'class="{own.get(m.group(1), m.group(1))}"', text)
        rows.setdefault(float(element.group(1)), []).append(text)
    return rows


def shown(look: str, start: float, end: float, total: float) -> str:
    """For a part of the time from 0 to 1."""
    if start <= 0 and end >= 1:
        return f"<g>{look}</g>"
    times = [(0.0, "hidden"), (start, "visible"), (end, "hidden")]
    kept = [(t, v) for i, (t, v) in enumerate(times) if t < 1 and not (i == 0 and start <= 0)]
    values, keys = ";".join(v for _, v in kept), ";".join(f"{t:.4f}".rstrip("0").rstrip(".") for t, _ in kept)
    animate = (
        f'<animate attributeName="visibility" values="{values}" keyTimes="{keys}" calcMode="discrete" '
        f'dur="{total:.2f}s" repeatCount="indefinite"/>'
    )
    return f'<g visibility="{"visible" if start <= 0 else "hidden"}">{animate}{look}</g>'


if __name__ == "__main__":
    main()
