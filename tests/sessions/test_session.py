"""What sessions promise: whole files, one writer, nothing lost to a kill, and errors a person can act on."""

import errno
import json
import math
import os
import shutil
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Evaluated, Event, Finished, Noted, Started, StepDone
from zolite.common.paths import paths
from zolite.config.recipe import Recipe, resolve
from zolite.sessions import checkpoint, journal, lock, session
from zolite.sessions.session import MemoryRow, StepRow

STARTED = Started("first", 1, 10, "cpu", 5, 6)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOLITE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def row(step: int) -> StepRow:
    return StepRow(step, struct.pack("<f", step / 3), struct.pack("<2f", 1.5, step), 1e-3, 1e-4 / 3, 0, 1e9, 0.1, 7)


def rows(first: int, last: int) -> list[StepRow]:
    return [row(step) for step in range(first, last + 1)]


def tensors(value: float) -> dict[str, torch.Tensor]:
    flat = torch.full((2, 500), value)
    return {"theta": flat, "view": flat[:, 3:7], "keys": torch.arange(3), "none": torch.empty(0)}


# For processes that write steps; importing this file there would import torch.
PRELUDE = """
import select, struct, sys, time
from zolite.common.paths import paths
from zolite.sessions import session as s
def row(step):
    return s.StepRow(step, struct.pack("<f", step / 3), struct.pack("<2f", 1.5, step), 1e-3, 1e-4 / 3, 0, 1e9, 0.1, 7)
"""


def python(code: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", PRELUDE + code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def kill(child: subprocess.Popen[str]) -> str:
    child.send_signal(signal.SIGKILL)
    return child.communicate()[0]


# Folder, names, recipe


text = st.text(st.characters(codec="utf-8"), max_size=40)
awkward = st.sampled_from(['"', "'''", '"""\n', "\r\n", "\\", "\x00\x7f", "🦙 {x}", "#=[a]"])
leaf = text | awkward | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
facts = st.dictionaries(
    text | awkward,
    st.recursive(leaf, lambda s: st.lists(s, max_size=3) | st.dictionaries(text, s, max_size=3), max_leaves=8),
)


@given(facts=facts, template=text | awkward, target=text)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recipe_and_facts_come_back_as_given(facts: dict[str, Any], template: str, target: str) -> None:
    """Whatever text, number or nesting is in the recipe and the facts, opening gives back the same."""
    given_recipe = resolve(Recipe())
    targets = (target.strip(),) if target.strip() else ()
    given_recipe = replace(
        given_recipe,
        data=replace(given_recipe.data, template=template + "{label}", path=template),
        adapter=replace(given_recipe.adapter, targets=targets),
        train=replace(given_recipe.train, lr=1 / 3, seed=2**63 - 1),
    )
    with session.create(None, given_recipe, facts) as made:
        name = made.name
    with session.open_(name) as opened:
        assert opened.recipe == given_recipe
        assert opened.facts == facts
        assert opened.created == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        ".hidden",
        "A",
        "ä",
        "a b",
        "a\n",
        "a\0",
        "a" * 65,
        "-a",
        "con",
        "nul.txt",
        "com1",
        "a.",
        "c:x",
    ],
)
def test_names_that_are_not_a_plain_folder_are_refused(name: str, home: Path) -> None:
    """A name can neither leave the sessions folder nor be one that some system cannot store."""
    with pytest.raises(UsageError, match="cannot be a session's name"):
        session.create(name, Recipe(), {})
    with pytest.raises(UsageError, match="cannot be a session's name"):
        session.open_(name)
    assert not home.exists()


def test_a_name_is_given_once() -> None:
    """Creating over an existing session is refused with the command that goes on with it."""
    session.create("first", Recipe(), {"a": 1}).close()
    with pytest.raises(UsageError, match="first is there already") as refused:
        session.create("first", Recipe(), {})
    assert "zolite resume first" in refused.value.hint
    assert session.open_("first").facts == {"a": 1}


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    """A mistyped name is refused and the hint names the session that was meant."""
    session.create("first-try", Recipe(), {}).close()
    with pytest.raises(UsageError, match="no session first-tyr") as refused:
        session.open_("first-tyr")
    assert "first-try" in refused.value.hint


