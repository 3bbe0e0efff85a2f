"""Claims about the house as a whole; `python tests/house.py` prints the numbers. Each is shown to be able to fail."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def house() -> ModuleType:
    """tests/house.py, which no import path reaches."""
    spec = importlib.util.spec_from_file_location("house", Path(__file__).with_name("house.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_house(house: ModuleType) -> None:
    """Few loose modules, no cycle of files, no import upwards, no function above 60 lines, and short ones at large."""
    assert [str(number) for number in house.numbers() if not number.good] == []


def test_each_number_can_fail(house: ModuleType, tmp_path: Path) -> None:
    """In a copy with one thing of each kind planted, every number but the medians is one worse, and says where."""
    for name in ("zolite", "tui", "profiles", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    before = {number.name: number for number in house.numbers(tmp_path)}
    for name in ("one", "two"):
        (tmp_path / "zolite" / f"{name}.py").write_text("")
    plant(tmp_path / "tui" / "themes.py", "if TYPE_CHECKING:\n    from . import paint")
    plant(tmp_path / "tui" / "paint.py", "def planted():\n    from . import themes")
    plant(tmp_path / "zolite" / "zo" / "rng.py", "from zolite.model import loss")
    plant(tmp_path / "benchmarks" / "layer.py", "def planted():\n" + "    pass\n" * 60)
    worse = {n.name: n.value - before[n.name].value for n in house.numbers(tmp_path)}
    assert list(worse.values())[:4] == [2, 1, 1, 1]
    assert "benchmarks/layer.py" in str(house.numbers(tmp_path)[3])


def plant(file: Path, lines: str) -> None:
    file.write_text(f"from typing import TYPE_CHECKING\n{file.read_text(encoding='utf-8')}\n{lines}\n", "utf-8")
