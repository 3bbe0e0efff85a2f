"""What a method holds from step to step, and the way it takes into a checkpoint and back."""

from typing import Any

from torch import Tensor

State = dict[str, Any]
"""Tensors and plain numbers by name: owned by the loop, changed in place by one owner, saved by checkpoints."""


def split_state(state: dict[str, State]) -> tuple[dict[str, object], dict[str, Tensor]]:
    """A method's state as plain values and as tensors, by dotted name."""
    flat = {f"{owner}.{name}": value for owner, part in state.items() for name, value in part.items()}
    tensors = {f"state.{name}": value for name, value in flat.items() if isinstance(value, Tensor)}
    return {name: value for name, value in flat.items() if not isinstance(value, Tensor)}, tensors


def restore_state(state: dict[str, State], plain: dict[str, object], tensors: dict[str, Tensor]) -> None:
    """The inverse of `split_state`, into a fresh state, in place."""
    for owner, part in state.items():
        for name, value in part.items():
            full = f"{owner}.{name}"
            if isinstance(value, Tensor):
                value.copy_(tensors[f"state.{full}"])
            else:
                part[name] = plain[full]