def test_generated_names_do_not_collide() -> None:
    """Several creators without a name at the same moment each get their own session."""
    names: list[str] = []

    def make() -> None:
        with session.create(None, Recipe(), {}) as made:
            names.append(made.name)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8
    assert len(session.list_()) == 8


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_only_the_owner_can_read(home: Path) -> None:
    """Every folder of a session has mode 0700 and every file 0600, while it is open and afterwards."""

    def modes() -> set[tuple[bool, int]]:
        paths = [home / "sessions", *(home / "sessions").rglob("*")]
        return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}

    with session.create("first", Recipe(), {}) as made:
        made.journal.append([row(1)])
        made.save(1, tensors(1.0), {})
        assert modes() == {(True, 0o700), (False, 0o600)}
    assert modes() == {(True, 0o700), (False, 0o600)}


def test_reading_sessions_does_not_import_torch() -> None:
    """Importing zolite.session, listing and opening leave torch unloaded."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append([row(1)])
        made.save(1, tensors(1.0), {})
    code = (
        "s.list_(); o = s.open_('first'); assert o.newest()[0].step == 1;"
        "list(o.journal.steps()); sys.exit('torch' in sys.modules)"
    )
    child = python(code)
    assert child.communicate()[1] == ""
    assert child.returncode == 0


# The lock


def test_a_second_owner_is_told_who_the_first_is() -> None:
    """While one process writes, another cannot; it may once the first was killed, with no lock left behind."""
    session.create("first", Recipe(), {}).close()
    code = "o = s.open_('first', write=True); print('up', flush=True); time.sleep(60)"
    child = python(code)
    assert line(child) == "up\n"
    with pytest.raises(ZoliteError, match=f"first is being written by process {child.pid} on ") as refused:
        session.open_("first", write=True)
    assert refused.value.hint
    assert session.list_()[0].status == "running"
    session.open_("first").close()
    kill(child)
    assert session.list_()[0].status == "stopped"
    session.open_("first", write=True).close()


@pytest.mark.skipif(sys.platform == "win32", reason="locks cannot be shared there")
def test_readers_are_no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that two readers look at in the same instant is not running: each asks while the other does."""
    import fcntl

    session.create("first", Recipe(), {}).close()
    flock, asked = fcntl.flock, []

    def meanwhile(file: Any, operation: int) -> None:
        flock(file, operation)
        if not asked:
            asked.append(operation)
            asked.append(lock.is_held(paths()["sessions"] / "first"))

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    assert [each.status for each in session.list_()] == ["stopped"]
    assert asked[1:] == [False]


# The journal


def test_steps_come_back_bit_for_bit() -> None:
    """Rows read by the writer and by a reader equal those appended, from any step on and over several pages."""
    many = rows(1, 2 * journal.PAGE_ROWS + 3)
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(many)
        assert list(made.journal.steps()) == many
    with session.open_("first") as opened:
        assert list(opened.journal.steps(after=5000)) == many[5000:]
        assert opened.journal.last_step() == len(many)


@pytest.mark.parametrize("step", [0, 1, 2, 4, 9])
def test_a_gap_or_a_repeat_is_refused(step: int) -> None:
    """Only the step after the last can be appended, since a replay needs each exactly once."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(rows(1, 2))
        with pytest.raises(ZoliteError, match=f"step {step} cannot follow step 2"):
            made.journal.append([row(step)])
        made.journal.append([row(3)])
        assert list(made.journal.steps()) == rows(1, 3)


def test_events_evaluations_and_memory_come_back() -> None:
    """Every event but a step's is kept in order, evaluations also by themselves, not-a-number values included."""
    found = Evaluated(1, "dev", "loss", math.nan, 200, 1.5)
    events: list[Event] = [STARTED, Noted("info", "path \udc80 🦙"), Evaluated(0, "dev", "accuracy", 0.25, 9, 1.0)]
    with session.create("first", Recipe(), {}) as made:
        for event in (*events, StepDone(1, 0.5, 1e-3, 0.1, 1, 2), found):
            made.journal.event(event)
        made.journal.memory(MemoryRow(1.0, 1, 10, 20))
    with session.open_("first") as opened:
        assert opened.journal.events()[:3] == events
        assert len(opened.journal.events()) == 4
        kept = opened.journal.evaluations()
        assert kept[0] == events[2]
        assert math.isnan(kept[1].value)
        assert replace(kept[1], value=0.0) == replace(found, value=0.0)
        assert opened.journal.memories() == [MemoryRow(1.0, 1, 10, 20)]


