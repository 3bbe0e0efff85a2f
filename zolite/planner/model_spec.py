"""What a model is, without its weights: a ModelSpec from a config, from headers, or from the catalogue.

    spec("Qwen/Qwen3-0.6B")     the hub's cache, else the catalogue, else the hub by requests for a few bytes
    spec("qwen3-0.6b")          profiles/models/qwen3-0.6b.toml
    spec("./model.gguf"), spec("./folder"), spec("builtin:smollm2-135m")

Numbers of a known architecture (architectures.py) come from its config; those of any other from the names and shapes
of its tensors. Nothing here loads torch.
"""

import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zolite.common import weight_headers
from zolite.common.errors import UsageError, ZoliteError
from zolite.common.paths import paths
from zolite.common.weight_headers import BUFFERS, OTHER_HEADS, TOWERS, Header
from zolite.config import catalog
from zolite.config.architectures import ARCHITECTURES, TURNED, Config, Linear, by_llama_cpp, numbers

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SMALL = 16 << 20  # bytes of a config file, at most


@dataclass(frozen=True)
class ModelSpec:
    """A decoder's numbers. Parameters are counted by what becomes of them: only linear layers are quantized."""

    name: str
    architecture: str  # as transformers calls it: model_type
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    tied: bool  # the head is the embedding table
    linears: tuple[Linear, ...]  # those that may carry adapters
    embedding: int  # parameters of tables that are looked up
    head: int  # of the output layer, 0 where it is tied
    other: int  # of norms, biases and what else is not a matrix
    fast: bool  # zolite's own decoder may run it on a GPU
    window: int  # tokens that attention looks back; 0 for all
    bytes: int  # of its files, 0 where they were not seen
    left_out: int = 0  # parameters of its files that no text goes through
    packed: str = ""  # the quantization its files are stored in
    places: int = 0  # parameters of learned embeddings of positions, among `embedding`
    encoder: bool = False  # it fills in masks, whose logits are the model's own
    head_norms: bool = False  # queries and keys have norms of their own
    experts: tuple[Linear, ...] = ()  # weights of routed experts, all of them: quantized, without adapters
    experts_each: int = 0  # routed experts of a layer
    experts_of_token: int = 0  # of these, those that a token goes to
    gates: int = 2  # tensors of an expert's inner width that its activation holds at once, beside the two halves
    eager: bool = False  # attention is a table of all pairs of tokens

    @property
    def linear(self) -> int:
        return sum(each.count * each.inputs * each.outputs for each in self.linears)

    @property
    def routed(self) -> int:
        """Parameters of routed experts, their biases apart."""
        return sum(each.count * each.inputs * each.outputs for each in self.experts)

    @property
    def parameters(self) -> int:
        return self.linear + self.routed + self.embedding + self.head + self.other


def spec(name: str) -> ModelSpec:
    """Of a hub id, local folder, .gguf file, builtin:NAME or short name of the catalogue."""
    short = name.removeprefix("builtin:")
    path = Path(name).expanduser()
    if path.is_dir():
        return replace(of_folder(path), name=name)
    if path.suffix == ".gguf" and path.is_file():
        return replace(of_gguf(weight_headers.gguf(path)), name=name)
    if short in catalog.models():
        return of_catalogue(short, name)
    if name.startswith(("builtin:", ".", "~", "/")) or path.suffix == ".gguf" or not HUB_ID.fullmatch(name):
        raise unknown(name)
    return of_hub(name)


def place(name: str) -> Path | None:
    """The folder of a model's config and tokenizer, if it is on the disk."""
    path = Path(name).expanduser()
    return path if path.is_dir() else _snapshot(name) if HUB_ID.fullmatch(name) else None


def of_catalogue(short: str, name: str = "") -> ModelSpec:
    """A model of profiles/models; named by its hub id where nothing else is given. Builtin ones are GGUF files."""
    known = catalog.models()[short]
    if name.startswith("builtin:"):
        return replace(from_config(name, known.config), packed="gguf")
    return from_config(known.hub, known.config)


def of_hub(name: str) -> ModelSpec:
    """From the cache, the catalogue, or the hub itself, in this order."""
    if cached := _snapshot(name):
        return replace(of_folder(cached), name=name)
    for short, known in catalog.models().items():
        if known.hub.lower() == name.lower():
            return of_catalogue(short)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise unknown(name, "it is neither in the cache nor in the catalogue, and HF_HUB_OFFLINE is set")
    return _online(name)


def of_folder(path: Path) -> ModelSpec:
    """From config.json and, where there are weights, their headers."""
    return described(path.name, _json(path / "config.json"), weight_headers.folder(path))


def of_gguf(header: Header) -> ModelSpec:
    """From a GGUF's own metadata. Each tensor is unpacked to 16 bits before zolite quantizes it its own way."""
    config = _gguf_config(header)
    made = from_config(str(header.metadata.get("general.name", "gguf")), config)
    return replace(made, bytes=header.bytes, packed="gguf")


