"""The list that is remembered says what one that looks at everything anew would say."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zolite.common.events import Evaluated, Finished
from zolite.common.paths import paths
from zolite.config.recipe import Recipe, resolve
from zolite.sessions import manage, summaries
from zolite.sessions import session as sessions
from zolite.sessions.session import Session, StepRow, Summary
from zolite.sessions.summaries import Summaries


def made(name: str) -> None:
    with sessions.create(name, resolve(Recipe()), {}) as session:
        further(session)


def further(session: Session) -> None:
    step = session.journal.last_step() + 1
    session.journal.append([StepRow(step, b"", b"", 1e-3, 1e-4, 0, 1e9, 0.1, 7)])
    session.journal.event(Evaluated(step, "dev", "accuracy", 0.5 + step / 100, 9, 0.1))


def written(change: Callable[[Session], None]) -> None:
    with sessions.open_("second", write=True) as session:
        change(session)


def shown(rows: list[Summary]) -> str:
    """What was not measured is not a number, which is no other."""
    return repr(rows)


def place(name: str) -> Path:
    return paths()["sessions"] / "second" / name


CHANGES: dict[str, Callable[[], object]] = {
    "steps": lambda: written(further),
    "an end": lambda: written(lambda session: session.journal.event(Finished(1, "done", 1.0, 0, 7))),
    "a rewind": lambda: written(lambda session: session.rewind(0)),
    "another recipe": lambda: written(lambda session: session.amend(resolve(Recipe()), {"device": "other"})),
    "another name": lambda: manage.rename("second", "other"),
    "removal": lambda: manage.remove("second"),
    "one more": lambda: made("more"),
    "a journal that is gone": lambda: place("journal.db").unlink(),
    "a journal that is none": lambda: place("journal.db").write_bytes(b"x" * place("journal.db").stat().st_size),
    "a description that is none": lambda: place("session.toml").write_text("x"),
    "another in its place": lambda: (manage.remove("second"), manage.rename("third", "second")),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fresh", [True, False], ids=["by the next process", "by the same"])
def test_what_changed_is_seen(change: str, fresh: bool) -> None:
    """Whatever happens to a session, and whoever lists it then."""
    for name in ("first", "second", "third"):
        made(name)
    known = Summaries()
    assert shown(known.list_()) == shown(sessions.list_())
    CHANGES[change]()
    assert shown((Summaries() if fresh else known).list_()) == shown(sessions.list_())


def test_only_what_changed_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process and in the next; a session that is written is looked at each time."""
    looked: list[str] = []
    real = summaries.summary_of
    monkeypatch.setattr(summaries, "summary_of", lambda path: (looked.append(path.name), real(path))[1])
    for name in ("first", "second", "third"):
        made(name)
    first = Summaries().list_()
    assert sorted(looked) == ["first", "second", "third"]
    looked.clear()
    again = Summaries()
    assert shown(again.list_()) == shown(again.list_()) == shown(first) and looked == []
    with sessions.open_("second", write=True) as session:
        further(session)
        assert [each.status for each in again.list_() if each.name == "second"] == ["running"]
        again.list_()
        assert looked == ["second", "second"]
    again.list_()
    assert looked == ["second"] * 3


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", '{"zolite": "0", "sessions": {}}', '{"zolite": VERSION, "sessions": 1}', "[" * 100_000,
     '{"zolite": VERSION, "sessions": {"first": {"mark": 1, "summary": {"x": 1}}}}'],
)  # fmt: skip
def test_a_file_that_is_no_memory_is_forgotten(text: str) -> None:
    """And written anew."""
    made("first")
    Summaries().list_()
    (file,) = paths()["cache"].glob("sessions-*.json")
    file.write_text(text.replace("VERSION", json.dumps(summaries.version("zolite"))))
    assert shown(Summaries().list_()) == shown(sessions.list_())
    assert json.loads(file.read_bytes())["sessions"].keys() == {"first"}


@pytest.mark.skipif(os.name == "nt", reason="folders are not protected that way")
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is as good, and only slower."""
    made("first")
    blocked = paths()["cache"]
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file")
    assert shown(Summaries().list_()) == shown(Summaries().list_()) == shown(sessions.list_())
