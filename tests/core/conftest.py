"""The naive twins of tests/reference, loaded from their files: tests are no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).parents[1] / "reference"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reference_{name}", REFERENCE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def mezo() -> ModuleType:
    return load("mezo")


@pytest.fixture(scope="session")
def philox() -> ModuleType:
    return load("philox")
