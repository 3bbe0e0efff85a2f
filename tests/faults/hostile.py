"""A corpus of damaged and hostile session folders from a seed, and every command tried on each of them.

    python tests/faults/hostile.py WORK COUNT SEED EVERY

WORK holds `home/sessions/sound`, a session of a real run, and `outside`, which no command may touch. Prints a JSON
object for each command: its exit code, seconds, what it printed, and by how many bytes its process grew.
That is forked from one that has imported everything, which takes seconds. Of COUNT folders every EVERYth is tried.
"""

import asyncio
import contextlib
import gc
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

ESCAPES = "\x1b[2J\x1b]0;mine\x07\x9b31m\u202e"
READING, MAKING_ROOM = ("verify", "export"), ("show", "prune", "rm")  # with torch, and without it
MOST_BYTES, MOST_CPU, MOST_SECONDS = 4 << 30, 60, 300  # so that what never ends, ends
Damage = Callable[[Path, random.Random, Path], None]

# --- what may stand in the place of a file or of a folder ------------------------------------------------------------

TARGETS = (
    "session.toml", "journal.db", "journal.db-wal", "journal.db-shm", "journal.db-journal", "lock", "owner.json",
    "trainer.log", "checkpoints", "checkpoints/000004", "checkpoints/000004/manifest.json",
    "checkpoints/000004/state.json", "checkpoints/000004/params.safetensors",
)  # fmt: skip


def own(path: Path) -> Path:
    """A file that is the session's own: a damage before may have put something else there, or a link outside."""
    if not path.is_file() or path.resolve() != path.absolute() or path.stat().st_size > 100 << 20:
        raise FileNotFoundError(path)
    return path


