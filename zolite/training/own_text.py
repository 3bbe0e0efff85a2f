"""Texts that a model writes by itself: what it is to go on saying, whatever else it learns."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zolite.common.progress import counted
from zolite.data.examples import Tokens

TEXTS, WORDS = 48, 16  # texts, and tokens of each: on a CPU a token of all texts costs almost as much as one of one
TURNS, SHORT = 24, 8  # conversations, and tokens of each of their two turns


def own_texts(model: Any, tokenizer: Any) -> list[Tokens]:
    """Some texts from their beginning, and where the model has a chat template some conversations of two turns."""
    made = torch.Generator().manual_seed(0)
    free = _sampled(model, _begun(_first(tokenizer), TEXTS), WORDS, made)
    return [tuple(ids) for ids in free.tolist()] + [tuple(ids) for ids in _turns(model, tokenizer, made).tolist()]


def _turns(model: Any, tokenizer: Any, made: torch.Generator) -> Tensor:
    """(TURNS, T): a user's turn and the beginning of the answer."""
    if (around := _around(tokenizer)) is None:
        return torch.zeros(0, 0, dtype=torch.long)
    before, after = around
    asked = _sampled(model, _begun(before, TURNS), SHORT, made)
    return _sampled(model, torch.cat([asked, _begun(after, TURNS)], 1), SHORT, made)


def _around(tokenizer: Any) -> tuple[Tokens, Tokens] | None:
    """What the chat template puts before a user's message, and between it and the answer."""
    mark = "\u2460"
    if not tokenizer.chat_template:
        return None
    try:
        talk = [{"role": "user", "content": mark}]
        text = str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))
    except Exception:  # noqa: BLE001 - the template is a program from elsewhere: it may raise anything
        return None
    before, found, after = text.partition(mark)
    if not found:
        return None
    ids = [tuple(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, after)]
    return ids[0], ids[1]


def _first(tokenizer: Any) -> Tokens:
    """What a text begins with: the tokenizer's own beginning, or a new line."""
    first = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), None)
    return (first,) if first is not None else tuple(tokenizer("\n", add_special_tokens=False)["input_ids"])


def _begun(tokens: Sequence[int], count: int) -> Tensor:
    return torch.tensor([list(tokens)] * count)


def _sampled(model: Any, ids: Tensor, count: int, made: torch.Generator) -> Tensor:
    """ids (S, T) and `count` tokens more, drawn on the host, so that a seed means the same on every device."""
    past, new = None, ids
    for _ in counted(range(count), "letting the model write texts of its own: tokens", count):
        out = model(input_ids=new.to(model.device), past_key_values=past, use_cache=True)
        new = torch.multinomial(out.logits[:, -1].float().softmax(-1).cpu(), 1, generator=made)
        past, ids = out.past_key_values, torch.cat([ids, new], 1)
    return ids
