"""Claims about noise by address."""

import itertools
import math
from collections.abc import Callable
from dataclasses import astuple, replace
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zolite.zo import rng as noise
from zolite.zo.direction import Noise
from zolite.zo.rng import TILE, Key
from zolite.zo.space import make_space

CPU = torch.device("cpu")
TRANSFORMS = (noise.normal, noise.rademacher, noise.uniform)
ONES = 0xFFFFFFFF
ADDRESSES = st.tuples(
    st.builds(
        Key,
        seed=st.integers(0, 99) | st.integers(2**32, 2**63 - 1),  # both words
        step=st.integers(0, 99) | st.integers(2**16, 2**32 - 1),
        tag=st.lists(st.integers(0, 300) | st.text(max_size=5), max_size=3).map(tuple),
    ),
    st.integers(0, 99) | st.integers(2**22, 2**30),  # a tile; from 2²² on the counter needs its high word
    st.integers(0, TILE - 1),
)


def numbers(key: Key, tiles: int, transform: Callable[[Tensor], Tensor] = noise.normal) -> Tensor:
    return transform(noise.words(key, 0, tiles * TILE, CPU))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(
    philox: ModuleType, counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """Philox4x32-10 and its twin give the answers that Random123 publishes."""
    c0, c1, c2, c3 = (torch.tensor([word, word]) for word in counter)
    assert tuple(int(out[1]) for out in noise.philox((c0, c1, c2, c3), key)) == expected
    assert philox.philox(counter, key) == expected
    assert int(c0[0]) == counter[0], "the caller's counter is not overwritten"


@settings(max_examples=150)
@given(ADDRESSES)
def test_twin(philox: ModuleType, address: tuple[Key, int, int]) -> None:
    """A word, and the normal number made of it, is what the scalar twin finds at that address."""
    key, tile, place = address
    words = noise.words(key, tile * TILE, TILE, CPU)
    assert words.dtype == torch.int64 and words.shape == (TILE,)
    assert int(words[place]) == philox.word(*astuple(key), tile * TILE + place)
    assert float(noise.normal(words)[place]) == pytest.approx(
        philox.normal(*astuple(key), tile * TILE + place), abs=3e-6
    )


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(1, 12))
def test_sub_ranges(first: int, tiles: int) -> None:
    """Any range of tiles holds the numbers that the whole holds there."""
    key = Key(3, 5, ("x",))
    part = noise.words(key, first * TILE, tiles * TILE, CPU)
    whole = noise.words(key, 0, 52 * TILE, CPU)
    assert torch.equal(part, whole[first * TILE : (first + tiles) * TILE])
    for transform in TRANSFORMS:
        assert torch.equal(transform(part), transform(whole)[first * TILE : (first + tiles) * TILE])


@settings(max_examples=40)
@given(ADDRESSES, st.integers(0, 2**30))
def test_step_on_device(address: tuple[Key, int, int], wraps: int) -> None:
    """A step that is a tensor draws the words of the number it holds, and of that alone modulo 2³²."""
    key, tile, _ = address
    step = key.step + wraps * 2**32
    drawn = noise.words(replace(key, step=torch.tensor(step)), tile * TILE, 2 * TILE, CPU)
    for number in (key.step, step):
        assert torch.equal(drawn, noise.words(replace(key, step=number), tile * TILE, 2 * TILE, CPU))


def test_step_stays_on_device() -> None:
    """Drawing for a step that is a tensor asks nothing of it on the host, and leaves it as it was."""
    meta, step = torch.device("meta"), torch.tensor(3)
    assert noise.words(Key(1, torch.empty((), dtype=torch.int64, device=meta)), 0, TILE, meta).shape == (TILE,)
    noise.words(Key(1, step).fold("x"), 0, TILE, CPU)
    assert int(step) == 3


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("chunk", [TILE, 3 * TILE, 16 * TILE])
def test_chunks(monkeypatch: pytest.MonkeyPatch, transform: Callable[[Tensor], Tensor], chunk: int) -> None:
    """A direction is the same whatever is made of it at a time, and ends where the space ends, within a tile or not."""
    monkeypatch.setitem(noise.CHUNKS, "cpu", chunk)
    key, whole = Key(1, 2), numbers(Key(1, 2), 18, transform)
    for n in (1, TILE - 1, TILE, TILE + 1, 16 * TILE, 17 * TILE + 5):
        out = torch.zeros(n)
        Noise(key, transform).add_to(out, 1.0, make_space({"w": (n,)}, 0, torch.float32, CPU))
        assert torch.equal(out, whole[:n])


