"""Formats of exports, a row each: what people choose from, without torch. What writes one is loaded when it is used.

A format costs a row here and a module that has WRITER (export/writer.py). From outside of zolite it is the same:

    FORMATS["mine"] = Format("mine", "a LoRA adapter", "my program", ("mine.bin",), ("f32",), "my_package.mine")
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zolite.common.errors import UsageError

if TYPE_CHECKING:
    from zolite.export.writer import Writer


@dataclass(frozen=True)
class Format:
    name: str
    title: str  # what is written
    readers: str  # and who reads it
    files: tuple[str, ...]  # patterns of their names
    dtypes: tuple[str, ...]  # the first where none is asked for
    module: str
    needs: str = ""  # of the model, in words; the writer refuses others
    encoders: bool = False  # is it for models that fill in masks too?

    def writer(self) -> "Writer":
        """Loads torch."""
        writer: Writer = importlib.import_module(self.module).WRITER
        return writer

    def dtype(self, asked: str) -> str:
        if asked and asked not in self.dtypes:
            raise UsageError(
                f"--format {self.name} is not written in {asked}", f"it is written in {' or '.join(self.dtypes)}"
            )
        return asked or self.dtypes[0]


_ALL = (
    Format(
        "peft",
        "the adapter alone",
        "transformers with peft, vLLM",
        ("adapter_config.json", "adapter_model.safetensors"),
        ("f32",),
        "zolite.export.peft",
        encoders=True,
    ),
    Format(
        "gguf",
        "the adapter alone",
        "llama.cpp, beside the base model",
        ("adapter.gguf",),
        ("f16", "f32"),
        "zolite.export.gguf",
        needs="an architecture that llama.cpp has",
    ),
    Format(
        "merged",
        "the whole model with the adapter in its weights",
        "everything that reads the base model",
        ("*.safetensors", "config.json", "tokenizer*.json"),
        ("16-bit",),
        "zolite.export.merged",
        needs="the original 16-bit weights",
        encoders=True,
    ),
    Format(
        "merged-gguf",
        "the whole model with the adapter in its weights",
        "llama.cpp and Ollama",
        ("model.gguf",),
        ("f16", "q8_0"),
        "zolite.export.merged_gguf",
        needs="a base model from a .gguf file",
    ),
)
FORMATS: dict[str, Format] = {each.name: each for each in _ALL}


def named(name: str) -> Format:
    known = FORMATS.get(name)
    if known is None:
        raise UsageError(f"--format {name} is not one of {', '.join(FORMATS)}", f"{next(iter(FORMATS))} is the default")
    return known


def described() -> str:
    """All of them in a line, for help texts."""
    return "; ".join(f"{each.name}: {each.title}, for {each.readers}" for each in FORMATS.values())


def dtypes_described() -> str:
    """The number types of those that have several."""
    several = [each for each in FORMATS.values() if len(each.dtypes) > 1]
    return "; ".join(f"{each.name}: {' or '.join(each.dtypes)}" for each in several) + "; the first if left out"
