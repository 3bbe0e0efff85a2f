"""Tokens of many texts, each word of which is tokenized once.

Tokenizers that split a text before they look for tokens split it in front of a space between two letters, digits or
signs, and around every special token. So the tokens of a text are those of its parts between such places, one behind
the other, and parts come back from row to row. It is done for splitters that are known to do so (SPLITTERS), and where
nothing before them changes what a part is (`Words.of`); of any other tokenizer whole texts are tokenized.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST = 2**17  # parts of each kind that are remembered, about 15 MB
CODE, BYTES = "i", 4  # of int32 in `array`
RECENT = 64  # stretches between special tokens that are

_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_CAPITAL = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
SPLITTERS = (
    _ENGLISH + r"\p{N}{1,3}|" + _PUNCTUATION,  # Llama 3
    _ENGLISH + r"\p{N}|" + _PUNCTUATION,  # Qwen2 and Qwen3
    _CASED + _SHORT + _CAPITAL + _SHORT + r"\p{N}{1,3}|" + _PUNCTUATION.replace(r"[\r\n]*", r"[\r\n/]*", 1),  # gpt-oss
)
"""Patterns that match no text with a space between two other letters in it, and look at nothing behind a match but
whether white space goes on."""

PROBES = ("a b", "It's 1 2 33, é à: x_y  z\n\n a", "\tA (b) c? .d e", "日本 語 ok")

_PLAIN = "[!-~À-ɏͰ-ϿЀ-ӿ]"
"""No letter of these composes with a space before it, so that no normal form of Unicode joins them."""
_BEFORE_SPACE = re.compile(f"(?<={_PLAIN}) (?={_PLAIN})")
_WORD = re.compile(f"{_PLAIN}(.*{_PLAIN})?", re.DOTALL)  # between spaces at which a text is split
_ENDED = re.compile(f".*{_PLAIN}", re.DOTALL)


class Words:
    """The tokens of texts; made by `of`."""

    def __init__(self, backend: Any, special: Sequence[str]) -> None:
        self._backend = backend
        self.special = frozenset(special)
        # Longest first: of several that begin at one letter the tokenizer takes the longest.
        ordered = map(re.escape, sorted(special, key=len, reverse=True))
        self._special = re.compile(f"({'|'.join(ordered)})") if special else None
        self._first = _Known(backend, "", _ENDED)  # words at the beginning of a stretch between special tokens
        self._behind = _Known(backend, " ", _WORD)  # words behind a space, without it
        self._begins = _Known(backend, "")  # parts of any letters
        self._others = _Known(backend, " ")
        self._recent: dict[str, bytes] = {}  # a conversation's prompts are in the whole of it

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase) -> Words | None:
        """None where it is not certain that the tokens of a text are those of its parts."""
        if not tokenizer.is_fast:
            return None
        backend: Any = tokenizer
        backend = backend.backend_tokenizer
        about = json.loads(backend.to_str())
        added = about["added_tokens"]
        if not (_splits(about) and all(map(_stands_alone, added))):
            return None
        names = sorted((each["content"] for each in added if not each["normalized"]), key=len, reverse=True)
        words = Words(backend, names)
        probes = [*PROBES, *(f"a {name}b c" for name in names[:3])]
        whole = tokenizer(probes, add_special_tokens=False, verbose=False)["input_ids"]
        return words if [words.tokens(text) for text in probes] == whole else None

    def tokens(self, text: str) -> list[int]:
        """Those of a text, without what the tokenizer puts around one."""
        return array(CODE, self.packed(text)).tolist()

    def packed(self, text: str) -> bytes:
        """The same as numbers of int32."""
        return b"".join([self._recent.get(each) or self._stretch(each) for each in self.stretches(text)])

    @property
    def largest(self) -> int:
        """The largest token that was found so far."""
        return max(each.largest for each in (self._first, self._behind, self._begins, self._others))

    def _stretch(self, stretch: str) -> bytes:
        found = self.between(stretch)
        if len(self._recent) >= RECENT:
            self._recent.clear()
        self._recent[stretch] = found
        return found

    def between(self, stretch: str) -> bytes:
        """Of a text without special tokens, which is not remembered."""
        parts = stretch.split(" ")  # takes a fraction of the other splitting's time, and is the same for plain words
        try:
            return self._first[parts[0]] + b"".join(map(self._behind.__getitem__, parts[1:]))
        except KeyError:
            first, *others = _BEFORE_SPACE.split(stretch)
            return self._begins[first] + b"".join(map(self._others.__getitem__, others))

    def before(self, text: str, end: int) -> int:
        """How many of a text's tokens begin before letter `end`."""
        count = at = 0
        for part in self._parts(text):
            if at >= end:
                break
            coded = self._backend.encode(part, add_special_tokens=False)
            inside = at + len(part) > end
            count += sum(at + start < end for start, _ in coded.offsets) if inside else len(coded.ids)
            at += len(part)
        return count

    def _parts(self, text: str) -> Iterator[str]:
        """All of the text, in the parts that are tokenized by themselves."""
        for stretch in self.stretches(text):
            first, *others = _BEFORE_SPACE.split(stretch)
            yield first
            yield from (f" {word}" for word in others)

    def stretches(self, text: str) -> list[str]:
        """Special tokens, and what stands between them."""
        return [each for each in self._special.split(text) if each] if self._special else [text]


class _Known(dict[str, bytes]):
    """A part to its tokens, which are found when it is first asked for. `before` stands in front of every part.

    KeyError for one that is not as `plain` has it: it may be a piece of a part.
    """

    def __init__(self, backend: Any, before: str, plain: re.Pattern[str] | None = None) -> None:
        super().__init__()
        self._backend, self._before, self._plain = backend, before, plain
        self.largest = 0

    def __missing__(self, part: str) -> bytes:
        if self._plain and not self._plain.fullmatch(part):
            raise KeyError(part)
        if len(self) >= MOST:
            self.clear()  # what is frequent is soon back
        ids = self._backend.encode(self._before + part, add_special_tokens=False).ids
        found = array(CODE, ids).tobytes()
        self.largest = max(self.largest, *ids) if ids else self.largest
        self[part] = found
        return found


def _splits(about: dict[str, Any]) -> bool:
    """Does a tokenizer, as its file describes it, split texts as is said above?"""
    model, normal = about["model"], about["normalizer"]
    parts = [model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")]
    if model["type"] != "BPE" or any(parts) or about["truncation"] or about["padding"]:
        return False
    return (normal is None or normal == {"type": "NFC"}) and _before_words(about["pre_tokenizer"] or {})


def _before_words(given: dict[str, Any]) -> bool:
    """Do these steps, one behind the other, split in front of a space between two other letters, and undo nothing?"""
    steps = given.get("pretokenizers", ()) if given.get("type") == "Sequence" else (given,)
    if not all(map(_keeps_spaces, steps)):
        return False
    return any(
        step["type"] == "Split" or (step["type"] == "ByteLevel" and step.get("use_regex", True)) for step in steps
    )


def _keeps_spaces(step: dict[str, Any]) -> bool:
    if step.get("type") == "Split":
        known = step["pattern"].get("Regex") in SPLITTERS
        return known and step["behavior"] == "Isolated" and not step["invert"]
    return step.get("type") == "Digits" or (step.get("type") == "ByteLevel" and not step["add_prefix_space"])


def _stands_alone(token: dict[str, Any]) -> bool:
    """Is an added token found wherever its letters stand, and does it take nothing around it?"""
    strips = token["lstrip"] or token["rstrip"] or token["single_word"]
    return not strips and re.search(r"\s", token["content"]) is None