def test_quick_steps_share_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps within half a second of a commit wait for the next, and the first after a pause is committed at once."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with session.create("first", Recipe(), {}) as made, session.open_("first") as reader:
        seen = []
        for step, at in ((1, 100.0), (2, 100.1), (3, 100.4), (4, 100.6), (5, 100.7), (6, 105.0)):
            now = at
            made.journal.append([row(step)])
            seen.append(reader.journal.last_step())
    assert seen == [1, 1, 1, 4, 4, 6]


def test_a_reader_reads_and_commands_while_the_writer_writes() -> None:
    """A reader sees steps arrive, each page whole and in order, and its commands reach the writer once."""
    with session.create("first", Recipe(), {}):
        pass
    code = """
with s.open_('first', write=True) as o:
    step, got = 0, []
    while 'stop' not in got and not select.select([sys.stdin], [], [], 0)[0]:  # its end: who reads here is gone
        step += 1
        o.journal.append([row(step)])
        o.journal.commit()
        got += o.journal.take()
    print(step, got)
"""
    child = python(code)
    with session.open_("first") as reader:
        deadline = time.monotonic() + 240
        while reader.journal.last_step() < 20 and time.monotonic() < deadline:
            found = [r.step for r in reader.journal.steps()]
            assert found == list(range(1, len(found) + 1))
        reader.journal.post("pause")
        reader.journal.post("stop")
        assert child.stdout is not None
        out = child.stdout.read()
        _, err = child.communicate(timeout=240)
        assert err == ""
        assert out.endswith("['pause', 'stop']\n")
        assert reader.journal.last_step() == int(out.split()[0])


def test_a_command_for_a_dead_writer_does_not_reach_the_next() -> None:
    """What was posted while nobody wrote is dropped when a writer opens."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.post("stop")
    with session.open_("first", write=True) as opened:
        assert opened.journal.take() == []
        opened.journal.post("pause")
        assert opened.journal.take() == ["pause"]
        assert opened.journal.take() == []


def test_a_reader_cannot_write() -> None:
    """A session opened to read refuses steps when they would reach the file."""
    session.create("first", Recipe(), {}).close()
    opened = session.open_("first")
    with pytest.raises(ZoliteError, match="may not be written"):
        opened.journal.append([row(1)])


def test_a_newer_journal_is_refused() -> None:
    """A journal of a version this zolite does not know is left alone, and the list says so."""
    with session.create("first", Recipe(), {}) as made:
        path = made.path / "journal.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    for write in (False, True):
        with pytest.raises(ZoliteError, match="version 7, newer than 3") as refused:
            session.open_("first", write=write)
        assert "upgrade" in refused.value.hint
    assert session.list_()[0].status == "damaged"


def test_an_older_journal_is_brought_up_to_date_by_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations run once, in order, in one transaction; a reader asks for a writer instead of changing the file."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append([row(1)])
    added = (lambda db: db.execute("CREATE TABLE more (x)"), lambda db: db.execute("INSERT INTO more VALUES (1)"))
    monkeypatch.setattr(journal, "MIGRATIONS", (*journal.MIGRATIONS, *added))
    newest = len(journal.MIGRATIONS)
    monkeypatch.setattr(journal, "READABLE", newest)
    with pytest.raises(ZoliteError, match=f"version {newest - 2}, older than {newest}"):
        session.open_("first")
    for _ in range(2):
        with session.open_("first", write=True) as opened:
            assert list(opened.journal.steps()) == [row(1)]
    with sqlite3.connect(opened.path / "journal.db") as db:
        assert db.execute("SELECT count(*) FROM more").fetchone() == (1,)


def test_journals_of_version_1_are_read_as_they_are(tmp_path: Path) -> None:
    """Their evaluations lack what was not measured then; a writer adds the columns, and both kinds come back."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.event(old := Evaluated(1, "dev", "accuracy", 0.5, 9, 1.0))
    path = made.path / "journal.db"
    with sqlite3.connect(path) as db:
        for name in ("says", "said_right", "majority"):
            db.execute(f"ALTER TABLE eval DROP COLUMN {name}")
        db.execute("PRAGMA user_version = 1")
    with session.open_("first") as opened:
        assert opened.journal.evaluations() == [old]
    new = Evaluated(2, "dev", "accuracy", 0.5, 9, 1.0, 0.9, 0.4, 0.75)
    with session.open_("first", write=True) as opened:
        opened.journal.event(new)
        assert opened.journal.evaluations() == [old, new] == opened.journal.events()


