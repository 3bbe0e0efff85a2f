"""ε and the learning rate from measurements, before the first step: losses along a few directions, at some radii.

ε. The slope (L(θ + εz) − L(θ − εz)) / 2ε is off by rounding, which falls as 1/ε, and by the loss's third derivative,
which grows as ε². How far apart slopes at neighbouring radii are says both: D² = a² (1/ε² + 1/ε'²) + b² (ε'² − ε²)²;
ε is where a²/ε² + b² ε⁴ is least.

Learning rate. Of a run's motion only a trace is learning, the rest is a random walk: T steps of length ρ that falls
evenly to 0 walk R = ρ √(T/3) a coordinate. The radii say what a random step costs, (L(θ + Rz) + L(θ − Rz)) / 2 − L(θ);
R is where that is WALK nats, and ρ = R √(3/T). What begins with a probe is near an optimum already, where walks that
long lose more than they find: there it is AFTER_PROBE nats, so much nearer as a parabola says. Rules that take the
slope's size away step by ρ, others by ρ / slope. Everything is measured in pairs, as training measures it: L(θ) is
what the smallest radii say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zolite.config.recipe import TrainPart
from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import Key
from zolite.zo.samplers import Objective

RADII = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FLAT = 3  # of the first radii: there the loss is that at θ, but for rounding
DIRECTIONS, BATCHES = 4, 2  # at most
SHARE = 5  # of a run's steps, one in so many may be spent on it
WALK = 0.05  # nats that a run's random walk may cost
AFTER_PROBE = 0.0005  # the same of a run that begins with a linear probe
WEAK = 2.0  # signal over noise below which a run learns little
EVENLY = 3.0  # √(T / EVENLY): a walk of T steps that fall evenly to 0, over its first step
CONSTANT = 1.0


@dataclass(frozen=True)
class Found:
    eps: float
    signal: float  # root mean square of the slopes at ε
    noise: float  # expected error of one
    reach: float  # R: how far a random step goes for `walk` nats, a coordinate
    walk: float = WALK

    @property
    def clear(self) -> bool:
        return self.signal >= WEAK * self.noise

    def length(self, steps: int, schedule: str) -> float:
        """ρ, of the first step."""
        return self.reach * math.sqrt({"linear": EVENLY, "constant": CONSTANT}[schedule] / steps)

    def careful(self) -> "Found":
        """For a run that begins with a linear probe."""
        return replace(self, reach=self.reach * math.sqrt(AFTER_PROBE / WALK), walk=AFTER_PROBE)


def effort(steps: int) -> tuple[int, int]:
    """(directions, batches) for a run of so many two-point steps: each pair of them takes as long as len(RADII)."""
    pairs = max(1, min(DIRECTIONS * BATCHES, steps // (SHARE * len(RADII))))
    batches = BATCHES if pairs >= DIRECTIONS * BATCHES else 1
    return min(DIRECTIONS, pairs // batches), batches


@torch.inference_mode()
def measure(objectives: Sequence[Objective], seed: int, directions: int = DIRECTIONS) -> Found:
    """By 2 · directions · len(RADII) forwards of each batch."""
    rows = []
    for i in range(directions):
        z = Noise(Key(seed, 0, ("ladder", i)))
        pairs = [[Combo(((r, z),)), Combo(((-r, z),))] for r in RADII]
        rows.append(torch.stack([torch.stack([o(pair) for o in objectives]).mean(dim=0) for pair in pairs]))
    losses = torch.stack(rows).double().cpu().nan_to_num(1e4, 1e4, 1e4)  # (directions, radii, 2)
    slopes = (losses[..., 0] - losses[..., 1]) / (2 * torch.tensor(RADII).double())
    middle = losses.mean(dim=(0, 2))
    eps, noise = least_error(slopes)
    nearest = min(range(len(RADII)), key=lambda i: abs(math.log(RADII[i] / eps)))
    signal = float(slopes[:, nearest].square().mean().sqrt())
    return Found(eps, signal, noise, crossing((middle - middle[:FLAT].median()).tolist(), WALK))


def least_error(slopes: Tensor) -> tuple[float, float]:
    """(ε, the error there) from slopes (directions, radii); a and b fit the neighbours' distances in relative terms."""
    apart = (slopes[:, 1:] - slopes[:, :-1]).square().mean(dim=0).clamp(min=1e-30)
    low, high = torch.tensor(RADII[:-1]).double(), torch.tensor(RADII[1:]).double()
    a, b = torch.meshgrid(torch.logspace(-14, 2, 97).double(), torch.logspace(-4, 10, 85).double(), indexing="ij")
    noise, bend = 1 / low**2 + 1 / high**2, (high**2 - low**2) ** 2
    said = a[..., None] * noise + b[..., None] * bend
    best = int((said / apart).log().square().sum(dim=-1).argmin())
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


def reasons(found: Found, t: TrainPart, given: TrainPart) -> tuple[str, ...]:
    """What was chosen, in words."""
    eps = f"ε {t.eps:.2g}: there a slope of {found.signal:.2g} is known to ± {found.noise:.1g}"
    walk = f"{t.steps} steps then walk about {found.reach:.2g} a coordinate, for {found.walk:g} nats"
    lr = f"learning rate {t.lr:.2g}: {walk}"
    return (*(() if given.eps else (eps,)), *(() if given.lr else (lr,)))


def faint(found: Found) -> str:
    return (
        f"the slope ({found.signal:.2g}) is hardly above its error ({found.noise:.2g}): expect little; larger batches, "
        "another prompt or --quant bf16 would raise it"
    )
