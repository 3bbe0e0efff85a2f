"""A session that took no model to make."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zolite.common.events import Evaluated, Finished, Started
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.sessions import session as sessions
from zolite.sessions.session import StepRow


@pytest.fixture
def made(home: Path) -> Callable[..., Path]:
    """made("run") is the folder of a session of six steps with checkpoints of 0, 2, 4 and 6, best on dev at 2."""

    def make(name: str = "run", size: int = 1000) -> Path:
        with sessions.create(name, recipes.resolve(Recipe()), {"labels": [], "device": "cpu"}) as session:
            session.journal.event(Started(name, 1, 6, "cpu", 1, 1))
            for step in (0, 2, 4, 6):
                rows = [StepRow(i, b"\0" * 4, b"\0" * 8, 1e-3, 1e-4, 0, 1e9, 0.1, 7) for i in (step - 1, step) if i > 0]
                session.journal.append(rows)
                session.journal.event(Evaluated(step, "dev", "accuracy", 0.9 if step == 2 else 0.5, 9, 0.1))
                session.save(step, {"theta": torch.full((size,), float(step))}, {"x": step}, keep=(0, 2, 4, 6))
            session.journal.event(Finished(6, "interrupted", 1.0, 0, 1))
        return home / "sessions" / name

    return make
