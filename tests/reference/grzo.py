"""A naive twin of GRZO, arXiv 2606.02857: one step, given U and the signs rᵢ and sᵢ of every example.

Uᵢ = U ∘ (rᵢ sᵢᵀ), U ∘ rᵢ for a vector; δᵢ = (lᵢ(θ + εUᵢ) − lᵢ(θ − εUᵢ)) / 2; aᵢ = δᵢ / std δ (over B − 1);
ĝ = 1 / 2εB · Σ aᵢ Uᵢ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Blocks = dict[str, Array]
Signs = dict[str, tuple[Array, Array | None]]  # r, and s for a matrix


def modulated(u: Blocks, signs: Signs) -> Blocks:
    return {name: u[name] * (r if s is None else np.outer(r, s)) for name, (r, s) in signs.items()}


def step(
    theta: Blocks, losses: Sequence[Callable[[Blocks], float]], u: Blocks, signs: Sequence[Signs], eps: float, lr: float
) -> tuple[Blocks, list[float]]:
    own = [modulated(u, s) for s in signs]
    deltas = []
    for loss, d in zip(losses, own, strict=True):
        plus = loss({name: w + eps * d[name] for name, w in theta.items()})
        minus = loss({name: w - eps * d[name] for name, w in theta.items()})
        deltas.append((plus - minus) / 2)
    std = np.std(deltas, ddof=1)
    coefs = [float(delta / std / (2 * eps * len(losses))) for delta in deltas]
    for c, d in zip(coefs, own, strict=True):
        theta = {name: w - lr * c * d[name] for name, w in theta.items()}
    return theta, coefs
