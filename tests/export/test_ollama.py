"""Claims about Modelfiles: the prompt that was trained on, where it stops, and no file that Ollama would refuse."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gguf import GGUFWriter
from transformers import PreTrainedTokenizerFast

from zolite.config.recipe import Recipe
from zolite.export import export as exports
from zolite.export import go_template, ollama
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare

Make = Callable[..., Recipe]

GENERATION = "{% if add_generation_prompt %}"
# What the templates of these models make of texts, in as few words: tools and images are left out.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    f"{GENERATION}<|im_start|>assistant\n{{% endif %}}"
)
WITH_DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}" + CHATML
LLAMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = "
    "messages[1:] %}{% else %}{% set system = '' %}{% endif %}<|start|>system<|end|>\n\nCutting Knowledge "
    "Date: December 2023\n\n{{ system }}<|eot|>{% for m in messages %}"
    "<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    f"{GENERATION}<|start|>assistant<|end|>\n\n{{% endif %}}"
)
GEMMA_TURNS = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    f"{GENERATION}<start_of_turn>model\n{{% endif %}}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + GEMMA_TURNS
)
GEMMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}" + GEMMA_TURNS
)
MISTRAL_TURNS = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ system + '\n\n' if system and WHERE else '' }}"
    "{{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}" + MISTRAL_TURNS.replace("WHERE", "loop.first")
)
MISTRAL3 = MISTRAL.replace("loop.first", "loop.last")
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.index0 > ns.last %}<think>\n\n</think>\n\n{% endif %}{{ said }}{% else %}{{ m.content }}{% endif %}"
    f"<|im_end|>\n{{% endfor %}}{GENERATION}<|im_start|>assistant\n{{% if enable_thinking is defined and "
    "enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"
    "<｜User｜>{{ m.content }}{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end｜>"
    "{% endif %}{% endfor %}"
    f"{GENERATION}<｜Assistant｜><think>\n{{% endif %}}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    f"{GENERATION}<|assistant|>\n{{% else %}}{{{{ eos_token }}}}{{% endif %}}"
)
PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    f"{GENERATION}<|im_start|>assistant<|im_sep|>{{% endif %}}"
)
BRACES = (
    "{% for m in messages %}{{ '{' }}{{ '{{' }}{{ m.role }}: {{ '{' }}{{ m.content }}}}{% endfor %}"
    f"{GENERATION}{{{{ '{{' }}}}{{% endif %}}"
)
SPOKEN = {
    "chatml": CHATML, "a default system": WITH_DEFAULT, "llama 3": LLAMA3, "gemma 2": GEMMA2, "gemma 3": GEMMA3,
    "mistral": MISTRAL, "mistral, system last": MISTRAL3, "qwen 3": QWEN3, "deepseek r1": R1, "phi 3": PHI3,
    "phi 4": PHI4, "braces": BRACES,
}  # fmt: skip
COUNTING = "{% for m in messages %}{{ loop.index }}. {{ m.role }}: {{ m.content }}\n{% endfor %}"
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
SHOUTING = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
TALK = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Yes?\nWhat is it?"},
    {"role": "user", "content": "{{ A question }} <b>&</b>"},
    {"role": "assistant", "content": "An answer"},
    {"role": "user", "content": "Bye"},
]
SYSTEM = {"role": "system", "content": "Be brief."}
TALKS = [[*first, *TALK[:turns]] for first in ([], [SYSTEM]) for turns in (1, 3, 5)]


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[Any]], list[str]]:
    """go(template, talks): what Go makes of them, as Ollama gives them to it."""
    program = shutil.which("go", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("needs Go (`uv sync --group go`)")
    built = tmp_path_factory.mktemp("go") / "ollama_template"
    subprocess.run([program, "build", "-o", built, Path(__file__).with_name("ollama_template.go")], check=True)

    def fill(template: str, talks: list[Any]) -> list[str]:
        task = json.dumps({"template": template, "talks": talks})
        texts: list[str] = json.loads(
            subprocess.run([built], input=task, capture_output=True, check=True, text=True).stdout
        )
        return texts

    return fill


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("name", SPOKEN)
def test_chat_templates_are_said_in_go(
    tokenizer: PreTrainedTokenizerFast, go: Callable[[str, list[Any]], list[str]], name: str, adds_bos: bool
) -> None:
    """Conversations of one and of several turns, with a system message and without, come out of Go as the model's own
    template has them, but for the token that is put in front of them anyway."""
    model = with_template(tokenizer, SPOKEN[name])
    render, _ = ollama.rendering(model, adds_bos)
    turns = go_template.turns_of(render)
    assert turns is not None and turns.system is (name != "gemma 2")
    talks = TALKS if turns.system else TALKS[:3]
    wanted = [model.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) for talk in talks]
    assert go(turns.go, talks) == [text.removeprefix("<s>") if adds_bos else text for text in wanted]
    assert [turns.render(talk) for talk in talks] == go(turns.go, talks)


def test_a_beginning_that_the_template_spells_itself_stays(tokenizer: PreTrainedTokenizerFast) -> None:
    """SmolLM2's turns begin with the token that its tokenizer calls the beginning of a text, which nobody adds."""
    model = with_template(tokenizer, CHATML, bos="<|im_start|>")
    for adds_bos, beginning in ((False, "<|im_start|>user\n"), (True, "user\n")):
        render, notes = ollama.rendering(model, adds_bos)
        assert render(TALK[:1]).startswith(beginning) and not notes
    _, (note,) = ollama.rendering(with_template(tokenizer, PHI3), True)
    assert note == "Ollama puts <s> in front of every prompt, which the model's chat template does not"


