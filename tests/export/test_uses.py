"""Claims about the commands that an export is used with: they can be typed, and ask what was trained on."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zolite.config.recipe import Recipe
from zolite.export import export as exports
from zolite.export import uses
from zolite.export.registry import FORMATS
from zolite.sessions import session as sessions
from zolite.training.loop import train
from zolite.training.prepare import prepare

Make = Callable[..., Recipe]


def exported(recipe: Recipe, folder: Path, format_: str = "peft") -> tuple[exports.Done, str]:
    """An unchecked export, and its card."""
    run = prepare(recipe)
    with sessions.create(None, run.recipe, run.facts) as session:
        list(train(run, session))
        done = exports.export(session, folder, format_, verify=False)
    return done, (folder / "README.md").read_text()


def asked(text: str) -> dict[str, Any]:
    """The document that a curl command sends."""
    (line,) = [words for words in map(shlex.split, text.splitlines()) if words[0] == "curl"] or [[]]
    read: dict[str, Any] = json.loads(line[line.index("-d") + 1])
    return read


def place(rank: int = 4, **changes: Any) -> uses.Place:
    asked = uses.Question('It\'s "a" {text}\nCategory:', "It's", **changes)
    return uses.Place("first", "/a/folder", "org/base", "/m/base.gguf", rank, 3, asked)


@pytest.mark.parametrize("use", [*uses.PEFT, *uses.GGUF, *uses.MERGED, *uses.MERGED_GGUF], ids=lambda use: use.program)
@pytest.mark.parametrize("chat", [False, True])
def test_every_command_can_be_typed(use: uses.Use, chat: bool) -> None:
    """A shell reads each line as it is meant, quotes, braces and new lines included; Python reads the rest."""
    at = place(messages=({"role": "user", "content": 'It\'s "a" {text}'},)) if chat else place()
    text = use.text(at)
    if use.language == "python":
        compile(text, use.program, "exec")
        return
    words = shlex.split(text, comments=True)
    prompts = [word for word in words if "It's" in word]
    assert "/a/folder" in text or use.program.startswith("llama.cpp")
    for word in prompts:
        sent = json.loads(word) if word.startswith('{"') else {"prompt": word}
        assert sent.get("prompt") in (None, at.question.text, at.question.typed)
        assert (sent.get("messages") is not None) is chat or "prompt" in sent


@pytest.mark.parametrize(("rank", "option"), [(4, ""), (16, ""), (17, "32"), (64, "64"), (100, "128"), (600, "600")])
def test_vllm_is_told_of_ranks_above_its_own(rank: int, option: str) -> None:
    """Up to 16 nothing; above, the next that --max-lora-rank takes."""
    (vllm,) = [use.text(place(rank)) for use in uses.PEFT if use.program == "vLLM"]
    assert re.findall(r"--max-lora-rank (\d+)", vllm) == ([option] if option else [])


def test_a_label_is_asked_for_as_it_was_trained(recipe: Make, tiny: Path, tmp_path: Path) -> None:
    """On this machine with a held-out row and real paths; in the card with the columns' names and no path."""
    done, card = exported(recipe(train__steps=1), tmp_path / "out")
    sent = asked(done.uses["vLLM"])
    assert sent["prompt"].endswith("\nCategory:") and (sent["max_tokens"], sent["temperature"]) == (2, 0)
    assert f"={tmp_path / 'out'} " in done.uses["vLLM"] and str(tiny) in done.uses["vLLM"]
    assert re.search(r"```\nTEXT\nCategory:\n```", card) and '"prompt": "TEXT\\nCategory:"' in card
    assert str(tmp_path / "out") not in card and "--lora-paths" in card
    assert sent["prompt"].removesuffix("\nCategory:") in done.uses["Ollama"] and "Category" not in done.uses["Ollama"]


def test_conversations_are_asked_by_the_models_template(
    recipe: Make, folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Messages go to the server's chat interface, and MLX keeps the template that it otherwise leaves out."""
    done, card = exported(recipe(train__steps=1, data__path=str(folder("messages"))), tmp_path / "out", "merged")
    sent = asked(done.uses["vLLM"])
    assert [m["role"] for m in sent["messages"]] == ["user"] and "/v1/chat/completions" in done.uses["vLLM"]
    assert "--ignore-chat-template" not in done.uses["MLX"] and "The prompt ends where" not in card
    done, _ = exported(recipe(train__steps=1), tmp_path / "labels", "merged")
    assert "--ignore-chat-template" in done.uses["MLX"]


@pytest.mark.parametrize("format_", ["peft", "gguf", "merged"])
def test_programs_are_named_where_they_read_the_format(
    recipe: Make, model_folder: Callable[[str, torch.dtype], Path], tmp_path: Path, format_: str
) -> None:
    """All of a format's programs are in the card and printed; Ollama only where there is a Modelfile."""
    model = str(model_folder("qwen3", torch.bfloat16))
    done, card = exported(recipe(train__steps=1, model__name=model), tmp_path / "out", format_)
    known = [use.program for use in FORMATS[format_].writer().card.uses if not use.encoders]
    assert list(done.uses) == [name for name in known if name != "Ollama" or format_ != "peft"]
    lines = exports.summary(done, "first", format_)
    assert lines[0].startswith(str(tmp_path / "out"))
    assert all(f"with {name}:" in lines and f"\n{name}:\n" in card for name in done.uses)
