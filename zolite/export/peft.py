"""A session's adapter as peft writes it: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Collection
from pathlib import Path

import torch
from safetensors.torch import save_file

from zolite.common.paths import paths
from zolite.config.architectures import ARCHITECTURES
from zolite.export import ollama, uses
from zolite.export.readers import Opened, Reader, of_transformers, reloaded
from zolite.export.source import Trained
from zolite.export.writer import Card, Writer
from zolite.model import load as models


def write(trained: Trained, folder: Path, dtype: str) -> None:
    with models.quiet():
        from peft import LoraConfig

    recipe, alpha = trained.recipe, _whole(trained.recipe.adapter.alpha)
    targets = _targets(trained)
    taken = _of_experts(str(trained.config.get("model_type")))
    renamed = [name for name in targets if name.rpartition(".")[2] in taken]
    LoraConfig(
        r=recipe.adapter.rank,
        lora_alpha=alpha,
        target_modules=[name for name in targets if name not in renamed],
        target_parameters=[f"{name}.weight" for name in renamed] or None,
        base_model_name_or_path=trained.source.base,
        task_type=None if trained.encoder else "CAUSAL_LM",  # peft has none for masks, and needs none
        inference_mode=True,
        fan_in_fan_out=trained.turned,
    ).save_pretrained(str(folder))
    rest = {"a": 1.0, "b": recipe.adapter.alpha / alpha}
    tensors = {_peft_name(name): (t * rest[name[-1]]).contiguous() for name, t in trained.factors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _of_experts(kind: str) -> Collection[str]:
    """Last parts of modules' names that peft takes for those of routed experts, as they were before transformers 5.

    Beside such experts, dense layers of these names are found by their weights' names.
    """
    try:
        from peft.utils import transformers_weight_conversion as conversion
    except ImportError:  # a version that takes names as they are
        return ()
    base = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {}).get(kind)
    return getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {}).get(base, {}).keys()  # type: ignore[no-any-return]


def _peft_name(block: str) -> str:
    """model.layers.0.mlp.up_proj.a → base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"""
    layer, _, factor = block.rpartition(".")
    return f"base_model.model.{layer}.lora_{factor.upper()}.weight"


def _targets(trained: Trained) -> list[str]:
    """Last parts of names, as peft's own configs have them, unless single layers were chosen by full name.

    Full names too where an architecture is not in the table, or has a tower for pictures or sound: their other modules
    may have such last parts.
    """
    layers = {name.rpartition(".")[0] for name in trained.factors}
    single = any("." in target for target in trained.recipe.adapter.targets)
    towers = any(trained.config.get(name) for name in models.TOWERS)
    whole = single or towers or trained.config.get("model_type") not in ARCHITECTURES
    return sorted(layers if whole else {layer.rpartition(".")[2] for layer in layers})


def _whole(alpha: float) -> int:
    """lora_alpha: Ollama (convert.go: uint32) and peft's own config have an integer, and what it lacks goes into B."""
    return max(1, round(alpha))


def open_(trained: Trained, folder: Path, device: torch.device) -> Opened:
    """As peft puts it on the session's quantized weights."""
    base = models.plain(trained.source, trained.recipe.model.quant, device, paths()["cache"])
    return of_transformers(reloaded(base, folder))


WRITER = Writer(
    write,
    Card("A LoRA adapter for {base}", uses.PEFT, "library_name: peft\n"),
    {"f32": 0.0},
    (Reader(("peft", "transformers"), True, open_),),
    ollama=ollama.peft_adapter,
)
