"""A naive twin of MeZO-GV's and MeZO-Greedy's directions, arXiv 2601.04710, algorithms 1 and 3.

Candidates are ranked by L(θ + ε zᵢ); v is the mean of the ⌊αM⌋ with the lowest losses minus the mean of the others
(equation 5, not normalised); greedy takes the lowest alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


def ranked(theta: Vector, loss: Callable[[Vector], float], pool: Sequence[Vector], eps: float) -> list[Vector]:
    return sorted(pool, key=lambda z: loss(theta + eps * z))


def guiding(theta: Vector, loss: Callable[[Vector], float], pool: Sequence[Vector], eps: float, alpha: float) -> Vector:
    order, first = ranked(theta, loss, pool, eps), math.floor(alpha * len(pool))
    top, bottom = np.array(order[:first]), np.array(order[first:])
    v: Vector = top.mean(axis=0) - bottom.mean(axis=0)
    return v


def greedy(theta: Vector, loss: Callable[[Vector], float], pool: Sequence[Vector], eps: float) -> Vector:
    return ranked(theta, loss, pool, eps)[0]
