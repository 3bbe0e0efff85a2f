"""What most tests need: a model and a tokenizer small enough for a CPU, folders of rows, and a home of their own."""

import atexit
import functools
import gc
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; read once, when torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
# Where Python may not keep what it has compiled, each of the dozens of processes below compiles torch again: 13 s.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read once a kernel, when it is defined

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe

# No test has a time limit: how long an example takes says how busy the machine is.
settings.register_profile("zolite", deadline=None)
settings.load_profile("zolite")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("ox", "warm", "river", "a long way down", "blue", "seven of them", "if", "harbour lights")


def pytest_collection_finish() -> None:
    """What is imported stays: looking through all of torch for garbage takes half a second each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # widgets and interpreted kernels are many small objects that stay a while
    atexit.register(gc.unfreeze)  # else nanobind tells of leaks


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ZOLITE_HOME, for this test alone."""
    monkeypatch.setenv("ZOLITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZOLITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, but " yes" and " no" are one each; <s> before a text, <|im_end|> as its end."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s"), ("Ġ", "n"), ("Ġn", "o")]
    vocab |= {a + b: len(vocab) + i for i, (a, b) in enumerate(merges)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    inner.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<|im_end|>")
    made.chat_template = CHATML
    return made


@pytest.fixture(scope="session")
def tiny(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Llama of 100,000 random weights with that tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.1,  # so that logits differ from each other as a trained model's do
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def label_rows(count: int, labels: tuple[str, ...], seed: int) -> list[dict[str, Any]]:
    """Texts of many lengths; three rows of four have the first label, so that there is something easy to learn."""
    others = labels[1:]
    texts = [f"{WORDS[(i * 7 + seed) % 8]} {WORDS[(i * 3 + seed) % 8]} {i}" for i in range(count)]
    return [
        {"text": t, "label": others[i // 4 % len(others)] if i % 4 == 3 else labels[0]} for i, t in enumerate(texts)
    ]


def completion_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Prompts and answers of many lengths."""
    return [
        {"prompt": f"Say {WORDS[(i + seed) % 8]}:", "completion": " " + " ".join([WORDS[(i * 5) % 8]] * (1 + i % 3))}
        for i in range(count)
    ]


def message_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Conversations of one and of two turns."""

    def turn(i: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": WORDS[i % 8]}, {"role": "assistant", "content": WORDS[(i * 3 + seed) % 8]}]

    return [{"messages": turn(i) + (turn(i + 1) if i % 2 else [])} for i in range(count)]


def _talk(i: int) -> tuple[str, str]:
    """Something said and what is answered."""
    return f"{WORDS[i % 8]} {i}", " ".join([WORDS[(i * 5) % 8]] * (1 + i % 3))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _choices(i: int) -> list[str]:
    return [f"{WORDS[(i + k) % 8]} {k}" for k in range(2 + i % 3)]


ROWS: dict[str, Callable[[int, int], list[dict[str, Any]]]] = {
    "completion": completion_rows,
    "messages": message_rows,
    "sharegpt": lambda n, s: [
        {"conversations": [{"from": f, "value": v} for f, v in zip(("human", "gpt"), _talk(i + s), strict=True)]}
        for i in range(n)
    ],
    "alpaca": lambda n, s: [
        {"instruction": "Say it", "input": a if i % 2 else "", "output": b}
        for i, (a, b) in enumerate(map(_talk, range(s, n + s)))
    ],
    "question": lambda n, s: [{"question": a, "answer": b} for a, b in map(_talk, range(s, n + s))],
    "question-context": lambda n, s: [
        {"context": f"It was {b}.", "question": a, "answer": {"text": [b, a], "answer_start": [7, 0]}}
        for a, b in map(_talk, range(s, n + s))
    ],
    "choice": lambda n, s: [{"question": f"{s}{i}", "choices": _choices(i), "answer": i % 2} for i in range(n)],
    "choice-context": lambda n, s: [
        {"context": WORDS[i % 8], "question": f"{s}{i}", "A": "blue", "B": "no", "answer": "AB"[i % 2]}
        for i in range(n)
    ],
    "preference": lambda n, s: [
        {"prompt": a, "chosen": f" {b}", "rejected": " nothing"} for a, b in map(_talk, range(s, n + s))
    ],
    "preference-messages": lambda n, s: [
        {
            "prompt": a,
            "chosen": [_message("user", a), _message("assistant", b)],
            "rejected": [_message("user", a), _message("assistant", "nothing")],
        }
        for a, b in map(_talk, range(s, n + s))
    ],
    "completion-messages": lambda n, s: [
        {"prompt": [_message("user", a)], "completion": [_message("assistant", b)]}
        for a, b in map(_talk, range(s, n + s))
    ],
    "text": lambda n, s: [{"text": " ".join(_talk(i + s)) * (1 + i % 3)} for i in range(n)],
}
"""Rows of every kind but the one with labels: so many, of a seed."""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """folder("label", train=24, dev=8, test=8, labels=…) writes a data folder of JSONL files."""

    def write(
        kind: str = "label", train: int = 24, dev: int = 8, test: int = 8, labels: tuple[str, ...] = ("yes", "no")
    ) -> Path:
        where = tmp_path / f"data-{kind}-{len(list(tmp_path.glob('data-*')))}"
        where.mkdir()
        for seed, (split, count) in enumerate({"train": train, "dev": dev, "test": test}.items()):
            rows = label_rows(count, labels, seed) if kind == "label" else ROWS[kind](count, seed)
            (where / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return where

    return write


@pytest.fixture
def separable(tmp_path: Path) -> str:
    """Rows whose last word says the label, which the random model does not know."""
    for split, count in (("train", 60), ("dev", 30), ("test", 30)):
        texts = [f"number {i}: {'river' if i * 7 % 5 < 2 else 'blue'}" for i in range(count)]
        rows = [{"text": t, "label": "yes" if t.endswith("river") else "no"} for t in texts]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path)


@pytest.fixture
def recipe(tiny: Path, folder: Callable[..., Path]) -> Callable[..., Recipe]:
    """recipe(train__steps=3) is a quick recipe for the tiny model in float32 on the CPU, on label rows."""

    def make(**changes: Any) -> Recipe:
        quick = {
            "model.name": str(tiny),
            "model.quant": "float32",
            "model.device": "cpu",
            "adapter.space": "lora-b",
            "adapter.rank": 4,
            "adapter.linear_probe": False,
            "train.objective": "rank",  # no fit before the first step
            "method.name": "mezo",
            "data.context": 128,
            "train.batch": 6,
            "train.steps": 6,
        }
        given = {name.replace("__", "."): value for name, value in changes.items()}
        if "data.path" not in given:
            given["data.path"] = str(folder())
        made = recipes.override(Recipe(), quick | given)
        t = recipes.resolve(made).train  # nothing is measured or chosen for tests of something else
        open_ = {name: getattr(t, name) for name in ("lr", "eps", "eval_every", "eval_rows")}
        return replace(made, train=replace(made.train, **open_))

    return make


def loaded_from(path: Path) -> ModuleType:
    """A module beside the tests, which no import path reaches."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def naive() -> ModuleType:
    """tests/reference/losses.py."""
    return loaded_from(Path(__file__).parent / "reference" / "losses.py")


@pytest.fixture(scope="session")
def families() -> Callable[[str], PreTrainedTokenizerFast]:
    """families("llama 2") is a tokenizer of that family: FAMILIES in tests/families.py, made once."""
    return functools.cache(lambda name: loaded_from(Path(__file__).parent / "families.py").FAMILIES[name]())


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """encoders("roberta") is the folder of an encoder of that kind: ENCODERS in tests/encoders.py, made once."""
    save = loaded_from(Path(__file__).parent / "encoders.py").save
    return functools.cache(lambda kind: save(kind, tmp_path_factory.mktemp("encoders") / kind))


@pytest.fixture(scope="session")
def random_decoders() -> ModuleType:
    """tests/decoders.py."""
    return loaded_from(Path(__file__).parent / "decoders.py")


@pytest.fixture(autouse=True)
def global_state() -> Iterator[None]:
    """Hands torch's generator back as it was."""
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)
