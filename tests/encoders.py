"""Encoders with masked-language heads, tiny and random, as transformers builds them, each with such a tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LETTERS = [chr(i) for i in range(33, 127)]
WORDS = ["yes", "no", "maybe", "ox", "warm", "river", "a", "long", "way", "down", "blue", "seven", "it", "was"]


def word_piece() -> PreTrainedTokenizerFast:
    """BERT: [PAD] is 0, words in small letters, and all else letter by letter."""
    named = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    words = dict.fromkeys([*named.values(), *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(cleanup=False)
    return _fast(inner, named, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")


def byte_level() -> PreTrainedTokenizerFast:
    """RoBERTa: <s> is 0 and <pad> is 1, a word begins with its space, and the mask takes the space before it."""
    named = {"bos": "<s>", "cls": "<s>", "pad": "<pad>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(dict.fromkeys(named.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([f" {word}" for word in WORDS] * 9, trainer)
    return _fast(inner, named, "<s> $A </s>", "<s> $A </s> </s> $B </s>", lstrip=True)


def unigram() -> PreTrainedTokenizerFast:
    """XLM-R, CamemBERT, ALBERT, DeBERTa: the likeliest pieces of each word."""
    named = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=180,
        special_tokens=list(named.values()),
        unk_token="<unk>",
        initial_alphabet=LETTERS,
        show_progress=False,
    )
    inner.train_from_iterator([" ".join(WORDS)] * 9, trainer)
    return _fast(inner, named, "<s> $A </s>", "<s> $A </s> </s> $B </s>", lstrip=True)


def _fast(inner: Tokenizer, named: dict[str, str], one: str, two: str, lstrip: bool = False) -> PreTrainedTokenizerFast:
    inner.add_special_tokens([name for name in named.values() if name != named["mask"]])
    inner.add_special_tokens([AddedToken(named["mask"], lstrip=lstrip, special=True)])
    ids = [(name, inner.token_to_id(name)) for name in dict.fromkeys(named.values())]
    inner.post_processor = processors.TemplateProcessing(one, two, ids)
    made: Any = PreTrainedTokenizerFast(tokenizer_object=inner, **{f"{key}_token": name for key, name in named.items()})
    return made  # type: ignore[no-any-return]


SMALL = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 130, "initializer_range": 0.1,
}  # fmt: skip
DEBERTA = {
    "relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}  # fmt: skip

Made = tuple[Callable[[], Any], Callable[[], PreTrainedTokenizerFast]]

ENCODERS: dict[str, Made] = {
    "bert": (lambda: transformers.BertConfig(**SMALL), word_piece),
    "roberta": (lambda: transformers.RobertaConfig(**SMALL), byte_level),
    "distilbert": (
        lambda: transformers.DistilBertConfig(
            vocab_size=320, dim=64, hidden_dim=128, n_layers=2, n_heads=4, max_position_embeddings=130
        ),
        word_piece,
    ),
    "electra": (lambda: transformers.ElectraConfig(**SMALL, embedding_size=32), word_piece),
    "deberta-v2": (lambda: transformers.DebertaV2Config(**SMALL, **DEBERTA), unigram),
    "modernbert": (
        lambda: transformers.ModernBertConfig(
            **SMALL, pad_token_id=1, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2,
            global_attn_every_n_layers=2, local_attention=8,
        ),
        byte_level,
    ),
    "xlm-roberta": (lambda: transformers.XLMRobertaConfig(**SMALL), unigram),
    "camembert": (lambda: transformers.CamembertConfig(**SMALL), unigram),
    "albert": (lambda: transformers.AlbertConfig(**SMALL, embedding_size=32), unigram),
    "mpnet": (lambda: transformers.MPNetConfig(**SMALL), word_piece),
}  # fmt: skip


def save(kind: str, folder: Path) -> Path:
    """The model with random weights, norms and biases, and its tokenizer."""
    config, tokenizer = ENCODERS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.AutoModelForMaskedLM.from_config(config())
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.05)
        model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
