"""What a model's config says of how long a row may be, and of how many tokens it knows. Nothing is loaded for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEARNED = frozenset((
    "albert", "convbert", "deberta", "deberta-v2", "distilbert", "ibert", "layoutlm", "longformer", "luke",
    "mobilebert", "mpnet", "mra", "nystromformer", "roformer", "squeezebert", "yoso",
    "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "biogpt", "blenderbot", "blenderbot-small",
    "camembert", "codegen", "ctrl", "data2vec-text", "electra", "ernie", "git", "gpt2", "gpt_bigcode", "gpt_neo",
    "gptj", "megatron-bert", "mbart", "mvp", "openai-gpt", "opt", "plbart", "rembert", "roberta",
    "roberta-prelayernorm", "roc_bert", "trocr", "whisper", "xlm-roberta", "xlm-roberta-xl", "xmod",
))  # fmt: skip
"""Architectures (model_type) with a table of positions: there is nothing to read behind its last row."""
PADDED = frozenset((
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
))  # fmt: skip
"""Of those the ones whose positions are counted from behind the padding token's number."""
ENDLESS = frozenset((
    "bloom", "falcon_mamba", "mamba", "mamba2", "mpt", "recurrent_gemma", "rwkv", "xlnet", "xlstm",
))  # fmt: skip
"""Without positions that were trained up to some place, whatever else their configs hold."""
NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_target_positions")


@dataclass(frozen=True)
class Limits:
    """In tokens; 0 where there is no such limit, or none that is known."""

    vocabulary: int = 0  # rows of the embedding table
    positions: int = 0  # of a table of positions: a longer row cannot be read
    trained: int = 0  # how far positions were trained: a longer row is read, but badly

    def doubted(self, longest: int) -> str:
        """What should be known of a row of so many tokens; "" where nothing."""
        if not self.trained or longest <= self.trained:
            return ""
        return (
            f"the longest row has {longest:,} tokens, and the model's positions were trained up to {self.trained:,}: "
            f"it reads what lies behind badly; data.context={self.trained} cuts rows there"
        )


def limits_of(config: Mapping[str, Any]) -> Limits:
    """By a config.json; of a model for pictures too, its text's part."""
    inner = config.get("text_config")
    text = {**config, **(inner if isinstance(inner, Mapping) else {})}
    kind = str(text.get("model_type") or "")
    most = next((number for name in NAMES if (number := _number(text, name))), 0)
    if kind in LEARNED and text.get("position_biased_input", True):  # without it DeBERTa has relative ones alone
        skipped = _number(text, "pad_token_id") + 1 if kind in PADDED else 0
        return Limits(_number(text, "vocab_size"), positions=max(1, most - skipped) if most else 0)
    return Limits(
        _number(text, "vocab_size"), trained=0 if kind in ENDLESS or text.get("alibi") else _scaled(text, most)
    )


def _scaled(text: Mapping[str, Any], most: int) -> int:
    """With what a scaling of the rotation adds where the config's number is that before it."""
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        return most
    first, factor = _number(rope, "original_max_position_embeddings") or most, rope.get("factor")
    return max(most, int(first * factor)) if isinstance(factor, int | float) and 1 <= factor < 2**20 else most


def _number(table: Mapping[str, Any], name: str) -> int:
    value = table.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40 else 0
