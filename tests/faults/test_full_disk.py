"""On a full disk: what makes room needs none, and what only reads goes on reading."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zolite.common import files
from zolite.sessions import lock, manage
from zolite.sessions import session as sessions


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """The home of sessions as a disk of its own of 4 MiB."""
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(home)]
    if not sys.platform.startswith("linux") or os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount a disk, where it may")
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


def fill(disk: Path) -> None:
    """To the last byte."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def prune() -> None:
    assert manage.prune("run") > 100_000


def rewind() -> None:
    manage.rewind("run", 3)
    with sessions.open_("run") as session:
        assert session.journal.last_step() == 3 and session.steps() == [2, 0]


def rename() -> None:
    manage.rename("run", "other")
    assert [s.name for s in sessions.list_()] == ["other"]


def remove() -> None:
    manage.remove("run")
    assert sessions.list_() == []


def read() -> None:
    (found,) = sessions.list_()
    assert found.status == "interrupted" and found.step == 6
    with sessions.open_("run") as session:
        assert len(list(session.journal.steps())) == 6


@pytest.mark.parametrize("lost", ["", "lock"])
@pytest.mark.parametrize("do", [prune, rewind, rename, remove, read])
def test_what_makes_room_needs_none(
    do: Callable[[], None], lost: str, small_disk: Path, made: Callable[..., Path]
) -> None:
    """Not a byte, whether or not the file of the lock was ever there."""
    folder = made("run", size=50_000)
    if lost:
        (folder / lost).unlink()
    fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "more").write_bytes(bytes(5000))
    (small_disk / "more").unlink(missing_ok=True)
    do()


def test_prune_makes_room_beside_a_log_that_a_killed_run_left(small_disk: Path, made: Callable[..., Path]) -> None:
    """SQLite cannot make the memory that its connections share; who holds the lock does without."""
    folder = made("run", size=50_000)
    script = (
        "import os; from zolite.common.events import Evaluated; from zolite.sessions import session as s\n"
        "run = s.open_('run', write=True); run.journal.event(Evaluated(6, 'dev', 'accuracy', 0.99, 9, 0.1))\n"
        "run.journal.commit(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    (folder / "journal.db-shm").unlink()
    assert (folder / "journal.db-wal").stat().st_size
    fill(small_disk)
    prune()
    (small_disk / "filler").unlink()
    with sessions.open_("run") as session:
        assert session.steps() == [6, 0]  # the best is the one that only the log had
        assert session.journal.evaluations()[-1].value == 0.99


@pytest.mark.parametrize("do", [prune, rewind, rename, remove])
def test_what_makes_room_opens_no_new_file_of_its_own(
    do: Callable[[], None], made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where no disk can be mounted: whatever zolite itself would write is refused."""
    made("run", size=50_000)

    def refused(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_new", refused)
    monkeypatch.setattr(files, "replace", refused)
    do()


def test_a_writer_without_a_name_is_a_writer(made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """owner.json is for people: where there is no room for it, the lock holds all the same."""
    made("run")

    def refused(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", refused)
    with sessions.open_("run", write=True) as session:
        assert lock.is_held(session.path) and not (session.path / lock.OWNER).exists()
        with pytest.raises(Exception, match="being written by another process"):
            manage.prune("run")
