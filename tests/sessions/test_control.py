"""What a run makes of the commands that it is given: each holds until another takes it back."""

import math
import sqlite3
import threading
from contextlib import closing

import pytest

from zolite.config.recipe import Recipe
from zolite.sessions import journal
from zolite.sessions import session as sessions
from zolite.sessions.control import Control
from zolite.sessions.session import StepRow

ROW = StepRow(1, b"\0" * 4, b"\0" * 8, 1e-3, 1e-4, 0, 1e9, 0.1, 7)
MANY, ASKED = 4, 3


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("given", "paused", "saving", "ended"),
    [
        (("pause",), True, False, False),
        (("pause", "checkpoint"), True, True, False),
        (("pause", "dance"), True, False, False),
        (("pause", "continue"), False, False, False),
        (("pause", "continue", "pause"), True, False, False),
        (("continue",), False, False, False),
        (("checkpoint", "pause"), True, True, False),
        (("stop", "continue"), False, False, True),
        (("stop", "pause", "checkpoint"), True, True, True),
        ((), False, False, False),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_command_holds_until_it_is_taken_back(
    given: tuple[str, ...], paused: bool, saving: bool, ended: bool, at_once: bool
) -> None:
    """Whether they come together or one by one; each is heard once."""
    with sessions.create("run", Recipe(), {}) as made:
        control = Control(made.journal, never)
        for verb in given:
            made.journal.post(verb)
            if not at_once:
                control.polled = -math.inf
                control.poll()
        control.polled = -math.inf
        control.poll()
        assert (control.paused, control.saving, control.ended) == (paused, saving, ended)
        assert control.stopped() == ended and made.journal.take() == []


@pytest.mark.parametrize("act", ["post", "commit", "take"])
def test_who_writes_waits_for_a_slow_commit(monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    """A disk may take longer to sync one than any reader waits: neither a command nor a run ends by that."""
    monkeypatch.setattr(journal, "BUSY_MILLISECONDS", 1)
    with sessions.create("run", Recipe(), {}) as made:
        acts = {"post": lambda: made.journal.post("stop"), "commit": made.journal.commit, "take": made.journal.take}
        made.journal.commit()
        made.journal.post("pause")
        made.journal.append([ROW])
        other = sqlite3.connect(made.journal.path, isolation_level=None, check_same_thread=False)
        with closing(other):
            other.execute("BEGIN IMMEDIATE")
            released = threading.Timer(0.3, other.execute, ("COMMIT",))
            released.start()
            acts[act]()
            released.join()
        assert made.journal.last_step() == 1
        assert made.journal.take() == {"post": ["pause", "stop"], "commit": ["pause"], "take": []}[act]


def test_what_many_ask_while_a_run_commits_all_the_time_is_heard_once_each() -> None:
    """Nobody is turned away: not who asks, not the run."""
    failed: list[Exception] = []

    def ask(number: int) -> None:
        try:
            with sessions.open_("run") as reader:
                for i in range(ASKED):
                    reader.journal.post(f"{number}-{i}")
                    assert len(list(reader.journal.steps())) <= reader.journal.last_step()
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)

    with sessions.create("run", Recipe(), {}) as made:
        asking, heard, step = [threading.Thread(target=ask, args=(number,)) for number in range(MANY)], [], 0
        for each in asking:
            each.start()
        while any(each.is_alive() for each in asking):
            step += 1
            made.journal.append([ROW._replace(step=step)])
            made.journal.commit()
            heard += made.journal.take()
        heard += made.journal.take()
    assert failed == [] and step > 0
    assert sorted(heard) == sorted(f"{number}-{i}" for number in range(MANY) for i in range(ASKED))
