"""Claims about .ci/gpu, on machines without a card: it says so, and it counts what pytest reports."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "gpu"

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="works"/>
<testcase classname="tests.a" name="breaks"><failure message="no"/></testcase>
<testcase classname="tests.b" name="waits"><skipped message="no card"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="gpu")


def test_it_fails_clearly_without_a_card(tmp_path: Path) -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), str(tmp_path / "out")]
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no CUDA device" in done.stderr and "zolite doctor" in done.stderr
    assert not (tmp_path / "out").exists()


def test_failed_and_skipped_tests_are_named(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(REPORT)
    assert script["counted"](tmp_path / "tests.xml") == {
        "passed": 1,
        "failed": ["tests.a.breaks"],
        "skipped": ["tests.b.waits"],
    }
    assert script["counted"](tmp_path / "nothing.xml")["failed"] == ["pytest itself"]


def test_packages_are_laid_out_where_zolite_is_not_installed(script: dict[str, Any], tmp_path: Path) -> None:
    """A Python that knows nothing of this checkout imports zolite, its app and its version from there."""
    script["laid_out"](tmp_path / "packages")
    path = f"import sys; sys.path.insert(0, {str(tmp_path / 'packages')!r})"
    code = f"{path}; import zolite, zolite.tui; print(zolite.__version__, zolite.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("0.") and str(tmp_path) in done.stdout
