"""Group normalisation with what follows it, in plain PyTorch. The kernels beside this file are held to it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """act(weight · (x − mean) / √(variance + eps) + bias + residual), in the dtype and the layout of x."""
    with without_autocast(x):
        dtype = accumulation_dtype(x)
        scale, shift = (None if one is None else one.to(dtype) for one in (weight, bias))
        # Not F.group_norm: it refuses a group of one value, whose normalised value is 0.
        y = torch.group_norm(x.to(dtype), num_groups, scale, shift, eps)
        if residual is not None:
            y = y + residual.to(dtype)
        if activation == "relu":
            y = torch.relu_(y)  # a new tensor, and nothing but its result is kept for the backward
        return y.to(x.dtype)
