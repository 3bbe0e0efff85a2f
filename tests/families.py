"""Small tokenizers of the families that models use, each built as its models' tokenizer.json is, trained on a page."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PAGE = """Is it yes or no? It is: yes. Category: yes, no, maybe. The river is a long way down, seven of them.
Question: where is my parcel? Answer: it was lost, and it is not here: no. Category:
yes
no

maybe yes, maybe not; not_entailment, entailment. 2024 was a year of 365 days, 12:30. Yes! No! notes, yesterday.
Say it: yes. Say it: no. The answer is yes; the answer is no. foobar foo bar café naïve über 你好 世界."""
LETTERS = sorted(set(PAGE))
TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def _framed(inner: Tokenizer, template: str, names: Sequence[str]) -> None:
    special = [(name, inner.token_to_id(name)) for name in names]
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)


def _fast(inner: Tokenizer, **named: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=inner, **named)


def byte_level(
    specials: Sequence[str] = ("<|end|>",), template: str = "", prefix: bool = False, regex: str = "", **named: str
) -> PreTrainedTokenizerFast:
    """GPT-2, Qwen, Llama 3: letters of bytes; a space belongs to the word behind it."""
    inner = Tokenizer(models.BPE(ignore_merges=bool(regex)))
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=not regex)
    split = [pre_tokenizers.Split(Regex(regex), "isolated")] if regex else []
    inner.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([PAGE] * 4, trainer)
    if template:
        _framed(inner, template, [name for name in specials if name in template])
    return _fast(inner, **({"eos_token": "<|end|>"} | named))


def sentencepiece_bpe(normalizer: Any, pre_tokenizer: Any = None, strip: bool = True) -> PreTrainedTokenizerFast:
    """Llama 2, Mistral, Gemma: a space is a letter of its own, ▁, and what no piece has is spelled in bytes."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("(?=▁)"), "isolated")
    trained.train_from_iterator(
        [f" {PAGE}"] * 4, trainers.BpeTrainer(vocab_size=250, initial_alphabet=LETTERS, show_progress=False)
    )
    state = json.loads(trained.to_str())["model"]
    learned = [piece for piece, _ in sorted(state["vocab"].items(), key=lambda item: item[1])]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(["<unk>", "<s>", "</s>", *BYTES, *learned]))}
    merges = [tuple(pair) for pair in state["merges"]]
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizer
    if pre_tokenizer is not None:
        inner.pre_tokenizer = pre_tokenizer
    last = [decoders.Strip(" ", 1, 0)] if strip else []
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last])
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    _framed(inner, "<s> $A", ["<s>"])
    return _fast(inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram(scheme: str, template: str, **named: str) -> PreTrainedTokenizerFast:
    """T5, XLNet, ALBERT: the likeliest pieces of each word."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    specials = ["<unk>", "<cls>", "<sep>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=specials, unk_token="<unk>", initial_alphabet=LETTERS, show_progress=False
    )
    inner.train_from_iterator(PAGE.split("\n") * 4, trainer)
    _framed(inner, template, [name for name in specials if name in template])
    return _fast(inner, unk_token="<unk>", **named)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT: words and marks, split into pieces that know whether a word begins with them."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(cleanup=False)
    specials = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=260, special_tokens=specials, initial_alphabet=LETTERS, show_progress=False
    )
    inner.train_from_iterator([PAGE] * 4, trainer)
    _framed(inner, "[CLS] $A [SEP]", specials[1:])
    return _fast(inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def with_added(made: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Phi-3, StarCoder: tokens of their own for runs of white space and for words."""
    made.add_tokens([AddedToken("  ", normalized=False), AddedToken("Category:", normalized=False)])
    return made


_PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt 2": byte_level,
    "gpt 2, space first": lambda: byte_level(prefix=True),
    "llama 3": lambda: byte_level(("<|begin|>", "<|end|>"), "<|begin|> $A", regex=TIKTOKEN, bos_token="<|begin|>"),
    "bytes, another end": lambda: byte_level(("<|sep|>", "<|end|>"), "$A <|sep|>"),
    "bytes, both ends": lambda: byte_level(("<s>", "<|end|>"), "<s> $A <|end|>", bos_token="<s>"),
    "llama 2": lambda: sentencepiece_bpe(_PREPEND),
    "mistral, metaspace first": lambda: sentencepiece_bpe(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    ),
    "metaspace always": lambda: sentencepiece_bpe(None, pre_tokenizers.Metaspace(prepend_scheme="always")),
    "gemma": lambda: sentencepiece_bpe(normalizers.Replace(" ", "▁"), strip=False),
    "phi 3": lambda: with_added(sentencepiece_bpe(_PREPEND)),
    "t5": lambda: unigram("always", "$A </s>", eos_token="</s>"),
    "unigram first": lambda: unigram("first", "$A </s>", eos_token="</s>"),
    "xlnet": lambda: unigram("always", "$A <sep> <cls>", eos_token="</s>"),
    "bert": word_piece,
}
