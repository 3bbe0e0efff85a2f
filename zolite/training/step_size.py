"""ε and the learning rate from measurements before the first step: losses along a few directions, at several radii.

ε. The projected gradient (L(θ + εz) − L(θ − εz)) / 2ε is off by rounding, which falls as 1/ε, and by the loss's third
derivative, which grows as ε². How far apart its values at neighbouring radii are shows both:
D² = a² (1/ε² + 1/ε'²) + b² (ε'² − ε²)²; ε is where a²/ε² + b² ε⁴ is least.

Learning rate. Only a small part of a run's motion is learning, the rest is a random walk: T steps whose length falls
evenly from ρ to 0 displace a coordinate by R = ρ √(T/3), as expected. The radii show what a random displacement costs,
(L(θ + Rz) + L(θ − Rz)) / 2 − L(θ); R is where that is LOSS_BUDGET nats, and ρ = R √(3/T). A run that starts from a
linear probe is near an optimum already, where displacements that large lose more than they find: its budget is
AFTER_PROBE nats, and R so much less as a parabola says. Rules that divide by the projected gradient's size step by ρ,
others by ρ / projected gradient. Everything is measured in pairs, as training measures it: L(θ) is the loss at the
smallest radii.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zolite.common.events import Noted
from zolite.common.progress import counted
from zolite.config.recipe import TrainPart
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key
from zolite.zo.samplers import Objective

RADII = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FLAT = 3  # of the first radii: there the loss is that at θ, but for rounding
DIRECTIONS, BATCHES = 4, 2  # at most
SHARE = 5  # of a run's steps, one in so many may be spent on it
LOSS_BUDGET = 0.05  # nats that the random part of a run's motion may cost
AFTER_PROBE = 0.0005  # the same of a run that starts from a linear probe
WEAK = 2.0  # signal-to-noise ratio below which a run learns little
SQUARED = {"linear": 3.0, "constant": 1.0}  # by schedule: √(T / this) is a walk of T steps over its first step


@dataclass(frozen=True)
class Measured:
    """What the radii showed."""

    eps: float
    gradient: float  # root mean square of the projected gradients at ε, in nats
    error: float  # expected error of one
    displacement: float  # R: of a coordinate, at a cost of `budget` nats
    budget: float = LOSS_BUDGET

    @property
    def clear(self) -> bool:
        return self.gradient >= WEAK * self.error

    def first_step(self, steps: int, schedule: str) -> float:
        """ρ, the length of the first step, a coordinate."""
        return self.displacement * math.sqrt(SQUARED[schedule] / steps)

    def after_probe(self) -> "Measured":
        """For a run that starts from a linear probe."""
        share = math.sqrt(AFTER_PROBE / LOSS_BUDGET)
        return replace(self, displacement=self.displacement * share, budget=AFTER_PROBE)


def effort(steps: int) -> tuple[int, int]:
    """(directions, batches) for a run of so many two-point steps: each pair of them takes as long as len(RADII)."""
    pairs = max(1, min(DIRECTIONS * BATCHES, steps // (SHARE * len(RADII))))
    batches = BATCHES if pairs >= DIRECTIONS * BATCHES else 1
    return min(DIRECTIONS, pairs // batches), batches


@torch.inference_mode()
def measure(objectives: Sequence[Objective], seed: int, directions: int = DIRECTIONS) -> Measured:
    """By 2 · directions · len(RADII) forwards of each batch."""
    rows = []
    tried = [(Noise(Key(seed, 0, ("ladder", i))), r) for i in range(directions) for r in RADII]
    for z, r in counted(tried, "searching the step size", len(tried)):
        pair = [Combo(((r, z),)), Combo(((-r, z),))]
        rows.append(torch.stack([o(pair) for o in objectives]).mean(dim=0))
    losses = (
        torch.stack(rows).view(directions, len(RADII), 2).cpu().double().nan_to_num(1e4, 1e4, 1e4)
    )  # (directions, radii, 2)
    gradients = (losses[..., 0] - losses[..., 1]) / (2 * torch.tensor(RADII).double())
    middle = losses.mean(dim=(0, 2))
    eps, error = least_error(gradients)
    nearest = min(range(len(RADII)), key=lambda i: abs(math.log(RADII[i] / eps)))
    gradient = float(gradients[:, nearest].square().mean().sqrt())
    return Measured(eps, gradient, error, crossing((middle - middle[:FLAT].median()).tolist(), LOSS_BUDGET))


def least_error(gradients: Tensor) -> tuple[float, float]:
    """(ε, the error there) from projected gradients (directions, radii); a and b fit their neighbours' distances."""
    apart = (gradients[:, 1:] - gradients[:, :-1]).square().mean(dim=0).clamp(min=1e-30)
    low, high = torch.tensor(RADII[:-1]).double(), torch.tensor(RADII[1:]).double()
    a, b = torch.meshgrid(torch.logspace(-14, 2, 97).double(), torch.logspace(-4, 10, 85).double(), indexing="ij")
    noise, bend = 1 / low**2 + 1 / high**2, (high**2 - low**2) ** 2
    fitted = a[..., None] * noise + b[..., None] * bend
    best = int((fitted / apart).log().square().sum(dim=-1).argmin())
    a2, b2 = float(a.flatten()[best]), float(b.flatten()[best])
    eps = min(max((a2 / (2 * b2)) ** (1 / 6), RADII[0]), RADII[-1])
    return eps, math.sqrt(a2 / eps**2 + b2 * eps**4)


def crossing(rise: Sequence[float], level: float) -> float:
    """The radius behind which the rise stays above a level, between two as a power law; the last if it never does."""
    below = [i for i, value in enumerate(rise) if value < level]
    if not below or below[-1] == len(rise) - 1:
        return RADII[-1] if below else RADII[0]
    i = below[-1]
    power = math.log(rise[i + 1] / rise[i]) / math.log(RADII[i + 1] / RADII[i]) if rise[i] > 0 else 2.0
    return max(RADII[i], float(RADII[i + 1] * (level / rise[i + 1]) ** (1 / max(power, 1.0))))


def notes(found: Measured, t: TrainPart, asked: TrainPart) -> tuple[Noted, ...]:
    """What was chosen, in plain words, and behind it in numbers; a warning where it will learn little."""
    eps = f"ε {t.eps:.2g}: the projected gradient there, {found.gradient:.2g}, is known to ± {found.error:.1g}"
    cost = (
        f"an expected displacement of {found.displacement:.2g} a coordinate, for a loss budget of {found.budget:g} nats"
    )
    lr = f"learning rate {t.lr:.2g}: {t.steps} steps make {cost}"
    numbers = [text for text, given in ((eps, asked.eps), (lr, asked.lr)) if not given]
    chosen = (Noted("info", "step size chosen automatically ✓"), *(Noted("detail", text) for text in numbers))
    return chosen if found.clear else (*chosen, Noted("warning", weak(found)))


def weak(found: Measured) -> str:
    return (
        f"the projected gradient ({found.gradient:.2g}) is hardly above its error ({found.error:.2g}): expect to learn "
        "little; larger batches, another prompt or --quant bf16 would help"
    )
