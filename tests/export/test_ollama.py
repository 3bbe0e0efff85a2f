"""Claims about Modelfiles: the prompt that was trained on, where it stops, and no file that Ollama would refuse."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from zolite.config.recipe import Recipe
from zolite.export import export as exports
from zolite.export import ollama
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare

Make = Callable[..., Recipe]

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
WITH_DEFAULT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
COUNTING = "{% for m in messages %}{{ loop.index }}. {{ m.role }}: {{ m.content }}\n{% endfor %}"
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"


def go(template: str, system: str, messages: list[dict[str, str]]) -> str:
    """The little of Go's templates that is used, by its rules: ifs on .System and .Role, one range."""
    text = re.sub(
        r"{{ if \.System }}(.*?){{ else }}(.*?){{ end }}", lambda m: m[1] if system else m[2], template, flags=re.S
    )
    head, body, tail = re.fullmatch(r"(.*?){{ range \.Messages }}(.*){{ end }}(.*)", text, re.S).groups()  # type: ignore[union-attr]
    cases = re.findall(r'if eq \.Role "(\w+)" }}(.*?)(?={{ else|{{ end)', body, re.S)
    turns = [dict(cases).get(m["role"], "").replace("{{ .Content }}", m["content"]) for m in messages]
    return head.replace("{{ .System }}", system) + "".join(turns) + tail


@pytest.mark.parametrize("jinja", [LLAMA3, WITH_DEFAULT, INSTRUCT], ids=["llama 3", "a default system", "instruct"])
def test_chat_templates_are_said_in_go(tokenizer: PreTrainedTokenizerFast, jinja: str) -> None:
    """Conversations, with and without a system message, come out as the model's own template has them, but for <s>."""
    turns = ollama.turns_of(with_template(tokenizer, jinja))
    assert turns is not None
    talk = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye"},
    ]
    system = {"role": "system", "content": "Be brief."}
    for messages in (talk[:1], talk, [system, *talk[:1]], [system, *talk]):
        wanted = with_template(tokenizer, jinja).apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        spoken = messages[0]["content"] if messages[0]["role"] == "system" else ""
        assert go(turns.go, spoken, messages) == wanted.removeprefix("<s>")


@pytest.mark.parametrize("jinja", [COUNTING, REFUSING, None], ids=["counts turns", "refuses systems", "none"])
def test_what_go_cannot_say_is_not_guessed(tokenizer: PreTrainedTokenizerFast, jinja: str | None) -> None:
    """A template that does more than surround texts gives no Go template at all."""
    assert ollama.turns_of(with_template(tokenizer, jinja)) is None


def with_template(tokenizer: PreTrainedTokenizerFast, jinja: str | None) -> Any:
    copy = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>", eos_token="<|im_end|>"
    )
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
    assert 'TEMPLATE """{{ .Prompt }}\nCategory:"""' in text and "FROM .\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0" in text and "PARAMETER num_predict 1\n" in text
    text, notes = written(recipe, tmp_path, "gguf")
    assert f"FROM {tiny}\nADAPTER ./adapter.gguf" in text and "loras are not yet implemented" in notes[0]


def test_each_kind_of_rows_has_its_prompt(recipe: Make, folder: Callable[..., Path], tmp_path: Path) -> None:
    """Completions are prompted as they are typed, messages by the chat template."""
    text, _ = written(recipe, tmp_path / "a", "merged", data__path=str(folder("completion")))
    assert 'TEMPLATE """{{ .Prompt }}"""' in text and "temperature" not in text
    text, _ = written(recipe, tmp_path / "b", "merged", data__path=str(folder("messages")))
    assert 'if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>' in text


def test_what_ollama_cannot_read_is_said(
    recipe: Make, model_folder: Callable[[str, torch.dtype], Path], tmp_path: Path
) -> None:
    """A safetensors adapter of Qwen3 gets no Modelfile and a note; merged it gets one, with a warning."""
    model = str(model_folder("qwen3", torch.bfloat16))
    text, notes = written(recipe, tmp_path, "peft", model__name=model)
    assert text == "" and "--format gguf or merged" in notes[0]
    text, notes = written(recipe, tmp_path, "merged", model__name=model)
    assert "Ollama may not convert Qwen3ForCausalLM" in notes[0] and f"# {notes[0]}" in text
