"""Models as other programs load them, with none of zolite's layers: what they say, and how likely an answer is."""

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from zolite.common.errors import ZoliteError
from zolite.data.examples import Example, Tokens
from zolite.export.source import Trained
from zolite.model import load as models

BATCH = 8  # rows a forward: whole logits are large

Forward = Callable[[Sequence[Sequence[int]]], Sequence[Tensor]]
"""Token sequences to the logits (tokens, V) of each."""


class Opened(Protocol):
    """A model as a program holds it."""

    def losses(self, rows: Sequence[Example]) -> list[float]:
        """Nats a token of each row's answer; the rows have one answer each."""

    def generated(self, prompts: Sequence[Tokens], tokens: int) -> list[Tokens]:
        """The likeliest token after each prompt, and again: at most `tokens`, the last of them the first that ends a
        text for this program.
        """

    def typed(self, text: str) -> Tokens | None:
        """The tokens that a text leads to where it is typed; None for a program that is given tokens."""


@dataclass(frozen=True)
class Reader:
    packages: tuple[str, ...]
    quantized: bool  # whether it is given the session's quantized weights, or reads others at full precision
    open: Callable[[Trained, Path, torch.device], Opened]
    rounding: float = 0.0  # of its own, nats a token
    serves: Callable[[Trained], bool] = lambda _: True


# ---- transformers


@dataclass(frozen=True)
class Logits:
    """A model of which only the logits are used; tokens `ends` end a text."""

    forward: Forward
    ends: Collection[int]

    def losses(self, rows: Sequence[Example]) -> list[float]:
        return [-float(s[row.answer]) for s, row in zip(scores(self.forward, rows), rows, strict=True)]

    def generated(self, prompts: Sequence[Tokens], tokens: int) -> list[Tokens]:
        texts = [(*prompt,) for prompt in prompts]
        for i in range(0, len(texts), BATCH):
            going = list(range(i, min(i + BATCH, len(texts))))
            for _ in range(tokens):
                for k, logits in zip(going, self.forward([texts[k] for k in going]), strict=True):
                    texts[k] += (int(logits[-1].argmax()),)
                going = [k for k in going if texts[k][-1] not in self.ends]
                if not going:
                    break
        return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]

    def typed(self, text: str) -> Tokens | None:
        return None


def of_transformers(model: Any) -> Logits:
    """Any transformers model, which ends texts where its own generation settings say."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return Logits(forward_of(model), {ends} if isinstance(ends, int) else set(ends or ()))


def forward_of(model: Any) -> Forward:
    """Any transformers model, padded on the right, which a decoder cannot see and an encoder is told of."""
    encoder = models.fills_masks(model.config)

    def forward(sequences: Sequence[Sequence[int]]) -> Sequence[Tensor]:
        rows = [torch.tensor(list(s)) for s in sequences]
        ids, seen = (
            torch.nn.utils.rnn.pad_sequence(each, batch_first=True).to(model.device)
            for each in (rows, [torch.ones_like(row) for row in rows])
        )
        options = {"attention_mask": seen} if encoder else {"use_cache": False}
        logits = model(input_ids=ids, **options).logits
        return [logits[i, : len(row)] for i, row in enumerate(rows)]

    return forward


def scores(forward: Forward, rows: Sequence[Example]) -> list[Tensor]:
    """Each row's candidates' mean token log-probabilities (C,), from logits of whole sequences."""
    found = []
    for i in range(0, len(rows), BATCH):
        batch = rows[i : i + BATCH]
        logits = iter(forward([s for row in batch for s in row.sequences]))
        for row in batch:
            own, total = [next(logits) for _ in row.sequences], torch.zeros(row.candidates)
            for q in row.queries:
                total[q.candidate] += own[q.sequence][q.position].float().log_softmax(dim=-1)[q.token].cpu()
            found.append(total / torch.tensor([q.candidate for q in row.queries]).bincount())
    return found


def in_float32(where: Path, device: torch.device, trusted: bool = False, **options: Any) -> Any:
    """transformers' model of a folder. `trusted`: code that comes with it may be run."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    with models.quiet():
        encoder = models.fills_masks(AutoConfig.from_pretrained(where, trust_remote_code=trusted))
        options |= {"dtype": torch.float32, "device_map": {"": device}, "trust_remote_code": trusted}
        kind: Any = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
        return kind.from_pretrained(where, **options).eval()


def reloaded(base: Any, folder: Path) -> Any:
    """The model with the adapter as peft puts it on. Raises ZoliteError where it finds some of its layers missing."""
    with models.quiet(), warnings.catch_warnings(record=True) as told:
        from peft import PeftModel

        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, str(folder)).eval()
    if lost := [text for each in told if "missing adapter keys" in (text := str(each.message))]:
        raise ZoliteError(
            f"peft names layers of this architecture in another way than transformers does: {lost[0][:300]}",
            "export --format merged, or train other layers (--targets)",
        )
    return model
