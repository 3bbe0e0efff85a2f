"""A model's own code never runs unless a person says so: on any command, whatever is answered on a terminal."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite.cli import main
from zolite.model import load as models
from zolite.sessions import session as sessions

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
MODEL = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
TOKENIZER = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
KNOWN = "an architecture that transformers has"
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "an architecture of its own": {"config.json": {"model_type": "own", "auto_map": MODEL}},
    "a tokenizer of its own": {
        "config.json": {"model_type": "own", "auto_map": MODEL | TOKENIZER},
        "tokenizer_config.json": {"tokenizer_class": "OwnTokenizer", "auto_map": TOKENIZER},
    },
    KNOWN: {
        "config.json": {"auto_map": MODEL},
        "tokenizer_config.json": {"auto_map": TOKENIZER},
    },
}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "the code was run"


@pytest.fixture
def zolite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """Runs a command in this process and gives its exit code and what it printed. Any question is answered by y."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words: object, stdin: str = "y\n") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["zolite", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, "".join(capsys.readouterr())

    return run


def bring_code(folder: Path, kind: str, marker: Path) -> Path:
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    for name, changes in KINDS[kind].items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))
    return folder


SMALL = ("--quant", "float32", "--device", "cpu", "--rank", 2, "--steps", 2, "--batch", 4, "--context", 128)
COMMANDS: dict[str, Callable[[Path, Path, Path], tuple[object, ...]]] = {
    "train": lambda model, data, _: ("train", model, "--data", data, "--name", "new", *SMALL),
    "train --dry-run": lambda model, data, _: ("train", model, "--data", data, "--dry-run", *SMALL),
    "plan": lambda model, data, _: ("plan", model, "--data", data),
    "data check": lambda model, data, _: ("data", "check", data, "--model", model),
    "eval": lambda model, data, _: ("eval", model, "--data", data, "--quant", "float32", "--device", "cpu"),
    "eval of a session": lambda model, data, _: ("eval", "old", "--data", data),
    "chat": lambda *_: ("chat", "old"),
    "resume": lambda *_: ("resume", "old", "--steps", 4),
    "export": lambda model, data, to: ("export", "old", "--to", to),
    "export merged": lambda model, data, to: ("export", "old", "--format", "merged", "--to", to),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != KNOWN])
def test_code_is_not_run_and_nobody_is_asked(
    zolite: Callable[..., Any], tiny: Path, tmp_path: Path, folder: Callable[..., Path], marker: Path, kind: str
) -> None:
    model, data = Path(shutil.copytree(tiny, tmp_path / "model")), folder()
    assert zolite("train", model, "--data", data, "--name", "old", *SMALL)[0] == 0
    bring_code(model, kind, marker)
    for name, words in COMMANDS.items():
        code, said = zolite(*words(model, data, tmp_path / f"export {name}"))
        assert not marker.exists(), name
        if name != "plan":  # which loads nothing, and so has nothing to refuse
            assert code != 0 and "comes with code of its own (own.py)" in said and "--trust-code" in said, (name, said)


def test_an_architecture_that_transformers_has_is_loaded_without_the_code_beside_it(
    zolite: Callable[..., Any], tiny: Path, tmp_path: Path, marker: Path
) -> None:
    model = bring_code(Path(shutil.copytree(tiny, tmp_path / "model")), KNOWN, marker)
    models.vocabulary(models.resolve(str(model)), tmp_path)
    models.load(models.resolve(str(model)), "float32", torch.device("cpu"), tmp_path)
    assert not marker.exists()


def test_code_that_is_trusted_is_run_and_told_of(
    zolite: Callable[..., Any], tiny: Path, tmp_path: Path, folder: Callable[..., Path], marker: Path
) -> None:
    model, data = Path(shutil.copytree(tiny, tmp_path / "model")), folder()
    bring_code(model, "an architecture of its own", marker)
    code, said = zolite(*COMMANDS["train"](model, data, tmp_path), "--trust-code")
    assert code == 0 and marker.exists() and "runs code of its own" in said and "own.py" in said, said
    with sessions.open_("new") as session:
        assert session.recipe.model.trust_code
    code, said = zolite("export", "new", "--format", "merged", "--to", tmp_path / "merged")
    assert code == 0, said
    assert "trust_remote_code=True" in (tmp_path / "merged" / "README.md").read_text()
    assert (tmp_path / "merged" / "own.py").is_file()
    (model / "own.py").write_text((model / "own.py").read_text() + "# other code\n")
    code, said = zolite("resume", "new", "--steps", 4)
    assert code != 0 and "config.json" in said, said
