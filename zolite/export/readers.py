"""Models as other programs load them, with none of zolite's layers: token sequences to logits."""

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zolite.export.source import Trained
from zolite.model import load as models

Forward = Callable[[Sequence[Sequence[int]]], Sequence[Tensor]]
"""Token sequences to the logits (tokens, V) of each."""

TOKENS = 8  # that a prompt is continued by


@dataclass(frozen=True)
class Reader:
    packages: tuple[str, ...]
    quantized: bool  # whether it is given the session's quantized weights, or reads others at full precision
    open: Callable[[Trained, Path, torch.device], Forward]
    rounding: float = 0.0  # of its own, nats a token
    serves: Callable[[Trained], bool] = lambda _: True


def forward_of(model: Any) -> Forward:
    """Any transformers model, padded on the right, which attention cannot see."""

    def forward(sequences: Sequence[Sequence[int]]) -> Sequence[Tensor]:
        rows = [torch.tensor(list(s)) for s in sequences]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits
        return [logits[i, : len(row)] for i, row in enumerate(rows)]

    return forward


def in_float32(where: Path, device: torch.device, **options: Any) -> Any:
    """transformers' model of a folder."""
    from transformers import AutoModelForCausalLM

    with models.quiet():
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, device_map={"": device}, **options)
        return model.eval()


def reloaded(base: Any, folder: Path) -> Any:
    """The model with the adapter as peft puts it on."""
    with models.quiet():
        from peft import PeftModel

        return PeftModel.from_pretrained(base, str(folder)).eval()


LLAMA_CPP = ("llama-cpp-python",)
LLAMA_ROUNDING = 2.5e-1  # nats a token: llama.cpp rounds activations to 8 bits where weights are quantized


def llama(model: Path, adapter: Path | None = None, context: int = 1024) -> Forward:
    """llama.cpp itself, on the CPU."""
    from llama_cpp import Llama

    lora, threads = str(adapter) if adapter else None, torch.get_num_threads()
    runner: Any = Llama(
        str(model), lora_path=lora, n_ctx=context, n_threads=threads, n_gpu_layers=0, logits_all=True, verbose=False
    )

    def forward(sequences: Sequence[Sequence[int]]) -> Sequence[Tensor]:
        found = []
        for sequence in sequences:
            held = runner.input_ids[: runner.n_tokens].tolist()
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(held, sequence[:-1], strict=False))
            shared = sum(1 for _ in same)  # what it has in its cache already
            runner.n_tokens = shared
            runner.eval(list(sequence[shared:]))
            found.append(torch.from_numpy(runner.scores[: len(sequence)].copy()))
        return found

    return forward


def by_llama_cpp(open_: Callable[[Trained, Path, torch.device], Forward]) -> Reader:
    """llama.cpp as a reader, where it is installed and the base is a GGUF file."""

    def serves(trained: Trained) -> bool:
        return trained.gguf is not None and importlib.util.find_spec("llama_cpp") is not None

    return Reader(LLAMA_CPP, False, open_, LLAMA_ROUNDING, serves)


def context_of(trained: Trained) -> int:
    """Tokens of the longest row and what is said after it."""
    return trained.recipe.data.context + TOKENS
