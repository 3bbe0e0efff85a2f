"""A naive twin of MeZO: one step of descent along the n-SPSA estimate, as printed.

Malladi et al., arXiv 2305.17333, definition 1: ∇̂L(θ) = (L(θ + εz) − L(θ − εz)) / 2ε · z, and n-SPSA averages it over
n draws of z; algorithm 2: θ ← θ − (η/n) · projected_grad · z for each. Spall, IEEE TAC 37(3), 1992: z of random signs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


def step(
    theta: Vector, loss: Callable[[Vector], float], directions: Sequence[Vector], eps: float, lr: float
) -> tuple[Vector, Vector]:
    """The new theta, and the coefficients of the directions in the gradient's estimate."""
    coefficients = []
    for z in directions:
        projected_grad = (loss(theta + eps * z) - loss(theta - eps * z)) / (2 * eps)
        coefficients.append(projected_grad / len(directions))
    for c, z in zip(coefficients, directions, strict=True):
        theta = theta - lr * c * z
    return theta, np.array(coefficients)
