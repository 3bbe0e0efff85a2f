"""Claim: the tokens of a text, put together from those of its words, are the tokenizer's own. The twin is one call."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from zolite.data.examples import before, quick, tokenized, words_of
from zolite.data.words import SPLITTERS, Words

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|im_end|>>"]
LEARNED = ["hello world it's the 1 2 33 of  a b\n\nab. A word, (another) naïve é日本\tx\r\n"] * 3
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def by(splitter: Any, normalizer: Any = None, special: list[Any] = SPECIAL) -> PreTrainedTokenizerFast:
    """Tokens of bytes with merges of every kind that a text has where a splitter lets them be."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = splitter, decoders.ByteLevel()
    if normalizer:
        inner.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(LEARNED, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet))
    inner.add_special_tokens(special)
    inner.add_tokens(["<think>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")


def regex(pattern: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), BYTES])


DIGITS = pre_tokenizers.Digits(individual_digits=True)
SPLIT = {
    "GPT-2": by(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "SmolLM2": by(pre_tokenizers.Sequence([DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=False)])),
    **{f"pattern {i}": by(regex(each)) for i, each in enumerate(SPLITTERS)},
    "NFC": by(regex(SPLITTERS[1]), normalizers.NFC()),
}
WHOLE = {
    "no splitter": by(BYTES),
    "a space before a text": by(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "another pattern": by(regex(r"\w+ \w+|\s+")),
    "small letters": by(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Lowercase()),
    "spaces go to a special token": by(
        pre_tokenizers.ByteLevel(add_prefix_space=False), special=[AddedToken("<|im_end|>", lstrip=True, special=True)]
    ),
    "a token with a space in it": by(pre_tokenizers.ByteLevel(add_prefix_space=False), special=["<|im_end|>", "a b"]),
}

pieces = st.sampled_from([
    *SPECIAL, "<think>", " ", "  ", "\n", "\r\n", "\t",
    "a", "b", "hello", "world", "'s", "'S", "1", "33", ".", ", ", "(", ")/",
    "é", "e\u0301", "\u0301", "日本", "\u00a0", "\u2028", "\u200b", "\x1c", "\x85", "ё", "/",
])  # fmt: skip
texts = st.lists(pieces | st.text(max_size=3), max_size=14).map("".join)


@pytest.mark.parametrize("name", SPLIT)
@settings(max_examples=60)
@given(text=texts, letter=st.integers(0, 40))
def test_words_have_the_tokens_of_the_whole(name: str, text: str, letter: int) -> None:
    """Also where in the text they begin: at every letter as many have begun."""
    tokenizer = SPLIT[name]
    remembering = quick(tokenizer)
    assert words_of(remembering)
    for _ in range(2):  # parts are known the second time
        assert tokenized(remembering, [text], special=True) == tokenized(tokenizer, [text], special=True)
    assert before(remembering, text, letter) == before(tokenizer, text, letter)


@pytest.mark.parametrize("name", WHOLE)
def test_other_tokenizers_are_given_whole_texts(name: str) -> None:
    assert Words.of(WHOLE[name]) is None


def test_few_parts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgotten is found again."""
    monkeypatch.setattr("zolite.data.words.MOST", 3)
    monkeypatch.setattr("zolite.data.words.RECENT", 2)
    tokenizer = SPLIT["GPT-2"]
    remembering = quick(tokenizer)
    every = [" ".join(f"w{i} a{j}" for i in range(5)) for j in range(5)] * 2
    assert tokenized(remembering, every, special=False) == tokenized(tokenizer, every, special=False)
