"""Small random models as GGUF files, in float32 or in blocks."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    TokenType,
    get_tensor_name_map,
)
from gguf.quants import quantize
from transformers import PreTrainedTokenizerFast

from zolite.config.architectures import ARCHITECTURES, numbers
from zolite.export import gguf

SCALES = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where a block has its float16 numbers, of types that the gguf package dequantizes but does not quantize."""


def stored(values: np.ndarray[Any, Any], kind: str) -> tuple[np.ndarray[Any, Any], GGMLQuantizationType]:
    """An array as a type has it, where rows are whole blocks; of K types blocks of any codes."""
    made = GGMLQuantizationType[kind]
    block, size = GGML_QUANT_SIZES[made]
    if values.ndim < 2 or values.shape[-1] % block:
        return values.astype(np.float32), GGMLQuantizationType.F32
    if kind not in SCALES:
        return quantize(values, made), made
    drawn = np.random.default_rng(values.size)
    blocks = drawn.integers(0, 256, (values.size // block, size), dtype=np.uint8)
    for at in SCALES[kind]:
        scales = drawn.uniform(1e-4, 1e-3, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks.reshape(*values.shape[:-1], -1), made


def add_vocabulary(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    """The byte tokenizer, whose merges are those of tests/conftest.py, filled up with tokens that nothing leads to."""
    names = {i: name for name, i in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([names.get(i, f"<unused{i}>") for i in range(size)])
    writer.add_token_types([TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(size)])
    writer.add_token_merges(["Ġ y", "Ġy e", "Ġye s", "Ġ n", "Ġn o"])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(True)


def base_gguf(model: Any, tokenizer: PreTrainedTokenizerFast, file: Path, kind: str = "F32") -> None:
    """A model of two layers as llama.cpp reads it."""
    config, here = model.config.to_dict(), ARCHITECTURES[model.config.model_type].llama_cpp
    assert here is not None
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    angles = config["rope_parameters"]
    angles = angles.get("full_attention", angles)
    writer = GGUFWriter(file, here.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_vocab_size(config["vocab_size"])
    add_vocabulary(writer, tokenizer, config["vocab_size"])
    writer.add_rope_freq_base(angles["rope_theta"])
    writer.add_rope_dimension_count(int(width * angles.get("partial_rotary_factor", 1)))
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(config["layer_norm_eps"])
    if "use_parallel_residual" in config:
        writer.add_parallel_residual(config["use_parallel_residual"])
    if here.name == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
    names = get_tensor_name_map(next(a for a in MODEL_ARCH if MODEL_ARCH_NAMES[a] == here.name), 2)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        shifted = tensor + 1 if here.name.startswith("gemma") and name.endswith("norm.weight") else tensor
        ordered = shifted[gguf.order(here, numbers(config), name.rpartition(".")[0], len(tensor))]
        values, of = stored(ordered.contiguous().numpy(), kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), values, raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