def test_a_full_disk_under_the_journal_loses_nothing_that_was_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    """When SQLite is out of room the commit fails with the numbers, and succeeds once there is room again."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)  # so that nothing but `commit` commits
    with session.create("first", Recipe(), {}) as made:
        made.journal.append([row(1)])
        made.journal.commit()
        db = made.journal._db
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        made.journal.append(rows(2, 3000))
        with pytest.raises(
            ZoliteError, match=r"disk full while saving the journal: 0\.2 MB needed, [\d.]+ MB free at "
        ):
            made.journal.commit()
        with session.open_("first") as reader:
            assert list(reader.journal.steps()) == [row(1)]
        db.execute("PRAGMA max_page_count = 1000000")
        made.journal.commit()
        assert list(made.journal.steps()) == rows(1, 3000)


def test_what_a_commit_refused_is_committed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each row was taken and only the commit itself failed, nothing of it is dropped."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    with session.create("first", Recipe(), {}) as made:
        made.journal.commit()
        made.journal.append(rows(1, 3))
        refused = (sqlite3.SQLITE_TRANSACTION, "COMMIT")
        made.journal._db.set_authorizer(
            lambda action, what, *_: sqlite3.SQLITE_DENY if (action, what) == refused else sqlite3.SQLITE_OK
        )
        with pytest.raises(ZoliteError, match=r"cannot save the journal|disk full"):
            made.journal.commit()
        made.journal._db.set_authorizer(None)
        made.journal.commit()
        with session.open_("first") as reader:
            assert list(reader.journal.steps()) == rows(1, 3)


def test_every_commit_is_synced() -> None:
    """A power cut must not leave a checkpoint without its rows: SQLite syncs its log at each commit."""
    with session.create("first", Recipe(), {}) as made:
        pragmas = [made.journal._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]


@pytest.mark.parametrize("killed", ["checkpoints", "rows"])
def test_a_rewind_that_is_killed_leaves_no_checkpoint_ahead(monkeypatch: pytest.MonkeyPatch, killed: str) -> None:
    """Before its checkpoints go nothing is gone; before its rows go there are steps to replay, and nothing else."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(rows(1, 6))
        for step in (0, 3, 6):
            made.save(step, tensors(1.0), {})

    def kill_here(*given: Any) -> None:
        raise KeyboardInterrupt

    place = {"checkpoints": (checkpoint, "remove"), "rows": (journal.Journal, "truncate")}[killed]
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch, session.open_("first", write=True) as opened:
        patch.setattr(*place, kill_here)
        opened.rewind(2)
    with session.open_("first") as opened:
        assert opened.journal.last_step() == 6
        assert opened.steps() == {"checkpoints": [6, 3, 0], "rows": [0]}[killed]


def test_another_recipe_stays_where_a_run_is_killed_before_its_first_step() -> None:
    """What a run was resumed with is what the next resume finds, also where not one step was taken meanwhile."""
    recipe = resolve(Recipe())
    other = replace(recipe, train=replace(recipe.train, lr=0.5))
    with session.create("first", recipe, {}) as made:
        made.journal.append(rows(1, 3))
        made.amend(other, {"device": "another"})
    with session.open_("first", write=True) as opened:
        assert (opened.recipe.train.lr, opened.facts) == (0.5, {"device": "another"})
        opened.rewind(2)
        assert opened.recipe.train.lr == recipe.train.lr


