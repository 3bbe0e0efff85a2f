"""SlotLinear: the frozen base once for all points, one adapter a point.

K points, B rows, T tokens, r rank, n trainable numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Active:
    """What the next forward carries. One object, shared by every SlotLinear of a model."""

    slots: int = 1
    mirrored: bool = False  # slots 2i and 2i + 1 are θ + cd and θ − cd: what is measured is how they differ


class SlotLinear(nn.Module):
    """y_k = base(x)_k + s · (x_k Aₖᵀ) Bₖᵀ for K points in one batch (LoRA, arXiv 2106.09685).

    `a` is (K, r, in), or (r, in) where it is frozen; `b` is (K, out, r); both are views of the slots' buffer, so
    filling the slots is all it takes to move every layer.
    """

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float, active: Active) -> None:
        super().__init__()
        self.base, self.scale, self.active = base, scale, active
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        """x (K·B, T, in) → (K·B, T, out)."""
        k = self.active.slots
        y: Tensor = self.base(x)
        low = self.low(x.reshape(k, -1, x.shape[-1]), 0)
        return torch.baddbmm(y.view(k, -1, y.shape[-1]), low, self.b[:k].mT, alpha=self.scale).view(y.shape)

    def low(self, x: Tensor, first: int) -> Tensor:
        """x (K, rows, in) of the points from `first` on → x Aᵀ (K, rows, r)."""
        a = self.a if self.a.dim() == 2 else self.a[first : first + len(x)]
        return torch.matmul(x, a.mT)
