"""Weights that are stored quantized: kept where that is what was asked for, else dequantized to what was.

    stored(config, folder)         the format that they are stored in
    tensors(folder, config, name)  what transformers loads instead of the files: under the names of ordinary weights,
                                   each dequantized when it is asked for

So a layer at a time is dequantized, and quantized as --quant says before the next one is read.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from zolite.common.errors import UsageError, ZoliteError
from zolite.config.architectures import TURNED
from zolite.config.weights import PACKED
from zolite.model import weight_files
from zolite.model.packings import ACTIVATIONS, ELSEWHERE, PACKINGS, Options, Packing, refuse_layout

BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files that say how weights are stored, where a config is from before it did, and the method that writes them."""


def stored(config: Any, folder: Path) -> str:
    """The weight format that a model is stored in, where it is one of zolite's; else the method's name, "" for none."""
    options = settings(config, folder)
    if options.get("load_in_8bit"):
        return "int8"
    if options.get("load_in_4bit"):
        return str(options.get("bnb_4bit_quant_type") or "fp4")
    return str(options.get("quant_method") or "")


def settings(config: Any, folder: Path) -> dict[str, Any]:
    """How weights are stored, as a table, which `config` has from now on."""
    found = getattr(config, "quantization_config", None) or getattr(
        config.get_text_config(), "quantization_config", None
    )
    table: dict[str, Any] = found if isinstance(found, dict) else found.to_dict() if found else _beside(folder)
    if table:
        config.quantization_config = table
    return table


def _beside(folder: Path) -> dict[str, Any]:
    for name, method in BESIDE.items():
        if (folder / name).is_file():
            read: dict[str, Any] = json.loads((folder / name).read_bytes())
            bits = {"bits": read.get("bits") or read.get("w_bit")}
            return {"quant_method": method} | read | bits
    return {}


@dataclass(frozen=True)
class Packed:
    """A layer's weight, which is dequantized anew whenever it is taken."""

    name: str
    packing: Packing
    parts: Mapping[str, Any]  # slices of safetensors, by what stands behind the layer's name
    options: Options
    turned: bool  # is it (in, out) in the model?

    def __getitem__(self, _: Any) -> Tensor:
        """Float32, on the CPU. Raises ZoliteError where the tensors do not fit each other."""
        try:
            weight = self.packing.weight({suffix: part[...] for suffix, part in self.parts.items()}, self.options)
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            said = str(error).strip().partition("\n")[0][:200]
            raise ZoliteError(f"{self.name} is not stored as its config says: {said}", ELSEWHERE) from error
        return weight.mT.contiguous() if self.turned else weight


def tensors(folder: Path, config: Any, name: str) -> dict[str, Any]:
    """A model's tensors under the names of ordinary weights: `Packed` ones, and slices of safetensors.

    Raises UsageError or ZoliteError for a method, a layout or a layer that nothing here reads.
    """
    options = settings(config, folder)
    method = str(options.get("quant_method") or "bitsandbytes")
    if method not in PACKED:
        raise UsageError(
            f"the weights of {name} are stored quantized by {method}, which zolite does not read; it reads "
            f"{', '.join(PACKED)}",
            ELSEWHERE,
        )
    refuse_layout(method, options, name)
    found = dict(_slices(folder))
    made: dict[str, Any] = {}
    for packing in PACKINGS[method]:
        for mark in sorted(n for n in found if n.endswith(packing.mark)):
            stem = mark.removesuffix(packing.mark)
            suffixes = (packing.mark, *packing.needs, *(may for may in packing.may if stem + may in found))
            if missing := [stem + suffix for suffix in suffixes if stem + suffix not in found]:
                raise ZoliteError(f"{name} lacks {', '.join(missing)}, without which {mark} says nothing", ELSEWHERE)
            parts = {suffix: found.pop(stem + suffix) for suffix in suffixes}
            turned = config.model_type in TURNED
            made[stem + packing.into] = Packed(stem, packing, parts, _of_layer(stem, options), turned)
    return made | {n: part for n, part in found.items() if not ACTIVATIONS.search(n)}


def void(tensor: str, found: Mapping[str, Any]) -> bool:
    """Is it a bias of zeros, which GPTQ and AWQ write for layers that have none?"""
    if not tensor.endswith(".bias") or tensor not in found:
        return False
    return isinstance(found.get(tensor.removesuffix("bias") + "weight"), Packed) and not found[tensor][...].any()


def _slices(folder: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted(weight_files.names(folder)):
        opened: Any = safe_open(folder / file, "pt")
        for name in opened.keys():  # noqa: SIM118 - not a dict
            yield name, opened.get_slice(name)


def _of_layer(layer: str, options: Options) -> Options:
    """compressed-tensors has groups of layers: by name, by pattern, then by class, of which linear layers are meant."""
    groups = list((options.get("config_groups") or {}).values())
    if not groups:
        return options
    named = [group for group in groups if _named(layer, group.get("targets") or ())]
    of_class = [group for group in groups if "Linear" in (group.get("targets") or ())]
    found: Options = (named or of_class or groups)[0]["weights"]
    return found


def _named(layer: str, targets: Iterable[str]) -> bool:
    return any(re.match(t[3:], layer) if t.startswith("re:") else t == layer for t in targets)