def test_sigkill_loses_no_committed_step() -> None:
    """After SIGKILL at any moment the journal opens and holds every step that was reported as committed."""
    code = """
with s.create('first', s.recipes.resolve(s.recipes.Recipe()), {}) as o:
    for step in range(1, 10**6):
        o.journal.append([row(step)])
        if step % 3 == 0:
            o.journal.commit()
            print(step, flush=True)
"""
    for wait in (0.05, 0.3):
        shutil.rmtree(paths()["data"], ignore_errors=True)
        child = python(code)
        assert line(child) == "3\n"
        time.sleep(wait)
        told = [3, *(int(word) for word in kill(child).split("\n")[:-1])][-1]
        with session.open_("first", write=True) as opened:
            found = list(opened.journal.steps())
            assert len(found) >= told
            assert found == rows(1, len(found))
            opened.journal.append([row(len(found) + 1)])


# Checkpoints


def test_a_checkpoint_comes_back_bit_for_bit() -> None:
    """Tensors, views of one buffer and empty ones included, and the state equal what was saved."""
    state = {"position": 3, "best": 0.1 + 0.2, "names": ["a", "🦙"]}
    with session.create("first", Recipe(), {}) as made:
        made.journal.append([row(1)])
        saved = made.save(1, tensors(1 / 3), state)
    with session.open_("first") as opened:
        found = opened.at(1)
        assert found == saved == opened.newest()[0]
        loaded = found.tensors()
        assert loaded.keys() == tensors(0).keys()
        assert all(torch.equal(loaded[k], t) and loaded[k].dtype == t.dtype for k, t in tensors(1 / 3).items())
        assert found.state() == state
        assert opened.at(2) is None


def test_a_step_is_saved_once() -> None:
    """Saving a step again gives back the checkpoint that is there, unchanged."""
    with session.create("first", Recipe(), {}) as made:
        first = made.save(0, tensors(1.0), {})
        assert made.save(0, tensors(2.0), {}) == first
        assert first.tensors()["theta"][0, 0] == 1.0


def test_a_checkpoint_is_never_ahead_of_the_journal() -> None:
    """Saving a step that has no row is refused, and rows before a checkpoint are committed with it."""
    with session.create("first", Recipe(), {}) as made, session.open_("first") as reader:
        made.journal.append([row(1)])
        made.journal.append([row(2)])
        with pytest.raises(ZoliteError, match="would be ahead of its journal, which ends at step 2"):
            made.save(3, tensors(1.0), {})
        made.save(2, tensors(1.0), {})
        assert reader.journal.last_step() == 2


def test_the_newest_three_stay_and_those_asked_for() -> None:
    """Older checkpoints go when a new one is saved, except the steps in `keep`."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(rows(1, 6))
        for step in range(7):
            made.save(step, tensors(step), {}, keep={1})
        assert checkpoint.steps(made.path / "checkpoints") == [6, 5, 4, 1]
        assert made.newest(upto=3)[0] == made.at(1)


@pytest.mark.parametrize("damage", ["flip", "cut", "no params", "no manifest", "manifest", "empty", "other"])
def test_a_broken_checkpoint_is_passed_over_and_reported(damage: str) -> None:
    """The newest whole checkpoint wins over a newer broken one, which is named and can be saved again."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(rows(1, 2))
        made.save(1, tensors(1.0), {})
        path = made.save(2, tensors(2.0), {}).path
        params, manifest = path / "params.safetensors", path / "manifest.json"
        data = params.read_bytes()
        if damage == "flip":
            params.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        elif damage == "cut":
            params.write_bytes(data[:-1])
        elif damage == "manifest":
            manifest.write_text("[]")
        elif damage == "other":  # whole, but of another step
            _empty(path)
            shutil.copytree(path.with_name("000001"), path, dirs_exist_ok=True)
        else:
            {"no params": params.unlink, "no manifest": manifest.unlink, "empty": lambda: _empty(path)}[damage]()
        found, problems = made.newest()
        assert found is not None
        assert found.step == 1
        assert len(problems) == 1
        assert "checkpoint 000002 is broken" in problems[0]
        assert path.exists()
        assert made.save(2, tensors(2.0), {}) == made.newest()[0]
        assert len(list(path.parent.glob("000002.broken-*"))) == 1


