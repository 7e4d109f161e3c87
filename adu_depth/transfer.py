"""The way from the CPU's memory to a device's, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's on `device`.

    To CUDA it goes through pinned memory: from pageable memory a copy waits, `non_blocking` or not. torch keeps pinned
    blocks for the next call, and this one until the copy is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
