"""Claims about the registry of formats: people choose from it without torch, and one object adds one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zolite.common.errors import UsageError
from zolite.config.recipe import Recipe
from zolite.export import registry
from zolite.export.export import export
from zolite.export.registry import FORMATS, Format
from zolite.export.source import Trained
from zolite.export.uses import Use
from zolite.export.writer import Card, Writer
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare


def write(trained: Trained, folder: Path, dtype: str) -> None:
    (folder / "names.txt").write_text("\n".join(sorted(trained.factors)))


WRITER = Writer(
    write, Card("The names of {base}'s layers", (Use("people", lambda p: f"less {p.folder}/names.txt"),)), {"text": 0.0}
)
MINE = Format("names", "names of layers", "people", ("names.txt",), ("text",), __name__)


def test_one_object_adds_a_format(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is described with the others, and an export in it has its files, its card and nothing for Ollama."""
    monkeypatch.setitem(FORMATS, MINE.name, MINE)
    assert "names: names of layers, for people" in registry.described()
    run = prepare(recipe(train__steps=1))
    with sessions.create("run", run.recipe, run.facts) as session:
        list(train(run, session))
        done = export(session, tmp_path / "out", "names")
    assert done.dtype == "text" and done.reports == []
    assert "model.layers.0.mlp.up_proj.a" in (tmp_path / "out" / "names.txt").read_text()
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"names.txt", "README.md", "export.json"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"The names of {done.base}'s layers, trained with" in card and "less THIS_FOLDER/names.txt" in card


@pytest.mark.parametrize("name", FORMATS)
def test_each_row_has_its_module(name: str) -> None:
    """Every format has what writes it, knows how true its number types are, and is read back."""
    writer = FORMATS[name].writer()
    assert set(FORMATS[name].dtypes) == set(writer.rounding) and writer.readers and writer.card.uses


def test_no_torch() -> None:
    """Listing the formats loads neither torch nor transformers."""
    code = (
        "import sys; from zolite.export import registry; print(registry.described())\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in FORMATS)


def test_what_is_not_there() -> None:
    """A format or a number type that does not exist is refused with those that do."""
    with pytest.raises(UsageError, match="peft, gguf, merged, merged-gguf"):
        registry.named("onnx")
    with pytest.raises(UsageError, match="not written in f16"):
        FORMATS["peft"].dtype("f16")
    assert (FORMATS["gguf"].dtype(""), FORMATS["gguf"].dtype("f32")) == ("f16", "f32")
