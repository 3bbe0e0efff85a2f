"""Claims about what loads what: packages know those below them, and what a person waits for never loads torch.

The walls are the contracts in pyproject.toml, which `.ci/imports` checks. Each is shown here to fail: an import that
breaks it is planted in a copy of this checkout.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("zolite", "tui", "profiles", "pyproject.toml", ".ci")
TORCH_FREE = ("common", "config", "data", "sessions", "planner", "monitor", "report", "tui")

# What is planted: the file, the line, and how the linter names it.
PLANTED = {
    "upwards": ("zolite/planner/plan.py", "from zolite.engine import engine", "zolite.planner.plan -> zolite.engine"),
    "upwards, in a function": (
        "zolite/common/text.py", "def planted():\n    import zolite.config.recipe",
        "zolite.common.text -> zolite.config",
    ),
    "a sibling in one row": ("zolite/zo/space.py", "import zolite.model.load", "zolite.zo.space -> zolite.model"),
    "torch where it is never loaded": ("zolite/data/rows.py", "import torch", "zolite.data.rows -> torch"),
    "torch by a detour": ("zolite/data/rows.py", "import zolite.model.loss", "zolite.data.rows -> zolite.model"),
    "the app by its folder": ("zolite/monitor/ema.py", "import tui", "zolite.monitor.ema -> tui"),
    "the app by its name": (
        "zolite/export/gguf.py", "from zolite.tui.themes import DARK", "zolite.export.gguf -> zolite.tui"
    ),
    "the app by its folder, in the app": ("tui/paint.py", "from tui import themes", "zolite.tui.paint -> tui"),
    "the app in the command line, by its folder": ("zolite/cli/live.py", "import tui.app", "zolite.cli.live -> tui"),
    "textual outside the app": ("zolite/cli/live.py", "from textual.app import App", "zolite.cli.live -> textual"),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the linter reads."""
    folder = tmp_path_factory.mktemp("walls")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def linted(folder: Path) -> tuple[int, str]:
    """`.ci/imports` of a checkout: its exit code, and what it prints, on one line."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "imports"), "--of", str(folder)], capture_output=True, text=True
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_walls_stand(checkout: Path) -> None:
    """The checkout as it is keeps every contract."""
    code, printed = linted(checkout)
    assert code == 0 and " 0 broken" in printed, printed


@pytest.mark.parametrize("name", PLANTED)
def test_walls_can_fail(checkout: Path, name: str) -> None:
    """An import that breaks a wall is named, with the module and the line that it stands in."""
    path, line, edge = PLANTED[name]
    file = checkout / path
    before = file.read_text(encoding="utf-8")
    file.write_text(f"{before}\n\n{line}\n", encoding="utf-8")
    try:
        code, printed = linted(checkout)
    finally:
        file.write_text(before, encoding="utf-8")
    at = len(f"{before}\n\n{line}".splitlines())
    assert code == 1 and edge in printed and f"(l.{at}" in printed, printed


def loaded(*modules: str) -> set[str]:
    """Names of what a fresh interpreter holds after importing these."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def modules_of(package: str) -> list[str]:
    """All modules of a package of zolite; of the app, which lies beside it, too."""
    folder = ROOT / "tui" if package == "tui" else ROOT / "zolite" / package
    files = [path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.py"))]
    return [
        ".".join(("zolite", package, *(part for part in file.parts if part != "__init__")))
        for file in files
        if file.name != "__main__"
    ]


def test_without_torch() -> None:
    """The app, plans, sessions, data and recipes are read, and `zolite --help` is printed, without torch."""
    names = loaded(*(module for package in TORCH_FREE for module in modules_of(package)), "zolite.cli.main")
    assert {"zolite.tui.app", "zolite.planner.plan", "zolite.cli.main"} <= names
    assert not names & {"torch", "transformers", "bitsandbytes", "peft", "accelerate"}


def test_the_app_opens_light() -> None:
    """Its package loads nothing by itself, and neither the command line nor a session loads textual."""
    assert "textual" not in loaded("zolite.tui", "zolite.cli.main", "zolite.sessions.session")


def test_the_mathematics_loads_no_model() -> None:
    """Every module of zolite.zo together has loaded torch, and no model, data, engine or session."""
    names = loaded(*modules_of("zo"))
    packages = {name.split(".")[1] for name in names if name.startswith("zolite.")}
    assert packages <= {"zo", "config", "common", "profiles"}
    assert "torch" in names and not names & {"transformers", "textual"}
