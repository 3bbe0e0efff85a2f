"""A Modelfile for Ollama: which files, in which template, and where generation stops."""

import contextlib
import json
from pathlib import Path
from typing import Any

from zolite.export import go_template
from zolite.export.source import Trained, begins_by_itself, ends, longest_label

Part = tuple[list[str], list[str]]
"""Lines of a Modelfile, and notes for the user."""

# What Ollama converts by itself (its convert.go): adapters by llama.cpp's name of the model, models by transformers'.
ADAPTERS = ("llama", "gemma2")
MODELS = (
    "LlamaForCausalLM", "MixtralForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
    "Phi3ForCausalLM", "Qwen2ForCausalLM",
)  # fmt: skip
REFUSED = 'Ollama\'s newer engine has no adapters ("loras are not yet implemented"): there, export --format merged'


def write(trained: Trained, folder: Path, weights: Part, tokenizer: Any) -> list[str]:
    """Writes the Modelfile if there are lines that name weights; returns the notes for the user, those given first."""
    files, notes = weights[0], [*weights[1]]
    if files:
        parts: list[Part] = [_template(trained, tokenizer), _system(trained), (_parameters(trained, tokenizer), [])]
        notes += [note for _, more in parts for note in more]
        lines = [f"# {note}" for note in notes] + files + [line for part, _ in parts for line in part]
        (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return notes


def with_adapter(trained: Trained, adapter: str) -> Part:
    """Lines that name the base model and an adapter beside the Modelfile, and notes about it."""
    base = trained.gguf or trained.origin
    return [f"FROM {base}", f"ADAPTER {adapter}"], [REFUSED, *([] if trained.gguf else doubts(trained))]


def peft_adapter(trained: Trained) -> Part:
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
    texts = dict.fromkeys(tokenizer.convert_ids_to_tokens(ends(trained, tokenizer)))
    stops = [f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in texts if text]
    if not trained.facts["labels"]:
        return stops
    room = longest_label(trained, tokenizer) + 1  # the end is a token too
    return [*stops, "PARAMETER temperature 0", f"PARAMETER num_predict {room}"]


def _template(trained: Trained, tokenizer: Any) -> Part:
    """The prompt as it was in training, as a Go template; and what is wrong where Go's templates cannot express it."""
    prompt = trained.prompt
    if not prompt.chat:  # every question stands alone, as every row did
        return _quoted("TEMPLATE", go_template.last_alone(prompt.before, prompt.after))
    render, notes = rendering(tokenizer, adds_bos(trained, tokenizer))
    turns = go_template.turns_of(render)
    if turns is None:
        return [], ["the model's chat template could not be translated for Ollama: write a TEMPLATE by hand"]
    notes += [] if turns.system else ["the model's chat template takes no system message: one is left out here"]
    lines, problems = _quoted("TEMPLATE", turns.go)
    return lines, notes + problems


def _system(trained: Trained) -> Part:
    """The system message that every row began with; a template's own is in its rendering already."""
    rows = trained.dataset.splits["train"] if trained.dataset else ()
    found = {m["content"] for row in rows for m in row.messages[:1] if m["role"] == "system"}
    bare = sum(not row.messages or row.messages[0]["role"] != "system" for row in rows)
    if not found:
        return [], []
    if len(found) > 1 or bare:
        return [], [
            f"the rows began with {len(found)} system messages, {bare:,} of {len(rows):,} with none: send your own"
        ]
    return _quoted("SYSTEM", found.pop())


def _quoted(word: str, text: str) -> Part:
    """A command of a Modelfile, whose texts have no way to say three quotes."""
    if '"""' in text or text.endswith('"'):
        return [], [f"the {word} holds quotes that a Modelfile cannot: {text[:40]!r} …"]
    return [f'{word} """{text}"""'], []


def adds_bos(trained: Trained, tokenizer: Any) -> bool:
    """Whether Ollama and llama.cpp put the token that begins a text in front of every prompt: as the GGUF file says it,
    or as the tokenizer does, from which a converter takes it.
    """
    from gguf import GGUFReader, Keys

    said = GGUFReader(trained.gguf).get_field(Keys.Tokenizer.ADD_BOS) if trained.gguf else None
    return bool(said.contents()) if said else begins_by_itself(tokenizer)


THOUGHT = "a thought of it"


def rendering(tokenizer: Any, adds_bos: bool) -> tuple[go_template.Render, list[str]]:
    """The chat template without the token that is put in front of it anyway, and notes about what that changes."""
    bos = tokenizer.bos_token if adds_bos else ""

    def spelled(talk: go_template.Talk) -> str:
        return str(tokenizer.apply_chat_template(list(talk), tokenize=False, add_generation_prompt=True))

    def render(talk: go_template.Talk) -> str:
        return spelled(talk).removeprefix(bos)

    user, notes = {"role": "user", "content": "x"}, []
    with contextlib.suppress(Exception):  # a template that refuses this is not translated either
        if bos and not spelled([user]).startswith(bos):
            notes.append(f"Ollama puts {bos} in front of every prompt, which the model's chat template does not")
        thinking = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\ny"}
        if THOUGHT not in spelled([user, thinking, user]):
            notes.append("the chat template drops what was thought in earlier turns; Ollama sends it again")
    return render, notes
