"""Claims about what loads what: the app and the light modules never load torch, the mathematics never the model."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import zolite

CORE = Path(zolite.__file__).parent / "core"
HEAVY = {"torch", "transformers", "textual"}
LIGHT = (
    "errors", "events", "recipe", "catalog", "session", "journal", "checkpoint", "paths", "text", "render",
    "plan", "plan_view", "facts", "headers", "architectures", "machine", "ledger", "pace", "correction", "backprop",
    "recording",
)  # fmt: skip
# What the mathematics may lean on beside itself; a wall is easier to keep as a list of doors.
DOORS = {"zolite.core", "zolite.config.composition", "zolite.common.errors", "zolite.config.recipe"}


def loaded(*modules: str) -> set[str]:
    """Names of what a fresh interpreter holds after importing these."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    return set(json.loads(out))


def imports(source: str, package: str) -> set[str]:
    """Absolute names of everything a module imports, anywhere in it; `from a import b` counts as a and as a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules(module: str) -> None:
    """Recipes, events and sessions are read without torch, transformers or textual."""
    assert not loaded(f"zolite.{module}") & HEAVY


def test_app_without_torch() -> None:
    """Every module of the app together, with all that they import, loads neither torch nor transformers."""
    spec = importlib.util.find_spec("zolite.tui")
    assert spec and spec.origin
    folder = Path(spec.origin).parent
    files = [path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.py"))]
    modules = [".".join(("zolite", "tui", *(p for p in file.parts if p != "__init__"))) for file in files]
    assert "zolite.tui" in modules
    assert not loaded(*modules) & {"torch", "transformers"}


def test_app_opens_light() -> None:
    """The package of the app loads nothing heavy by itself, not even textual."""
    assert not loaded("zolite.tui") & HEAVY


def test_cli_without_torch() -> None:
    """The command line answers without torch: `zolite --help` must not take seconds."""
    assert not loaded("zolite.cli.main") & HEAVY


def test_core_loads_no_model() -> None:
    """The whole mathematics, imported, has loaded no other part of zolite than its doors, and no transformers."""
    modules = [f"zolite.core.{path.stem}" for path in CORE.glob("*.py") if path.stem != "__init__"]
    names = loaded(*modules)
    ours = {name for name in names if inside(name, "zolite")} - {"zolite"}
    assert "zolite.config.methods" in ours and all(any(inside(name, door) for door in DOORS) for name in ours)
    assert "torch" in names and not names & {"transformers", "textual"}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.stem)
def test_core_imports(path: Path) -> None:
    """A module of the mathematics names no model, data, engine or session, not even inside a function."""
    package = ".".join(("zolite", *path.relative_to(CORE.parent).parent.parts))
    ours = {name for name in imports(path.read_text(encoding="utf-8"), package) if inside(name, "zolite")} - {"zolite"}
    assert {name for name in ours if not any(inside(name, door) for door in DOORS)} == set()


@pytest.mark.parametrize(
    "line",
    [
        "import zolite.model.load",
        "from zolite import model",
        "from zolite.model.load import load",
        "from ..model import load",
        "from .. import model",
        "def f():\n    from zolite import model as m",
    ],
)
def test_imports_are_seen(line: str) -> None:
    """The walk over a source sees an import in each of its forms."""
    assert any(inside(name, "zolite.model") for name in imports(line, "zolite.core"))
