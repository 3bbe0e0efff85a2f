"""What a file of weights says of itself: names, shapes and sizes, read from its first bytes.

A file may be anything that somebody downloaded, so every length is checked against the file's before it is believed.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from zolite.common.errors import ZoliteError

Shapes = dict[str, tuple[int, ...]]
"""Tensors by name, in the order of dimensions that PyTorch has."""

MOST_HEADER = 100 << 20  # bytes; safetensors' own limit
MOST_TENSORS = 1 << 20
MOST_DIMENSIONS = 8
ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOWERS = (
    "vision_",
    "multi_modal",
    "audio_",
    "image_",
    "img_",
)  # in names of tensors for pictures and sound: a load leaves them out
OTHER_HEADS = re.compile(r"(^|\.)pooler\.|^cls\.seq_relationship\.|^sop_classifier\.")
"""In names of tensors of encoders that were pretrained on whole texts too, or pairs: a load leaves them out."""
BUFFERS = (".rotary_emb.inv_freq", ".masked_bias", ".attention.bias", ".attn.bias")  # of older files: no parameters
POINTER = b"version https://git-lfs"  # the first bytes of what Git LFS leaves in the place of a large file
GGUF_STRING, GGUF_ARRAY = 8, 9
GGUF_ALIGNMENT = 32  # bytes, where a file says no other
GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class Header:
    """Tensors, the bytes of the files that hold them, and what a GGUF says besides."""

    tensors: Shapes
    bytes: int
    metadata: Mapping[str, Any] = field(default_factory=dict)  # arrays as their lengths
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """in a GGUF, by a tensor's name: its type as ggml numbers them, and at which byte of the file it begins"""


def safetensors(path: Path) -> Header:
    """8 bytes of length, then JSON: {name: {dtype, shape, data_offsets}}."""
    size = path.stat().st_size
    with path.open("rb") as f:
        if f.read(len(POINTER)) == POINTER:
            what = f"{path} is a pointer of Git LFS, {size:,} bytes in the place of the weights"
            raise ZoliteError(what, f"`git -C {path.parent} lfs pull`, or download the file itself")
        f.seek(0)
        length = int.from_bytes(f.read(8), "little")
        if not 2 <= length <= min(MOST_HEADER, size - 8):
            raise _broken(path, f"its header claims {length:,} bytes of a file of {size:,}")
        text = f.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        tensors = {name: tuple(map(_dimension, entry["shape"])) for name, entry in entries.items()}
        claimed = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _broken(path, f"its header is not one of safetensors ({type(error).__name__})") from error
    if claimed > size:
        raise _broken(path, f"it is cut: {size:,} bytes are there, {claimed:,} should be")
    return Header(tensors, size)


def folder(path: Path) -> Header | None:
    """All safetensors of a model's folder; None where there are none, or not all that its index names."""
    files = sorted({path / name for name in _indexed(path)} or path.glob("*.safetensors"))
    if not files or not all(file.is_file() for file in files):
        return None
    parts = [safetensors(file) for file in files]
    tensors = {name: shape for part in parts for name, shape in part.tensors.items()}
    return Header(tensors, sum(part.bytes for part in parts))


def _indexed(path: Path) -> set[str]:
    """Names of the files that an index lists; nothing outside its folder."""
    index = path / INDEX
    if not index.is_file():
        return set()
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        return {name for name in names if Path(name).name == name}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(index, f"it is not an index of weights ({type(error).__name__})") from error


def gguf(path: Path) -> Header:
    """Version 2 or 3: counts, key-value pairs, then each tensor's name, dimensions, type and offset."""
    size = path.stat().st_size
    with path.open("rb") as f:
        reader = _Gguf(f, path, size)
        magic, version = reader.unpack("4sI")
        if magic != b"GGUF" or version not in (2, 3):
            raise _broken(path, "it is not a GGUF of version 2 or 3")
        count, pairs = reader.unpack("QQ")
        if count > MOST_TENSORS or pairs > MOST_TENSORS:
            raise _broken(path, f"it claims {count:,} tensors and {pairs:,} metadata")
        metadata = {reader.text(): reader.value(*reader.unpack("I")) for _ in range(pairs)}
        found = [reader.tensor() for _ in range(count)]
        step = metadata.get("general.alignment", GGUF_ALIGNMENT)
        if not isinstance(step, int) or step < 1:
            raise _broken(path, f"its tensors are aligned to {step} bytes")
        start = -(-f.tell() // step) * step
    places = {name: (kind, start + offset) for name, _, kind, offset in found}
    return Header({name: shape for name, shape, _, _ in found}, size, metadata, places)


@dataclass(frozen=True)
class _Gguf:
    """Little-endian values, one behind the other."""

    file: BinaryIO
    path: Path
    size: int

    def unpack(self, kinds: str) -> tuple[Any, ...]:
        data = self.file.read(struct.calcsize("<" + kinds))
        try:
            return struct.unpack("<" + kinds, data)
        except struct.error as error:
            raise _broken(self.path, "it ends within its header") from error

    def text(self) -> str:
        (length,) = self.unpack("Q")
        if length > self.size - self.file.tell():
            raise _broken(self.path, f"a text of {length:,} bytes is longer than the file")
        return self.file.read(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A scalar or a text; of an array only how long it is."""
        if kind == GGUF_STRING:
            return self.text()
        if kind == GGUF_ARRAY:
            return self._array()
        if kind not in GGUF_SCALARS:
            raise _broken(self.path, f"a value of the unknown type {kind}")
        return self.unpack(GGUF_SCALARS[kind])[0]

    def _array(self) -> int:
        kind, count = self.unpack("IQ")
        width = 8 if kind == GGUF_STRING else struct.calcsize(GGUF_SCALARS.get(kind, "B"))
        if (kind not in GGUF_SCALARS and kind != GGUF_STRING) or count * width > self.size - self.file.tell():
            raise _broken(self.path, f"an array of {count:,} values of type {kind}")
        if kind == GGUF_STRING:
            for _ in range(count):
                self.text()
        else:
            self.file.seek(count * width, 1)
        return int(count)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type, and offset behind the header. Dimensions are stored fastest first, PyTorch's last."""
        name, (rank,) = self.text(), self.unpack("I")
        if rank > MOST_DIMENSIONS:
            raise _broken(self.path, f"{name[:80]!r} has {rank} dimensions")
        shape = self.unpack("Q" * rank)
        if math.prod(shape) > 2**48:
            raise _broken(self.path, f"{name[:80]!r} has the shape {shape}")
        return name, tuple(reversed(shape)), *self.unpack("IQ")


def _dimension(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**48:
        raise ValueError(f"dimension {value!r}")
    return value


def _broken(path: Path, why: str) -> ZoliteError:
    return ZoliteError(f"{path} cannot be read: {why}", "download it again")
