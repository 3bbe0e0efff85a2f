"""Claims about examples/: they run as they stand. Here on a tiny model; .ci/run has them on the demo's."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT, NOTEBOOK = (REPOSITORY / "examples" / f"finetune.{kind}" for kind in ("py", "ipynb"))
DEMO = "builtin:smollm2-135m"


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_the_script_runs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "finetune.py"
    copy.write_text(SCRIPT.read_text(encoding="utf-8").replace(DEMO, str(tiny)), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["finetune.py", str(tmp_path / "adapter"), "--steps", "2"])
    runpy.run_path(str(copy), run_name="__main__")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_the_notebook_runs(tiny: Path, tmp_path: Path) -> None:
    run = runpy.run_path(str(REPOSITORY / ".ci" / "notebook"), run_name="notebook")["run"]
    copy = tmp_path / "finetune.ipynb"
    copy.write_text(NOTEBOOK.read_text(encoding="utf-8").replace(DEMO, tiny.as_posix()), encoding="utf-8")
    names = run(copy, {})
    assert len(names["losses"]) == 8 and (names["done"].folder / "adapter_config.json").is_file()


def test_the_notebook_is_one(cells: list[dict[str, Any]]) -> None:
    """Format 4.5, as Jupyter reads it, committed without what a run of it left."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["language"] == "python"
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert isinstance(cell["metadata"], dict) and all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
        else:
            assert cell["cell_type"] == "markdown" and "outputs" not in cell
