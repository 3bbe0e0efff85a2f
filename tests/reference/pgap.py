"""A naive twin of P-GAP's directions, arXiv 2510.18228, equations 2 to 5, given the random numbers.

G = 1/h Σ ρⱼ Qⱼ with ρⱼ = (L(θ + εQⱼ) − L(θ − εQⱼ)) / 2ε; G ≈ U S Vᵀ of rank r; Z = Z₀ − (⟨S, Z₀⟩ − ξ √δ ‖S‖) / ‖S‖² S;
the paper's Z_f = U Z Vᵀ, times √(m n) / r. A singular vector's sign, which nothing fixes: U's largest is positive.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Blocks = dict[str, Array]


def probe(theta: Blocks, loss: Callable[[Blocks], float], q: Sequence[Blocks], eps: float) -> Blocks:
    g = {name: np.zeros_like(w) for name, w in theta.items()}
    for q_j in q:
        plus = loss({name: w + eps * q_j[name] for name, w in theta.items()})
        minus = loss({name: w - eps * q_j[name] for name, w in theta.items()})
        rho = (plus - minus) / (2 * eps)
        g = {name: g[name] + rho * q_j[name] / len(q) for name in g}
    return g


def subspace(g: Array, rank: int) -> tuple[Array, Array, Array]:
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    r = min(rank, *g.shape)
    u, s, v = u[:, :r], s[:r], vt[:r].T
    signs = np.array([1.0 if column[np.argmax(abs(column))] > 0 else -1.0 for column in u.T])
    return u * signs, np.diag(s), v * signs


def direction(u: Array, s: Array, v: Array, z0: Array, xi: float, delta: float) -> Array:
    z = z0 - (np.sum(s * z0) - xi * np.sqrt(delta) * np.linalg.norm(s)) / np.linalg.norm(s) ** 2 * s
    lifted: Array = np.sqrt(len(u) * len(v)) / len(s) * (u @ z @ v.T)
    return lifted
