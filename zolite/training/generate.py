"""Greedy text after prompts, in batches, with a key-value cache: what any program gets that lets the model write."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from zolite.config.sizes import EVAL_TOKENS
from zolite.data.examples import Tokens
from zolite.engine.batch import by_length
from zolite.engine.engine import Engine


@dataclass(frozen=True)
class Written:
    """The tokens behind a prompt, without the end."""

    ids: Tokens
    ended: bool  # by itself; else it was cut


@torch.inference_mode()
def write(
    engine: Engine, prompts: Sequence[Tokens], most: int, ends: frozenset[int], tokens: int = EVAL_TOKENS
) -> list[Written]:
    """At theta: the likeliest token, appended, and again, until one of `ends` comes or there are `most`.

    `tokens` are what a batch holds at once, prompts and answers together, or a row's where it has more. An answer is
    shorter than `most` where the model's positions end.
    """
    engine.at_theta()
    found: dict[int, Written] = {}
    for batch in by_length([len(prompt) + most for prompt in prompts], tokens):
        found |= zip(batch, _written(engine, [prompts[i] for i in batch], most, ends), strict=True)
    return [found[i] for i in range(len(prompts))]


def _written(engine: Engine, prompts: Sequence[Tokens], most: int, ends: frozenset[int]) -> list[Written]:
    model = engine.loaded.model
    ids, mask = padded(prompts, engine.loaded.device)
    stops, last = torch.tensor(sorted(ends), device=ids.device), last_logits(model)
    room = min(most, positions(model) - ids.shape[1])
    said, past = [ids[:, :0]], None
    done = torch.zeros(len(prompts), dtype=torch.bool, device=ids.device)
    for _ in range(room):
        out = model(input_ids=ids, past_key_values=past, use_cache=True, **places(mask, ids.shape[1]), **last)
        ids, past = out.logits[:, -1].argmax(dim=-1, keepdim=True), out.past_key_values
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        said.append(ids)
        done |= torch.isin(ids[:, 0], stops)
        if bool(done.all()):
            break
    return [_cut(row, ends) for row in torch.cat(said, dim=1).tolist()]


def _cut(ids: Sequence[int], ends: frozenset[int]) -> Written:
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    return Written(tuple(ids[:end]), end is not None)


def positions(model: Any) -> int:
    """Tokens that a model can read and write, as far as it says so."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)


def padded(prompts: Sequence[Tokens], device: torch.device) -> tuple[Tensor, Tensor]:
    """(token ids, 1 where there is one), (prompts, T) int64. They end together, so that the next tokens do, too."""
    longest = max(map(len, prompts))
    ids = torch.tensor([(0,) * (longest - len(prompt)) + tuple(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def places(mask: Tensor, last: int) -> dict[str, Tensor]:
    """What a model is told of padding, of its `last` tokens; nothing where there is none, as not every model asks."""
    if bool(mask.all()):
        return {}
    return {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -last:]}


def last_logits(model: Any) -> dict[str, int]:
    """The argument by which a model makes the logits of the last token alone, where it has one."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