@pytest.mark.parametrize("says", [True, False, None])
def test_a_gguf_file_says_whether_a_beginning_is_added(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, says: bool | None
) -> None:
    """Its own setting counts, and where it has none the tokenizer's way, which is to add one."""
    writer = GGUFWriter(tmp_path / "base.gguf", "llama")
    if says is not None:
        writer.add_add_bos_token(says)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    chosen: Any = SimpleNamespace(gguf=tmp_path / "base.gguf")
    assert ollama.adds_bos(chosen, tokenizer) is (says is not False)


def test_thoughts_that_a_template_drops_are_told(tokenizer: PreTrainedTokenizerFast) -> None:
    """Qwen 3 and DeepSeek R1 leave out what was thought in earlier turns, for which Go has no words."""
    for jinja, told in ((QWEN3, 1), (R1, 1), (CHATML, 0)):
        _, notes = ollama.rendering(with_template(tokenizer, jinja), False)
        assert len([note for note in notes if "thought in earlier turns" in note]) == len(notes) == told


def test_one_question_stands_alone(go: Callable[[str, list[Any]], list[str]]) -> None:
    """Rows with labels had one text each: what was said earlier, and a system message, are not in the prompt."""
    found = go(go_template.last_alone("Text: {", "\nCategory:"), [TALK[:1], TALK[:3], [SYSTEM, *TALK]])
    assert found == [f"Text: {{{last}\nCategory:" for last in ("Hello", "{{ A question }} <b>&</b>", "Bye")]


@pytest.mark.parametrize(
    "jinja", [COUNTING, REFUSING, SHOUTING, None], ids=["counts turns", "one turn alone", "changes texts", "none"]
)
def test_what_go_cannot_say_is_not_guessed(tokenizer: PreTrainedTokenizerFast, jinja: str | None) -> None:
    """A template that does more than surround texts gives no Go template at all."""
    render, _ = ollama.rendering(with_template(tokenizer, jinja), False)
    assert go_template.turns_of(render) is None


def with_template(tokenizer: PreTrainedTokenizerFast, jinja: str | None, bos: str = "<s>") -> Any:
    copy = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token=bos, eos_token="<|im_end|>")
    copy.chat_template = jinja
    return copy


def written(make: Make, where: Path, format_: str, **changes: Any) -> tuple[str, list[str]]:
    run = prepare(make(train__steps=1, **changes))
    with sessions.create(None, run.recipe, run.facts) as session:
        list(train(run, session))
        done = exports.export(session, where / format_, format_, verify=False)
    file = where / format_ / "Modelfile"
    return file.read_text() if file.is_file() else "", done.notes


def test_labels_are_asked_as_they_were_trained(recipe: Make, tmp_path: Path, tiny: Path) -> None:
    """With one column the template is around the prompt; generation stops at the longest label, and is greedy."""
    text, _ = written(recipe, tmp_path, "merged")
    assert '{{ .Content }}\nCategory:{{ end }}{{ end }}"""' in text and "FROM .\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0" in text and "PARAMETER num_predict 2\n" in text
    text, notes = written(recipe, tmp_path, "gguf")
    assert f"FROM {tiny}\nADAPTER ./adapter.gguf" in text and "loras are not yet implemented" in notes[0]


def test_each_kind_of_rows_has_its_prompt(recipe: Make, folder: Callable[..., Path], tmp_path: Path) -> None:
    """Completions are prompted as they are typed, messages by the chat template."""
    text, _ = written(recipe, tmp_path / "a", "merged", data__path=str(folder("completion")))
    assert "1) }}{{ .Content }}{{ end }}" in text and "temperature" not in text
    text, _ = written(recipe, tmp_path / "b", "merged", data__path=str(folder("messages")))
    assert 'if eq .Role "user" }}' in text and "<|im_start|>user\n" in text and "SYSTEM" not in text


def test_the_system_message_of_the_rows_is_the_models(
    recipe: Make, folder: Callable[..., Path], tmp_path: Path
) -> None:
    """One with which every row begins goes to SYSTEM; where rows differ the user is told to send one."""
    for every, name in ((True, "all"), (False, "some")):
        data = folder("messages")
        for file in data.glob("*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            for row in rows if every else rows[::2]:
                row["messages"] = [SYSTEM, *row["messages"]]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        text, notes = written(recipe, tmp_path / name, "merged", data__path=str(data))
        assert ('SYSTEM """Be brief."""' in text) is every
        assert any("12 of 24 with none: send your own" in note for note in notes) is not every


def test_what_a_modelfile_cannot_quote_is_told(recipe: Make, tmp_path: Path) -> None:
    """Three quotes in the prompt's template end every quoted text: there is no TEMPLATE, and a note."""
    text, notes = written(recipe, tmp_path, "merged", data__template='"""{text}"""\nCategory: {label}')
    assert "TEMPLATE" not in text.replace(f"# {notes[-1]}", "") and "quotes" in notes[-1]


def test_what_ollama_cannot_read_is_said(
    recipe: Make, model_folder: Callable[[str, torch.dtype], Path], tmp_path: Path
) -> None:
    """A safetensors adapter of Qwen3 gets no Modelfile and a note; merged it gets one, with a warning."""
    model = str(model_folder("qwen3", torch.bfloat16))
    text, notes = written(recipe, tmp_path, "peft", model__name=model)
    assert text == "" and "--format gguf or merged" in notes[0]
    text, notes = written(recipe, tmp_path, "merged", model__name=model)
    assert "Ollama may not convert Qwen3ForCausalLM" in notes[0] and f"# {notes[0]}" in text
