"""What is done to whole sessions, and to runs by those who look on."""

import contextlib
import itertools
import os
import re
import shutil
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.events import Continued, Evaluated, Event, Finished, Paused, Saved, Started, StepDone
from zolite.config.methods import METHODS
from zolite.config.recipe import Recipe
from zolite.sessions import control, journal, manage
from zolite.sessions import session as sessions
from zolite.sessions.follow import follow
from zolite.sessions.session import StepRow
from zolite.sessions.steps import chosen, end
from zolite.training import journal_writer
from zolite.training.loop import train
from zolite.training.prepare import prepare
from zolite.training.replay import CPU, factors_at
from zolite.training.resume import begin, resume
from zolite.training.verify import verify

Make = Callable[..., Recipe]


def never() -> bool:
    return False


def after(steps: int) -> Callable[[], bool]:
    counter = itertools.count()
    return lambda: next(counter) >= steps


def factors(name: str, step: int | None = None) -> dict[str, Tensor]:
    with sessions.open_(name) as session:
        return factors_at(session, step)[1]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows_of(name: str) -> list[tuple[int, bytes, bytes, float]]:
    with sessions.open_(name) as session:
        return [(r.step, r.coefs, r.losses, r.lr) for r in session.journal.steps()]


def only(events: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# Going back


REPLAYED = sorted(set(METHODS) - {"agzo", "zo-finetuner"})  # one looks at activations, one needs a file


@pytest.mark.parametrize("method", REPLAYED)
def test_a_run_rewound_and_resumed_is_the_straight_one(recipe: Make, method: str) -> None:
    """Taken back to a step without a checkpoint and resumed: the rows and the bits of a run straight through."""
    settings = recipe(method__name=method, method__every=3, train__steps=8, train__save_every=4)
    list(begin(settings, "straight", never))
    wanted, half = factors("straight"), factors("straight", 5)
    rows = rows_of("straight")
    manage.rewind("straight", 5)
    assert rows_of("straight") == rows[:5]
    assert same(factors("straight"), half) and not same(half, wanted)
    with sessions.open_("straight") as session:
        assert max(session.steps()) == 4 and session.ending() == "ready"
    events = list(resume("straight", {}, False, never))
    assert events[-1].reason == "done"
    assert rows_of("straight") == rows
    assert same(factors("straight"), wanted)


def test_what_was_taken_back_or_forked_is_ready_and_nothing_broke(recipe: Make) -> None:
    """At a step before the last; a fork at the last step of a run that is done is done, and a killed run is neither."""
    list(begin(recipe(train__steps=4, train__save_every=1), "run", never))
    manage.fork("run", "whole", 4)
    manage.fork("run", "half", 2)
    manage.rewind("run", 3)
    found = {each.name: (each.status, each.step) for each in sessions.list_()}
    assert found == {"run": ("ready", 3), "half": ("ready", 2), "whole": ("done", 4)}
    with sessions.open_("run", write=True) as session:
        session.journal.event(Started("run", 4, 4, "cpu", 1, 1))
    assert {each.name: each.status for each in sessions.list_()}["run"] == "stopped"


def test_sessions_that_cannot_be_read_are_no_empty_list(home: Path) -> None:
    """Where the folder of all of them is none that lists its names, that is said, with the folder."""
    assert sessions.list_() == []
    home.mkdir(parents=True)
    (home / "sessions").write_text("no folder")
    with pytest.raises(ZoliteError, match=r"the sessions in .*/sessions cannot be read: Not a directory"):
        sessions.list_()


def test_what_cannot_be_replayed_goes_back_to_checkpoints_alone(recipe: Make) -> None:
    """A method that looks at activations is taken back where a checkpoint is; elsewhere the error names those."""
    list(begin(recipe(method__name="agzo", train__steps=6, train__save_every=3), "run", never))
    wanted = factors("run")
    with pytest.raises(UsageError, match="step 4 of session run cannot be rebuilt: agzo") as refused:
        manage.rewind("run", 4)
    assert "0, 3, 6" in refused.value.hint
    manage.rewind("run", 3)
    list(resume("run", {}, False, never))
    assert same(factors("run"), wanted)


@pytest.mark.parametrize(("what", "step"), [("0", 0), ("4", 4), ("last", 6), ("best", 2)])
def test_a_step_has_names(recipe: Make, what: str, step: int) -> None:
    """A number, the last, and the best on dev."""
    with sessions.create("run", recipe(), {}) as session:
        session.journal.append([StepRow(i, b"", b"", 1e-3, 1e-4, 0, 1e9, 0.1, 7) for i in range(1, 7)])
        for at, split, value in ((1, "dev", 0.5), (2, "dev", 0.7), (3, "test", 0.9), (4, "dev", 0.6)):
            session.journal.event(Evaluated(at, split, "accuracy", value, 9, 0.1))
        assert chosen(session, what) == step


@pytest.mark.parametrize("what", ["2", "7", "-1", "worst", "", "1e9", "9" * 40, "٣"])
def test_what_is_no_step_is_refused(recipe: Make, what: str) -> None:
    """A step that was not taken, and what is none, is refused with what there is."""
    with sessions.create("run", recipe(), {}) as session:
        session.journal.append([StepRow(1, b"", b"", 1e-3, 1e-4, 0, 1e9, 0.1, 7)])
        with pytest.raises(UsageError) as refused:
            chosen(session, what)
        assert refused.value.hint


def test_a_rewind_goes_back_to_an_earlier_recipe(recipe: Make) -> None:
    """Behind a forced change the recipe is the one of then; a rewind killed before it said so is mended."""
    list(begin(recipe(train__steps=9, train__save_every=100), "run", after(3)))
    list(resume("run", {"train.lr": "1e-3"}, True, after(2)))
    middle = factors("run", 2)
    with sessions.open_("run", write=True) as session:
        assert [c.since for c in session.chapters] == [0, 3]
        session.journal.truncate(2)  # as far as a killed rewind came
    with sessions.open_("run", write=True) as session:
        assert [c.since for c in session.chapters] == [0] and session.recipe.train.lr == 3e-3
    assert same(factors("run"), middle)


# Forks, names, room


def test_a_fork_has_the_first_steps_and_goes_its_own_way(recipe: Make) -> None:
    """Forked at a step, it has the numbers of that step; both go on, the first as if it had never been copied."""
    settings = recipe(train__steps=8, train__save_every=3)
    list(begin(settings, "straight", never))
    list(begin(settings, "first", after(6)))
    assert manage.fork("first", "second", 4) == "second"
    assert same(factors("second"), factors("straight", 4))
    with sessions.open_("second") as session:
        assert session.facts["forked_from"] == {"session": "first", "step": 4}
        assert session.journal.last_step() == 4 and session.ending() == "ready"
    list(resume("second", {"train.lr": "1e-3"}, True, never))
    list(resume("first", {}, False, never))
    assert same(factors("first"), factors("straight"))
    assert not same(factors("second"), factors("straight"))
    assert same(factors("second", 4), factors("straight", 4))


def test_a_run_is_forked_while_it_is_written(recipe: Make) -> None:
    """The copy is of one moment, whole, and what the writer does after it is not in it."""
    run = prepare(recipe(train__steps=6, train__save_every=2))
    with sessions.create("first", run.recipe, run.facts) as session:
        for event in train(run, session):
            if isinstance(event, Saved) and event.step == 4:
                assert manage.fork("first", "second", 3) == "second"
    assert rows_of("second") == rows_of("first")[:3]
    assert same(factors("second"), factors("first", 3))


def test_a_session_is_renamed_with_everything(recipe: Make) -> None:
    """Under its new name it is what it was; the old name is free; a taken one is refused."""
    list(begin(recipe(train__steps=4), "old", after(2)))
    before = factors("old")
    manage.rename("old", "new")
    assert not sessions.exists("old") and same(factors("new"), before)
    list(resume("new", {}, False, never))
    list(begin(recipe(train__steps=2), "old", never))
    with pytest.raises(UsageError, match="new is there already"):
        manage.rename("old", "new")


@pytest.mark.parametrize("change", ["rename", "remove", "rewind", "prune"])
def test_a_running_session_is_left_alone(recipe: Make, change: str) -> None:
    """What changes a session is refused while a process writes it."""
    run = prepare(recipe(train__steps=2))
    given = {"rename": ("other",), "rewind": (0,)}
    with sessions.create("run", run.recipe, run.facts):
        with pytest.raises(ZoliteError, match="is being written by process"):
            getattr(manage, change)("run", *given.get(change, ()))
        assert sessions.exists("run")


def test_a_removed_session_is_gone(recipe: Make, home: Path) -> None:
    """Nothing of it is left on the disk."""
    list(begin(recipe(train__steps=2), "run", never))
    manage.remove("run")
    assert os.listdir(home / "sessions") == []


def test_pruned_sessions_still_have_every_step(recipe: Make) -> None:
    """The first, the best and the newest checkpoint stay, and any step is rebuilt from them."""
    list(begin(recipe(train__steps=9, train__save_every=2, train__eval_every=9), "run", never))
    before = {step: factors("run", step) for step in range(10)}
    with sessions.open_("run") as session:
        best = chosen(session, "best")
    assert manage.prune("run") > 0
    with sessions.open_("run") as session:
        assert set(session.steps()) == {0, best, 9}
    assert all(same(factors("run", step), found) for step, found in before.items())


@pytest.mark.parametrize("best", [2, 4, 6])
@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_the_best_checkpoint_stays_wherever_it_is(recipe: Make, best: int, metric: str) -> None:
    """In the middle of the run too, whatever was said of other splits."""
    sign = 1 if metric == "accuracy" else -1
    with sessions.create("run", recipe(), {}) as session:
        session.journal.append([StepRow(i, b"", b"", 1e-3, 1e-4, 0, 1e9, 0.1, 7) for i in range(1, 9)])
        for step in range(0, 9, 2):
            session.save(step, {"theta": torch.zeros(9)}, {}, keep=range(9))
            session.journal.event(Evaluated(step, "dev", metric, 0.5 + sign * 0.1 * (step == best), 9, 0.1))
            session.journal.event(Evaluated(step, "test", metric, 0.5 + sign * 0.1 * (step == 8 - best), 9, 0.1))
    manage.prune("run")
    with sessions.open_("run") as session:
        assert session.steps() == [8, best, 0]


def test_checkpoints_stay_within_their_disk(recipe: Make) -> None:
    """Over the budget the older of the newest three go; the first, the best and the newest never do."""
    with sessions.create("run", recipe(train__disk_gib=3e4 / 2**30), {}) as session:
        session.journal.append([StepRow(i, b"", b"", 1e-3, 1e-4, 0, 1e9, 0.1, 7) for i in range(1, 7)])
        for step in range(7):
            session.save(step, {"theta": torch.zeros(2500)}, {}, keep={0, 2})  # 10,000 bytes each, and a little
        assert session.steps() == [6, 2, 0]


# Looking on, and asking


@pytest.mark.parametrize("verb", control.COMMANDS)
@pytest.mark.parametrize("place", range(3))
def test_a_command_is_for_the_session_of_its_name(recipe: Make, verb: str, place: int) -> None:
    """Of several that run, whichever is named; the others hear nothing."""
    names = ("first", "second", "third")
    for name in names:
        sessions.create(name, recipe(), {}).close()
    with contextlib.ExitStack() as held:
        running = {name: held.enter_context(sessions.open_(name, write=True)) for name in names}
        manage.send(names[place], verb)
        heard = {name: session.journal.take() for name, session in running.items()}
    assert heard == {name: [verb] * (name == names[place]) for name in names}


def test_who_looks_on_sees_what_was_said(recipe: Make) -> None:
    """Every event of a finished run, in its order; steps without the padding, which no row holds."""
    said = list(begin(recipe(train__steps=7, train__save_every=3, train__eval_every=2), "run", never))
    with sessions.open_("run") as session:
        seen = list(follow(session, never))
    assert [type(e).__name__ for e in seen] == [type(e).__name__ for e in said]
    for a, b in zip(seen, said, strict=True):
        if isinstance(b, StepDone):
            assert (a.step, a.lr, a.seconds, a.skipped) == (b.step, b.lr, b.seconds, b.skipped)
            assert a.loss == pytest.approx(b.loss, rel=1e-6) and a.peak_bytes >= a.memory_bytes > 0
        else:
            assert a == b


def test_pages_of_news_have_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read page by page, whatever the size of a page, steps and events come once each and in order."""
    with sessions.create("run", Recipe(), {}) as session:
        for step in range(1, 30):
            session.journal.append([StepRow(step, b"", struct.pack("<f", 1), 1e-3, 1e-4, 0, 1e9 - step, 0.1, 7)])
            if step % 3 == 0:
                session.journal.event(Evaluated(step, "dev", "loss", 1.0, 9, 0.1))
    wanted = [k for s in range(1, 30) for k in ([("s", s), ("e", s)] if s % 3 == 0 else [("s", s)])]
    for page in (1, 2, 5, 29, 30):
        monkeypatch.setattr(journal, "PAGE_ROWS", page)
        with sessions.open_("run") as session:
            found = [("s" if isinstance(e, StepDone) else "e", e.step) for e in follow(session, never)]
        assert found == wanted


def test_a_watcher_sees_a_run_to_its_end(recipe: Make) -> None:
    """From another thread with a reader of its own: everything, until the writer is gone."""
    run, seen = prepare(recipe(train__steps=5)), []
    with sessions.create("run", run.recipe, run.facts) as session:

        def look() -> None:
            with sessions.open_("run") as reader:
                seen.extend(follow(reader, never))

        watcher = threading.Thread(target=look)
        watcher.start()
        said = list(train(run, session))
    watcher.join(timeout=240)
    assert [type(e).__name__ for e in seen] == [type(e).__name__ for e in said]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that look for orders after every step."""
    monkeypatch.setitem(journal_writer.FLUSH_SECONDS, "cpu", 0.0)
    monkeypatch.setattr(control, "POLL_SECONDS", 0.0)


def told(recipe: Recipe, name: str, verbs: dict[int, str]) -> Iterator[Event]:
    """A run that is told something after some steps."""
    for event in begin(recipe, name, never):
        yield event
        if isinstance(event, StepDone) and event.step in verbs:
            manage.send(name, verbs[event.step])


@pytest.mark.usefixtures("quick")
def test_a_run_is_paused_and_goes_on(recipe: Make) -> None:
    """Asked to pause it saves and waits; let go on, it ends with the numbers of a run that never waited."""
    settings, seen = recipe(train__steps=6, train__save_every=100), []
    list(begin(settings, "straight", never))
    for event in told(settings, "run", {2: "pause"}):
        seen.append(event)
        if isinstance(event, Paused):
            with sessions.open_("run") as session:
                assert session.at(event.step) is not None
            threading.Timer(0.2, manage.send, ("run", "continue")).start()
    paused, went_on = only(seen, Paused), only(seen, Continued)
    assert len(paused) == len(went_on) == 1 and 2 <= paused[0].step == went_on[0].step < 6
    assert seen[-1].reason == "done" and same(factors("run"), factors("straight"))


@pytest.mark.usefixtures("quick")
def test_a_run_is_stopped_and_saved_by_who_looks_on(recipe: Make) -> None:
    """A checkpoint is taken where it is asked for; stop ends the run, saved, also while it is paused."""
    seen = list(told(recipe(train__steps=60, train__save_every=100), "run", {2: "checkpoint", 4: "dance", 6: "stop"}))
    assert seen[-1].reason == "interrupted" and 6 <= seen[-1].step < 10
    assert [s for s in (e.step for e in only(seen, Saved)) if 2 <= s <= 4]
    list(resume("run", {}, False, never))
    seen = []
    for event in told(recipe(train__steps=60), "other", {2: "pause"}):
        seen.append(event)
        if isinstance(event, Paused):
            manage.send("other", "stop")
    assert seen[-1].reason == "interrupted" and seen[-1].step < 8


def test_nobody_is_told_anything_where_nobody_runs(recipe: Make) -> None:
    """A command for a session that is not running is refused with the way to go on."""
    list(begin(recipe(train__steps=4), "run", after(2)))
    with pytest.raises(UsageError, match="session run is not running") as refused:
        manage.send("run", "pause")
    assert "zolite resume run" in refused.value.hint


def test_eight_readers_and_a_writer_do_not_get_in_each_others_way(recipe: Make) -> None:
    """Read by eight at once, who ask for things too, no journal is ever locked, for them or for the run."""
    run, ended, errors, counts = prepare(recipe(train__steps=24)), threading.Event(), [], []

    def look() -> None:
        try:
            with sessions.open_("run") as reader:
                for number in itertools.count():
                    counts.append(len(list(reader.journal.steps())))
                    reader.journal.evaluations()
                    if number < 5:
                        reader.journal.post("checkpoint")
                    if ended.is_set():
                        return
        except (ZoliteError, sqlite3.Error) as error:
            errors.append(error)

    with sessions.create("run", run.recipe, run.facts) as session:
        readers = [threading.Thread(target=look) for _ in range(8)]
        for reader in readers:
            reader.start()
        events = list(train(run, session))
        ended.set()
        for reader in readers:
            reader.join(timeout=240)
    assert errors == [] and max(counts) > 0
    assert isinstance(events[-1], Finished) and events[-1].reason == "done"


def test_a_clock_that_goes_backwards_changes_nothing(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wall clock that jumps back at every look, steps are journalled, watched and resumed as ever."""
    list(begin(recipe(train__steps=6), "straight", never))
    clock = itertools.count(2_000_000_000, -1000)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    list(begin(recipe(train__steps=6), "run", after(3)))
    list(resume("run", {}, False, never))
    assert [r[:3] for r in rows_of("run")] == [r[:3] for r in rows_of("straight")]
    with sessions.open_("run") as session:
        seen = list(follow(session, never))
    assert [e.step for e in only(seen, StepDone)] == [1, 2, 3, 4, 5, 6]
    assert [type(e) for e in seen][:1] == [Started] and isinstance(seen[-1], Finished)


# Verifying


@pytest.mark.parametrize("method", ["mezo", "lozo-m", "pgap", "mezo-adam", "hizoo"])
def test_a_sound_session_is_verified_bit_for_bit(recipe: Make, method: str) -> None:
    """Every checkpoint that was ever taken, also those that are gone, is what a replay comes to."""
    list(begin(recipe(method__name=method, method__every=2, train__steps=12, train__save_every=2), "run", never))
    with sessions.open_("run") as session:
        verdicts = list(verify(session, CPU))
        assert len(session.steps()) < len(verdicts)
    assert [v.step for v in verdicts] == [0, 2, 4, 6, 8, 10, 12]
    assert {v.state for v in verdicts} == {"same"} and all(v.sound for v in verdicts)


def test_what_was_changed_is_found(recipe: Make, home: Path) -> None:
    """A row that is another, a checkpoint that is damaged and a row that is missing are told apart."""
    list(begin(recipe(train__steps=8, train__save_every=2), "run", never))
    shutil.copytree(home / "sessions" / "run", home / "sessions" / "gap")
    damaged = home / "sessions" / "run" / "checkpoints" / "000004" / "params.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"changed!")
    with sqlite3.connect(home / "sessions" / "run" / "journal.db") as db:
        db.execute("UPDATE step SET losses = ? WHERE step = 5", (struct.pack("<2f", 1.0, 1.5),))
    with sessions.open_("run") as session:
        found = {(v.step, v.state) for v in verify(session, CPU)}
        assert not all(v.sound for v in verify(session, CPU))
    assert found >= {(0, "same"), (2, "same"), (4, "broken"), (6, "different"), (8, "same")}
    with sqlite3.connect(home / "sessions" / "gap" / "journal.db") as db:
        db.execute("DELETE FROM step WHERE step = 5")
    with sessions.open_("gap") as session, pytest.raises(ZoliteError, match="1 of its 8 steps are missing"):
        list(verify(session, CPU))


def test_what_cannot_be_replayed_is_only_looked_at(recipe: Make) -> None:
    """A method that looks at activations has whole checkpoints, and no more is said of them."""
    list(begin(recipe(method__name="agzo", train__steps=4, train__save_every=2), "run", never))
    with sessions.open_("run") as session:
        assert end(session) == 4
        assert [(v.step, v.state, v.sound) for v in verify(session, CPU)] == [(s, "same", True) for s in (0, 2, 4)]


# What a session does not hold


def test_no_token_is_written_down(recipe: Make, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment holds of secrets is in no file of a session."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "hf_secretsecretsecret")
    list(begin(recipe(train__steps=2), "run", never))
    files = [path for path in (home / "sessions").rglob("*") if path.is_file()]
    assert len(files) > 5 and not [path for path in files if b"hf_secret" in path.read_bytes()]


def test_nothing_runs_what_it_loads() -> None:
    """No pickle is read but a published optimizer's, in its own restricted way; code of a model's own runs only where
    the session says so."""
    package = [*Path(sessions.__file__).parents[1].rglob("*.py")]
    found = {
        (path.name, word)
        for path in package
        for word in ("import pickle", "pickle.load", " torch.load", "eval(", "exec(")
        if re.search(rf"(?<![\w.]){re.escape(word)}", path.read_text(encoding="utf-8"))
    }
    assert {name for name, _ in found} <= {"scale_nets.py"}
    sources = "\n".join(path.read_text(encoding="utf-8") for path in package if path.name != "model_card.py")
    given = set(re.findall(r"trust_remote_code[\"'\]]*\s?[=:]\s?([\w.]+)", sources))
    assert given == {"False", "trusted", "source.trusted"}
