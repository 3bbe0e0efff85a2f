"""Whatever is in a file, what comes out is a ZoliteError: no traceback, no hang, nothing written elsewhere."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as to_bytes

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import from_json
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.model import load as models
from zolite.sessions import checkpoint
from zolite.sessions import session as sessions
from zolite.sessions.follow import follow
from zolite.sessions.steps import chosen, end
from zolite.training import scale_nets, warm_start
from zolite.training.replay import CPU, factors_at
from zolite.training.resume import begin
from zolite.training.verify import verify

LONG = bool(os.environ.get("ZOLITE_LONG"))


def cases(long: int, short: int) -> Callable[[Any], Any]:
    """So many examples, few of them unless the long profile is asked for."""
    return settings(
        max_examples=long if LONG else short,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
value = st.recursive(
    leaf, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=8), s, max_size=4), max_leaves=12
)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """What may happen to a file: bytes are changed, lost, added, swapped or doubled."""
    dice = random.Random(draw(st.integers(0, 2**32)))

    def damaged(data: bytes) -> bytes:
        for _ in range(dice.randint(1, 4)):
            a, b = sorted(dice.randint(0, len(data)) for _ in range(2))
            data = dice.choice(
                (
                    data[:a] + bytes(dice.randint(0, 255) for _ in range(min(b - a, 8))) + data[a + min(b - a, 8) :],
                    data[:a],
                    data[:a] + data[b:],
                    data[:b] + data[a:b] + data[b:],
                    data[:a] + dice.choice((b"\0", b'"', b"}", b"]", b"-1", b"1e999", b"\xff" * 8, b"null")) + data[a:],
                )
            )
        return data

    return damaged


@contextlib.contextmanager
def only_words() -> Iterator[None]:
    """An error for people, with something to do, or none."""
    try:
        yield
    except ZoliteError as error:
        assert error.message  # noqa: PT017
        assert error.hint  # noqa: PT017


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Recipes


VALID = tomli_w.dumps(recipes.to_dict(Recipe())).encode()


@cases(10_000, 200)
@given(hurt=damage())
def test_recipes_of_damaged_bytes(hurt: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """A recipe file with any damage is read, or refused in words."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(hurt(VALID))
    with only_words():
        recipes.resolve(recipes.load(path))


paths_of_recipe = [f"{part}.{key}" for part, keys in recipes.to_dict(Recipe()).items() for key in keys]


@cases(10_000, 200)
@given(changes=st.dictionaries(st.sampled_from(paths_of_recipe) | st.text(max_size=12), value, max_size=5))
def test_recipes_of_any_values(changes: dict[str, Any]) -> None:
    """Any value for any setting is taken or refused in words, all of them at once."""
    with only_words():
        recipes.resolve(recipes.override(Recipe(), changes))


# Rows

LINES = b"".join(
    json.dumps(row).encode() + b"\n"
    for row in (
        {"text": "a \u00e9 \U0001f999", "label": "yes"},
        {"text": "b", "label": "no"},
        {"prompt": "p", "completion": "c"},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
    )
)


@cases(10_000, 200)
@given(hurt=damage(), suffix=st.sampled_from([".jsonl", ".csv", ".json", ".txt"]), first=st.integers(0, 3))
def test_rows_of_damaged_bytes(hurt: Callable[[bytes], bytes], suffix: str, first: int, tmp_path: Path) -> None:
    """A file of rows with any damage is read, or refused with its places."""
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(hurt(LINES.splitlines(keepends=True)[first] * 6 + (LINES if first > 1 else b"")))
    with only_words():
        tables.load(path, Recipe().data.template)