def _empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def test_sigkill_while_saving_leaves_the_newest_whole() -> None:
    """After SIGKILL at any moment of a save the newest checkpoint is whole and no older than the last reported."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(rows(1, 2000))
    # Importing torch takes seconds, so one process does and forks another for each kill.
    code = """
import os, torch
def save(first):
    with s.open_("first", write=True) as o:
        for step in range(first, 2000):
            o.save(step, {"theta": torch.full((200_000,), float(step))}, {"step": step})
            print(step, flush=True)
for first in sys.stdin:
    pid = os.fork()
    if not pid:
        print(os.getpid(), flush=True)
        save(int(first))
    os.waitpid(pid, 0)
    print("dead", flush=True)
"""
    server, step = python(code), 0
    assert server.stdin is not None
    for wait in (0.0, 0.003, 0.008, 0.017, 0.03, 0.07):
        print(step + 1, file=server.stdin, flush=True)
        pid = int(line(server))
        told = int(line(server))
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        while (said := line(server)) != "dead\n":
            told = int(said)
        step = _newest_is_whole(told)
    server.communicate()


def _newest_is_whole(told: int) -> int:
    with session.open_("first", write=True) as opened:
        found, problems = opened.newest()
        assert problems == []
        assert found is not None
        assert told <= found.step <= told + 1
        assert found.state() == {"step": found.step}
        assert torch.equal(found.tensors()["theta"], torch.full((200_000,), float(found.step)))
        assert list((opened.path / "checkpoints").glob(".*")) == []
        return found.step


def _failing_fsync(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Makes the call number `at` of os.fsync fail as on a full disk."""
    calls, real = [0], os.fsync

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


def test_a_disk_that_fills_while_saving_leaves_the_session_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write of a checkpoint fails, the error has numbers, nothing half-written stays, and it works later."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(rows(1, 2))
        before = made.save(1, tensors(1.0), {})
        failed = 0
        for at in range(1, 5):  # params, state, manifest, their folder
            with monkeypatch.context() as patch:
                calls = _failing_fsync(patch, at)
                with pytest.raises(
                    ZoliteError, match=r"disk full while saving step 2: [\d.]+ MB needed, [\d.]+ MB free at"
                ):
                    made.save(2, tensors(2.0), {})
            failed += calls[0] == at
            assert os.listdir(made.path / "checkpoints") == ["000001"]
            assert made.newest() == (before, [])
        assert failed == 4
        assert made.save(2, tensors(2.0), {}) == made.newest()[0]


