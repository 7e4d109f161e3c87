"""Group normalisation with what follows it, in plain PyTorch. The kernels beside this file are held to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast
from .normalised import normalised

SHORTEST = 1e-12
"""A position whose channels are shorter is not made longer than √C / SHORTEST times what it was."""


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
        values = x.to(dtype)
        y = normalised(values, num_groups, scale, shift, eps)
        if residual is not None:
            y = y + residual.to(dtype)
        if activation == "relu":
            # Where there is a backward, what it was given is kept: the result may be changed in place.
            y = F.threshold(y, 0.0, 0.0) if y.requires_grad else torch.relu_(y)
        y = y.to(x.dtype)
        if y.stride() != x.stride() and y.is_contiguous():  # as torch leaves it on CUDA
            y = torch.empty_like(x).copy_(y)
        return y


def cosine_features(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance over each image per channel, then the length √C per position."""
    with without_autocast(x):
        values = x.to(accumulation_dtype(x))
        positions = tuple(range(2, x.ndim))
        centred = values - values.mean(positions, keepdim=True).detach()  # which is rounded
        centred = centred - centred.mean(positions, keepdim=True)
        normal = centred * torch.rsqrt(centred.square().mean(positions, keepdim=True) + eps)
        length = torch.linalg.vector_norm(normal, dim=1, keepdim=True).clamp_min(SHORTEST)
        return (normal * (x.shape[1] ** 0.5 / length)).to(x.dtype)
