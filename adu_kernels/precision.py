"""The written rule of mixed precision: sums, logs and exponentials in fp32 (fp64 for fp64), whatever autocast says."""

from __future__ import annotations

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which autocast leaves every operation on `tensor`'s device alone."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def accumulation_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 if any of the tensors is, else float32."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32
