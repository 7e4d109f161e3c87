"""The written rule of mixed precision: sums, logs and exponentials in fp32 (fp64 for fp64), whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast leaves every operation on `tensor`'s device alone."""
    device = tensor.device.type
    if not _has_autocast(device):  # torch refuses to switch it off there
        return nullcontext()
    return torch.autocast(device_type=device, enabled=False)


def storage_dtype(tensor: Tensor) -> torch.dtype:
    """What a step stores a map like `tensor` in: autocast's type where it is on, else float32; float64 for float64,
    which autocast leaves as it is."""
    if tensor.dtype == torch.float64:
        return torch.float64
    return autocast_dtype(tensor) or accumulation_dtype(tensor)


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """Autocast's type on `tensor`'s device, None where it is off or there is none."""
    device = tensor.device.type
    if _has_autocast(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def _has_autocast(device: str) -> bool:
    if torch.compiler.is_compiling():  # up to torch 2.11 Dynamo cannot trace the question
        return device != "meta"
    return torch.amp.is_autocast_available(device)


def accumulation_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 if any of the tensors is, else float32."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype == torch.float64:
            return torch.float64
    return torch.float32
