"""The table of architectures: one record says all that zolite knows of one. No torch.

Planning counts parameters by it, the fused decoder asks it what it may run, exports take llama.cpp's names from it. An
architecture is added by one object, here or from outside of zolite:

    ARCHITECTURES["mine"] = Architecture("mine", BOTH, gated(), decoder=True, llama_cpp=LlamaCpp("llama", ROTATED))

D width, I inner width of the MLP, H heads of d numbers, K of them for keys and values, V words of the vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zolite.common.errors import ZoliteError

# What zolite's own decoder can do: rotations whose angles do not depend on a text's length, and the MLP's activation.
ROTATIONS = ("default", "llama3", "linear", "yarn")
ACTIVATIONS = ("silu", "swish")
MOST = 2**31  # no number of a config is larger


@dataclass(frozen=True)
class Linear:
    """Alike linear layers that may carry adapters, by the last part of their name."""

    name: str
    inputs: int
    outputs: int
    count: int
    bias: bool = False


@dataclass(frozen=True)
class Config:
    """A config's numbers under one set of names."""

    model_type: str
    layers: int
    hidden: int  # D
    heads: int  # H
    kv_heads: int  # K
    head_dim: int  # d
    intermediate: int  # I
    vocabulary: int  # V
    context: int
    tied: bool
    window: int
    raw: Mapping[str, Any]  # the config with its family's defaults

    def flag(self, *names: str) -> bool:
        return any(bool(self.raw.get(name)) for name in names)

    @property
    def experts(self) -> int:
        """E: routed experts of a layer that has some."""
        return next((int(self.raw[name]) for name in EXPERTS if self.raw.get(name)), 0)

    @property
    def experts_of_token(self) -> int:
        """k: of these, those that a token goes to."""
        return next((int(self.raw[name]) for name in EXPERTS_OF_TOKEN if self.raw.get(name)), 1)

    @property
    def q(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head_dim


Made = list[Linear]
Layers = Callable[[Config], Made]
Count = Callable[[Config], int]


Order = Callable[[Config, int], list[int]]
"""A config and a layer's number of rows to the places (out,) that llama.cpp takes its rows from."""


@dataclass(frozen=True)
class LlamaCpp:
    """What llama.cpp calls an architecture, and which layers' rows it keeps in another order, by their last names."""

    name: str
    orders: Mapping[str, Order] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """`layer_norms` and `final_norm` count all parameters that are neither in a matrix nor a bias of one."""

    name: str  # as transformers calls it: model_type
    attention: Layers
    mlp: Layers
    layer_norms: Count = lambda c: 2 * c.hidden  # of every layer, those of heads apart
    head_norms: bool = False  # a norm of queries and one of keys, each of d numbers that all heads share
    final_norm: Count = lambda c: c.hidden
    places: Count = lambda c: 0  # learned embeddings of positions
    outside: Layers = lambda c: []  # linear layers that belong to no layer
    experts: Layers = lambda c: []  # weights of all routed experts, which carry no adapters
    gates: int = 2  # tensors of an expert's inner width that its activation holds at once, beside the two halves
    eager: bool = False  # attention is a table of all pairs of tokens
    left_out: Count = lambda c: 0  # parameters of its files that no text goes through: never loaded
    head_bias: bool = False
    decoder: bool = False  # zolite's own decoder knows it
    words: Count = lambda c: c.hidden  # width of the embedding table
    defaults: Mapping[str, Any] = field(default_factory=dict)  # what transformers assumes where a config says nothing
    llama_cpp: LlamaCpp | None = None  # None: exports for llama.cpp are refused

    def linears(self, c: Config) -> Made:
        each = self.attention(c) + self.mlp(c)
        return [Linear(m.name, m.inputs, m.outputs, c.layers, m.bias) for m in each] + self.outside(c)

    def norms(self, c: Config) -> int:
        heads = 2 * c.head_dim if self.head_norms else 0
        return c.layers * (self.layer_norms(c) + heads) + self.final_norm(c)

    def embedding(self, c: Config) -> int:
        return c.vocabulary * self.words(c) + self.places(c)

    def fast(self, c: Config) -> bool:
        """May zolite's own decoder run it? What it looks at before it compares numbers (model/fused_decoder.py)."""
        rope = c.raw.get("rope_parameters") or c.raw.get("rope_scaling") or {}
        turn = rope.get("rope_type") or rope.get("type") or "default"
        return self.decoder and turn in ROTATIONS and c.raw.get("hidden_act", "silu") in ACTIVATIONS


def numbers(config: Mapping[str, Any]) -> Config:
    """A config.json, or a catalogue's table. Raises with every number that is missing or absurd."""
    outer = dict(config)
    kind = str(outer.get("model_type") or "")
    known = ARCHITECTURES.get(kind)
    raw = {**(known.defaults if known else {}), **outer, **(outer.get("text_config") or {})}
    problems: list[str] = []

    def number(*names: str, default: int | None = None) -> int:
        value = next((raw[n] for n in names if raw.get(n) is not None), default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MOST:
            problems.append(f"{names[0]} is {value!r}")
            return 1
        return value

    hidden = number("hidden_size", "n_embd", "d_model", "dim")
    heads = number("num_attention_heads", "n_head", "n_heads")
    made = Config(
        model_type=kind,
        layers=number("num_hidden_layers", "n_layer", "n_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=number("num_key_value_heads", default=heads),
        head_dim=number("head_dim", default=hidden // max(1, heads)),
        intermediate=number("ffn_dim", "intermediate_size", "n_inner", "hidden_dim", default=4 * hidden),
        vocabulary=number("vocab_size"),
        context=number("max_position_embeddings", "n_positions", default=2048),
        tied=bool(raw.get("tie_word_embeddings", True)),
        window=number("sliding_window", default=0) if raw.get("use_sliding_window", True) else 0,
        raw=raw,
    )
    if problems:
        raise ZoliteError(
            f"the config of {kind or 'this model'} makes no sense: {'; '.join(problems)}", "check the file"
        )
    return made


# What configs call the number of routed experts, and of those that a token goes to.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_OF_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts")


# --- attention -------------------------------------------------------------------------------------------------------


def split(
    qkv_bias: str = "", out_bias: str = "", always: tuple[bool, bool] = (False, False), out: str = "o_proj"
) -> Layers:
    """Separate products for queries, keys and values. A bias is there where the config's key of that name says so."""

    def made(c: Config) -> Made:
        inner, outer = always[0] or c.flag(qkv_bias), always[1] or c.flag(out_bias)
        return [
            Linear("q_proj", c.hidden, c.q, 1, inner),
            Linear("k_proj", c.hidden, c.kv, 1, inner),
            Linear("v_proj", c.hidden, c.kv, 1, inner),
            Linear(out, c.q, c.hidden, 1, outer),
        ]

    return made


def joined(name: str, out: str, bias: str = "") -> Layers:
    """One product for all three."""

    def made(c: Config) -> Made:
        bent = c.flag(bias)
        return [Linear(name, c.hidden, c.q + 2 * c.kv, 1, bent), Linear(out, c.q, c.hidden, 1, bent)]

    return made


# --- the MLP ---------------------------------------------------------------------------------------------------------


def gated(bias: str = "") -> Layers:
    def made(c: Config) -> Made:
        bent, wide = c.flag(bias), ("gate_proj", "up_proj")
        middle = [Linear(name, c.hidden, c.intermediate, 1, bent) for name in wide]
        return [*middle, Linear("down_proj", c.intermediate, c.hidden, 1, bent)]

    return made


def gated_joined(c: Config) -> Made:
    return [
        Linear("gate_up_proj", c.hidden, 2 * c.intermediate, 1),
        Linear("down_proj", c.intermediate, c.hidden, 1),
    ]


def plain(up: str, down: str, bias: str = "", always: bool = False) -> Layers:
    def made(c: Config) -> Made:
        bent = always or c.flag(bias)
        return [Linear(up, c.hidden, c.intermediate, 1, bent), Linear(down, c.intermediate, c.hidden, 1, bent)]

    return made


# --- llama.cpp -------------------------------------------------------------------------------------------------------


def halves(heads: int, rows: int) -> list[int]:
    """transformers rotates numbers i and i + width/2 of a head together, llama.cpp 2i and 2i + 1."""
    half = rows // heads // 2
    return [(2 * head + part) * half + i for head in range(heads) for i in range(half) for part in (0, 1)]


def thirds(heads: int, rows: int) -> list[int]:
    """q, k and v of each head in turn, to all of q, all of k, all of v."""
    width = rows // heads // 3
    return [(3 * head + part) * width + i for part in range(3) for head in range(heads) for i in range(width)]


ROTATED: dict[str, Order] = {
    "q_proj": lambda c, rows: halves(c.heads, rows),
    "k_proj": lambda c, rows: halves(c.kv_heads, rows),
}
WOVEN: dict[str, Order] = {"query_key_value": lambda c, rows: thirds(c.heads, rows)}


# --- peculiarities ---------------------------------------------------------------------------------------------------


def _opt_attention(c: Config) -> Made:
    bent = c.flag("enable_bias")
    names = ("k_proj", "v_proj", "q_proj", "out_proj")
    return [Linear(name, c.hidden, c.hidden, 1, bent) for name in names]


def _opt_words(c: Config) -> int:
    return int(c.raw.get("word_embed_proj_dim") or c.hidden)


def _opt_projections(c: Config) -> Made:
    words = _opt_words(c)
    return (
        []
        if words == c.hidden
        else [Linear("project_out", c.hidden, words, 1), Linear("project_in", words, c.hidden, 1)]
    )


def _opt_final(c: Config) -> int:
    return 2 * c.hidden if c.flag("do_layer_norm_before") and not c.flag("_remove_final_layer_norm") else 0


def _neox_attention(c: Config) -> Made:
    bent = c.flag("attention_bias")
    return [Linear("query_key_value", c.hidden, 3 * c.hidden, 1, bent), Linear("dense", c.hidden, c.hidden, 1, bent)]


def _gpt2_attention(c: Config) -> Made:
    return [Linear("c_attn", c.hidden, 3 * c.hidden, 1, True), Linear("c_proj", c.hidden, c.hidden, 1, True)]


def _stablelm_attention(c: Config) -> Made:
    """Heads share the width out evenly, whatever else the config says."""
    return split("use_qkv_bias")(replace(c, head_dim=c.hidden // c.heads))


def _vision(c: Config) -> Mapping[str, int]:
    """Gemma 3's tower, a SigLIP: its config's numbers, or those that transformers assumes."""
    found = {**SIGLIP, **(c.raw.get("vision_config") or {})}
    return {key: int(found[key]) for key in SIGLIP}


SIGLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
}


def _tower(c: Config) -> int:
    """All parameters of what turns pictures into text's hidden states; Architecture.left_out."""
    v = _vision(c)
    width, inner, count, patch = (v[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "patch_size"))
    layer = 4 * (width + 1) * width + (width + 1) * inner + (inner + 1) * width + 4 * width  # two norms with biases
    patches = (v["num_channels"] * patch**2 + 1) * width + (v["image_size"] // patch) ** 2 * width
    return count * layer + patches + 2 * width + width + width * c.hidden  # a last norm, and the projection


def _sparse(c: Config) -> int:
    """Layers of Qwen3-MoE with routed experts; the others have an MLP."""
    alone, every = c.raw.get("mlp_only_layers") or (), int(c.raw.get("decoder_sparse_step") or 1)
    return sum(layer not in alone and (layer + 1) % every == 0 for layer in range(c.layers)) if c.experts else 0


def _qwen3_moe_experts(c: Config) -> Made:
    count, inner = _sparse(c) * c.experts, int(c.raw["moe_intermediate_size"])
    return [Linear("gate_up_proj", c.hidden, 2 * inner, count), Linear("down_proj", inner, c.hidden, count)]


def _gpt_oss_experts(c: Config) -> Made:
    inner, count = c.intermediate, c.layers * c.experts
    return [Linear("gate_up_proj", c.hidden, 2 * inner, count, True), Linear("down_proj", inner, c.hidden, count, True)]


def _gpt_oss_rest(c: Config) -> int:
    """Of a layer: two norms, a router with its bias, and a number for each head that attention may fall on."""
    return 2 * c.hidden + c.experts * (c.hidden + 1) + c.heads


BOTH = split("attention_bias", "attention_bias")
UNTIED = {"tie_word_embeddings": False}
QWEN = UNTIED | {"use_sliding_window": False, "num_key_value_heads": 32}


def four_norms(c: Config) -> int:
    """Or two that have a bias each."""
    return 4 * c.hidden


def two_and_all_heads(c: Config) -> int:
    return 2 * c.hidden + c.q + c.kv


def biased(c: Config) -> int:
    """A final norm with a bias."""
    return 2 * c.hidden


GEMMA3: dict[str, Any] = {
    "attention": BOTH,
    "mlp": gated(),
    "layer_norms": four_norms,
    "head_norms": True,
    "defaults": {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
}
GEMMA2 = {"head_dim": 256, "num_key_value_heads": 4, "sliding_window": 4096}
OPT = {"enable_bias": True, "do_layer_norm_before": True}
GLM = UNTIED | {"attention_bias": True, "head_dim": 128, "num_key_value_heads": 2}
SEED = UNTIED | {"attention_bias": True, "head_dim": 128, "num_key_value_heads": 8}

QWEN3_MOE: dict[str, Any] = UNTIED | {
    "use_sliding_window": False, "num_key_value_heads": 4, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "moe_num_experts": 128, "num_experts_per_tok": 8,  # the name of EXPERTS that any other goes before
}  # fmt: skip
GPT_OSS: dict[str, Any] = UNTIED | {
    "attention_bias": True, "head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128, "intermediate_size": 2880,
    "num_local_experts": 128, "num_experts_per_tok": 4,
}  # fmt: skip

_ALL = (
    Architecture("llama", BOTH, gated("mlp_bias"), decoder=True, defaults=UNTIED, llama_cpp=LlamaCpp("llama", ROTATED)),
    Architecture(
        "mistral", split(), gated(), decoder=True, defaults=UNTIED | {"num_key_value_heads": 8},
        llama_cpp=LlamaCpp("llama", ROTATED),
    ),
    Architecture("ministral", split(), gated(), decoder=True, defaults=UNTIED | {"num_key_value_heads": 8}),
    Architecture(
        "qwen2", split(always=(True, False)), gated(), decoder=True, defaults=QWEN, llama_cpp=LlamaCpp("qwen2"),
    ),
    Architecture(
        "qwen3", BOTH, gated(), head_norms=True, decoder=True, defaults=QWEN | {"head_dim": 128},
        llama_cpp=LlamaCpp("qwen3"),
    ),
    Architecture(
        "gemma", BOTH, gated(), defaults={"head_dim": 256, "num_key_value_heads": 16}, llama_cpp=LlamaCpp("gemma"),
    ),
    Architecture("gemma2", BOTH, gated(), four_norms, defaults=GEMMA2, llama_cpp=LlamaCpp("gemma2")),
    Architecture("gemma3_text", **GEMMA3, llama_cpp=LlamaCpp("gemma3")),
    Architecture("gemma3", **GEMMA3, left_out=_tower, llama_cpp=LlamaCpp("gemma3")),
    Architecture(
        "gpt2", _gpt2_attention, plain("c_fc", "c_proj", always=True), four_norms, final_norm=biased,
        places=lambda c: c.context * c.hidden, llama_cpp=LlamaCpp("gpt2"),
    ),
    Architecture(
        "phi", split(always=(True, True), out="dense"), plain("fc1", "fc2", always=True), final_norm=biased,
        head_bias=True, defaults=UNTIED, llama_cpp=LlamaCpp("phi2"),
    ),
    Architecture(
        "phi3", joined("qkv_proj", "o_proj"), gated_joined, defaults=UNTIED, llama_cpp=LlamaCpp("phi3"),
    ),
    Architecture(
        "opt", _opt_attention, plain("fc1", "fc2", "enable_bias"), four_norms, final_norm=_opt_final,
        words=_opt_words, places=lambda c: (c.context + 2) * c.hidden, outside=_opt_projections, defaults=OPT,
    ),
    Architecture(
        "gpt_neox", _neox_attention, plain("dense_h_to_4h", "dense_4h_to_h", always=True), four_norms,
        final_norm=biased, defaults=UNTIED | {"attention_bias": True}, llama_cpp=LlamaCpp("gptneox", WOVEN),
    ),
    Architecture(
        "smollm3", BOTH, gated("mlp_bias"), defaults={"num_key_value_heads": 4, "use_sliding_window": False},
        llama_cpp=LlamaCpp("smollm3", ROTATED),
    ),
    Architecture("granite", BOTH, gated("mlp_bias"), defaults=UNTIED),
    Architecture("olmo", BOTH, gated(), lambda c: 0, final_norm=lambda c: 0, defaults=UNTIED),
    Architecture("olmo2", BOTH, gated(), two_and_all_heads, defaults=UNTIED),
    Architecture("olmo3", BOTH, gated(), two_and_all_heads, defaults=UNTIED),
    Architecture(
        "stablelm", _stablelm_attention, gated(), four_norms, final_norm=biased,
        defaults=UNTIED | {"num_key_value_heads": 32},
    ),
    Architecture(
        "starcoder2", split("use_bias", "use_bias"), plain("c_fc", "c_proj", "use_bias"), four_norms,
        final_norm=biased, defaults={"use_bias": True, "num_key_value_heads": 2},
    ),
    Architecture("cohere", BOTH, gated(), lambda c: c.hidden + (c.q + c.kv if c.flag("use_qk_norm") else 0)),
    Architecture("cohere2", BOTH, gated(), lambda c: c.hidden),
    Architecture("glm", split("attention_bias"), gated_joined, defaults=GLM),
    Architecture("glm4", split("attention_bias"), gated_joined, four_norms, defaults=GLM),
    Architecture(
        "nemotron", BOTH, plain("up_proj", "down_proj", "mlp_bias"), four_norms, final_norm=biased, defaults=UNTIED,
    ),
    Architecture("seed_oss", split("attention_bias", "attention_out_bias"), gated("mlp_bias"), defaults=SEED),
    Architecture("arcee", BOTH, plain("up_proj", "down_proj", "mlp_bias"), defaults=UNTIED),
    Architecture("hunyuan_v1_dense", BOTH, gated(), head_norms=True, defaults=UNTIED),
    Architecture(
        "qwen3_moe", BOTH, lambda c: [], head_norms=True, experts=_qwen3_moe_experts, defaults=QWEN3_MOE,
        final_norm=lambda c: c.hidden + _sparse(c) * c.experts * c.hidden,  # and the routers
        outside=lambda c: [replace(m, count=c.layers - _sparse(c)) for m in gated()(c) if c.layers > _sparse(c)],
    ),
    Architecture(
        "gpt_oss", BOTH, lambda c: [], _gpt_oss_rest, experts=_gpt_oss_experts, gates=5, eager=True, defaults=GPT_OSS,
    ),
    Architecture("exaone4", split(), gated(), head_norms=True, defaults=UNTIED | {"num_key_value_heads": 32}),
)  # fmt: skip

TURNED = ("gpt2", "openai-gpt")  # their weights lie in files as (in, out): transformers' Conv1D

ARCHITECTURES: dict[str, Architecture] = {each.name: each for each in _ALL}


def by_llama_cpp(name: str) -> Architecture | None:
    """The one of that name in llama.cpp, which has text alone: of several, that which transformers calls so too."""
    named = [each for each in ARCHITECTURES.values() if each.llama_cpp and each.llama_cpp.name == name]
    return min(named, key=lambda each: (each.left_out is _tower, each.name != name), default=ARCHITECTURES.get(name))
