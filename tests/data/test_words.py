"""Claims about tokens by words: they are the tokenizer's own, of every text."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from zolite.data import words
from zolite.data.words import GPT_2, SPLITS, tokens_of

PIECES = (
    "the", "The", " river", "it's", "IT'S", "we'll", "'", "''", "'r", " 're", "12345", " 7", "1,000.50", " ", "  ",
    "   ", "\n", "\n\n", " \n", "\r\n", "\t", ".", "...", " (a", ").\n", "-", "_", "a_b", "é", "naïve", "你好",
    "\u00a0", "\x1c", "\x00", "<", "<|end|>", "<|", "€", "\u0301", "|end|", "#!", "ſ", "İ", "\u2028", "x" * 40,
    "foo=bar(1);", "<river>", " <river>",
)  # fmt: skip
TRAINED = "the river is a long way down it's we'll 123 4567 (a) foo bar \n\n ... --- The IT'S"


def tokenizer(expression: str, normalizer: normalizers.Normalizer | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges of some words, and two added tokens."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizer
    if expression == GPT_2:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    inner.decoder = decoders.ByteLevel()

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        [TRAINED] * 3, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_special_tokens(["<|end|>"])
    inner.add_tokens(["<river>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")


TOKENIZERS = {expression: tokenizer(expression) for expression in (GPT_2, *SPLITS)}
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(), st.text(st.characters(codec="ascii"))
)


def own(each: PreTrainedTokenizerFast, some: Sequence[str]) -> list[list[int]]:
    return [each(text, add_special_tokens=False)["input_ids"] for text in some]


@pytest.mark.parametrize("expression", TOKENIZERS, ids=["GPT 2", "Llama 3", "Qwen 2"])
@settings(max_examples=200, deadline=None)
@given(some=st.lists(texts, min_size=1, max_size=8))
def test_tokens_by_words_are_the_tokenizers_own(expression: str, some: list[str]) -> None:
    """Of any text, whatever was tokenized before."""
    each = TOKENIZERS[expression]
    found = words._words(each)
    assert found and found.tokens(each, some) == own(each, some) == tokens_of(each, some)


def test_many_texts_go_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is tokenized as a whole, and each word once, until too many are remembered."""
    asked: list[str] = []
    plainly = words._plainly
    monkeypatch.setattr(words, "_plainly", lambda t, some: (asked.extend(some), plainly(t, some))[1])
    monkeypatch.setattr(words, "MOST_WORDS", 20)
    each, some = tokenizer(GPT_2), [f"the river {i}" for i in range(words.FEW)]
    assert tokens_of(each, some) == own(each, some)
    assert sorted(asked) == sorted({"the", " river", *(f" {i}" for i in range(words.FEW))})
    assert tokens_of(each, some) == own(each, some) and len(asked) > words.FEW + 2


def test_a_token_that_is_added_later_is_seen() -> None:
    each, some = tokenizer(GPT_2), ["the river"] * words.FEW
    before = tokens_of(each, some)
    each.add_tokens(["river"])
    assert tokens_of(each, some) == own(each, some) != before


OTHERS = {
    "a normalizer": tokenizer(GPT_2, normalizers.Lowercase()),
    "another expression": tokenizer(r"\w+|\W+"),
    "a prefix": tokenizer(GPT_2, normalizers.Prepend("_")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_tokenizers_are_left_to_themselves(name: str) -> None:
    each, some = OTHERS[name], ["The River", "a"] * words.FEW
    assert words._words(each) is None and tokens_of(each, some) == own(each, some)
