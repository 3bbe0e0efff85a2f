"""Claims about a report's files: where they are, and whose place they never take."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from zolite.common.errors import UsageError
from zolite.planner.hardware import Hardware
from zolite.report.written import written

Make = Callable[..., Path]
Machine = Callable[[], Hardware]


def test_a_page_or_a_folder(made: Make, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place it is here, by the session's name; in a folder the curves lie beside it, each a picture."""
    made("first")
    made("other")
    monkeypatch.chdir(tmp_path)
    assert written(["first"], None, machine) == [Path("first-report.html")]
    assert written(["first", "other", "first"], None, machine) == [Path("compared-report.html")]
    assert written(["first"], tmp_path / "a" / "b.html", machine) == [tmp_path / "a" / "b.html"]
    page, *curves = written(["first"], tmp_path / "folder", machine)
    assert page == tmp_path / "folder" / "report.html" and [path.name for path in curves] == ["loss.svg"]
    assert ElementTree.parse(curves[0]).getroot().tag.endswith("svg")


def test_only_reports_are_replaced(made: Make, machine: Machine, tmp_path: Path) -> None:
    """What else lies there stays, and nothing is written then."""
    made("first")
    page = tmp_path / "page.html"
    assert written(["first"], page, machine) == written(["first"], page, machine)
    page.write_text("<!doctype html><p>mine")
    with pytest.raises(UsageError, match="no report of zolite"):
        written(["first"], page, machine)
    assert page.read_text() == "<!doctype html><p>mine"
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        written(["first"], tmp_path / "folder.html", machine)


def test_an_unknown_name_is_refused(made: Make, machine: Machine, tmp_path: Path) -> None:
    """Before anything is written."""
    made("first")
    with pytest.raises(UsageError, match="no session nothing"):
        written(["first", "nothing"], tmp_path / "folder", machine)
    assert not (tmp_path / "folder").exists()
