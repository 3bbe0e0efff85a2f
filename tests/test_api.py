"""Claims about the Python API: docs/api.md runs, and nothing loads before it is used. Types: tests/api_types.py."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import zolite

REPOSITORY = Path(__file__).resolve().parents[1]
API = REPOSITORY / "docs" / "api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEAVY = {"torch", "transformers", "textual"}


def test_the_document_runs(
    tiny: Path, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of docs/api.md are one program that does what it says."""
    monkeypatch.chdir(tmp_path)
    Path("tiny-model").symlink_to(tiny)
    folder().rename("rows")
    source = API.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in BLOCK.finditer(source):
        above = "\n" * source[: block.start(1)].count("\n")  # so that a traceback names the document's own line
        exec(compile(above + block.group(1), str(API), "exec"), names)
    assert set(zolite.__all__) - {"__version__"} <= set(names), "every public name is shown"
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


def test_it_is_light() -> None:
    """Recipes, plans and sessions need no torch, and neither do the names of the functions that do."""
    code = (
        "import json, sys\n"
        "from zolite import Recipe, evaluate, export, open_session, plan, prepare, resume, train\n"
        "plan('builtin:smollm2-135m', vram='8GiB')\n"
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & HEAVY


def test_import_alone_loads_nothing() -> None:
    code = "import sys, zolite; print([name for name in sys.modules if name.startswith('zolite.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_export_is_the_function_and_the_package() -> None:
    """Python binds the package to the function's name; both orders of import serve both uses."""
    from zolite import export
    from zolite.common.errors import UsageError
    from zolite.export import registry

    assert callable(export) and zolite.export.registry is registry  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="there is no session nothing"):
        export("nothing", "folder")


def test_names_are_listed_and_others_refused() -> None:
    assert dir(zolite) == sorted(zolite.__all__)
    assert all(getattr(zolite, name) for name in zolite.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(zolite, "trian")  # noqa: B009 - a type checker would refuse it, which is the next test's claim


def test_the_mark_of_a_typed_package_is_in_the_wheel() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "py.typed" in settings["package-data"]["zolite"] and (REPOSITORY / "zolite" / "py.typed").is_file()