@cases(10_000, 200)
@given(records=st.lists(st.dictionaries(st.sampled_from(["text", "label", "prompt", "messages"]), value) | value))
def test_rows_of_any_values(records: list[Any], tmp_path: Path) -> None:
    """Any JSON a line is read, or refused with its places."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8", errors="replace")
    with only_words():
        tables.load(path, Recipe().data.template)


# Sessions


@pytest.fixture
def run(recipe: Callable[..., Recipe], home: Path) -> Path:
    """The folder of a short run with state of every kind."""
    list(begin(recipe(method__name="lozo-m", train__steps=4, train__save_every=2), "run", lambda: False))
    return home / "sessions" / "run"


def use(home: Path) -> None:
    """Everything that reads a session; whoever fails, the next one is tried."""
    with only_words():
        sessions.list_()
    with only_words(), sessions.open_("run") as session:
        for read in (
            lambda: factors_at(session),
            lambda: factors_at(session, 1),
            lambda: list(verify(session, CPU)),
            lambda: list(follow(session, lambda: False)),
            lambda: chosen(session, "best"),
            lambda: end(session),
            session.journal.evaluations,
            session.journal.memories,
            session.ending,
        ):
            with only_words():
                read()
    with only_words(), sessions.open_("run", write=True) as session:
        session.rewind(session.journal.last_step())
    assert {p.split("/")[0] for p in listing(home)} <= {"sessions"}  # nothing was written elsewhere
    assert {p.name for p in (home / "sessions").iterdir()} <= {"run", "whole"}


@cases(4_000, 60)
@given(hurt=damage(), file=st.sampled_from(["session.toml", "journal.db", "params.safetensors", "state.json", "all"]))
def test_sessions_of_damaged_bytes(hurt: Callable[[bytes], bytes], file: str, run: Path, home: Path) -> None:
    """A session in which any file is damaged is read as far as it is sound, or refused in words."""
    whole = home / "sessions" / "whole"
    if not whole.exists():
        shutil.copytree(run, whole)
    shutil.rmtree(run)
    shutil.copytree(whole, run)
    for path in sorted(run.rglob("*")):
        if path.is_file() and (file in (path.name, "all")):
            path.write_bytes(hurt(path.read_bytes()))
    use(home)


@cases(2_000, 40)
@given(
    losses=st.binary(max_size=20) | st.none() | st.integers() | st.text(max_size=5),
    event=st.text(max_size=20) | value.map(json.dumps) | st.just('{"event": "saved", "step": "x", "path": []}'),
    column=st.sampled_from(["losses", "coefs", "lr", "seconds", "memory_bytes", "time", "flags"]),
)
def test_journals_of_any_values(losses: Any, event: str, column: str, run: Path, home: Path) -> None:
    """Whatever stands in the journal's columns."""
    whole = home / "sessions" / "whole"
    if not whole.exists():
        shutil.copytree(run, whole)
    shutil.copy(whole / "journal.db", run / "journal.db")
    with contextlib.closing(sqlite3.connect(run / "journal.db", isolation_level=None)) as db:
        for statement, given_ in (
            (f"UPDATE step SET {column} = ? WHERE step = 3", losses),
            ("INSERT INTO event (time, step, json) VALUES (1.0, 2, ?)", event),
            ("UPDATE eval SET value = ?, split = 'dev'", losses),
        ):
            with contextlib.suppress(sqlite3.IntegrityError, OverflowError, UnicodeEncodeError):
                db.execute(statement, (given_,))
    use(home)


shapes = st.lists(st.integers(-2, 6), max_size=3)


@cases(2_000, 40)
@given(
    names=st.dictionaries(st.sampled_from(["state.rule.m", "model.x.b", "", "../x"]) | st.text(max_size=9), shapes),
    state=st.dictionaries(st.sampled_from(["method", "frozen"]), value, max_size=2),
    frozen=st.dictionaries(st.text(max_size=5), st.lists(st.integers(-(2**70), 2**70), max_size=3), max_size=2),
)
def test_checkpoints_of_any_content(
    names: dict[str, list[int]], state: dict[str, Any], frozen: dict[str, Any], run: Path, home: Path
) -> None:
    """Checkpoints whose sums are right and whose content is anything."""
    target = run / "checkpoints" / "000004"
    shutil.rmtree(target, ignore_errors=True)
    good = {
        n.encode("utf-8", "replace").decode(): torch.zeros([max(0, s) for s in shape]) for n, shape in names.items()
    }
    files = {
        checkpoint.PARAMS: to_bytes(good),
        checkpoint.STATE: json.dumps({"method": {}, "frozen": frozen} | state).encode(),
    }
    checkpoint._build(target, 4, files)
    use(home)