def test_a_disk_that_fills_while_creating_leaves_no_session(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Whichever write that a session needs fails, there is no trace of it and the name stays free."""
    for at in range(1, 4):  # session.toml, its folder, the folder of all; owner.json is for people and may be missing
        with monkeypatch.context() as patch:
            calls = _failing_fsync(patch, at)
            with pytest.raises(ZoliteError, match="disk full while saving"):
                session.create("first", Recipe(), {})
        assert calls[0] >= at
        assert os.listdir(home / "sessions") == []
    session.create("first", Recipe(), {}).close()


def test_a_rewind_takes_back_everything_after_the_step() -> None:
    """Rows, events and checkpoints after the step are gone, those before it stay, and the run goes on from there."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append(rows(1, 2))
        made.journal.event(Evaluated(2, "dev", "loss", 1.0, 9, 1.0))
        made.save(2, tensors(2.0), {})
        made.journal.append(rows(3, 4))
        made.journal.event(Evaluated(4, "dev", "loss", 0.5, 9, 1.0))
        made.save(4, tensors(4.0), {})
        made.rewind(3)
        assert [e.step for e in made.journal.evaluations()] == [2]
        assert [e.step for e in made.journal.events() if isinstance(e, Evaluated)] == [2]
        assert made.newest()[0] == made.at(2)
        assert made.at(4) is None
        made.journal.append([row(4)])
        assert list(made.journal.steps()) == rows(1, 4)


# The list


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "stopped"),
        ([STARTED], "stopped"),
        ([STARTED, Finished(5, "done", 1.0, 0, 1)], "done"),
        ([STARTED, Finished(5, "diverged", 1.0, 0, 1)], "diverged"),
        ([STARTED, Finished(5, "interrupted", 1.0, 0, 1), Noted("info", "x")], "interrupted"),
        ([STARTED, Finished(5, "interrupted", 1.0, 0, 1), STARTED], "stopped"),
    ],
)
def test_the_list_says_how_a_run_ended(events: list[Any], status: str) -> None:
    """The status is the reason of the last end, unless the run was started again after it."""
    with session.create("first", Recipe(), {}) as made:
        for event in events:
            made.journal.event(event)
        assert session.list_()[0].status == "running"
    assert session.list_()[0].status == status


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 0.75), ("loss", 0.25)])
def test_the_list_shows_the_best_evaluation(metric: str, best: float) -> None:
    """The best is the highest accuracy or the lowest loss of the kind evaluated last, never a not-a-number."""
    with session.create("first", Recipe(), {}) as made:
        made.journal.append([row(1)])
        made.journal.event(Evaluated(0, "test", metric, 0.0 if metric == "loss" else 1.0, 9, 1.0))
        for value in (math.nan, 0.5, math.nan, 0.25, 0.75, 0.6):
            made.journal.event(Evaluated(1, "dev", metric, value, 9, 1.0))
    (found,) = session.list_()
    assert found.best is not None
    assert found.last is not None
    assert (found.best.value, found.last.value) == (best, 0.6)
    assert (found.name, found.step, found.steps, found.method) == ("first", 1, 2000, "mezo-rms")
    assert found.bytes > 1000


def test_damaged_sessions_are_listed_with_the_reason(home: Path) -> None:
    """A session that cannot be read does not hide the others."""
    for name in ("whole", "no-toml", "bad-toml", "no-facts", "no-journal", "bad-journal", "empty-journal"):
        session.create(name, Recipe(), {}).close()
    root = home / "sessions"
    (root / "no-toml" / "session.toml").unlink()
    (root / "bad-toml" / "session.toml").write_text("= = \udcff", errors="surrogateescape")
    (root / "no-facts" / "session.toml").write_text("created = 1\nrecipe = 2\n")
    (root / "no-journal" / "journal.db").unlink()
    (root / "bad-journal" / "journal.db").write_bytes(b"x" * 9000)
    (root / "empty-journal" / "journal.db").write_bytes(b"")
    (root / "nothing").mkdir()
    (root / "Not A Name").mkdir()
    (root / "a-file").write_text("")
    found = {s.name: s for s in session.list_()}
    assert found.pop("whole").status == "stopped"
    assert len(found) == 8
    assert all(s.status == "damaged" and s.problem for s in found.values())


def test_leftovers_of_killed_creators_go_in_time(home: Path) -> None:
    """A hidden folder is removed when it is old, and left to its process when it is not."""
    old, new = home / "sessions" / ".new-old", home / "sessions" / ".new-new"
    for path in (old, new):
        path.mkdir(parents=True)
    os.utime(old, (1e9, 1e9))
    session.create("first", Recipe(), {}).close()
    assert not old.exists()
    assert new.exists()
    assert [s.name for s in session.list_()] == ["first"]


def test_the_manifest_can_be_checked_by_hand() -> None:
    """The manifest names each file with the sha256 and size that other tools compute."""
    import hashlib

    with session.create("first", Recipe(), {}) as made:
        path = made.save(0, tensors(1.0), {}).path
    manifest = json.loads((path / "manifest.json").read_text())
    for name, noted in manifest["files"].items():
        data = (path / name).read_bytes()
        assert noted == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
