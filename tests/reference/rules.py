"""Naive twins of the rules: what becomes of an estimate's coefficients, or of the estimate as one long vector.

ZO-signSGD and ZO-SGD with momentum as ZO-Bench has them (arXiv 2402.11592); the clip of QZO (arXiv 2505.13430); Adam
(arXiv 1412.6980, algorithm 1); weight decay as MeZO's code has it: a term λ W of matrices, not of biases and norms.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


def sign(c: float) -> float:
    return (c > 0) - (c < 0)


def rms(v: float, seen: float, c: float, beta2: float, most: float) -> tuple[float, float, float]:
    """The running mean of squares, the weights in it, and what is applied; 0 was not measured."""
    if c:
        v, seen = beta2 * v + (1 - beta2) * c**2, beta2 * seen + (1 - beta2)
    return v, seen, clip(c / (v / seen) ** 0.5, most) if c else 0.0


def clip(c: float, most: float) -> float:
    return max(-most, min(most, c))


def momentum(m: Vector, g: Vector, beta: float) -> Vector:
    """Applied in the gradient's place."""
    return beta * m + g


def adam(m: Vector, v: Vector, g: Vector, t: int, beta1: float, beta2: float) -> tuple[Vector, Vector, Vector]:
    """Both moments after step t, counted from 1, and what is applied."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return m, v, m_hat / (np.sqrt(v_hat) + 1e-8)


def decay(matrix: Vector, g: Vector, rate: float) -> Vector:
    """A matrix's gradient with its weight decay."""
    return g + rate * matrix
