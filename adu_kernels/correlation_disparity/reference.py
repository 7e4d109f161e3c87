"""Correlation, softmax over disparity, expectation and variance, in plain PyTorch: the volume is written.

What a correlation is stands once, in the reference of `correlation_volume`; that is public, so it may be imported.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cost_volume.reference import correlation_volume
from ..precision import accumulation_dtype, without_autocast


def correlation_disparity(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    *,
    reduction: str = "mean",
    softmax_scale: float = 1.0,
    zero_fill: bool = False,
    view: str = "left",
) -> tuple[Tensor, Tensor]:
    """p = softmax_d(softmax_scale · correlation); Σ d·p_d and Σ (d − mean)²·p_d."""
    dtype = accumulation_dtype(left)
    with without_autocast(left):
        scores = correlation_volume(left.to(dtype), right.to(dtype), num_disparities, reduction=reduction, view=view)
        scores = scores * softmax_scale
        disparity = torch.arange(num_disparities, dtype=dtype, device=left.device).view(1, -1, 1, 1)
        if not zero_fill:
            column = torch.arange(left.shape[-1], dtype=dtype, device=left.device)
            steps = column if view == "left" else column.flip(0)  # how far there are columns to partner with
            scores = scores.masked_fill(disparity > steps, -torch.inf)
        probability = torch.softmax(scores, 1)
        mean = (disparity * probability).sum(1)
        return mean, ((disparity - mean.unsqueeze(1)).square() * probability).sum(1)
