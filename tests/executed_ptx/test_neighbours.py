"""Lanes of a warp load neighbouring elements: sectors of 32 bytes are filled with what was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from adu_kernels import correlation_volume
from tests.executed_ptx.cases import DTYPES, LAYOUTS

LEAST = 0.8
"""Bytes asked for over bytes of the sectors touched."""


@pytest.mark.parametrize("view", ["left", "right"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_bands_read_neighbouring_columns(dtype: str, layout: str, view: str, gpu: Any) -> None:
    """Columns counted downwards made lanes run along the channels of a contiguous map: 0.10."""
    gpu.options = replace(gpu.options, checked=False, counted=True)
    maps = [torch.randn(1, 64, 1, 128).to(DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout]) for _ in range(2)]
    maps = [value.requires_grad_() for value in maps]
    volume = correlation_volume(*maps, 48, view=view, backend="triton")
    torch.autograd.grad(volume, maps, torch.randn_like(volume))
    for kernel in ("band_forward", "band_backward"):
        traffic = gpu.record.counts[f"cost_volume.{kernel}"].memory
        efficiency = traffic["load bytes"] / (32 * traffic["load sectors"])
        assert efficiency >= LEAST, f"{kernel}: {efficiency:.2f}"
