"""Go on from an adapter that peft wrote: its rank, alpha and layers become the recipe's, its factors the first values.

What a session starts from is in its checkpoint 0, so only a new session reads the folder. Space lora-b draws its A's
anew from the seed whenever it is opened, and no checkpoint holds them: it takes an adapter only if its A's are those.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from zolite.common.errors import UsageError, listed
from zolite.config.recipe import AdapterPart, ResolvedAdapter

if TYPE_CHECKING:
    from torch import Tensor

    from zolite.engine.adapter import Adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
READ = ("peft_type", "r", "lora_alpha", "use_rslora", "init_lora_weights")
# What says nothing of the numbers, or was over when they were written. Layers are read off the weights themselves.
IDLE = (
    "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision",
    "target_modules", "task_type",
)  # fmt: skip
ADDITIVE = (True, False, None, "gaussian", "eva", "orthogonal")  # other starts change the base's weights as well


@dataclass(frozen=True)
class Found:
    """An adapter_config.json as zolite says it."""

    base: str
    rank: int
    alpha: float
    targets: tuple[str, ...]


def find(folder: Path) -> Found:
    """Raises UsageError with everything about the adapter that zolite would have to leave out."""
    try:
        config = _typed(json.loads((folder / CONFIG).read_bytes()))
        names = _names(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(
            f"{folder} is no adapter as peft writes it: {error}", f"give a folder with {CONFIG} and {WEIGHTS}"
        ) from error
    problems = _problems(config) + [f"a tensor {name}" for name in names if _block(name) is None]
    if problems:
        raise UsageError(
            f"the adapter in {folder} has what zolite's have not:\n{listed(problems)}",
            "merge it into its base (peft's merge_and_unload) and train on the result",
        )
    rank, layers = int(config["r"]), {str(_block(name)).rpartition(".")[0] for name in names}
    alpha = float(config["lora_alpha"])
    if config.get("use_rslora"):
        alpha *= math.sqrt(rank)  # it divides by √rank, where alpha is divided by the rank
    targets = layers if _by_name(config) else {layer.rpartition(".")[2] for layer in layers}
    return Found(str(config.get("base_model_name_or_path")), rank, alpha, tuple(sorted(targets)))


def settings(folder: Path, given: dict[str, Any], base: AdapterPart) -> dict[str, Any]:
    """Changes to a recipe for going on from an adapter. Raises with all that was asked for otherwise."""
    found = find(folder)
    wanted = {"rank": found.rank, "alpha": found.alpha, "targets": found.targets}
    asked = {k: given.get(f"adapter.{k}", _unless_default(base, k)) for k in wanted}
    if problems := [
        f"adapter.{k} was to be {_text(asked[k])}, the adapter's is {_text(value)}"
        for k, value in wanted.items()
        if asked[k] is not None and _text(asked[k]) != _text(value)
    ]:
        raise UsageError(f"{folder} is another adapter:\n{listed(problems)}", "leave these settings out")
    changes = {f"adapter.{k}": v for k, v in wanted.items()} | {"adapter.start": str(folder.resolve())}
    return {"adapter.space": "lora"} | changes


def put_(adapter: Adapter, part: ResolvedAdapter, base: str) -> tuple[str, ...]:
    """The adapter's first values; warnings about them. Raises where they do not fit the recipe or the model."""
    import torch
    from safetensors.torch import load_file

    folder = Path(part.start)
    found = find(folder)
    factors = {str(_block(name)): t for name, t in load_file(folder / WEIGHTS).items()}
    ours = {b.name: b.of(adapter.space.theta) for b in adapter.space.blocks} | adapter.frozen
    problems = _mismatches(found, part, factors, ours)
    if problems:
        raise UsageError(
            f"{folder} does not fit the recipe:\n{listed(problems)}", "`zolite train --from-adapter` sets it"
        )
    for name, frozen in adapter.frozen.items():
        if not torch.equal(factors[name].to(frozen), frozen):
            raise UsageError(
                f"space lora-b draws its A's from the seed; the adapter's {name} is another", "train with --space lora"
            )
    for block in adapter.space.blocks:
        ours[block.name].copy_(factors[block.name])
    other = f"the adapter in {folder} was made for {found.base}, not {base}: its numbers fit, its meaning may not"
    return (other,) if found.base != base else ()