def described(name: str, config: Mapping[str, Any], header: Header | None) -> ModelSpec:
    """A config's spec, with what the headers know better: which tensors there are, if they are stored as they are."""
    packed = str((config.get("quantization_config") or {}).get("quant_method") or "")
    known = (config.get("model_type") or "") in ARCHITECTURES
    if not known and (header is None or packed):
        raise ZoliteError(
            f"{name} is of the architecture {config.get('model_type')!r}, which zolite does not know by its config",
            "its safetensors would say: download it first" if header is None else "take the model as it was published",
        )
    made = from_config(name, config) if known else from_tensors(name, config, header or Header({}, 0))
    return replace(made, bytes=header.bytes if header else 0, packed=packed)


def from_config(name: str, config: Mapping[str, Any]) -> ModelSpec:
    """By the table of architectures alone."""
    c = numbers(config)
    known = ARCHITECTURES[c.model_type]
    linears = merged(known.linears(c))
    experts = merged([each for each in known.experts(c) if each.count])
    biases = sum(each.count * each.outputs for each in (*linears, *experts) if each.bias)
    return ModelSpec(
        **_basics(name, c),
        linears=linears,
        embedding=known.embedding(c),
        places=known.places(c),
        head_norms=known.head_norms,
        head=(0 if c.tied else c.vocabulary * c.hidden) + (c.vocabulary if known.head_bias else 0),
        other=biases + known.norms(c),
        fast=known.fast(c),
        experts=experts,
        gates=known.gates,
        eager=known.eager,
        bytes=0,
        left_out=known.left_out(c),
    )


def from_tensors(name: str, config: Mapping[str, Any], header: Header) -> ModelSpec:
    """Of any architecture: matrices are linear layers unless they are called an embedding, the head or of experts."""
    c, encoder = numbers(config), fills_masks(config)
    sizes: Counter[str] = Counter()
    linears = []
    for tensor, shape in header.tensors.items():
        kind = of_experts(tensor, shape, c.experts) or kind_of(tensor, shape)
        if c.tied and kind == "head" and tensor.endswith(".weight"):
            continue  # the embedding table once more
        if any(tower in tensor for tower in TOWERS) or (encoder and OTHER_HEADS.search(tensor)):
            kind = "left_out"
        if kind == "experts":
            continue
        if kind == "linear":
            outputs, inputs = reversed(shape) if c.model_type in TURNED else shape
            linears.append(Linear(leaf(tensor), inputs, outputs, 1, f"{tensor[:-6]}bias" in header.tensors))
        else:
            sizes[kind] += _product(shape)
            sizes["places"] += _product(shape) if encoder and "position" in leaf(tensor) else 0
    return ModelSpec(
        **_basics(name, c),
        linears=merged(linears),
        experts=experts_of(header, c),
        embedding=sizes["embedding"],
        head=sizes["head"],
        other=sizes["other"],
        fast=False,
        bytes=0,
        left_out=sizes["left_out"],
        places=sizes["places"],
        encoder=encoder,
    )


def fills_masks(config: Mapping[str, Any]) -> bool:
    """Is it an encoder's? By the classes that it names, as transformers writes them."""
    kinds = config.get("architectures") or []
    return not config.get("is_decoder") and any("MaskedLM" in str(kind) for kind in kinds)


def kind_of(tensor: str, shape: tuple[int, ...]) -> str:
    """embedding, head, linear, other, or buffer, which is no parameter."""
    last = leaf(tensor)
    if tensor.endswith(BUFFERS):
        return "buffer"
    if last in HEADS:
        return "head"
    if len(shape) != 2 or not tensor.endswith(".weight"):
        return "other"
    return "embedding" if ("embed" in last or last in TABLES) and last not in PROJECTIONS else "linear"


HEADS = ("lm_head", "embed_out", "output", "decoder", "predictions", "vocab_projector", "generator_lm_head")
TABLES = ("wte", "wpe", "relative_attention_bias")
PROJECTIONS = ("embeddings_project", "embedding_hidden_mapping_in")
"""Linear layers behind a narrower table of words."""
SINGLE = re.compile(r"\.experts\.\d+\.\w+\.weight$")  # of an expert, where each has tensors of its own
DOWN = ("down_proj", "w2", "output_linear")  # last parts of names of what leads back to the hidden width
ROUTERS = ("gate", "router")


def of_experts(tensor: str, shape: tuple[int, ...], each: int) -> str:
    """experts, other for the router, or nothing: of the tensors of a model whose layers have `each` experts."""
    if each and (SINGLE.search(tensor) or (len(shape) == 3 and shape[0] == each)):
        return "experts"
    return "other" if each and len(shape) == 2 and shape[0] == each and leaf(tensor) in ROUTERS else ""


