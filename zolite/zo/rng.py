"""Noise by address: every number of a direction has one, so nothing depends on order, history or a global stream.

The generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
Its key is the run's seed; its 128-bit counter is (element, step, tag). The integers, and so the Rademacher and uniform
draws, are the same bits on every device; the normal transform (Box and Muller) agrees up to its last bits.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TILE = 4096  # numbers a tile: 1,024 counters, whose four output words lie in four runs of 1,024
_RUN = TILE // 4
CHUNKS = {"cpu": 16 * TILE}  # numbers made at a time: what stays in a core's cache, and elsewhere …
CHUNK = 1024 * TILE  # … enough to fill the card at 48 bytes of scratch a number
MASK = 0xFFFFFFFF

Step = int | Tensor
"""Counted from 0. As a tensor, 0-D int64 on the device: a captured graph, replayed, goes by the value it then has."""


@dataclass(frozen=True)
class Key:
    """An address for noise. `tag` tells apart several uses within a step (queries, probes, bases)."""

    seed: int
    step: Step
    tag: tuple[int | str, ...] = ()

    def fold(self, *more: int | str) -> "Key":
        return replace(self, tag=self.tag + more)


def numbers(key: Key, count: int, device: torch.device, transform: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The first numbers of a key: (count,) float32, normal by default."""
    return (transform or normal)(words(key, 0, -(-count // TILE) * TILE, device))[:count]


def words(key: Key, first: int, count: int, device: torch.device) -> Tensor:
    """Random words number `first` to `first + count` of a key; both multiples of TILE. (count,) int64 in [0, 2³²)."""
    tiles = count // TILE
    counter = torch.arange(first // 4, first // 4 + tiles * _RUN, device=device).view(tiles, _RUN)
    step, tag = (_spread(word, counter) for word in (key.step & MASK, tag_word(key.tag)))
    outputs = philox((counter & MASK, counter >> 32, step, tag), seed_words(key.seed))
    return torch.stack(outputs, dim=1).view(-1)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four counter words, alike in shape, and two key words to four words; 32 bits each, in int64.

    Works in place on buffers of its own, and masks only where a product needs it: on a CPU this is what noise costs.
    """
    c0, c1, c2, c3 = (c.clone() for c in counter)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0.mul_(0xD2511F53), c2.mul_(0xCD9E8D57)  # int64 wraps: the low 64 bits of the product are right
        c0 = (p1 >> 32).bitwise_xor_(c1.bitwise_xor_(k0)).bitwise_and_(MASK)
        c2 = (p0 >> 32).bitwise_xor_(c3.bitwise_xor_(k1)).bitwise_and_(MASK)
        c1, c3 = p1, p0  # their high halves are masked with the next round's words, or below
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1.bitwise_and_(MASK), c2, c3.bitwise_and_(MASK)


def normal(bits: Tensor) -> Tensor:
    """Words (count,) to N(0, 1) float32: the first half of a tile gives radii, the second the angles."""
    radius, angle = bits.view(-1, 2, TILE // 2).unbind(1)
    r = radius.float().add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).clamp_(min=0.0).sqrt_()
    phi = angle.float().mul_(2 * math.pi * 2.0**-32)
    return torch.stack((r * phi.cos(), r * phi.sin()), dim=1).view(-1)


def rademacher(bits: Tensor) -> Tensor:
    """Words (count,) to ±1 float32, by their top bit."""
    return (bits >> 31).float().mul_(-2.0).add_(1.0)


def uniform(bits: Tensor) -> Tensor:
    """Words (count,) to [0, 1) float32 in steps of 2⁻²⁴: exact on every device."""
    return (bits >> 8).float().mul_(2.0**-24)


DISTRIBUTIONS = {"normal": normal, "rademacher": rademacher}
"""Of zero mean and unit variance, by name."""


def seed_words(seed: int) -> tuple[int, int]:
    return seed & MASK, (seed >> 32) & MASK


def tag_word(tag: tuple[int | str, ...]) -> int:
    """32 bits of a tag; () is 0, so that a plain key needs no hash."""
    return int.from_bytes(hashlib.blake2b(repr(tag).encode(), digest_size=4).digest(), "little") if tag else 0


def _spread(word: int | Tensor, like: Tensor) -> Tensor:
    return word.expand_as(like) if isinstance(word, Tensor) else torch.full_like(like, word)
