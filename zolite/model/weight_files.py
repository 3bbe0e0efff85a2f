"""Are all weights of a model there, and are they all the model's? What lies in its folder, and what a load made of it.

    checked(folder)                   before anything loads: the files that there are, whole and of one folder
    refuse_strange(name, report)      after a load: every tensor that is missing, left over or of another shape, by name

A file that is loaded is always one of safetensors in the folder itself, which is what a fingerprint looks at.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zolite.common.errors import UsageError, ZoliteError
from zolite.common.weight_headers import BUFFERS, INDEX, ONE, OTHER_HEADS, TOWERS, Header, safetensors

WRAPPED = re.compile(r"^(?:(?:_orig_mod|module|base_model\.model)\.)+|(?<=\.)_orig_mod\.")
"""What torch.compile, DataParallel and peft put before the names of a model that they wrap."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TOLERATED = (*BUFFERS, "rotary_emb.cos_cached", "rotary_emb.sin_cached", "position_ids")
"""Buffers that older checkpoints hold and that are computed today: names end so."""
HEADLESS = (
    "an encoder is trained by the masked-language head that it was pretrained with: take the checkpoint that has it, "
    "such as FacebookAI/roberta-base (of ELECTRA the generator), not one of a classifier or of the encoder alone"
)
SHOWN = 3  # tensors of a kind that are named
ADAPTER = "adapter_config.json"


def checked(folder: Path) -> Header:
    """What the weights of a folder say of themselves.

    Raises ZoliteError where they cannot be loaded, or would not be those that lie in it.
    """
    refuse_adapter(folder)
    found = names(folder)
    if not found:
        raise _none(folder)
    if strange := sorted(name for name in found if Path(name).name != name):
        what = f"{folder / INDEX} names {len(strange)} files outside its folder, {strange[0]!r} first"
        raise ZoliteError(what, "such an index is not to be trusted: take the model from where it was published")
    if missing := sorted(name for name in found if not (folder / name).is_file()):
        what = f"{folder} lacks {len(missing)} of its {len(found)} files of weights: {_some(missing)}"
        raise ZoliteError(what, "download them: a model is loaded whole or not at all")
    parts = [safetensors(folder / name) for name in sorted(found)]  # raises where one is cut, or a pointer
    return Header({n: shape for part in parts for n, shape in part.tensors.items()}, sum(part.bytes for part in parts))


def names(folder: Path) -> set[str]:
    """The files that transformers takes, in its order."""
    if (folder / ONE).is_file() or not (folder / INDEX).is_file():
        return {ONE} if (folder / ONE).is_file() else set()
    try:
        return {str(name) for name in json.loads((folder / INDEX).read_bytes())["weight_map"].values()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"{folder / INDEX} is not an index of weights ({type(error).__name__})"
        raise ZoliteError(what, "download it again") from error


def refuse_adapter(folder: Path) -> None:
    """Raises UsageError for an adapter's folder, of which transformers would load the model that it names."""
    if not (folder / ADAPTER).is_file():
        return
    try:
        base = str(json.loads((folder / ADAPTER).read_bytes())["base_model_name_or_path"])
    except (OSError, ValueError, TypeError, KeyError):
        base = "the model that it was trained on"
    hint = f"give {base} as the model; --set adapter.start={folder} goes on from this adapter"
    if (folder / ONE).is_file():
        hint = f"move {ADAPTER} and the adapter's weights elsewhere to load the model alone; {hint}"
    raise UsageError(f"{folder} holds an adapter, which belongs to a model", hint)


def _none(folder: Path) -> ZoliteError:
    if pickled := sorted(file for pattern in PICKLED for file in folder.glob(pattern)):
        what = f"{folder} has its weights pickled ({_some([file.name for file in pickled])}), and unpickling runs code"
        return ZoliteError(what, f"take the model's safetensors, or convert it once: {_conversion(folder, pickled[0])}")
    if ggufs := sorted(folder.glob("*.gguf")):
        return UsageError(f"{folder} has no {ONE}, but {len(ggufs)} GGUF files", f"give one of them: {ggufs[0]}")
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    what = f"{folder} has neither {ONE} nor {INDEX}" + (f", but {_some(others)}" if others else "")
    return ZoliteError(what, f"one file is to be called {ONE}, and several need their index")


def _conversion(folder: Path, first: Path) -> str:
    """One line for a shell; the tables of all files go into one."""
    return (
        f'python -c "import glob, torch, safetensors.torch as s; '
        f"t = {{k: v.clone().contiguous() for f in sorted(glob.glob('{folder}/*{first.suffix}')) "
        f"for k, v in torch.load(f, map_location='cpu', weights_only=True).items()}}; "
        f"s.save_file(t, '{folder}/{ONE}', {{'format': 'pt'}})\""
    )


def wrapped(report: Mapping[str, Any]) -> str:
    """What stands before the names of tensors that belonged to nothing in a load; "" where that is not why."""
    return next((found[0] for name in sorted(report["unexpected_keys"]) if (found := WRAPPED.search(name))), "")


def refuse_strange(name: str, report: Mapping[str, Any], towers: bool = False, encoder: bool = False) -> None:
    """Raises ZoliteError unless a load found exactly the model's tensors. `towers`: what belongs to those was left out.

    Of an encoder other heads that it was pretrained with are no loss.

    `report` is what transformers' `output_loading_info` gives. A head that is tied to its table is not missing.
    """
    lost = sorted(report["missing_keys"])
    extra = sorted(n for n in report["unexpected_keys"] if not _left_out(n, towers, encoder))
    bent = sorted(f"{n} ({_shape(there)} for {_shape(here)})" for n, there, here in report["mismatched_keys"])
    said = list(_told(lost, extra, bent))
    if said:
        hint = HEADLESS if encoder and lost else _advice(extra)
        raise ZoliteError(f"{name} would not be the model that was trained: {'; '.join(said)}", hint)


def _told(lost: list[str], extra: list[str], bent: list[str]) -> Iterator[str]:
    if lost:
        yield f"{len(lost)} tensors are missing from its files ({_some(lost)})"
    if extra:
        yield f"{len(extra)} belong to nothing ({_some(extra)})"
    if bent:
        yield f"{len(bent)} have another shape than its config says ({_some(bent)})"


def _advice(extra: list[str]) -> str:
    if any("lora_" in name for name in extra):
        return "an adapter was saved with it: merge it first (peft's merge_and_unload), and save that"
    return "names and shapes must be those of transformers for this config.json: save it again by save_pretrained"


def _left_out(name: str, towers: bool, encoder: bool) -> bool:
    """May such a tensor lie in the files and belong to nothing?"""
    tower = towers and any(each in name for each in TOWERS)
    return name.endswith(TOLERATED) or tower or (encoder and bool(OTHER_HEADS.search(name)))


def _shape(sizes: Iterable[int]) -> str:
    return "×".join(map(str, sizes))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
