"""A naive twin of the noise: Philox4x32-10 from its definition in Random123, and numbers one at a time by address.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; Box and Muller 1958.
"""

import hashlib
import math

TILE, RUN, WORD = 4096, 1024, 2**32

Four = tuple[int, int, int, int]


def philox(counter: Four, key: tuple[int, int]) -> Four:
    """Ten rounds of two products, each split into its high and low word; the key is raised between rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, WORD)
        high1, low1 = divmod(0xCD9E8D57 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0, c1, c2, c3


def tag_word(tag: tuple[int | str, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(tag).encode(), digest_size=4).digest(), "little") if tag else 0


def word(seed: int, step: int, tag: tuple[int | str, ...], index: int) -> int:
    """Random word number `index`: a tile's four runs of 1,024 are the four output words of its 1,024 counters."""
    tile, place = divmod(index, TILE)
    output, lane = divmod(place, RUN)
    high, low = divmod(tile * RUN + lane, WORD)
    return philox((low, high, step % WORD, tag_word(tag)), (seed % WORD, seed // WORD % WORD))[output]


def normal(seed: int, step: int, tag: tuple[int | str, ...], index: int) -> float:
    """Number `index` of N(0, 1): a tile's first half are cosines, its second sines of the same radii and angles."""
    tile, place = divmod(index, TILE)
    pair = tile * TILE + place % (TILE // 2)
    radius = math.sqrt(-2 * math.log(min(1.0, (word(seed, step, tag, pair) + 0.5) / WORD)))
    angle = 2 * math.pi * word(seed, step, tag, pair + TILE // 2) / WORD
    return radius * (math.cos(angle) if place < TILE // 2 else math.sin(angle))
