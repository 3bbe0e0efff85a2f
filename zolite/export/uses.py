"""How programs load an export: the commands, a row a program, for the card and for the terminal."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zolite.data.in_place import in_place
from zolite.data.kinds import label
from zolite.data.kinds.kind import Kind, Row
from zolite.export.source import Trained, longest_label, tokenizer_of

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's --max-lora-rank takes; 16 unless told
SAID = 64  # tokens of an answer that is no label
PORT = 8080
TRIED = 32  # rows, of whose prompts the shortest is shown


@dataclass(frozen=True)
class Question:
    """A prompt as it was trained on, up to where the answer begins."""

    text: str  # all of it, or of a conversation what the user says
    typed: str  # what is typed where the Modelfile's template stands around it
    messages: tuple[dict[str, str], ...] = ()  # of a conversation, around which the model's own template stands


@dataclass(frozen=True)
class Place:
    """What commands name. Paths are quoted for a shell."""

    name: str
    folder: str
    base: str
    gguf: str  # the base model for llama.cpp
    rank: int
    tokens: int
    question: Question
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of an encoder's rows: each one's tokens
    mask: str = ""  # its mask token

    @property
    def max_rank(self) -> str:
        """An option where vLLM would refuse the adapter without it."""
        if self.rank <= RANKS[1]:
            return ""
        return f" --max-lora-rank {next((rank for rank in RANKS if rank >= self.rank), self.rank)}"

    @property
    def prompt(self) -> str:
        return shlex.quote(self.question.text)

    def chat(self, then: str, otherwise: str) -> str:
        """One for conversations, another for a prompt as it is."""
        return then if self.question.messages else otherwise

    def ask(self, **more: Any) -> str:
        """The question to a server with OpenAI's interface, at temperature 0."""
        asked = ({"messages": self.question.messages} if self.question.messages else {"prompt": self.question.text}) | {
            "max_tokens": self.tokens,
            "temperature": 0,
        }
        body = shlex.quote(json.dumps(more | asked, ensure_ascii=False))
        path = self.chat("chat/completions", "completions")
        return f"curl http://localhost:{PORT}/v1/{path} -H 'Content-Type: application/json' -d {body}"


@dataclass(frozen=True)
class Use:
    program: str
    text: Callable[[Place], str]
    language: str = "sh"
    needs: str = ""  # a file of the export, without which the program has none of it
    encoders: bool = False  # is it for models that fill in masks, and not for those that write?


def _llama_cpp(files: Callable[[Place], str]) -> tuple[Use, Use]:
    return (
        Use(
            "llama.cpp",
            lambda p: p.chat(
                f"llama-cli {files(p)} --temp 0",
                f"llama-completion {files(p)} -no-cnv --temp 0 -n {p.tokens} -p {p.prompt}",
            ),
        ),
        Use("llama.cpp's server", lambda p: f"llama-server {files(p)} --port {PORT}\n{p.ask()}"),
    )


def _lm_studio(p: Place, file: str) -> str:
    """It has no adapters, and asks which model is meant where it is given no name."""
    return f"lms import {file}\nlms load --identifier {p.name}\nlms server start --port {PORT}\n{p.ask(model=p.name)}"


def _fill(p: Place, load: str, tokenizer: str) -> str:
    """Which label is likeliest at the mask, by transformers."""
    return f"""{load}
tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")
text, labels = {p.question.text!r}, {dict(p.labels)!r}


def score(tokens):
    inputs = tokenizer(text.replace({p.mask!r}, {p.mask!r} * len(tokens)), return_tensors="pt")
    at = inputs.input_ids[0] == tokenizer.mask_token_id
    return model(**inputs).logits[0, at].log_softmax(-1)[range(len(tokens)), tokens].mean()


print(max(labels, key=lambda label: score(labels[label])))"""


