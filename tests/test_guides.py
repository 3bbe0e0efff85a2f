"""Claims about the guides in docs/architecture.md: what they add works, from outside of the package, as printed."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from zolite.config import architectures, methods
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data.kinds import completion
from zolite.export import peft, registry
from zolite.model import loss
from zolite.zo import estimators
from zolite.zo.build import build

GUIDES = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(heading: str) -> list[str]:
    """The samples under a heading."""
    text = GUIDES.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return BLOCK.findall(text)


def run(source: str, *modules: ModuleType, **names: Any) -> dict[str, Any]:
    """A sample with everything that stands in the modules that it is meant for; what it then has."""
    known = {name: value for module in modules for name, value in vars(module).items()} | names
    exec(source, known)
    return known


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """What a sample adds is gone after its test."""
    known: list[dict[str, Any]] = [methods.ESTIMATORS, architectures.ARCHITECTURES, registry.FORMATS]
    before = [dict(table) for table in known]
    yield
    for table, rows in zip(known, before, strict=True):
        for name in table.keys() - rows.keys():
            del table[name]


def test_an_estimator() -> None:
    """Its class takes steps under the setting that names its row."""
    made, row = blocks("Adding an estimator")
    backward = run(made, estimators)["Backward"]
    run(row.replace('"zolite.zo.estimators:Backward"', "Backward"), methods, Backward=backward)
    recipe = recipes.resolve(recipes.override(Recipe(), {"method.estimator": "backward", "train.queries": 3}))
    estimator, _ = build(recipe.method, recipe.train)
    assert isinstance(estimator, backward) and estimator.queries == 3


def test_an_architecture() -> None:
    """Its record counts parameters: embeddings, four products of attention, three of the MLP, norms."""
    (row,) = blocks("Adding an architecture")
    run(row, architectures)
    config = {
        "model_type": "mymodel", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
        "intermediate_size": 16, "vocab_size": 10, "max_position_embeddings": 32,
    }  # fmt: skip
    found, numbers = architectures.ARCHITECTURES["mymodel"], architectures.numbers(config)
    assert sum(layer.inputs * layer.outputs for layer in found.linears(numbers)) == 4 * 8 * 8 + 3 * 8 * 16
    assert found.norms(numbers) == 2 * 8 + 2 * 4 + 8 and not numbers.tied


def test_a_format(tmp_path: Path) -> None:
    """Its row is found by name, and its writer writes the factors."""
    row, module = blocks("Adding a format of export")
    run(row, registry)
    writer = run(module, peft, np=np)["WRITER"]
    factors = {"model.layers.0.q_proj.a": torch.ones(2, 3)}
    writer.write(type("Trained", (), {"factors": factors})(), tmp_path, registry.named("arrays").dtype(""))
    assert np.load(tmp_path / "adapter.npz")["model.layers.0.q_proj.a"].shape == (2, 3)


def test_a_shape_of_rows() -> None:
    """It has every member that is asked of a kind, and its pieces are the row with its answer."""
    from zolite.data.kinds.kind import Kind

    (source,) = blocks("Adding a shape of rows")
    kind = run(source, completion)["KIND"]
    assert all(hasattr(kind, name) for name in [*Kind.__annotations__, *(n for n in vars(Kind) if n[0] != "_")])
    record = {"source": "Es regnet.", "target": "It rains."}
    assert kind.faults(record, kind.columns("")) == []
    text = "".join(piece.text for piece in kind.pieces(kind.row(1, record, kind.columns("")), ""))
    assert text == "Es regnet.\nTranslation: It rains."


def test_an_objective() -> None:
    """Hinge losses of two points: a margin of 3 costs nothing, one of −1 costs 2."""
    (source,) = blocks("Adding an objective")
    scores = torch.tensor([[[5.0, 2.0, 0.0]], [[1.0, 2.0, 0.0]]])
    batch = type("Batch", (), {"answers": torch.tensor([[0]])})()
    lines = "\n".join(f"    {line}" for line in source.splitlines())
    found = run(f"def after(scores, batch, points):\n{lines}", loss)["after"](scores, batch, 2)
    assert found.tolist() == [0.0, 2.0]


def test_a_screen() -> None:
    """The sample is a screen of the app, with the app's own imports."""
    from zolite.tui.screens import methods as screen

    from zolite.common.events import Noted
    from zolite.sessions import session as sessions

    source, _ = blocks("Adding a screen to the app")
    from textual.containers import VerticalScroll

    made = run(source, screen, sessions=sessions, Noted=Noted, VerticalScroll=VerticalScroll)["NotesScreen"]
    assert issubclass(made, screen.Screen) and made("first").name_of_session == "first"
