"""Claims about what is measured of the machine."""

import platform

import pytest
import torch

from zolite.engine import device_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what another libc keeps is its own")
def test_freed_memory_goes_back() -> None:
    """Small pieces that are freed below one that is not stay with the process until it tidies up."""
    pieces = [b"x" * (60_000 + i % 2) for i in range(5000)]
    last = pieces.pop()
    del pieces
    before = device_memory.used_bytes(CPU)
    device_memory.tidy()
    assert before - device_memory.used_bytes(CPU) > 100 * 2**20 and last
