"""A naive twin of evolution strategies with standardised losses, arXiv 2509.24372: one step, given N vectors.

zᵢ = (lᵢ − l̄) / σ with σ over N − 1, lᵢ the loss at θ + ε dᵢ; θ ← θ − η / N Σ zᵢ dᵢ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


def step(
    theta: Vector, loss: Callable[[Vector], float], directions: Sequence[Vector], eps: float, lr: float
) -> tuple[Vector, list[float]]:
    losses = [loss(theta + eps * d) for d in directions]
    mean = sum(losses) / len(losses)
    sigma = (sum((x - mean) ** 2 for x in losses) / (len(losses) - 1)) ** 0.5
    steps = [(x - mean) / sigma / len(losses) for x in losses]
    for s, d in zip(steps, directions, strict=True):
        theta = theta - lr * s * d
    return theta, steps
