"""Devices are picked from what torch has; zolite's own kernels run on NVIDIA's alone. torch's answers are fakes."""

from collections.abc import Callable

import pytest
import torch

from zolite.common.errors import UsageError
from zolite.config.weights import WEIGHT_FORMATS
from zolite.engine import noise_kernels
from zolite.model import devices, quant

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """machine(cuda=0, xpu=0, mps=0, hip=None): what torch sees."""

    def make(cuda: int = 0, xpu: int = 0, mps: int = 0, hip: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.version, "cuda", "13.0" if cuda and hip is None else None)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.xpu, "is_available", lambda: xpu > 0)
        monkeypatch.setattr(torch.xpu, "device_count", lambda: xpu)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps > 0)

    return make


PICKED: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "no GPU": ({}, {"auto": "cpu", "cpu": "cpu"}),
    "NVIDIA": ({"cuda": 2}, {"auto": "cuda:0", "cuda": "cuda:0", "cuda:1": "cuda:1", "cpu": "cpu"}),
    "AMD": ({"cuda": 1, "hip": "7.2"}, {"auto": "cuda:0", "cuda": "cuda:0"}),
    "Intel": ({"xpu": 2}, {"auto": "xpu:0", "xpu": "xpu:0", "xpu:1": "xpu:1"}),
    "Apple": ({"mps": 1}, {"auto": "mps:0", "mps": "mps:0", "cpu": "cpu"}),
    "two kinds": ({"cuda": 1, "xpu": 1}, {"auto": "cuda:0", "xpu": "xpu:0"}),
}


@pytest.mark.parametrize("kind", PICKED)
def test_auto_picks_a_gpu_wherever_torch_has_one(machine: Machine, kind: str) -> None:
    there, picks = PICKED[kind]
    machine(**there)
    assert {wanted: str(devices.pick(wanted)) for wanted in picks} == picks


@pytest.mark.parametrize(
    ("there", "wanted", "words"),
    [
        ({}, "cuda", "CPU build"),
        ({}, "xpu", "0 GPUs"),
        ({}, "mps", "0 GPUs"),
        ({"xpu": 1}, "xpu:1", "1 GPUs"),
        ({"cuda": 1, "hip": "7.2"}, "cuda:3", "1 GPUs"),
        ({"cuda": 1}, "vulkan", "not supported"),
        ({"cuda": 1}, "gpu", "model.device is 'gpu'"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    machine: Machine, there: dict[str, object], wanted: str, words: str
) -> None:
    machine(**there)
    with pytest.raises(UsageError, match=words) as error:
        devices.pick(wanted)
    assert error.value.hint


@pytest.mark.parametrize("device", ["cuda", "xpu", "mps"])
def test_elsewhere_torchs_own_operations_run_alone(machine: Machine, device: str) -> None:
    """The kernels ask a card for its capability, which these fakes could not answer."""
    machine(cuda=1, hip="7.2")
    found = torch.device(device)
    assert quant.triton_kernels.__wrapped__(found) is None
    assert noise_kernels.writer.__wrapped__(found) is None
    assert not devices.nvidia(found) and devices.speed(found) == "cuda"
    assert quant.activations("int8", found) == getattr(torch, WEIGHT_FORMATS["int8"].cuda)


def test_int8_codes_are_expanded_by_any_device_the_same(machine: Machine) -> None:
    codes = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8).view(4, 64)
    layer = quant.Int8Linear(codes, torch.tensor([1.0, 2.0, 0.5, 0.0]), None, torch.float32)
    expanded = codes.float() * torch.tensor([1.0, 2.0, 0.5, 0.0])[:, None] / 127
    machine(mps=1)
    torch.testing.assert_close(layer(torch.eye(64)), expanded.mT)