def cleared(path: Path) -> Path:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def bound(path: Path) -> None:
    """A socket; its path may have some hundred bytes."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def folder_in_its_place(path: Path) -> None:
    path.mkdir()
    (path / "x").write_text("x")


def link(to: str) -> Callable[[Path, Path], None]:
    """`to` is a path, or one within the outside folder."""
    return lambda path, outside: path.symlink_to(to if to.startswith("/") else outside / to)


PLACES: dict[str, Callable[[Path, Path], None]] = {
    "missing": lambda path, outside: None,
    "pipe": lambda path, outside: os.mkfifo(path),
    "socket": lambda path, outside: bound(path),
    "folder": lambda path, outside: folder_in_its_place(path),
    "link-to-a-file": link("precious.txt"),
    "link-to-a-folder": link("sound/checkpoints"),
    "link-to-a-device": link("/dev/zero"),
    "link-to-nothing": link("nothing"),
    "link-to-itself": lambda path, outside: path.symlink_to(path.name),
    "empty": lambda path, outside: path.write_bytes(b"") and None,
    "noise": lambda path, outside: path.write_bytes(random.Random(path.name).randbytes(9000)) and None,
    "a-terabyte": lambda path, outside: sparse(path),
    "brackets": lambda path, outside: path.write_text("[" * 100_000) and None,
    "escapes": lambda path, outside: path.write_text(ESCAPES * 50) and None,
}  # fmt: skip


def in_its_place(target: str, place: str) -> Damage:
    def damage(folder: Path, dice: random.Random, outside: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            PLACES[place](cleared(folder / target), outside)

    return damage


def same_file_outside(target: str) -> Damage:
    """A link to what would be right there, in another session."""

    def damage(folder: Path, dice: random.Random, outside: Path) -> None:
        cleared(folder / target).symlink_to(outside / "sound" / target)

    return damage


# --- texts ----------------------------------------------------------------------------------------------------------


def toml(edit: Callable[[str], str]) -> Damage:
    def damage(folder: Path, dice: random.Random, outside: Path) -> None:
        path = own(folder / "session.toml")
        path.write_bytes(edit(path.read_text(encoding="utf-8")).encode("utf-8", "surrogatepass"))

    return damage


def line(key: str, value: str) -> Callable[[str], str]:
    """The first line of a key with another value; what belongs to the old one and goes over lines stays behind."""

    def edit(text: str) -> str:
        lines = text.split("\n")
        at = next((i for i, each in enumerate(lines) if each.startswith(f"{key} = ")), None)
        if at is None:
            return f"{key} = {value}\n{text}"
        if lines[at].endswith("["):
            end = next(i for i in range(at, len(lines)) if lines[i] == "]")
            del lines[at + 1 : end + 1]
        lines[at] = f"{key} = {value}"
        return "\n".join(lines)

    return edit


HUGE = "9" * 400
TOMLS: dict[str, Callable[[str], str]] = {
    "nested": lambda text: f"x = {'[' * 20_000}{']' * 20_000}\n{text}",
    "nested-a-little": lambda text: f"x = {'[' * 200}{']' * 200}\n{text}",
    "long-key": lambda text: f"{'.'.join('a' * 100_000)} = 1\n{text}",
    "tables": lambda text: text + "\n".join(f"[x{i}]" for i in range(40_000)),
    "long": lambda text: text + "#" * (50 << 20),
    "no-utf8": lambda text: text + "\ud800",
    "nul": lambda text: text + "\0",
    "twice": lambda text: text + text,
    "year-1": line("created", "0001-01-01T00:00:00Z"),
    "year-1-here": line("created", "0001-01-01T00:00:00"),
    "year-9999": line("created", "9999-12-31T23:59:59.999999-23:59"),
    "year-2": line("created", "0002-01-01T00:00:00"),
    "a-day": line("created", "2026-01-01"),
    "a-time": line("created", "01:00:00"),
    "a-huge-date": line("created", HUGE),
    "labels-text": line("labels", '"yes"'),
    "labels-number": line("labels", "3"),
    "labels-numbers": line("labels", "[1, 2]"),
    "labels-none": line("labels", "[]"),
    "labels-table": line("labels", "{a = 1}"),
    "labels-escapes": line("labels", json.dumps([ESCAPES, "no"])),
    "labels-many": line("labels", json.dumps([f"label {i}" for i in range(9000)])),
    "model-markup": line("name", '"[/abc]x"'),
    "model-escapes": line("name", json.dumps(ESCAPES)),
    "model-long": line("name", f'"{"m" * 200_000}"'),
    "model-device": line("name", '"/dev/zero"'),
    "model-nothing": line("name", '""'),
    "data-device": line("path", '"/dev/zero"'),
    "data-escapes": line("path", json.dumps(ESCAPES)),
    "steps-huge": line("steps", HUGE),
    "steps-long": line("steps", "9" * 5000),
    "steps-many": line("steps", str(2**62)),
    "steps-negative": line("steps", "-1"),
    "steps-nan": line("steps", "nan"),
    "rank-huge": line("rank", str(2**62)),
    "seed-huge": line("seed", HUGE),
    "batch-huge": line("batch", str(2**62)),
    "lr-inf": line("lr", "inf"),
    "lr-huge": line("lr", "1e308"),
    "eps-zero": line("eps", "0.0"),
    "since-huge": line("since", HUGE),
    "since-text": line("since", '"0"'),
    "since-later": line("since", "5"),
    "recipe-text": lambda text: 'recipe = "none"\n' + text.partition("[recipe")[0],
    "facts-list": lambda text: "facts = []\n" + text.partition("[facts")[0],
    "facts-none": lambda text: text.partition("[facts]")[0] + "[facts]\n",
    "versions-text": lambda text: text.replace("[facts.versions]", "[facts.version]") + '\n[facts]\nversions = "1"\n',
    "earlier-numbers": lambda text: f"earlier = [1, 2]\n{text.replace('earlier = []', '')}",
    "earlier-empty": lambda text: text.replace("earlier = []", "") + "\n[[earlier]]" * 1500,
    "now-nothing": line("now", '"yesterday"'),
    "device-escapes": line("device", json.dumps(ESCAPES)),
    "device-number": line("device", "7"),
    "model-fact-list": line("model", "[]"),
    "template-escapes": line("template", json.dumps(f"{{text}}{ESCAPES}")),
    "template-huge": line("template", json.dumps("{text}" * 50_000)),
    "task-elsewhere": line("task", '"../../../etc/passwd"'),
    "method-unknown": line("estimator", '"none"'),
    "method-escapes": line("estimator", json.dumps(ESCAPES)),
    "targets-brackets": line("targets", '["(" ,"[a", "*"]'),
    "cut": lambda text: text[: len(text) // 2],
}


def json_file(name: str, edit: Callable[[Any], Any]) -> Damage:
    """Of a checkpoint; the manifest holds for whatever the other two are."""

    def damage(folder: Path, dice: random.Random, outside: Path) -> None:
        place = folder / "checkpoints" / "000004"
        data = edit(json.loads(own(place / name).read_bytes()))
        (place / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        if name != "manifest.json":
            signed(place)

    return damage


def signed(place: Path) -> None:
    manifest = json.loads(own(place / "manifest.json").read_bytes())
    for name in ("params.safetensors", "state.json"):
        data = own(place / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (place / "manifest.json").write_text(json.dumps(manifest))


MANIFESTS: dict[str, Callable[[Any], Any]] = {
    "list": lambda m: [],
    "text": lambda m: "manifest",
    "step-text": lambda m: m | {"step": "4"},
    "step-huge": lambda m: json.dumps(m).replace('"step": 4', f'"step": {HUGE}').encode(),
    "step-long": lambda m: json.dumps(m).replace('"step": 4', f'"step": {"9" * 5000}').encode(),
    "files-list": lambda m: m | {"files": []},
    "files-none": lambda m: m | {"files": {"state.json": None, "params.safetensors": None}},
    "files-escapes": lambda m: m | {"files": {ESCAPES: {}}},
    "bytes-huge": lambda m: json.dumps(m).replace('"bytes": ', f'"bytes": {HUGE}').encode(),
    "nested": lambda m: b'{"step": 4, "files": ' + b"[" * 100_000,
}
STATES: dict[str, Callable[[Any], Any]] = {
    "list": lambda s: [],
    "nested": lambda s: s | {"x": json.loads("[" * 900 + "]" * 900)},
    "huge": lambda s: b'{"method": {}, "frozen": {"a": [' + HUGE.encode() + b"]}}",
    "shapes": lambda s: s | {"frozen": {"a": [2**31, 2**31], "b": [-1], "c": [], "d": [2**62]}},
    "shapes-text": lambda s: s | {"frozen": {"a": "none", "b": None}},
    "method-list": lambda s: s | {"method": []},
    "escapes": lambda s: {ESCAPES: ESCAPES},
    "lists": lambda s: b"[" + b"[]," * 2_000_000 + b"[]]",
}


def tensors(data: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path, dice: random.Random, outside: Path) -> None:
        place = folder / "checkpoints" / "000004"
        path = own(place / "params.safetensors")
        path.write_bytes(data(path.read_bytes()))
        signed(place)

    return damage


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


PARAMS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "long-header": lambda data: (2**62).to_bytes(8, "little") + data,
    "nested-header": lambda data: header(b'{"a":' * 50_000),
    "no-tensors": lambda data: header(b"{}"),
    "huge-tensor": lambda data: header(b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}'),
    "escapes": lambda data: (
        header(json.dumps({ESCAPES: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()) + bytes(4)
    ),
    "other-tensor": lambda data: header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
    "many": lambda data: header(
        json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(60_000)}).encode()
    ),
    "nan": lambda data: data[:-64] + b"\xff" * 64,
}

# --- journals ---------------------------------------------------------------------------------------------------------


def sql(*statements: str) -> Damage:
    def damage(folder: Path, dice: random.Random, outside: Path) -> None:
        with contextlib.closing(sqlite3.connect(own(folder / "journal.db"), isolation_level=None)) as db:
            db.create_function("noise", 1, lambda n: random.Random(n).randbytes(n))
            for statement in statements:
                with contextlib.suppress(sqlite3.Error):
                    db.execute(statement)

    return damage


def event(**fields: Any) -> str:
    text = json.dumps(fields).replace("'", "''")
    return f"INSERT INTO event (time, step, json) VALUES (1.0, 4, '{text}')"


FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
JOURNALS: dict[str, Damage] = {
    "view": sql("DROP TABLE step", f"CREATE VIEW step AS {FOREVER} SELECT i AS step FROM n"),
    "view-beside": sql(f"CREATE VIEW more AS {FOREVER} SELECT i FROM n"),
    "trigger": sql("CREATE TRIGGER t AFTER DELETE ON step BEGIN INSERT INTO command VALUES (9, 1, 'stop', 0); END"),
    "index": sql("CREATE INDEX i ON event (hex(zeroblob(100000)))"),
    "generated": sql("ALTER TABLE step ADD COLUMN x GENERATED ALWAYS AS (length(hex(zeroblob(500000000))))"),
    "no-table": sql("DROP TABLE eval"),
    "other-table": sql("DROP TABLE eval", "CREATE TABLE eval (a)"),
    "check": sql("CREATE TABLE more (x CHECK (length(hex(zeroblob(100000))) > 0))", "INSERT INTO more VALUES (1)"),
    "version-0": sql("PRAGMA user_version = 0"),
    "version-1": sql("PRAGMA user_version = 1"),
    "version-huge": sql("PRAGMA user_version = 2147483647"),
    "version-negative": sql("PRAGMA user_version = -5"),
    "gap": sql("DELETE FROM step WHERE step = 2"),
    "step-huge": sql("UPDATE step SET step = 4611686018427387904 WHERE step = 4"),
    "step-negative": sql("UPDATE step SET step = -4 WHERE step = 4"),
    "losses-none": sql("UPDATE step SET losses = x'' WHERE step = 3"),
    "losses-odd": sql("UPDATE step SET losses = x'0102030405' WHERE step = 3"),
    "losses-many": sql("UPDATE step SET losses = noise(3000000) WHERE step = 3"),
    "losses-more": sql("UPDATE step SET losses = zeroblob(60000000) WHERE step = 3"),
    "losses-text": sql("UPDATE step SET losses = 'none' WHERE step = 3"),
    "lr-text": sql("UPDATE step SET lr = 'fast'"),
    "lr-huge": sql("UPDATE step SET lr = 9e999, eps = -9e999"),
    "time-text": sql("UPDATE step SET time = 'noon', seconds = -9e999"),
    "memory-huge": sql("UPDATE step SET memory_bytes = 9223372036854775807"),
    "memory-text": sql("UPDATE memory SET now_bytes = 'much', time = 'noon'"),
    "event-none": sql("INSERT INTO event (time, step, json) VALUES (1.0, 4, '')"),
    "event-list": sql("INSERT INTO event (time, step, json) VALUES (1.0, 4, '[]')"),
    "event-nested": sql(f"INSERT INTO event (time, step, json) VALUES (1.0, 4, '{'[' * 50_000}')"),
    "event-huge": sql(
        f'INSERT INTO event (time, step, json) VALUES (1.0, 4, \'{{"event": "paused", "step": {HUGE}}}\')'
    ),
    "event-blob": sql("INSERT INTO event (time, step, json) VALUES (1.0, 4, x'ff00ff')"),
    "event-long": sql("INSERT INTO event (time, step, json) VALUES (1.0, 4, zeroblob(40000000))"),
    "event-noted": sql(event(event="noted", level="warning", message=ESCAPES)),
    "event-level": sql(event(event="noted", level=ESCAPES, message="x")),
    "event-saved": sql(event(event="saved", step=2**62, path=ESCAPES, digest="x")),
    "event-saved-before": sql(event(event="saved", step=-3, path="", digest="")),
    "event-reason": sql(event(event="finished", step=4, reason=ESCAPES, seconds=1, skipped=0, peak_bytes=1)),
    "event-odd-reason": sql(event(event="finished", step=4, reason="none", seconds=1, skipped=0, peak_bytes=1)),
    "event-started": sql(event(event="started", session=ESCAPES, step=1, steps=-1, device=ESCAPES, trainable=-1)),
    "event-half-pair": sql(event(event="noted", level="info", message="\ud800")),
    "events-many": sql(
        f'INSERT INTO event (time, step, json) {FOREVER} SELECT 1.0, 4, \'{{"event": "paused", "step": 4}}\''
        " FROM n LIMIT 20000"
    ),
    "evals-many": sql(
        f"INSERT INTO eval {FOREVER} SELECT 4, 'dev', 'loss', 1.0, 9, 1.0, 1.0, NULL, NULL, NULL FROM n LIMIT 20000"
    ),
    "eval-escapes": sql(f"UPDATE eval SET split = '{ESCAPES}', metric = '{ESCAPES}'"),
    "eval-text": sql("UPDATE eval SET value = 'good', rows = 'many'"),
    "eval-huge": sql("UPDATE eval SET value = 9e999, rows = -9223372036854775807, step = 4611686018427387904"),
    "eval-later": sql("UPDATE eval SET step = 9, split = 'dev'"),
    "commands": sql(f"INSERT INTO command (time, verb) {FOREVER} SELECT 1.0, 'stop' FROM n LIMIT 20000"),
    "rolled-back": sql("DELETE FROM step WHERE step > 2", "DELETE FROM event WHERE step > 2"),
    "empty": sql("DELETE FROM step", "DELETE FROM event", "DELETE FROM eval"),
    "utf-16": sql("PRAGMA writable_schema = 1", "UPDATE sqlite_schema SET sql = 'CREATE TABLE step (step)'"),
}


def is_own(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return own(path).stat().st_size > 0
    return False


def flipped(folder: Path, dice: random.Random, outside: Path) -> None:
    """Bytes of any of its files are others."""
    path = dice.choice(sorted(filter(is_own, folder.rglob("*"))))
    data = bytearray(path.read_bytes())
    for _ in range(dice.randint(1, 40)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    path.write_bytes(data[: dice.choice((len(data), len(data), dice.randrange(len(data) + 1)))])


# --- folders ----------------------------------------------------------------------------------------------------------


def deep(folder: Path, dice: random.Random, outside: Path) -> None:
    """Folders in folders, further than a path goes."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(1500):
            os.mkdir("deeper")
            os.chdir("deeper")
        Path("end").write_text("x")
    finally:
        os.fchdir(here)
        os.close(here)


