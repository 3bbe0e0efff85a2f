"""A naive twin of FZOO, arXiv 2506.09034: one step, given N vectors of random signs.

σ is the standard deviation of l₁ … l_N over N − 1; θ ← θ − η / (N σ) Σ (lᵢ − l₀) uᵢ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


def step(
    theta: Vector, loss: Callable[[Vector], float], signs: Sequence[Vector], eps: float, lr: float
) -> tuple[Vector, list[float]]:
    here = loss(theta)
    losses = [loss(theta + eps * u) for u in signs]
    mean = sum(losses) / len(losses)
    sigma = (sum((x - mean) ** 2 for x in losses) / (len(losses) - 1)) ** 0.5
    steps = [(x - here) / (len(losses) * sigma) for x in losses]
    for s, u in zip(steps, signs, strict=True):
        theta = theta - lr * s * u
    return theta, steps