@cases(2_000, 100)
@given(line=value.map(json.dumps) | st.text(max_size=60))
def test_events_of_any_line(line: str) -> None:
    """What is no event is a ValueError, which every reader turns into words."""
    with contextlib.suppress(ValueError):
        from_json(line)


# Models


@cases(300, 12)
@given(hurt=damage(), file=st.sampled_from(["config.json", "model.safetensors", "tokenizer.json"]))
def test_model_folders_of_damaged_bytes(hurt: Callable[[bytes], bytes], file: str, tiny: Path, tmp_path: Path) -> None:
    """A model folder in which a file is damaged loads, or is refused in words."""
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny, folder)
    (folder / file).write_bytes(hurt((folder / file).read_bytes()))
    source = models.resolve(str(folder))
    with only_words():
        models.tokenizer(source, tmp_path / "cache")
    with only_words():
        models.load(source, "float32", torch.device("cpu"), tmp_path / "cache")


GGUF = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<I", 8)


@cases(1_000, 12)
@given(hurt=damage(), rest=st.binary(max_size=64))
def test_gguf_files_of_damaged_bytes(hurt: Callable[[bytes], bytes], rest: bytes, tmp_path: Path) -> None:
    """A file that only begins like a GGUF is refused in words."""
    path = tmp_path / "model.gguf"
    path.write_bytes(hurt(GGUF + struct.pack("<Q", 5) + b"llama" + rest))
    with only_words():
        models.load(models.resolve(str(path)), "float32", torch.device("cpu"), tmp_path / "cache")


@cases(2_000, 60)
@given(hurt=damage(), about=value)
def test_learned_optimizers_of_damaged_bytes(hurt: Callable[[bytes], bytes], about: Any, tmp_path: Path) -> None:
    """A file of networks, or what stands beside it, with any damage is refused in words."""
    path = tmp_path / "nets"
    scale_nets.write(path, {"a": torch.zeros(449)}, {"model": None})
    for file in (path, scale_nets.beside(path)):
        kept = file.read_bytes()
        file.write_bytes(hurt(kept))
        with contextlib.suppress(UsageError):
            scale_nets.open_(path)
        file.write_bytes(kept)
    scale_nets.beside(path).write_text(json.dumps(about))
    with contextlib.suppress(UsageError):
        scale_nets.open_(path)


@cases(1_000, 30)
@given(data=st.binary(max_size=200), pickled=st.booleans())
def test_published_optimizers_of_any_bytes(data: bytes, pickled: bool, tmp_path: Path) -> None:
    """A checkpoint to convert that is none is refused, and leaves nothing."""
    source, target = tmp_path / "published.pt", tmp_path / "nets"
    source.write_bytes((b"\x80\x02" if pickled else b"PK\x03\x04") + data)
    with contextlib.suppress(UsageError):
        scale_nets.convert(source, target)
    assert not target.exists()


keys = st.sampled_from(["peft_type", "r", "lora_alpha", "use_rslora", "target_modules", "use_dora", "bias"])


@cases(2_000, 100)
@given(
    config=st.dictionaries(keys, value) | value, names=st.lists(st.text(max_size=30), max_size=3), lora=st.booleans()
)
def test_adapters_of_any_content(config: Any, names: list[str], lora: bool, tmp_path: Path) -> None:
    """A folder to go on from, whatever its config and its tensors are called, is taken or refused in words."""
    good = [f"base_model.model.model.layers.0.q_proj.lora_{f}.weight" for f in "AB"] if lora else []
    tensors = {n.encode("utf-8", "replace").decode(): torch.zeros(2, 2) for n in [*names, *good]}
    (tmp_path / warm_start.WEIGHTS).write_bytes(to_bytes(tensors))
    (tmp_path / warm_start.CONFIG).write_text(json.dumps(config))
    with only_words():
        warm_start.find(tmp_path)
