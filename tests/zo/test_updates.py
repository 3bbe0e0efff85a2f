"""Claims about rules when the step is a tensor: the bits of a step that is a number, without waiting for the device."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zolite.zo.direction import Combo, Noise, Scalar
from zolite.zo.estimators import Estimate
from zolite.zo.rng import Key, Step
from zolite.zo.space import make_space
from zolite.zo.updates import Descend, Rms, schedule

CPU, META = torch.device("cpu"), torch.device("meta")  # whatever reads a value on the host fails with a meta tensor
KINDS = ("constant", "linear")


def scaled(kind: str, lr: float, steps: int, step: Step, coefs: torch.Tensor) -> Combo:
    """The sum that a rule makes of these coefficients."""
    rule, space = Descend(schedule(kind, lr, steps)), make_space({"w": (3,)}, 0, torch.float32, coefs.device)
    terms = tuple((c, Noise(Key(1, step).fold(i))) for i, c in enumerate(coefs.unbind()))
    return rule.update(Estimate(Combo(terms), coefs, coefs), step, rule.init(space), space).grad


def values(update: Combo) -> list[Scalar]:
    return [coefficient for coefficient, _ in update.terms]


def bits(update: Combo) -> list[int]:
    assert all(isinstance(c, torch.Tensor) and c.dtype == torch.float32 for c in values(update))
    tensors: list[Any] = values(update)
    return [int(c.view(torch.int32)) for c in tensors]


@settings(max_examples=300)
@given(
    kind=st.sampled_from(KINDS),
    lr=st.floats(1e-9, 10),
    steps=st.integers(1, 100_000),
    step=st.integers(0, 100_001),
    coef=st.floats(-1e6, 1e6, width=32),
)
def test_same_bits(kind: str, lr: float, steps: int, step: int, coef: float) -> None:
    """A step on the device scales coefficients to the bits that the same number gives, past the last step too."""
    coefs = torch.tensor([coef, 1.0, -1 / 3])
    here, there = (scaled(kind, lr, steps, s, coefs) for s in (step, torch.tensor(step)))
    assert bits(here) == bits(there)
    assert bits(here)[1] == int(torch.tensor(-schedule(kind, lr, steps)(step)).view(torch.int32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_on_gpu(kind: str) -> None:
    """On the GPU too, whose division by a number is none."""
    coefs = torch.tensor([1.0, -1 / 3, 1234.5], device="cuda")
    for steps in (3, 7, 1000, 99_991):
        for step in range(0, steps + 1, -(-steps // 50)):
            there = scaled(kind, 1 / 3, steps, torch.tensor(step, device="cuda"), coefs)
            assert bits(scaled(kind, 1 / 3, steps, step, coefs)) == bits(there)
            assert bits(there) == bits(scaled(kind, 1 / 3, steps, step, coefs.cpu()))


@pytest.mark.parametrize("kind", KINDS)
def test_no_waiting(kind: str) -> None:
    """The learning rate of a step on the device, and what it scales, are reckoned there."""
    step, coefs = (torch.empty(shape, dtype=dtype, device=META) for shape, dtype in (((), torch.int64), (2, None)))
    assert all(isinstance(c, torch.Tensor) and c.device == META for c in values(scaled(kind, 0.1, 10, step, coefs)))


def test_rms_in_its_own_unit() -> None:
    """Whatever the coefficients' unit, the first step has length one; an outlier is cut, and 0 stays 0."""
    space, rule = make_space({"w": (3,)}, 0, torch.float32, CPU), Rms(0.99)
    for unit in (1e-6, 1.0, 1e6):
        state, moved = rule.init(space), []
        for c in (unit, -unit, 0.0, *[unit] * 50, 50 * unit):
            coefs = torch.tensor([c])
            estimate = Estimate(Combo(((coefs[0], Noise(Key(1, 0))),)), coefs, coefs)
            ((c, _),) = rule.update(estimate, 0, state, space).grad.terms
            moved.append(float(c))
        assert moved == pytest.approx([1.0, -1.0, 0.0, *[1.0] * 50, 3.0], rel=1e-4)
