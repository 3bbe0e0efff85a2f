"""Claims about the table of weight formats: torch has what it names."""

import pytest
import torch

from zolite.config.recipe import QUANTS
from zolite.config.weights import WEIGHT_FORMATS
from zolite.model.quant import activations


@pytest.mark.parametrize("name", WEIGHT_FORMATS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_activations_are_of_torch(name: str, device: str) -> None:
    """Each dtype is one of torch's, of as many bytes as plans count; settings offer every format."""
    dtype = activations(name, torch.device(device))
    assert dtype.itemsize == WEIGHT_FORMATS[name].activation_bytes(device) and name in QUANTS
