"""Claims about a session read while it is written: nothing is lost, nothing comes twice, rollbacks are seen."""

import itertools
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zolite.common.events import Event, Finished, Noted, Saved, Started, StepDone
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.sessions import journal
from zolite.sessions import session as sessions
from zolite.sessions.follow import News, Reader, follow, in_order
from zolite.sessions.session import MemoryRow, Session, StepRow


def row(step: int, time: float = 0.0) -> StepRow:
    return StepRow(step, struct.pack("<f", 1.0), struct.pack("<f", 2.0), 1e-2, 1e-3, 0, 1e9 + step + time, 0.5, 100)


@pytest.fixture
def session() -> Session:
    recipe = recipes.resolve(recipes.override(Recipe(), {"train.steps": 99, "data.path": "rows"}))
    with sessions.create("run", recipe, {"device": "CPU"}) as made:
        made.journal.event(Started("run", 1, 99, "CPU", 7, 9))
        yield made


def write(session: Session, first: int, last: int, time: float = 0.0) -> None:
    for step in range(first, last + 1):
        session.journal.append([row(step, time)])
        session.journal.memory(MemoryRow(1e9 + step + time, step, 10 * step, 11 * step))
        if step % 5 == 0:
            session.journal.event(Saved(step, "x"))
    session.journal.commit()


@given(st.lists(st.integers(0, 7), max_size=6))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_add_up(session: Session, sizes: list[int]) -> None:
    """However often it is read while it grows, each step, event and point of memory comes once, in order."""
    session.journal.truncate(0)
    reader, pages, at = Reader(session), [], 0
    for size in sizes:
        write(session, at + 1, at + size)
        at += size
        pages.append(reader.read())
    assert [r.step for page in pages for r in page.rows] == list(range(1, at + 1))
    assert [m.step for page in pages for m in page.memory] == list(range(1, at + 1))
    saved = [event.step for page in pages for _, event in page.events if isinstance(event, Saved)]
    assert saved == list(range(5, at + 1, 5)) and not any(page.fresh for page in pages)
    assert not reader.read()


def test_a_page_has_the_memory_of_its_own_steps(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What later steps took comes with them, however many of them there are already."""
    write(session, 1, 11)
    monkeypatch.setattr(journal, "PAGE_ROWS", 3)
    reader = Reader(session)
    pages = list(iter(lambda: reader.read() or None, None))
    assert len(pages) == 4
    assert all([m.step for m in page.memory] == [r.step for r in page.rows] for page in pages)


def test_a_rollback_is_seen(session: Session) -> None:
    """Also one after which the run is further than before: then all comes once more."""
    write(session, 1, 9)
    reader = Reader(session)
    reader.read()
    session.journal.truncate(4)
    write(session, 5, 20, time=0.5)
    news = reader.read()
    assert news.fresh and [r.step for r in news.rows] == list(range(1, 21))
    assert not reader.read()
    session.journal.truncate(6)
    assert [r.step for r in reader.read().rows] == list(range(1, 7))


def test_a_follower_hears_of_a_rollback(session: Session) -> None:
    """After one, the stream begins again with the run's start, and no event of the new steps is missing."""
    write(session, 1, 9)
    reads = itertools.count()

    def stop() -> bool:
        read = next(reads)
        if read == 1:
            session.journal.truncate(4)
            session.journal.event(Noted("warning", "rolled back to step 4"))
            write(session, 5, 12, time=0.5)
        return read > 2

    found = list(follow(session, stop))
    again = next(i for i, event in enumerate(found) if i and isinstance(event, Started))
    assert [e.step for e in found[again:] if isinstance(e, StepDone)] == list(range(1, 13))
    assert [e.step for e in found[again:] if isinstance(e, Saved)] == [5, 10]
    assert any(isinstance(e, Noted) for e in found[again:])


def test_ends_with_its_writer(session: Session) -> None:
    """What was written last is read too, and then the iterator ends by itself."""
    write(session, 1, 3)
    session.journal.event(Finished(3, "done", 1.0, 0, 1))
    session.close()
    with sessions.open_("run") as read:
        found = list(follow(read, lambda: False))
    assert [type(event) for event in found] == [Started, *[StepDone] * 3, Finished]


@pytest.mark.parametrize("shift", [0.0, -1e6])
def test_order_is_by_step(shift: float) -> None:
    """Whatever the clock did: a start before its step, other events after theirs; memory's peaks with their steps."""
    rows = [row(step, shift * step) for step in (1, 2, 3)]
    events: list[tuple[int, Event]] = [(1, Started("a", 1, 3, "CPU", 1, 1)), (2, Saved(2, "x"))]
    found = list(in_order(News(rows, events, [MemoryRow(1e9, 2, 5, 50), MemoryRow(1e9, 3, 5, 60)])))
    assert [getattr(event, "step", 0) for event in found] == [1, 1, 2, 2, 3]
    assert isinstance(found[0], Started) and isinstance(found[3], Saved)
    assert [event.peak_bytes for event in found if isinstance(event, StepDone)] == [50, 50, 60]
