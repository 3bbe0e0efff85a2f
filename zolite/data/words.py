r"""Tokens of many texts by their words, where a tokenizer splits texts into words first: each word is tokenized once.

Byte-level BPE splits a text by a regular expression, and no token reaches over a border. A text of printable ASCII in
which no added token can begin is split here by the same expression, in Python's own spelling: of such texts \p{L} are
A-Z and a-z, and \p{N} the digits. Every other text, and each word that is new, is the tokenizer's own business.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEW = 64  # texts that are not worth it
MOST_WORDS = 200_000  # that are remembered
HARMLESS = (None, "NFC", "NFKC")  # normalizers that leave ASCII as it is

_PERL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = (_PERL % r"\p{N}{1,3}", _PERL % r"\p{N}")
"""Of Llama 3 and Qwen 2, and of many after them."""
GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Of byte-level tokenizers that name no expression."""


def tokens_of(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Each text's tokens, without those that the tokenizer puts around a text."""
    if len(texts) >= FEW and tokenizer.is_fast and (words := _words(tokenizer)):
        return words.tokens(tokenizer, texts)
    return _plainly(tokenizer, texts)


def _plainly(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return found


_known: weakref.WeakKeyDictionary[Any, tuple[int, _Words | None]] = weakref.WeakKeyDictionary()


def _words(tokenizer: Any) -> _Words | None:
    """None where the tokenizer works in another way. Another number of tokens is another tokenizer."""
    backend = tokenizer.backend_tokenizer
    size = backend.get_vocab_size()
    if tokenizer not in _known or _known[tokenizer][0] != size:
        _known[tokenizer] = size, _of(backend)
    return _known[tokenizer][1]


def _of(backend: Any) -> _Words | None:
    if type(backend.model).__name__ != "BPE" or backend.model.dropout or backend.pre_tokenizer is None:
        return None
    normalizer = json.loads(backend.normalizer.__getstate__())["type"] if backend.normalizer else None
    expression = _expression(json.loads(backend.pre_tokenizer.__getstate__()))
    if normalizer not in HARMLESS or not expression:
        return None
    begun = {added.content[:1] for added in backend.get_added_tokens_decoder().values()}
    letters = "".join(re.escape(c) for c in map(chr, (9, 10, 13, *range(32, 127))) if c not in begun)
    return _Words(_python(expression), re.compile(f"[{letters}]*"))


def _expression(step: dict[str, Any]) -> str:
    """What a pre-tokenizer splits by; empty where it is none of those that are known."""
    split, last = {}, step
    if step["type"] == "Sequence" and len(step["pretokenizers"]) == 2:
        split, last = step["pretokenizers"]
    if last["type"] != "ByteLevel" or last["add_prefix_space"] or last.get("use_regex", True) == bool(split):
        return ""
    if not split:
        return GPT_2
    if split["type"] != "Split" or split["behavior"] != "Isolated" or split["invert"]:
        return ""
    expression = split["pattern"].get("Regex", "")
    return expression if expression in SPLITS else ""


@functools.cache
def _python(expression: str) -> re.Pattern[str]:
    inside = re.sub(r"\[[^]]*\]", lambda m: m[0].replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9"), expression)
    return re.compile(inside.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]"))


@dataclass
class _Words:
    split: re.Pattern[str]
    usual: re.Pattern[str]
    """of texts that may be split so"""
    known: dict[str, list[int]] = field(default_factory=dict)

    def tokens(self, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
        usual, split = self.usual.fullmatch, self.split.findall
        words = [split(text) if usual(text) else None for text in texts]
        others = iter(_plainly(tokenizer, [text for text, found in zip(texts, words, strict=True) if found is None]))
        known = self._with(tokenizer, [found for found in words if found is not None])
        joined = itertools.chain.from_iterable
        return [next(others) if found is None else [*joined(map(known.__getitem__, found))] for found in words]

    def _with(self, tokenizer: PreTrainedTokenizerBase, words: Sequence[list[str]]) -> dict[str, list[int]]:
        """The words that are known, these among them."""
        known = self.known if len(self.known) < MOST_WORDS else {}
        if new := [*set().union(*words).difference(known)]:
            known |= zip(new, _plainly(tokenizer, new), strict=True)
        self.known = known
        return known
