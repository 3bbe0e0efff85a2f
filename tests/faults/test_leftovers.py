"""What killed processes leave behind is removed by the next command that sees them dead, and nothing of the living."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zolite.common import files
from zolite.export import export as exports
from zolite.sessions import checkpoint, leftovers, lock, manage
from zolite.sessions import session as sessions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks are asked about in another way there")


def aged(path: Path) -> None:
    os.utime(path, (0, 0))


def test_what_the_dead_left_among_the_sessions(made: Callable[..., Path]) -> None:
    """Sessions half made and half removed, logs, owners, files being replaced, checkpoints half made: all go at the
    next list, and the sessions are what they were.
    """
    run, other = made("run"), made("other")
    root = run.parent
    left = [root / name for name in (".gone-1-2", ".new-x", ".log-99", "run/checkpoints/.000009.partial-7")]
    for each in (left[0], left[1], left[3]):
        (each / "deep" / "er").mkdir(parents=True)
        (each / "file").write_text("x" * 1000)
    left[2].write_text("log")
    left += [run / ".session.toml.17", run / ".owner.json.18", run / "owner.json"]
    for each in left[4:]:
        each.write_text("{}")
    aged(left[1])
    leftovers.sweep(root)
    assert not [each for each in left if os.path.lexists(each)]
    assert [s.status for s in sessions.list_()] == ["interrupted"] * 2
    assert len(checkpoint.steps(run / "checkpoints")) == len(checkpoint.steps(other / "checkpoints")) == 4


def test_nothing_of_the_living_is_swept(made: Callable[..., Path]) -> None:
    """A session that is written, one that is being made, and the log of a run that has not begun stay."""
    root = made("run").parent
    (root / ".new-now").mkdir()
    with sessions.open_("run", write=True) as session, (root / ".log-1").open("wb") as log:
        lock.hold(log.fileno())
        kept = [root / ".new-now", root / ".log-1", session.path / "owner.json", session.path / ".owner.json.5"]
        kept.append(session.path / "checkpoints" / ".000009.partial-7")
        kept[3].write_text("{}")
        kept[4].mkdir()
        leftovers.sweep(root)
        assert all(map(os.path.lexists, kept))
    leftovers.sweep(root)
    assert [os.path.lexists(each) for each in kept] == [True, False, False, False, False]


def test_a_log_is_held_by_the_child_too(tmp_path: Path) -> None:
    """The process that started a run may be killed before it: the run still writes its log."""
    (tmp_path / "log").touch()
    with (tmp_path / "log").open("wb") as log:
        lock.hold(log.fileno())
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=log)
    assert lock.is_open(tmp_path / "log")
    child.communicate(b"\n")
    assert not lock.is_open(tmp_path / "log")


def test_prune_takes_broken_checkpoints_that_were_set_aside(made: Callable[..., Path]) -> None:
    """They are of no use to anything; one that is ahead of the journal may be all there is of it, and stays."""
    folder = made("run") / "checkpoints"
    for name in ("000004.broken-1", "000900.ahead-1"):
        (folder / name).mkdir()
    manage.prune("run")
    assert {p.name for p in folder.iterdir()} == {"000000", "000002", "000006", "000900.ahead-1"}


def killed_export(parent: Path) -> Path:
    """What is left of one."""
    left = parent / ".zolite-export-dead"
    (left / "new" / "out").mkdir(parents=True)
    (left / "new" / "out" / "model.safetensors").write_bytes(b"x" * 10_000)
    (left / "lock").touch()
    return left


def test_an_export_removes_what_killed_ones_left(tmp_path: Path) -> None:
    """Not what a living one is making beside it."""
    left = killed_export(tmp_path)
    with exports._workplace(tmp_path) as place:
        assert not left.exists()
        with exports._workplace(tmp_path):
            assert place.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_lock_is_a_day_old_before_it_goes(tmp_path: Path) -> None:
    """It may be that of another version, or one that is being made this instant."""
    left = killed_export(tmp_path)
    (left / "lock").unlink()
    with exports._workplace(tmp_path):
        assert left.exists()
    aged(left)
    with exports._workplace(tmp_path):
        assert not left.exists()


@pytest.mark.parametrize("there", [False, True])
def test_an_export_killed_while_it_replaced_another_gives_that_back(there: bool, tmp_path: Path) -> None:
    """What it had moved out of the way comes back, unless something has taken the place since."""
    left = killed_export(tmp_path)
    (left / "old" / "out").mkdir(parents=True)
    (left / "old" / "out" / "adapter").write_text("before")
    if there:
        (tmp_path / "out").mkdir()
    with exports._workplace(tmp_path):
        assert (tmp_path / "out" / "adapter").exists() is not there
    assert not left.exists()


def test_everything_can_be_removed(tmp_path: Path) -> None:
    """Folders deeper than a path goes, closed ones, links, pipes and names of any kind; a link's target stays."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    here = os.getcwd()
    os.chdir(top)
    try:
        for _ in range(1200):
            os.mkdir("x")
            os.chdir("x")
        Path("end").touch()
    finally:
        os.chdir(here)
    os.mkfifo(top / "pipe")
    (top / "link").symlink_to(tmp_path / "kept")
    (top / "closed").mkdir()
    (top / "closed" / "file").touch()
    (top / "closed").chmod(0)
    (top / "\udcff\n").touch()
    files.remove_tree(top)
    assert not top.exists() and (tmp_path / "kept" / "file").exists()
    files.remove_tree(top)  # once more
