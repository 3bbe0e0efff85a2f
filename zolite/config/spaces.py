"""What of an adapter is trained: its spaces, each a row. Plain data.

A layer's adapter adds alpha / rank · B A x to what the layer says of x, or alpha / rank · B C A x between frozen bases.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SpaceRow:
    """Which factors of each layer a run trains, and what follows from it."""

    summary: str
    paper: str
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    rank: int  # where the recipe leaves it open
    step_sizes: tuple[float, float, float]  # see below
    bases: bool = False  # frozen factors are found in the model (engine/bases.py), not drawn from the seed
    probe: bool = False  # has room for a linear probe to begin with
    export_bytes: Mapping[str, int] = field(default_factory=dict)  # of a frozen number kept for exports, by device

    def shapes(self, inputs: int, outputs: int, rank: int) -> dict[str, tuple[int, int]]:
        """Of every factor of a layer's adapter, by its letter. Bases have at most a layer's smaller side of columns."""
        r = min(rank, inputs, outputs) if self.bases else rank
        return {"a": (r, inputs), "b": (outputs, r), "c": (r, r)}


# step_sizes: MeZO's learning rate and ε, and how far a step moves a number under rules that take the gradient's size
# away, where nothing was measured. MeZO's published LoRA values (ε 1e-2, 1e-4) are for 13B; these were measured on
# small models (docs/log.md). lora-core's first are lora-b's by the curvature along its coordinates, which is a hundred
# times as large: it then takes the same share of a step.
SPACES = {
    "lora": SpaceRow(
        "A and B of every chosen layer",
        "Hu et al. 2021, arXiv 2106.09685",
        trained=("a", "b"),
        frozen=(),
        rank=8,
        step_sizes=(3e-4, 1e-2, 3e-4),
    ),
    "lora-b": SpaceRow(
        "B; A stays as it was drawn",
        "Zhang et al. 2023, arXiv 2308.03303 (LoRA-FA)",
        trained=("b",),
        frozen=("a",),
        rank=8,
        step_sizes=(3e-3, 1e-2, 3e-3),
        probe=True,
        export_bytes={"cuda": 4, "cpu": 4},
    ),
    "lora-core": SpaceRow(
        "a small core between frozen bases: rank² numbers a layer",
        "Bałazy et al. 2024, arXiv 2405.17604 (LoRA-XS), with bases from activations, not from the weight",
        trained=("c",),
        frozen=("a", "b"),
        rank=32,  # it costs rank² numbers, not rank · (in + out)
        step_sizes=(2e-5, 1e-3, 3e-4),
        bases=True,
        export_bytes={"cuda": 0, "cpu": 2},  # exports take the host's copy
    ),
}
