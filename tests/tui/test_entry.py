"""Claims about how the app is reached: alone on a terminal, and not otherwise; test_serve.py has the browser."""

import json
import subprocess
import sys

import pytest


def test_without_a_terminal_there_is_help() -> None:
    """In a pipe `zolite` alone prints its commands."""
    done = subprocess.run([sys.executable, "-m", "zolite"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert "Usage" in done.stdout + done.stderr and "\x1b[?1049h" not in done.stdout + done.stderr


def test_the_first_picture_loads_little() -> None:
    """Before the first picture nothing of zolite's is loaded that Home does not draw with: no session, no planner."""
    code = "import sys, json, zolite.tui.app, zolite.tui.screens.home; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    assert not loaded & {
        "zolite.sessions.session",
        "zolite.planner.plan",
        "zolite.planner.hardware",
        "numpy",
        "psutil",
        "typer",
        "sqlite3",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory() -> None:
    """With every module of the app loaded its process stays below 120 MB, and there is no torch in it."""
    code = (
        "import importlib, pkgutil, sys, zolite.tui\n"
        "for found in pkgutil.walk_packages(zolite.tui.__path__, 'zolite.tui.'): importlib.import_module(found.name)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmRSS')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 120e6