def _mismatches(found: Found, part: ResolvedAdapter, factors: dict[str, Tensor], ours: dict[str, Tensor]) -> list[str]:
    wrong = [
        f"adapter.{k} is {mine:g}, the adapter's {its:g}"
        for k, mine, its in (("rank", part.rank, found.rank), ("alpha", part.alpha, found.alpha))
        if not math.isclose(mine, its)
    ]
    wrong += [f"the adapter has {name}, the recipe's layers do not" for name in sorted(factors.keys() - ours.keys())]
    wrong += [f"the recipe has {name}, the adapter does not" for name in sorted(ours.keys() - factors.keys())]
    return wrong + [
        f"{name} is {tuple(factors[name].shape)}, in this model {tuple(ours[name].shape)}"
        for name in sorted(factors.keys() & ours.keys())
        if factors[name].shape != ours[name].shape
    ]


KINDS: dict[str, tuple[type, ...]] = {
    "r": (int,), "lora_alpha": (int, float), "use_rslora": (bool,), "target_modules": (str, list),
}  # fmt: skip


def _typed(config: Any) -> dict[str, Any]:
    """What is read of it is of its type; ValueError if not."""
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} holds no settings")
    for key, kinds in KINDS.items():
        if config.get(key) is not None and not isinstance(config[key], kinds):
            raise ValueError(f"{key} is {config[key]!r}")
    if not 0 < (config.get("r") or 1) < 2**31 or not math.isfinite(config.get("lora_alpha") or 1):
        raise ValueError(f"its rank is {config.get('r')} and its alpha {config.get('lora_alpha')}")
    return config


def _problems(config: dict[str, Any]) -> list[str]:
    problems = [] if config.get("peft_type") == "LORA" else [f"peft_type is {config.get('peft_type')}, not LORA"]
    if config.get("init_lora_weights", True) not in ADDITIVE:
        problems.append(f"init_lora_weights is {config['init_lora_weights']}, which changes the base's weights too")
    problems += [f"{k} is missing" for k in ("r", "lora_alpha") if config.get(k) is None]
    if config.get("bias", "none") != "none":
        problems.append(f"bias is {config['bias']}: biases are trained as well")
    return problems + [f"{k} is {v}" for k, v in config.items() if k not in READ + IDLE and v]


def _by_name(config: dict[str, Any]) -> bool:
    """Whether it may have an adapter on some of the layers of a name only."""
    if config.get("layers_to_transform") or config.get("exclude_modules"):
        return True
    targets = config.get("target_modules")
    return isinstance(targets, str) or any("." in str(target) for target in targets or ())


def _names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, "np") as opened:
        return list(opened.keys())


def _block(name: str) -> str | None:
    """base_model.model.model.layers.0.mlp.up_proj.lora_A.weight → model.layers.0.mlp.up_proj.a"""
    for factor in "AB":
        inner = name.removeprefix("base_model.model.").removesuffix(f".lora_{factor}.weight")
        if f"base_model.model.{inner}.lora_{factor}.weight" == name:
            return f"{inner}.{factor.lower()}"
    return None


def _unless_default(part: AdapterPart, key: str) -> Any:
    return None if getattr(part, key) == getattr(AdapterPart(), key) else getattr(part, key)


def _text(value: Any) -> str:
    """As --set and recipe files may write it."""
    if isinstance(value, list | tuple):
        value = ",".join(value)
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        return ",".join(sorted(part.strip() for part in value.split(",")))
    return f"{float(value):g}"
