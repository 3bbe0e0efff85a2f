"""The naive twins of tests/reference, loaded from their files: tests are no package."""

import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

REFERENCE = Path(__file__).parents[1] / "reference"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reference_{name}", REFERENCE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These tensors are small: a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def twin() -> Callable[[str], ModuleType]:
    """twin("lozo") is tests/reference/lozo.py."""
    return cache(load)


@pytest.fixture(scope="session")
def philox() -> ModuleType:
    return load("philox")
