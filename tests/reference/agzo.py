"""A naive twin of AGZO at rank 1, arXiv 2601.17261, given r and each layer's main input direction a (of length 1).

Δ = r aᵀ, here times √n (n columns), which gives it the size of a full Gaussian; z for a vector;
g = (L(θ + εΔ) − L(θ)) / ε; θ ← θ − η g Δ.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Blocks = dict[str, Array]


def step(
    theta: Blocks, loss: Callable[[Blocks], float], r: Blocks, a: Blocks, z: Blocks, eps: float, lr: float
) -> tuple[Blocks, float]:
    d = {name: np.sqrt(len(a[name])) * np.outer(r[name], a[name]) for name in r} | z
    g = (loss({name: w + eps * d[name] for name, w in theta.items()}) - loss(theta)) / eps
    return {name: w - lr * g * d[name] for name, w in theta.items()}, g
