"""How programs load an export: the commands, a row a program, for the card, the terminal and reports. Without torch.

`places.py` says what of a session and of this machine stands in them.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zolite.data.kinds.kind import Kind, Prompt, Row

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's --max-lora-rank takes; 16 unless told
SAID = 64  # tokens of an answer that is no label
PORT = 8080
HELLO = {"role": "user", "content": "Hello"}


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


BY_FORMAT: Mapping[str, tuple[Use, ...]] = {"peft": PEFT, "gguf": GGUF, "merged": MERGED, "merged-gguf": MERGED_GGUF}
"""Of the formats in the package."""


def blank(kind: Kind, template: str, asked: Prompt) -> Question:
    """A prompt without a row: columns are their names in capitals, where texts go."""
    if asked.chat:
        return Question("Hello", "Hello", (HELLO,))
    if kind.prompt(template).chat:  # which a model without a chat template has learned as a text
        return Question(asked.before + "INSTRUCTION" + asked.after, "INSTRUCTION")
    return of_text(next(piece.text for piece in kind.pieces(capitals(kind, template), template)), asked)


def of_text(text: str, asked: Prompt) -> Question:
    return Question(text, text.removeprefix(asked.before).removesuffix(asked.after))


def capitals(kind: Kind, template: str) -> Row:
    """A row whose texts are the names of its columns."""
    columns = kind.columns(template)
    record = {name: name.upper() for name in (*columns, *kind.names.optional)}
    return Row(1, record) if kind.faults(record, columns) else kind.row(1, record, columns)
