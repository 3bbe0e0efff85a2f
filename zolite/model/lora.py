"""PerturbedLinear: the frozen base once for all points, one adapter a point.

K points, B rows, T tokens, r rank, n trainable numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Active:
    """What the next forward carries. One object, shared by every PerturbedLinear of a model."""

    copies: int = 1
    mirrored: bool = False  # copies 2i and 2i + 1 are θ + cd and θ − cd: what is measured is how they differ
    clean: bool = False  # copy 0 is θ itself, and layers that are watched note their inputs


class PerturbedLinear(nn.Module):
    """y_k = base(x)_k + s · (x_k Aₖᵀ) Bₖᵀ for K points in one batch (LoRA, arXiv 2106.09685).

    `a` is (K, r, in), or (r, in) where it is frozen; `b` is (K, out, r). With a core `c` (K, r, r) between them it is
    (x_k Aᵀ) Cₖᵀ Bᵀ, and `b` one matrix seen K times. What is trained is a view of the copies' buffer, so filling the
    copies is all it takes to move every layer.
    """

    def __init__(
        self, base: nn.Module, a: Tensor, b: Tensor, scale: float, active: Active, c: Tensor | None = None
    ) -> None:
        super().__init__()
        self.base, self.scale, self.active = base, scale, active
        self.a, self.b, self.c = a, b, c
        self.watch: dict[str, Tensor] = {}  # "a", "b" or "c": where their inputs' main direction is kept, float32

    def forward(self, x: Tensor) -> Tensor:
        """x (K·B, T, in) → (K·B, T, out)."""
        k = self.active.copies
        y: Tensor = self.base(x)
        low = self.low(x.reshape(k, -1, x.shape[-1]), 0)
        return torch.baddbmm(y.view(k, -1, y.shape[-1]), low, self.b[:k].mT, alpha=self.scale).view(y.shape)

    @property
    def weight(self) -> Tensor:
        """The frozen weight: some models look at its dtype before they call a layer."""
        return self.base.weight  # type: ignore[return-value]

    def low(self, x: Tensor, first: int) -> Tensor:
        """x (K, rows, in) of the points from `first` on → x Aᵀ (K, rows, r), times Cᵀ where there is a core."""
        a = self.a if self.a.dim() == 2 else self.a[first : first + len(x)]
        low = torch.matmul(x, a.mT)
        if self.active.clean:
            for factor, seen in {"a": x, "b": low, "c": low}.items():
                if factor in self.watch:
                    follow_(self.watch[factor], seen[0])
        return self.through_core(low, first)

    def through_core(self, low: Tensor, first: int) -> Tensor:
        return low if self.c is None else torch.bmm(low, self.c[first : first + len(low)].mT)


def follow_(v: Tensor, x: Tensor, rounds: int = 3) -> None:
    """Power iteration: v (columns,) float32 towards the first right singular vector of x (rows, columns)."""
    for _ in range(rounds):
        u = torch.mv(x, v.to(x.dtype)).float()
        u = u / u.norm().clamp(min=1e-30)
        w = torch.mv(x.mT, u.to(x.dtype)).float()
        norm = w.norm()
        v.copy_(torch.where((norm > 0) & norm.isfinite(), w / norm, v))
