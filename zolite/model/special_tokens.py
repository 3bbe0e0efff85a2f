"""Which tokens end a text: as a model's tokenizer, its generation config and its chat template say, and a GGUF file.

    ends(tokenizer, model.generation_config.eos_token_id)     all of them: where generation stops
    settle_(tokenizer, …)                                     from now on tokenizer.eos_token is the one that is trained

Rows of prompts with labels or completions are trained with the tokenizer's end behind the answer, after `settle_`; in
conversations the chat template itself writes what stands behind an assistant's turn. Encoders write nothing and end
nothing: they fill in their tokenizer's mask token, which no decoder's tokenizer has after `settle_`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zolite.common.errors import UsageError, ZoliteError
from zolite.data.examples import frame

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Eos = int | Sequence[int] | None
"""`eos_token_id` as a generation config has it"""

_SAID = "what the assistant says"
_NAMES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
}  # transformers' names, and those of a GGUF file behind "tokenizer.ggml."
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # of a text, of a turn, of a message: llama.cpp stops at each
_AROUND = ("add_bos_token", "add_eos_token")  # whether they stand around every text


@dataclass(frozen=True)
class Ends:
    """Who says which tokens end a text."""

    tokenizer: int | None
    generation: tuple[int, ...]
    template: int | None

    @property
    def trained(self) -> int | None:
        """The tokenizer's, where another has it too or the generation config has none; else the generation config's."""
        if self.tokenizer is not None and (not self.generation or self.tokenizer in (*self.generation, self.template)):
            return self.tokenizer
        if not self.generation or self.template in self.generation:
            return self.template
        return self.generation[0]


def ends(tokenizer: PreTrainedTokenizerBase, generation: Eos) -> frozenset[int]:
    """Tokens at which a text ends; `generation` is the `eos_token_id` of the model's generation config."""
    said = _said(tokenizer, generation)
    return frozenset(i for i in (said.tokenizer, *said.generation, said.template) if i is not None)


def ends_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The same for a model that is loaded."""
    return ends(tokenizer, getattr(getattr(model, "generation_config", None), "eos_token_id", None))


def settle_(tokenizer: PreTrainedTokenizerBase, generation: Eos, encoder: bool = False) -> tuple[str, ...]:
    """Make the end that is trained the tokenizer's own; returns what a person should know where sources disagree.

    A mask token is left to encoders' tokenizers alone, which have no end. UsageError where such a one has none.
    """
    if encoder:
        _check_mask(tokenizer)
        return ()
    if getattr(tokenizer, "mask_token", None) is not None:
        tokenizer.mask_token = None
    said = _said(tokenizer, generation)
    notes = tuple(_disagreements(tokenizer, said, generation))
    if said.trained is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(said.trained)
    return notes


def _check_mask(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.mask_token_id is None:
        raise UsageError(
            "the model is an encoder, and its tokenizer has no mask token: there is nothing that it could fill in",
            "set mask_token in its tokenizer_config.json, as the model was pretrained with it",
        )


def _said(tokenizer: PreTrainedTokenizerBase, generation: Eos) -> Ends:
    known = tuple(i for i in _listed(generation) if tokenizer.convert_ids_to_tokens(i) is not None)
    return Ends(tokenizer.eos_token_id, known, _behind_a_turn(tokenizer))


def _listed(generation: Eos) -> list[int]:
    return [generation] if isinstance(generation, int) else list(generation or ())


def _disagreements(tokenizer: PreTrainedTokenizerBase, said: Ends, generation: Eos) -> Iterator[str]:
    def named(*ids: int | None) -> str:
        known = dict.fromkeys(i for i in ids if i is not None)
        return ", ".join(f"{tokenizer.convert_ids_to_tokens(i)!r} ({i})" for i in known) or "nothing"

    if strange := sorted(set(_listed(generation)) - set(said.generation)):
        numbers = ", ".join(map(str, strange))
        yield f"the generation config ends a text with token {numbers}, which the tokenizer does not have"
    if said.trained is None:
        yield "neither tokenizer, generation config nor chat template has a token that ends a text: none is trained"
    if said.tokenizer is not None and said.generation and said.tokenizer not in said.generation:
        yield (
            f"the tokenizer ends a text with {named(said.tokenizer)}, the generation config with "
            f"{named(*said.generation)}: {named(said.trained)} is trained, and tools that go by the other may not stop"
        )
    if said.template is not None and said.template not in (said.tokenizer, *said.generation):
        yield (
            f"the chat template ends a turn with {named(said.template)}, tokenizer and generation config a text with "
            f"{named(said.tokenizer, *said.generation)}: tools may not stop at the end of a turn"
        )


def _behind_a_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template puts behind what an assistant says."""
    if not tokenizer.chat_template:
        return None
    talk = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": _SAID}]
    try:
        text = str(tokenizer.apply_chat_template(talk, tokenize=False))
    except Exception:  # noqa: BLE001 - the template is a program from elsewhere: it may raise anything
        return None
    _, found, behind = text.rpartition(_SAID)
    ids = tokenizer(behind.strip(), add_special_tokens=False)["input_ids"] if found else []
    return next((i for i in ids[:2] if i in tokenizer.added_tokens_decoder), None)  # a metaspace may come first


# ---- GGUF


def of_gguf(file: Path) -> dict[str, Any]:
    """The file's `tokenizer.…` keys without that word and "ggml."; `tokens` are the texts of those that it names.

    It takes seconds: the whole vocabulary is read.
    """
    from gguf import GGUFReader

    wanted = {*_NAMES.values(), *_ENDS, *_AROUND, "chat_template"}
    fields = {key.removeprefix("tokenizer.").removeprefix("ggml."): f for key, f in GGUFReader(file).fields.items()}
    told = {name: field.contents() for name, field in fields.items() if name in wanted}
    texts, named = fields.get("tokens"), {token for name, token in told.items() if name.endswith("_id")}
    known = [token for token in sorted(named) if texts is not None and token < len(texts.data)]
    return told | {"tokens": {token: texts.contents(token) for token in known if texts is not None}}


def correct_(tokenizer: PreTrainedTokenizerBase, told: Mapping[str, Any]) -> None:
    """Give a tokenizer what its GGUF file says: versions of transformers differ in what they read of it.

    Raises ZoliteError where a special token is another one there.
    """
    for name, key in _NAMES.items():
        if key in told:
            _same(tokenizer, told, told[key])
            setattr(tokenizer, f"{name}_token", told["tokens"][told[key]])
    if "chat_template" in told:
        tokenizer.chat_template = told["chat_template"]
    for key, there in zip(_AROUND, frame(tokenizer), strict=True):
        if told.get(key, bool(there)) != bool(there):
            setattr(tokenizer, key, told[key])  # which changes what is put around a text


def _same(tokenizer: PreTrainedTokenizerBase, told: Mapping[str, Any], token: int) -> None:
    read, there = tokenizer.convert_ids_to_tokens(token), told["tokens"].get(token)
    if read is None or read != there:
        raise ZoliteError(
            f"token {token} is {there!r} by the GGUF file, but {read!r} as transformers reads it",
            "take the model's safetensors, or another version of transformers",
        )


def generation(told: Mapping[str, Any]) -> dict[str, int | list[int]]:
    """What a GGUF file says, as a generation config has it."""
    stops = list(dict.fromkeys(told[key] for key in _ENDS if key in told))
    others = {f"{name}_token_id": told[_NAMES[name]] for name in ("bos", "pad") if _NAMES[name] in told}
    return others | ({"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {})
