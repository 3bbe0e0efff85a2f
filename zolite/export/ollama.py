"""A Modelfile for Ollama: which files, in which template, and where generation stops."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zolite.export.source import Trained

# What Ollama converts by itself (its convert.go): adapters by llama.cpp's name of the model, models by transformers'.
ADAPTERS = ("llama", "gemma2")
MODELS = (
    "LlamaForCausalLM", "MixtralForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
    "Phi3ForCausalLM", "Qwen2ForCausalLM",
)  # fmt: skip
REFUSED = 'Ollama\'s newer engine has no adapters ("loras are not yet implemented"): there, export --format merged'


def write(trained: Trained, folder: Path, weights: tuple[list[str], list[str]], tokenizer: Any) -> list[str]:
    """Writes the Modelfile if there are lines that name weights; returns the notes for the user, those given first."""
    files, notes = weights[0], [*weights[1]]
    if files:
        template, problem = _template(trained, tokenizer)
        notes += [problem] if problem else []
        lines = [f"# {note}" for note in notes] + files + template + _parameters(trained, tokenizer)
        (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return notes


def commands(name: str, folder: Path) -> list[str]:
    """What a user types."""
    return [f"ollama create {name} -f {folder / 'Modelfile'}", f"ollama run {name}"]


def with_adapter(trained: Trained, adapter: str) -> tuple[list[str], list[str]]:
    """Lines that name the base model and an adapter beside the Modelfile, and notes about it."""
    base = trained.gguf or trained.origin
    return [f"FROM {base}", f"ADAPTER {adapter}"], [REFUSED, *([] if trained.gguf else doubts(trained))]


def peft_adapter(trained: Trained) -> tuple[list[str], list[str]]:
    """The same for one in safetensors, which Ollama converts for few architectures."""
    if trained.llama_cpp and trained.llama_cpp.name in ADAPTERS:
        return with_adapter(trained, ".")
    return [], [
        f"Ollama converts safetensors adapters of {' and '.join(ADAPTERS)} only, not of {trained.architecture}: "
        "for Ollama, export --format gguf or merged"
    ]


def doubts(trained: Trained) -> list[str]:
    """Of the base model's safetensors."""
    unsure = f"Ollama may not convert {trained.architecture}: if so, llama.cpp's convert_hf_to_gguf.py first"
    return [] if trained.architecture in MODELS else [unsure]


def _parameters(trained: Trained, tokenizer: Any) -> list[str]:
    stops = [f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in _ends(trained, tokenizer)]
    labels = trained.facts["labels"]
    if not labels:
        return stops
    longest = max(len(tokenizer(" " + label, add_special_tokens=False).input_ids) for label in labels)
    return [*stops, "PARAMETER temperature 0", f"PARAMETER num_predict {longest}"]


def _ends(trained: Trained, tokenizer: Any) -> list[str]:
    """Tokens that end a text, as the model's generation settings and its tokenizer have them."""
    file = trained.origin / "generation_config.json"
    ids = json.loads(file.read_bytes()).get("eos_token_id") if file.is_file() else None
    known = [ids] if isinstance(ids, int) else ids or []
    texts = [*tokenizer.convert_ids_to_tokens(known), tokenizer.eos_token]
    return list(dict.fromkeys(text for text in texts if text))


def _template(trained: Trained, tokenizer: Any) -> tuple[list[str], str]:
    """The prompt as it was in training, as a Go template; and what is wrong where Go's templates cannot express it."""
    prompt = trained.prompt
    if not prompt.chat:
        return [f'TEMPLATE """{prompt.before}{{{{ .Prompt }}}}{prompt.after}"""'], ""
    turns = turns_of(tokenizer)
    if turns is None:
        return [], "the model's chat template could not be translated for Ollama: write a TEMPLATE by hand"
    return [f'TEMPLATE """{turns.go}"""'], ""


@dataclass(frozen=True)
class Turns:
    """A chat template as what stands around each role's text."""

    alone: str  # the start of a conversation without a system message
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    answer: str  # what the model goes on from

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        text = "" if messages[0]["role"] == "system" else self.alone
        for message in messages:
            before, after = getattr(self, message["role"])
            text += before + message["content"] + after
        return text + self.answer

    @property
    def go(self) -> str:
        def turn(role: str) -> str:
            before, after = getattr(self, role)
            return f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}{{{{'

        first, last = self.system
        return (
            f"{{{{ if .System }}}}{first}{{{{ .System }}}}{last}{{{{ else }}}}{self.alone}{{{{ end }}}}"
            f"{{{{ range .Messages }}}}{{{{ {turn('user')} else {turn('assistant')} end }}}}{{{{ end }}}}{self.answer}"
        )


TRIED = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))


def turns_of(tokenizer: Any) -> Turns | None:
    """Read off what the chat template makes of marked texts; None where it does more than surround them.

    Ollama puts the token that begins a text there by itself, so it is left out.
    """
    if not tokenizer.chat_template:
        return None
    try:
        found = _read_off(tokenizer)
        talks = [[{"role": role, "content": f"text {i} of it"} for i, role in enumerate(roles)] for roles in TRIED]
        same = all(found.render(talk) == _rendered(tokenizer, talk, True) for talk in talks)
    except Exception:  # noqa: BLE001 - templates are programs, and refuse what they do not like in ways of their own
        return None
    return found if same and '"""' not in found.go and "{{" not in found.render(talks[-1]) else None


def _read_off(tokenizer: Any) -> Turns:
    def cut(*roles: str) -> list[str]:
        """What stands around the texts of these turns."""
        talk = [{"role": role, "content": f"\u2460{i}\u2461"} for i, role in enumerate(roles)]
        rest, parts = _rendered(tokenizer, talk, False), []
        for message in talk:
            before, _, rest = rest.partition(message["content"])
            parts.append(before)
        return [*parts, rest]

    start, closed = cut("user")
    _, answered, asked, _ = cut("user", "assistant", "user")
    _, _, last = cut("user", "assistant")
    opened = asked.removeprefix(last)
    system, after, _ = cut("system", "user")
    whole = _rendered(tokenizer, [{"role": "user", "content": "x"}], True)
    return Turns(
        alone=start.removesuffix(opened),
        system=(system, after.removesuffix(opened)),
        user=(opened, closed),
        assistant=(answered.removeprefix(closed), last),
        answer=whole.removeprefix(f"{start}x{closed}"),
    )


def _rendered(tokenizer: Any, talk: list[dict[str, str]], answering: bool) -> str:
    text: str = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=answering)
    return text.removeprefix(tokenizer.bos_token or "")
