"""A naive twin of ZO Fine-tuner at work, arXiv 2510.00419, given the networks and u.

σᵢ = |w₂ tanh(w₁ x + b₁) + b₂| of x = (mean θᵢ, unbiased variance of θᵢ, last L₊, last L₋, last σᵢ); factor = √(Σ dᵢ) /
√(Σ dᵢ σᵢ²); Dᵢ = factor σᵢ uᵢ; c = (L(θ + εD) − L(θ − εD)) / 2ε; θ ← θ − η c D. At first σ = 1 and both losses are 0.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Blocks = dict[str, Array]
Net = tuple[Array, Array, Array, float]  # w1 (64, 5), b1 (64,), w2 (64,), b2


def scale(net: Net, theta: Array, plus: float, minus: float, sigma: float) -> float:
    w1, b1, w2, b2 = net
    x = np.array([theta.mean(), theta.var(ddof=1), plus, minus, sigma])
    return abs(float(w2 @ np.tanh(w1 @ x + b1) + b2))


def factor(theta: Blocks, sigma: dict[str, float]) -> float:
    whole = sum(w.size for w in theta.values())
    return math.sqrt(whole) / math.sqrt(sum(w.size * sigma[name] ** 2 for name, w in theta.items()))


def step(
    theta: Blocks, loss: Callable[[Blocks], float], u: Blocks, sigma: dict[str, float], eps: float, lr: float
) -> tuple[Blocks, float, float]:
    """The new theta, and both losses, for the next step's networks."""
    d = {name: factor(theta, sigma) * sigma[name] * u[name] for name in theta}
    plus = loss({name: w + eps * d[name] for name, w in theta.items()})
    minus = loss({name: w - eps * d[name] for name, w in theta.items()})
    return {name: w - lr * (plus - minus) / (2 * eps) * d[name] for name, w in theta.items()}, plus, minus
