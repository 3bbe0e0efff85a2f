"""A naive twin of LOZO-M: momentum kept on U.

Chen et al., arXiv 2410.07698, algorithm 2: N ← c U at the very first step; N ← β N V_oldᵀ V_new / n + (1 − β) c U when
V is new (n columns of W: least squares for N_new V_newᵀ = N V_oldᵀ with VᵀV ≈ n I); N ← β N + (1 − β) c U else.
W ← W − η N Vᵀ. A vector's momentum is the same without a V.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Blocks = dict[str, NDArray[np.floating[Any]]]


def momenta(n: Blocks, c: float, u: Blocks, v_old: Blocks, v_new: Blocks, beta: float, first: bool) -> Blocks:
    """N of every matrix after a step; V is the old one where it did not move."""
    if first:
        return {name: c * u[name] for name in u}
    new = {}
    for name in u:
        columns = len(v_new[name])
        if np.array_equal(v_old[name], v_new[name]):
            carried = n[name]
        else:
            carried = n[name] @ (v_old[name].T @ v_new[name]) / columns
        new[name] = beta * carried + (1 - beta) * c * u[name]
    return new


def vectors(m: Blocks, c: float, z: Blocks, beta: float, first: bool) -> Blocks:
    return {name: c * z[name] if first else beta * m[name] + (1 - beta) * c * z[name] for name in z}


def apply(theta: Blocks, n: Blocks, v: Blocks, m: Blocks, lr: float) -> Blocks:
    return {name: w - lr * (n[name] @ v[name].T if name in n else m[name]) for name, w in theta.items()}
