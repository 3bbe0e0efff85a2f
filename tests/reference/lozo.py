"""A naive twin of LOZO, one step on matrices and vectors by name.

Chen et al., arXiv 2410.07698, algorithm 1, in the authors' scale (no 1/r in the update): D = U Vᵀ for a matrix, with V
(n, r) the same for ν steps, and z for a vector; c = (L(θ + εD) − L(θ − εD)) / 2ε; θ ← θ − η c D.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Blocks = dict[str, NDArray[np.floating[Any]]]


def directions(u: Blocks, v: Blocks, z: Blocks) -> Blocks:
    return {name: u[name] @ v[name].T for name in u} | z


def projected_gradient(theta: Blocks, loss: Callable[[Blocks], float], d: Blocks, eps: float) -> float:
    plus = loss({name: w + eps * d[name] for name, w in theta.items()})
    minus = loss({name: w - eps * d[name] for name, w in theta.items()})
    return (plus - minus) / (2 * eps)


def step(
    theta: Blocks, loss: Callable[[Blocks], float], u: Blocks, v: Blocks, z: Blocks, eps: float, lr: float
) -> tuple[Blocks, float]:
    d = directions(u, v, z)
    c = projected_gradient(theta, loss, d, eps)
    return {name: w - lr * c * d[name] for name, w in theta.items()}, c
