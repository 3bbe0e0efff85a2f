"""ε and the learning rate from measurements, before the first step: the losses along a few directions at a ladder of radii.

    found = measure(run)       a few dozen forwards of one batch
    run = tuned(run)           with them in its recipe, and in words in its notes

ε. The slope (L(θ + εz) − L(θ − εz)) / 2ε is off by rounding, which falls as 1/ε, and by the loss's third derivative,
which grows as ε². How far slopes at neighbouring radii are apart says both: D² = a² (1/ε² + 1/ε'²) + b² (ε'² − ε²)². ε is
where a²/ε² + b² ε⁴ is least.

Learning rate. A run is mostly a random walk: of its n coordinates' motion only a trace is learning. With slopes divided by
their running size (rule rms), T steps that fall evenly to 0 from ρ walk ρ √(T/3) a coordinate. The ladder says how much
loss a random step of radius R costs, on average (L(θ + Rz) + L(θ − Rz)) / 2 − L(θ); R is where that is WALK nats, and ρ =
R √(3/T). Both sides are measured as training measures them, in one wave, so the smallest radius stands for θ itself.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zolite.core.direction import Combo, Noise
from zolite.core.key import Key
from zolite.train import Run, batches_of

RADII = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
DIRECTIONS = 6
WALK = 0.05  # nats that a run's random walk may cost


@dataclass(frozen=True)
class Ladder:
    """Mean over directions at each radius."""

    slopes: Tensor  # (directions, radii)
    rise: Tensor  # (radii,): nats above the smallest radius

    @property
    def eps(self) -> float:
        return _least_error(self.slopes)

    @property
    def size(self) -> float:
        """Root mean square of the slopes at ε."""
        nearest = min(range(len(RADII)), key=lambda i: abs(math.log(RADII[i] / self.eps)))
        return float(self.slopes[:, nearest].square().mean().sqrt())

    @property
    def reach(self) -> float:
        """The radius at which a random step costs WALK nats."""
        return _crossing(self.rise, WALK)


@torch.inference_mode()
def measure(run: Run) -> Ladder:
    objective = run.engine.objective([run.engine.put(b) for b in batches_of(run, 0)])
    rows = []
    for i in range(DIRECTIONS):
        z = Noise(Key(run.recipe.train.seed, 0, ("ladder", i)))
        rows.append(torch.stack([objective([Combo(((r, z),)), Combo(((-r, z),))]) for r in RADII]))
    losses = torch.stack(rows).double().cpu()  # (directions, radii, 2)
    slopes = (losses[..., 0] - losses[..., 1]) / (2 * torch.tensor(RADII).double())
    middle = losses.mean(dim=(0, 2))
    return Ladder(slopes, middle - middle[0])


def _least_error(slopes: Tensor) -> float:
    """ε of least expected error: a² and b² by least squares in relative terms over neighbouring radii."""
    apart = (slopes[:, 1:] - slopes[:, :-1]).square().mean(dim=0)
    low, high = torch.tensor(RADII[:-1]).double(), torch.tensor(RADII[1:]).double()
    noise, bend = 1 / low**2 + 1 / high**2, (high**2 - low**2) ** 2
    scale = 1 / apart.clamp(min=1e-30)
    best = (math.inf, RADII[2])
    for a in torch.logspace(-12, 2, 57).double():
        for b in torch.logspace(-4, 10, 57).double():
            miss = float(((a * noise + b * bend) * scale).log().square().sum())
            best = min(best, (miss, float((a / (2 * b)) ** (1 / 6))))
    return min(max(best[1], RADII[0]), RADII[-1])


def _crossing(rise: Tensor, level: float) -> float:
    """Where the rise first reaches a level, between radii as a power law; the last radius if it never does."""
    for i in range(1, len(RADII)):
        if float(rise[i]) >= level:
            below = float(rise[i - 1])
            power = math.log(float(rise[i]) / below) / math.log(RADII[i] / RADII[i - 1]) if below > 0 else 2.0
            return float(RADII[i] * (level / float(rise[i])) ** (1 / max(power, 1.0)))
    return RADII[-1]