def crowded(folder: Path, dice: random.Random, outside: Path) -> None:
    for i in range(3000):
        (folder / "checkpoints" / f"{i:06d}").mkdir(exist_ok=True)


def closed(folder: Path, dice: random.Random, outside: Path) -> None:
    (folder / "checkpoints").chmod(0)
    folder.chmod(0)


def odd_steps(folder: Path, dice: random.Random, outside: Path) -> None:
    for name in ("9" * 200, "000004.broken-1", "-00001", "٠٠٠٠٠٤", "9999999", ESCAPES, ".000004.partial-1"):
        (folder / "checkpoints" / name).mkdir()


def links_within(folder: Path, dice: random.Random, outside: Path) -> None:
    for name in ("000002", "999999", ".000009.partial-7", "000004.broken-5"):
        cleared(folder / "checkpoints" / name).symlink_to(outside / "sound" / "checkpoints" / "000004")


def ahead(folder: Path, dice: random.Random, outside: Path) -> None:
    shutil.copytree(folder / "checkpoints" / "000004", folder / "checkpoints" / "000900")
    path = own(folder / "checkpoints" / "000900" / "manifest.json")
    path.write_text(path.read_text().replace('"step": 4', '"step": 900'))


def a_link(folder: Path, dice: random.Random, outside: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(outside / "sound")


def an_empty_folder(folder: Path, dice: random.Random, outside: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def sound_as_it_was(folder: Path, dice: random.Random, outside: Path) -> None:
    """Only its name is odd."""


DAMAGES: dict[str, Damage] = (
    {f"{target}:{place}": in_its_place(target, place) for target in TARGETS for place in PLACES}
    | {f"{target}:elsewhere": same_file_outside(target) for target in TARGETS if "journal.db-" not in target}
    | {f"toml:{name}": toml(edit) for name, edit in TOMLS.items()}
    | {f"manifest:{name}": json_file("manifest.json", edit) for name, edit in MANIFESTS.items()}
    | {f"state:{name}": json_file("state.json", edit) for name, edit in STATES.items()}
    | {f"params:{name}": tensors(data) for name, data in PARAMS.items()}
    | {f"journal:{name}": damage for name, damage in JOURNALS.items()}
    | {each.__name__: each for each in (deep, crowded, closed, odd_steps, links_within, ahead, a_link, an_empty_folder)}
)
NAMES = (
    "[abc]x", "[red]", ESCAPES, "a b", "Capital", "con", "x" * 250, "-rf", "a\nb", "~", "é", "\udcff\udcfe", "'",
)  # fmt: skip
"""None begins with a dot: such a folder is no session, and no list shows it."""


IN_ITS_WAY = (OSError, ValueError, sqlite3.Error, StopIteration, RecursionError)  # a damage that came before


def corpus(root: Path, outside: Path, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(name, what was done to it) of so many folders: every damage alone, odd names, then several damages at once."""
    dice = random.Random(seed)
    alone: list[tuple[str, tuple[str, ...]]] = [(f"s{i}", (name,)) for i, name in enumerate(DAMAGES)]
    alone += [(name, ()) for name in NAMES]
    for i in range(count - len(alone)):
        alone.append((f"several{i}", tuple(dice.sample(sorted(DAMAGES), dice.randint(1, 3)))))
    dice.shuffle(alone)
    for name, damages in alone[:count]:
        folder = root / name
        shutil.copytree(root / "sound", folder)
        for each in damages:
            with contextlib.suppress(
                OSError, ValueError, sqlite3.Error, StopIteration, RecursionError
            ):  # a damage in its way
                DAMAGES[each](folder, dice, outside)
        if not damages or dice.random() < 0.3:
            with contextlib.suppress(OSError, IndexError, RecursionError):
                flipped(folder, dice, outside) if damages else sound_as_it_was(folder, dice, outside)
        yield name, " + ".join(damages) or "its name alone"


# --- the commands -----------------------------------------------------------------------------------------------------


def look_at(folder: Path) -> dict[str, Any]:
    """Everything in a folder: kinds, modes, times and contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        at = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = [at.st_mode, at.st_mtime_ns, content]
    return found


def arguments(command: str, name: str, work: Path) -> list[str]:
    if command == "export":
        return [
            "export",
            "--no-verify",
            "--to",
            str(work / "exports" / hashlib.sha256(os.fsencode(name)).hexdigest()),
            "--",
            name,
        ]
    if command == "list":
        return ["sessions", "list"]
    return ["sessions", command, *(["--yes"] if command == "rm" else []), "--", name]


def home(work: Path) -> None:
    """The app's Home, until its list is filled."""
    from zolite.tui.app import ZoliteApp
    from zolite.tui.screens.home import HomeScreen

    from zolite.planner.hardware import published

    async def shown() -> None:
        app = ZoliteApp(machine=lambda: published("rtx-3060-12gb"), config=work / "app.toml")
        wanted = len([p for p in (work / "home" / "sessions").iterdir() if not p.name.startswith(".")])
        async with app.run_test(size=(120, 40)) as pilot:
            screen = app.screen
            assert isinstance(screen, HomeScreen)
            while len(screen.listed) < wanted:
                await pilot.pause(0.01)
            for _ in range(min(wanted, 40)):
                await pilot.press("down")
            app.save_screenshot(str(work / "home.svg"))

    asyncio.run(shown())


def child(command: str, name: str, work: Path) -> None:
    (work / "resident").write_text(str(_resident()))
    for number, most in ((resource.RLIMIT_AS, _size() + MOST_BYTES), (resource.RLIMIT_CPU, MOST_CPU)):
        resource.setrlimit(number, (most, most))
    signal.alarm(MOST_SECONDS)
    for handle, path in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(work / path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
    if command == "home":
        home(work)
        return
    from zolite.cli.main import main

    sys.argv = ["zolite", *arguments(command, name, work)]
    main()


def _size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def tried(command: str, name: str, work: Path, damage: str) -> dict[str, Any]:
    """One command on one session, in a process of its own."""
    before, began = look_at(work / "outside"), time.monotonic()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            child(command, name, work)
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(bool(left.code))
        except BaseException:  # noqa: BLE001 - it is told, and the process ends
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, used = os.wait4(pid, 0)
    return {
        "name": name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        "command": command,
        "damage": damage,
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "grown": used.ru_maxrss * 1024 - int((work / "resident").read_text()),
        "stdout": (work / "stdout").read_text(errors="replace"),
        "stderr": (work / "stderr").read_text(errors="replace"),
        "changed": look_at(work / "outside") != before,
        "gone": not os.path.lexists(work / "home" / "sessions" / name),
    }


def warm(work: Path) -> None:
    """Imports all that an export and a check of one import."""
    import torch

    from zolite.export import export
    from zolite.sessions import session as sessions
    from zolite.training import verify

    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    with sessions.open_("sound") as session:
        export.export(session, work / "warm", force=(work / "warm").exists(), verify=False)
        list(verify.verify(session, torch.device("cpu")))


def apart(work: Path, made: list[tuple[str, str]], commands: tuple[str, ...]) -> None:
    """These commands on every session, by a process of its own that has imported what they need."""
    if os.fork():
        os.wait()
        return
    from zolite.cli import main

    main.app = typer.main.get_command(main.app)  # type: ignore[assignment] # once: it takes half a second
    sys.argv = ["zolite", *arguments("show", "sound", work)]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main.main()  # what the command line itself imports when it is first used
    if commands == READING:
        warm(work)
    else:
        for command in ("list", "home"):  # over all of them at once
            print(json.dumps(tried(command, "sound", work, f"all {len(made)}")), flush=True)
    gc.collect()
    gc.freeze()
    for name, damage in made:
        for command in commands:
            print(json.dumps(tried(command, name, work, damage)), flush=True)
    os._exit(0)


def main(work: Path, count: int, seed: int, every: int) -> None:
    from zolite.common.files import remove_tree

    root = work / "home" / "sessions"
    made = list(corpus(root, work / "outside", count, seed))[::every]
    for path in root.iterdir():
        if path.name not in {*(name for name, _ in made), "sound"}:
            remove_tree(path)
    for commands in (READING, MAKING_ROOM):
        apart(work, made, commands)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
