"""Links within a session's folder: nothing outside of it is read into it, or removed."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from zolite.common.errors import ZoliteError
from zolite.sessions import damage, leftovers, manage
from zolite.sessions import session as sessions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a right there")

USES: dict[str, Callable[[], object]] = {
    "list": sessions.list_,
    "open": lambda: sessions.open_("run").close(),
    "write": lambda: sessions.open_("run", write=True).close(),
    "prune": lambda: manage.prune("run"),
    "rewind": lambda: manage.rewind("run", 2),
    "fork": lambda: manage.fork("run", "other", 4),
    "rename": lambda: manage.rename("run", "other"),
    "sweep": lambda: leftovers.sweep(Path(os.environ["ZOLITE_HOME"]) / "sessions"),
    "remove": lambda: manage.remove("run"),
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


LINKS = (
    "", "checkpoints", "checkpoints/000004", "checkpoints/000006", "checkpoints/.000003.partial-1",
    "checkpoints/000004.broken-1", "checkpoints/000006/params.safetensors", "checkpoints/000006/manifest.json",
    "session.toml", "journal.db", "lock", "owner.json", ".session.toml.1",
)  # fmt: skip


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("place", LINKS if os.environ.get("ZOLITE_LONG") else LINKS[:6])
def test_nothing_behind_a_link_is_touched(use: str, place: str, made: Callable[..., Path], tmp_path: Path) -> None:
    """Whatever is done to a session in which something is a link to another one: that one stays as it is, and no byte
    of it gets into a session.
    """
    shutil.copytree(made("elsewhere"), tmp_path / "outside")
    manage.remove("elsewhere")
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    path = made("run") / place
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    target = tmp_path / "outside" / place
    path.symlink_to(target if target.exists() else tmp_path / "outside", target_is_directory=target.is_dir())
    before = content(tmp_path / "outside")
    with contextlib.suppress(ZoliteError):
        USES[use]()
    assert content(tmp_path / "outside") == before
    inside = [p for p in (tmp_path / "home").rglob("*") if p.is_file() and not p.is_symlink()]
    assert not [p for p in inside if p.name == "secret"]
    if use == "remove":
        assert not os.path.lexists(tmp_path / "home" / "sessions" / "run")


def test_a_fork_copies_checkpoints_and_nothing_that_lies_beside(made: Callable[..., Path], tmp_path: Path) -> None:
    """Of a checkpoint's folder its three files."""
    (tmp_path / "secret").write_text("secret")
    run = made("run")
    (run / "checkpoints" / "000002" / "link").symlink_to(tmp_path / "secret")
    (run / "checkpoints" / "000002" / "more").write_text("x")
    manage.fork("run", "other", 2)
    copied = run.parent / "other" / "checkpoints" / "000002"
    assert {p.name for p in copied.iterdir()} == {"params.safetensors", "state.json", "manifest.json"}
    with sessions.open_("other") as fork, sessions.open_("run") as source:
        assert fork.at(2) is not None and fork.newest()[0] is not None
        assert (fork.newest()[0] or source.newest()[0]).digest == source.at(2).digest  # type: ignore[union-attr]


def test_a_link_is_named(made: Callable[..., Path], tmp_path: Path) -> None:
    """The list and the error say which of its parts is a link."""
    run = made("run")
    (run / "checkpoints").rename(tmp_path / "checkpoints")
    (run / "checkpoints").symlink_to(tmp_path / "checkpoints")
    (found,) = sessions.list_()
    assert found.status == "damaged" and "checkpoints is a link, not a folder" in found.problem
    assert any("checkpoints is a link" in problem for problem in damage.problems(run))