def test_uncorrelated() -> None:
    """Keys that differ anywhere — in a seed's either word, step or tag — share nothing, nor do the tiles of one key."""
    keys = [
        *(Key(seed, 0) for seed in (0, 1, 2**32, 2**62)),
        *(Key(0, step) for step in (1, 2, 3)),
        *(Key(0, 0).fold(*tag) for tag in ((0,), (1,), (2,), ("1",), (12,))),
        Key(0, 0).fold(1).fold(2),
    ]
    tiles = 16
    drawn = torch.stack([numbers(key, tiles) for key in keys] + [numbers(keys[0], tiles).roll(TILE)])
    between = torch.corrcoef(drawn.double()).fill_diagonal_(0).abs().max()
    assert float(between) < 5 / math.sqrt(tiles * TILE)
    among = torch.corrcoef(drawn[0].double().view(2 * tiles, -1)).fill_diagonal_(0).abs().max()  # sines and cosines too
    assert float(among) < 5 / math.sqrt(TILE / 2)


def test_seed_words_do_not_mix() -> None:
    """Distinct (seed, step, tag) give distinct first words, also where one part's change could undo another's."""
    parts = (0, 1, 2, 2**16, 2**31)
    keys = [Key(low + (high << 32), step) for low, high, step in itertools.product(parts, parts[:4], parts)]
    assert len({int(noise.words(key, 0, TILE, CPU)[0]) for key in keys}) == len(keys)


def test_normal() -> None:
    """Moments and distribution of a million normal numbers are those of N(0, 1), within sampling error."""
    n = 2**20
    z = numbers(Key(11, 0), n // TILE).double()
    assert abs(float(z.mean())) < 5 * math.sqrt(1 / n)
    assert abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2 / n)
    assert abs(float(z.pow(3).mean())) < 5 * math.sqrt(15 / n)
    assert abs(float(z.pow(4).mean()) - 3) < 5 * math.sqrt(96 / n)
    below = torch.special.ndtr(z.sort().values)
    steps = torch.arange(n, dtype=torch.float64) / n
    assert float((below - steps).abs().max()) < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov at one in a thousand


def test_extreme_words() -> None:
    """The least and the greatest word give finite normals, signs and a uniform below 1."""
    for word in (0, 1, 2**31 - 1, 2**31, ONES):
        bits = torch.full((TILE,), word)
        assert torch.isfinite(noise.normal(bits)).all()
        assert torch.equal(noise.rademacher(bits), torch.full((TILE,), -1.0 if word >= 2**31 else 1.0))
        assert torch.equal(noise.uniform(bits), torch.full((TILE,), (word >> 8) / 2**24))
    assert float(noise.uniform(bits)[0]) < 1


def test_rademacher() -> None:
    """Rademacher numbers are ±1 exactly, half of them each."""
    signs = numbers(Key(11, 1), 64, noise.rademacher)
    assert signs.dtype == torch.float32 and set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 5 / math.sqrt(len(signs))


def test_uniform() -> None:
    """Uniform numbers lie in [0, 1), on multiples of 2⁻²⁴, with the moments of the uniform."""
    u = numbers(Key(11, 2), 64, noise.uniform)
    assert u.dtype == torch.float32 and 0 <= float(u.min()) < 1e-4 and 1 - 1e-4 < float(u.max()) < 1
    assert torch.equal(u * 2**24, (u * 2**24).round())
    assert abs(float(u.double().mean()) - 0.5) < 5 / math.sqrt(12 * len(u))
    assert abs(float(u.double().var()) - 1 / 12) < 5 / math.sqrt(180 * len(u))


def test_no_global_stream() -> None:
    """Drawing neither reads nor moves torch's own generator."""
    space = make_space({"w": (TILE + 1,)}, 0, torch.float32, CPU)
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before, out = torch.get_rng_state(), torch.zeros(TILE + 1)
        for transform in TRANSFORMS:
            Noise(Key(1, 1), transform).add_to(out, 1.0, space)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(out)
    assert torch.equal(*drawn)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_on_gpu() -> None:
    """Words, signs and uniforms are the CPU's bits on the GPU; normals agree to their last bits."""
    key, first, count = Key(2**62 + 5, 7, (1, "x")), 2**23 * TILE, 1024 * TILE
    there, here = (noise.words(key, first, count, torch.device(where)) for where in ("cuda", "cpu"))
    assert torch.equal(there.cpu(), here)
    for transform in (noise.rademacher, noise.uniform):
        assert torch.equal(transform(there).cpu(), transform(here))
    torch.testing.assert_close(noise.normal(there).cpu(), noise.normal(here), rtol=1e-5, atol=1e-5)