OLLAMA = Use(
    "Ollama",
    lambda p: f"ollama create {p.name} -f {p.folder}/Modelfile\nollama run {p.name} {shlex.quote(p.question.typed)}",
    needs="Modelfile",
)
PEFT = (
    Use(
        "transformers with peft",
        lambda p: (
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{p.base}")\n'
            f'model = PeftModel.from_pretrained(base, "{p.folder}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{p.base}")'
        ),
        "python",
    ),
    Use(
        "vLLM",
        lambda p: (
            f"vllm serve {p.base} --enable-lora --lora-modules {p.name}={p.folder}{p.max_rank} --port {PORT}\n"
            f"{p.ask(model=p.name)}"
        ),
    ),
    Use(
        "SGLang",
        lambda p: (
            f"python -m sglang.launch_server --model-path {p.base} --enable-lora --lora-paths {p.name}={p.folder} "
            f"--port {PORT}\n{p.ask(model=p.base, lora_path=p.name)}"
        ),
    ),
    OLLAMA,
    Use(
        "transformers with peft",
        lambda p: _fill(
            p,
            "from peft import PeftModel\nfrom transformers import AutoModelForMaskedLM, AutoTokenizer\n\n"
            f'base = AutoModelForMaskedLM.from_pretrained("{p.base}")\n'
            f'model = PeftModel.from_pretrained(base, "{p.folder}").eval()',
            p.base,
        ),
        "python",
        encoders=True,
    ),
)
GGUF = (*_llama_cpp(lambda p: f"-m {p.gguf} --lora {p.folder}/adapter.gguf"), OLLAMA)
MERGED = (
    Use(
        "transformers",
        lambda p: (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{p.folder}", dtype="auto")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{p.folder}")'
        ),
        "python",
    ),
    Use("vLLM", lambda p: f"vllm serve {p.folder} --served-model-name {p.name} --port {PORT}\n{p.ask(model=p.name)}"),
    Use(
        "SGLang",
        lambda p: (
            f"python -m sglang.launch_server --model-path {p.folder} --served-model-name {p.name} --port {PORT}\n"
            f"{p.ask(model=p.name)}"
        ),
    ),
    Use(
        "MLX",
        lambda p: (
            f"mlx_lm.generate --model {p.folder} --temp 0 --max-tokens {p.tokens} --prompt {p.prompt}"
            + p.chat("", " --ignore-chat-template")
        ),
    ),
    Use(
        "LM Studio, by a GGUF file",
        lambda p: (
            f"python convert_hf_to_gguf.py {p.folder} --outfile {p.folder}/{p.name}.gguf  # of llama.cpp\n"
            f"{_lm_studio(p, f'{p.folder}/{p.name}.gguf')}"
        ),
    ),
    OLLAMA,
    Use(
        "transformers",
        lambda p: _fill(
            p,
            "from transformers import AutoModelForMaskedLM, AutoTokenizer\n\n"
            f'model = AutoModelForMaskedLM.from_pretrained("{p.folder}", dtype="auto").eval()',
            p.folder,
        ),
        "python",
        encoders=True,
    ),
)
MERGED_GGUF = (
    *_llama_cpp(lambda p: f"-m {p.folder}/model.gguf"),
    Use("LM Studio", lambda p: _lm_studio(p, f"{p.folder}/model.gguf")),
    OLLAMA,
)


def place(trained: Trained, folder: Path, tokenizer: Any) -> Place:
    """For this machine: its paths, and the prompt of a row that was not trained on."""
    base = trained.source.path if trained.source.path and not trained.gguf else trained.source.base
    gguf = shlex.quote(str(trained.gguf)) if trained.gguf else "BASE.gguf"
    asked = [question(trained, row) for row in trained.dataset.splits["dev"][:TRIED]] if trained.dataset else []
    short = min(asked, key=lambda each: len(each.text), default=question(trained))
    return _place(trained, shlex.quote(str(folder)), shlex.quote(str(base)), gguf, short, tokenizer)


def anywhere(trained: Trained, tokenizer: Any) -> Place:
    """For a card, which others read: no path, and no row."""
    return _place(trained, "THIS_FOLDER", trained.source.base, "BASE.gguf", question(trained), tokenizer)


def _place(trained: Trained, folder: str, base: str, gguf: str, asked: Question, tokenizer: Any) -> Place:
    labels, rank = trained.facts["labels"], trained.recipe.adapter.rank
    tokens = longest_label(trained, tokenizer) + 1 if labels else SAID
    made = Place(trained.name, folder, base, gguf, rank, tokens, asked)
    if not trained.encoder:
        return made
    return replace(made, labels=_label_tokens(trained, asked, tokenizer), mask=tokenizer.mask_token)


def _label_tokens(trained: Trained, asked: Question, tokenizer: Any) -> dict[str, list[int]]:
    """Of each label, as they stand behind a prompt."""
    labels, template = trained.facts["labels"], trained.recipe.data.template
    before = asked.text.partition(tokenizer.mask_token)[0].rstrip()
    (placed,) = in_place(tokenizer, [before], [[label.answer_of(each, template) for each in labels]])
    return dict(zip(labels, map(list, placed.answers), strict=True))


def question(trained: Trained, row: Row | None = None) -> Question:
    """A row's prompt; without a row, one with the columns' names in capitals where their texts go."""
    kind, template, asked = trained.kind, trained.recipe.data.template, trained.prompt
    if asked.chat:
        talk = tuple(row.messages) if row else ({"role": "user", "content": "Hello"},)
        said = next((i for i, message in enumerate(talk) if message["role"] == "assistant"), len(talk))
        before = talk[:said] or ({"role": "user", "content": "Hello"},)
        return Question(before[-1]["content"], before[-1]["content"], before)
    if kind.prompt(template).chat:  # which a model without a chat template has learned as a text
        typed = str(row.messages[-2]["content"]) if row else "INSTRUCTION"
        return Question(asked.before + typed + asked.after, typed)
    row = row or _capitals(kind, template)
    if trained.encoder:
        return Question(label.masked_text(row, template, tokenizer_of(trained).mask_token), "")
    text = next(piece.text for piece in kind.pieces(row, template))
    return Question(text, text.removeprefix(asked.before).removesuffix(asked.after))


def _capitals(kind: Kind, template: str) -> Row:
    """A row whose texts are the names of its columns."""
    columns = kind.columns(template)
    record = {name: name.upper() for name in (*columns, *kind.names.optional)}
    return Row(1, record) if kind.faults(record, columns) else kind.row(1, record, columns)
