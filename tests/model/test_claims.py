"""What comes from anywhere cannot hang a library: absurd configs and tokenizers, endless templates, code of its own."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite.common.errors import ZoliteError
from zolite.model import load as models

CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def load(folder: Path) -> models.Loaded:
    return models.load(models.resolve(str(folder)), "float32", CPU, folder.parent / "cache")


def words(folder: Path) -> models.Vocabulary:
    return models.vocabulary(models.resolve(str(folder)), folder.parent / "cache")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000, and 4,096 is the most"),
        ({"num_local_experts": 10**8}, "num_local_experts is 100,000,000"),
        ({"text_config": {"n_layer": 10**6}}, "n_layer is 1,000,000"),
        ({"hidden_size": 10**12, "vocab_size": 10**11}, "vocab_size is 100,000,000,000"),
        ({"layer_types": ["full_attention"] * 10**5}, "layer_types lists 100,000 entries"),
    ],
)
def test_a_config_that_no_model_has_is_refused_with_its_numbers(copy: Path, values: dict[str, Any], said: str) -> None:
    changed(copy / "config.json", **values)
    for read in (load, words):
        with pytest.raises(ZoliteError) as error:
            read(copy)
        assert said in error.value.message


def test_a_config_of_far_more_than_the_files_hold_is_refused(copy: Path) -> None:
    changed(copy / "config.json", num_hidden_layers=4000, hidden_size=2**20)
    with pytest.raises(ZoliteError, match="numbers in its files cannot be"):
        load(copy)


def test_a_tokenizer_of_endless_added_tokens_is_refused(copy: Path) -> None:
    tokens = [
        {"id": 300 + i, "content": f"<|{i}|>", "single_word": False, "special": True, "normalized": False,
         "lstrip": False, "rstrip": False}
        for i in range(300_000)
    ]  # fmt: skip
    changed(copy / "tokenizer.json", added_tokens=tokens)
    for read in (load, words):
        with pytest.raises(ZoliteError, match="300,000 added tokens"):
            read(copy)


TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "only with an answer": "{% if messages[1] is defined %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}",
    "a text that doubles": "{% set n = namespace(s='aaaaaaaaaaaaaaaa') %}{% for a in range(60) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "a large power": "{{ (7 ** (10 ** 9)) % 3 }}",
}


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is tried where a process cannot be forked")
@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_without_end_is_refused(copy: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zolite.model.template_trial.SECONDS", 1)
    (copy / "chat_template.jinja").write_text(TEMPLATES[kind])
    with pytest.raises(ZoliteError, match="does not render three messages"):
        words(copy)


def test_a_template_that_fails_is_for_those_who_render_it(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ raise_exception('no conversations') }}")
    assert words(copy).tokenizer.chat_template


CODE = "open({file!r}, 'w').close()\nfrom transformers import LlamaConfig as Own, LlamaForCausalLM as OwnForCausalLM\n"


def test_a_models_own_code_is_never_run(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    (copy / "own.py").write_text(CODE.format(file=str(ran)))
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    changed(copy / "config.json", model_type="own", auto_map=own)
    changed(
        copy / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": ["own.Own", None]}
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    for read in (load, words):
        with pytest.raises(ZoliteError, match="zolite does not run a model's code"):
            read(copy)
    assert not ran.exists()


def test_a_known_architecture_is_loaded_without_the_code_beside_it(copy: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (copy / "own.py").write_text(CODE.format(file=str(ran)))
    changed(copy / "config.json", auto_map={"AutoModelForCausalLM": "own.OwnForCausalLM"})
    assert type(load(copy).model).__module__.startswith("transformers.") and not ran.exists()