def experts_of(header: Header, c: Config) -> tuple[Linear, ...]:
    """Experts' weights as transformers holds them: what leads inwards is one matrix, whatever files have."""
    found: Counter[tuple[bool, int, int]] = Counter()  # down or not, the inner width, the tensor's experts
    inwards = set()
    for tensor, shape in header.tensors.items():
        if of_experts(tensor, shape, c.experts) == "experts":
            name, sides = leaf(tensor.removesuffix(".weight") + ".weight"), shape[-2:]
            inner = sides[0] if sides[1] == c.hidden else sides[1]
            found[name in DOWN, inner, shape[0] if len(shape) == 3 else 1] += 1
            inwards |= {name} - set(DOWN)
    made = []
    for (down, inner, held), count in found.items():
        width = 1 if held > 1 or down else len(inwards)  # tensors of a matrix
        sides = (inner, c.hidden) if down else (c.hidden, width * inner)
        made.append(Linear("down_proj" if down else "gate_up_proj", *sides, held * count // width))
    return merged(made)


def leaf(tensor: str) -> str:
    """q_proj of model.layers.0.self_attn.q_proj.weight."""
    return tensor.rpartition(".")[0].rpartition(".")[2]


def merged(linears: list[Linear]) -> tuple[Linear, ...]:
    """Alike ones counted together, in the order of their first."""
    counts: Counter[Linear] = Counter()
    for each in linears:
        counts[replace(each, count=0)] += each.count
    return tuple(replace(each, count=count) for each, count in counts.items())


def unknown(name: str, why: str = "") -> UsageError:
    """With the names that are nearest."""
    known = catalog.models()
    names = [*known, *(m.hub for m in known.values())]
    by_lower = {n.lower(): n for n in names} | {n.lower().rpartition("/")[2]: n for n in names}
    near = list(dict.fromkeys(by_lower[n] for n in catalog.nearest(name.lower().rpartition("/")[2], by_lower)))
    what = f"no model {name!r}" + (f": {why}" if why else "")
    return UsageError(what, f"nearest: {', '.join(near)}" if near else "give a hub id, a folder or a .gguf file")


def _basics(name: str, c: Config) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": c.model_type,
        "layers": c.layers,
        "hidden": c.hidden,
        "heads": c.heads,
        "kv_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate": c.intermediate,
        "vocabulary": c.vocabulary,
        "context": c.context,
        "tied": c.tied,
        "window": c.window,
        "experts_each": c.experts,
        "experts_of_token": c.experts_of_token if c.experts else 0,
    }


# --- where they lie ---------------------------------------------------------------------------------------------------


def _snapshot(name: str) -> Path | None:
    """The folder that the hub's cache has of a model, by huggingface_hub's layout; importing that takes a second."""
    home = paths()["hub"] / f"models--{name.replace('/', '--')}"
    try:
        commit = (home / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    found = home / "snapshots" / commit
    return found if (found / "config.json").is_file() else None


def _online(name: str) -> ModelSpec:
    """By huggingface_hub: a config, and the first bytes of the weights if the config alone does not say."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise unknown(name, "huggingface_hub is not installed, so the hub cannot be asked")
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        config = _json(Path(hf_hub_download(name, "config.json")))
        known = (config.get("model_type") or "") in ARCHITECTURES
        header = None if known else _merged_metadata(get_safetensors_metadata(name))
    except RepositoryNotFoundError as error:
        raise unknown(name, "the hub has none, or it is private") from error
    except ZoliteError:
        raise
    except Exception as error:  # whatever the client and what it stands on raise without a network
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ZoliteError(
            f"the hub did not say what {name} is: {why}",
            "check the network; models of `zolite plan` without a name, and those in the cache, need none",
        ) from error
    return described(name, config, header)


def _merged_metadata(metadata: Any) -> Header:
    files = metadata.files_metadata.values()
    tensors = {name: tuple(info.shape) for file in files for name, info in file.tensors.items()}
    size = sum(info.data_offsets[1] - info.data_offsets[0] for file in files for info in file.tensors.values())
    return Header(tensors, size)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > SMALL:
            raise ValueError(f"{path.stat().st_size:,} bytes are no config")
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is not a table")
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} has no config.json", "give the folder of a transformers model") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ZoliteError(f"{path} cannot be read: {error}", "download it again") from error
    return found


# --- GGUF -------------------------------------------------------------------------------------------------------------

GGUF_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "sliding_window": "attention.sliding_window",
}


def _gguf_config(header: Header) -> dict[str, Any]:
    """A GGUF's metadata under the names of a config.json."""
    kind = str(header.metadata.get("general.architecture"))
    config = {key: header.metadata.get(f"{kind}.{name}") for key, name in GGUF_KEYS.items()}
    known = by_llama_cpp(kind)
    if known is None:
        raise ZoliteError(f"GGUF architecture {kind!r} is not known to the planner", "plan with the hub id instead")
    table = header.tensors.get("token_embd.weight", (0, 0))
    return {key: value for key, value in config.items() if value} | {
        "model_type": known.name,
        "vocab_size": table[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
    }


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
