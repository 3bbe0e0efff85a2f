"""Claims about the trained numbers and the copies that forwards read."""

import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zolite.zo.direction import Combo, Noise
from zolite.zo.rng import TILE, Key
from zolite.zo.space import Space, layout, make_space

CPU = torch.device("cpu")
SHAPES = {"b": (31, 7), "a": (TILE + 3,), "c": (5, 1, 3)}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
NAMED = st.dictionaries(st.text(max_size=8), st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), max_size=6)


def space_of(dtype: torch.dtype, copies: int = 2) -> Space:
    """A space whose theta is noise."""
    space = make_space(SHAPES, copies, dtype, CPU)
    Noise(Key(5, 0, ("theta",))).add_to(space.theta, 1.0, space)
    return space


def points(step: int = 0) -> list[Combo]:
    return [Combo(((sign * 1e-2, Noise(Key(5, step))),)) for sign in (1.0, -1.0)]


@given(NAMED, st.randoms(use_true_random=False))
def test_order(shapes: dict[str, tuple[int, ...]], random: Random) -> None:
    """A block's address follows from the names alone, not from the order in which they were given."""
    names = list(shapes)
    random.shuffle(names)
    assert layout({name: shapes[name] for name in names}) == layout(shapes)


@given(NAMED)
def test_cover(shapes: dict[str, tuple[int, ...]]) -> None:
    """Blocks cover the buffer, each number once, each block with its shape, in theta and in every copy."""
    space = make_space(shapes, 3, torch.float32, CPU)
    assert {b.name: b.shape for b in space.blocks} == shapes and len(space.blocks) == len(shapes)
    assert space.size == sum(map(math.prod, shapes.values()))
    for block in space.blocks:
        assert block.of(space.theta).shape == block.shape
        assert block.of(space.copies).shape == (3, *block.shape)
        block.of(space.theta).add_(1)
        block.of(space.copies).add_(1)
    assert torch.equal(space.theta, torch.ones(space.size))
    assert torch.equal(space.copies, torch.ones(3, space.size))


def test_views() -> None:
    """A block is a view: one copy's numbers are seen through it, and no other copy's."""
    space = make_space(SHAPES, 2, torch.float32, CPU)
    (block,) = (b for b in space.blocks if b.name == "b")
    block.of(space.copies)[1, 30, 6] = 7.0
    assert int(space.copies.count_nonzero()) == 1 and float(space.copies[1, block.offset + 31 * 7 - 1]) == 7.0


def test_scalar_block() -> None:
    """A block may be a single number without a shape."""
    space = make_space({"scale": ()}, 2, torch.float32, CPU)
    assert space.blocks[0].of(space.theta).shape == ()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounded_once(dtype: torch.dtype) -> None:
    """A copy is theta + point, summed in float32 and rounded once; the origin's copy is theta, rounded."""
    space = space_of(dtype, 3)
    space.fill_([*points(), Combo()])
    for copy, point in zip(space.copies, points(), strict=False):
        offset = torch.zeros(space.size)
        point.add_to(offset, 1.0, space)
        assert torch.equal(copy, (space.theta + offset).to(dtype))
    assert torch.equal(space.copies[2], space.theta.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_drift(dtype: torch.dtype) -> None:
    """After a thousand fills theta has not moved by a bit, and a point fills its copy as it did the first time."""
    space = space_of(dtype)
    addresses, theta = (space.theta.data_ptr(), space.copies.data_ptr()), space.theta.clone()
    space.fill_(points())
    first = space.copies.clone()
    for i in range(1, 1000):
        space.fill_(points(i % 3))
        assert i % 3 or torch.equal(space.copies, first)
    assert torch.equal(space.theta.view(torch.int32), theta.view(torch.int32))
    assert addresses == (space.theta.data_ptr(), space.copies.data_ptr())


def test_fewer_points() -> None:
    """Fewer points than copies leave the rest as they were."""
    space = space_of(torch.float32)
    space.fill_(points())
    before = space.copies.clone()
    space.fill_([Combo()])
    assert torch.equal(space.copies[0], space.theta) and torch.equal(space.copies[1], before[1])


def test_combo() -> None:
    """A sum of sums adds every product of factors along the way; scaling it scales each term; the empty one is 0."""
    space, (u, v) = space_of(torch.float32), (Noise(Key(1, step)) for step in (1, 2))
    inner = Combo(((2.0, u), (torch.tensor(3.0), v)))
    out, zu, zv = (torch.zeros(space.size) for _ in range(3))
    u.add_to(zu, 1.0, space)
    v.add_to(zv, 1.0, space)
    Combo(((-1.0, inner), (0.5, u), (1.0, Combo()))).scaled(4.0).add_to(out, torch.tensor(0.25), space)
    torch.testing.assert_close(out, -1.5 * zu - 3 * zv, rtol=0, atol=1e-5)


def test_add() -> None:
    """An update lands in theta in place, and nowhere else."""
    space = space_of(torch.float32)
    address, expected, offset = space.theta.data_ptr(), space.theta.clone(), torch.zeros(space.size)
    update = Combo(((-0.5, Noise(Key(1, 1))), (torch.tensor(0.25), Noise(Key(1, 2)))))
    update.add_to(offset, 1.0, space)
    space.add_(update)
    assert space.theta.data_ptr() == address and not space.copies.any()
    torch.testing.assert_close(space.theta, expected + offset, rtol=0, atol=1e-6)
    assert not torch.equal(space.theta, expected)
    space.add_(update.scaled(-1.0))
    torch.testing.assert_close(space.theta, expected, rtol=0, atol=2e-6)
