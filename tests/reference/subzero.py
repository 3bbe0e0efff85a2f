"""A naive twin of SubZero's directions, arXiv 2410.08989, algorithms 1 and 2, given the Gaussian numbers.

U and V orthonormal from Q R of Gaussian matrices, with a positive diagonal of R (which makes Q uniform); each step
√(m n / r²) · U Z₀ Vᵀ. A matrix is first seen as near a square as its size allows.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def near_square(m: int, n: int) -> tuple[int, int]:
    sides = [(a, m * n // a) for a in range(1, m * n + 1) if m * n % a == 0 and a * a <= m * n]
    return min(sides, key=lambda side: side[1] - side[0])


def orthonormal(gaussian: Array) -> Array:
    """Gram and Schmidt, column by column."""
    columns: list[Array] = []
    for column in gaussian.T:
        rest = column - sum((q * (q @ column) for q in columns), np.zeros_like(column))
        columns.append(rest / np.linalg.norm(rest))
    return np.array(columns).T


def direction(u: Array, v: Array, z0: Array, shape: tuple[int, ...]) -> Array:
    scale = math.sqrt(len(u) * len(v)) / len(z0)
    lifted: Array = (scale * u @ z0 @ v.T).reshape(shape)
    return lifted
