"""A naive twin of HiZOO, arXiv 2402.15173, algorithm 1: one step on one long vector, given z.

Ĥ = |L₊ + L₋ − 2 L₀| / 2ε² · H z² with L± = L(θ ± ε z / √H); H ← (1 − α) H + α Ĥ; θ ← θ − η c z / √H_new.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


def step(
    theta: Vector, h: Vector, loss: Callable[[Vector], float], z: Vector, eps: float, lr: float, alpha: float
) -> tuple[Vector, Vector, float]:
    here = loss(theta)
    plus = loss(theta + eps * z / np.sqrt(h))
    minus = loss(theta - eps * z / np.sqrt(h))
    h_hat = abs(plus + minus - 2 * here) / (2 * eps**2) * h * z**2
    h = (1 - alpha) * h + alpha * h_hat
    c = (plus - minus) / (2 * eps)
    return theta - lr * c * z / np.sqrt(h), h, c
