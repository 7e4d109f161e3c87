"""Stereo cost volumes in plain PyTorch; autograd does the backward. The arbiter of every kernel in this room.

Inputs are taken as `op.py` has checked them. Each disparity is computed on the columns that have a partner (w ≥ d) and
padded, so whatever stands in the other columns, NaN included, never meets the zeros. One slab per disparity and one
`stack` is also the fastest of the forms tried on a CPU: writing slabs into one buffer makes autograd copy the whole
gradient once per disparity, `unfold` writes all C×D products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_kernels.precision import accumulation_dtype, without_autocast


def groupwise_correlation_volume(left: Tensor, right: Tensor, num_disparities: int, num_groups: int) -> Tensor:
    """V[b,g,d,h,w] = mean over the channels c of group g of left[b,c,h,w] · right[b,c,h,w−d], 0 where w < d."""
    per_group = channels_per_group(left.shape[1], num_groups)
    dtype = accumulation_dtype(left, right)
    with without_autocast(left):
        grouped_left = left.to(dtype).unflatten(1, (num_groups, per_group))
        grouped_right = right.to(dtype).unflatten(1, (num_groups, per_group))
        slabs = []
        for d in range(num_disparities):
            a, b = _partners(grouped_left, grouped_right, d)
            slabs.append(_pad_left(((a * b).sum(2) / per_group).to(left.dtype), left.shape[-1]))
        return torch.stack(slabs, dim=2)


def correlation_volume(left: Tensor, right: Tensor, num_disparities: int) -> Tensor:
    """The group-wise volume with one group: V[b,d,h,w] = mean over c of left[b,c,h,w] · right[b,c,h,w−d]."""
    return groupwise_correlation_volume(left, right, num_disparities, 1).squeeze(1)


def concatenation_volume(left: Tensor, right: Tensor, num_disparities: int) -> Tensor:
    """V[b,:C,d,h,w] = left[b,:,h,w], V[b,C:,d,h,w] = right[b,:,h,w−d], both 0 where w < d."""
    slabs = []
    for d in range(num_disparities):
        slabs.append(_pad_left(torch.cat(_partners(left, right, d), dim=1), left.shape[-1]))
    return torch.stack(slabs, dim=2)


def combined_volume(
    left: Tensor, right: Tensor, left_thin: Tensor, right_thin: Tensor, num_disparities: int, num_groups: int
) -> Tensor:
    """The group-wise correlation of one pair, then the concatenation of a second, thinner pair, along the channels."""
    correlation = groupwise_correlation_volume(left, right, num_disparities, num_groups)
    return torch.cat((correlation, concatenation_volume(left_thin, right_thin, num_disparities)), dim=1)


def channels_per_group(channels: int, num_groups: int) -> int:
    """K = C / G, a ValueError that names both where G does not divide C."""
    if channels % num_groups != 0:
        raise ValueError(f"num_groups: expected a divisor of the {channels} channels of left, got {num_groups}")
    return channels // num_groups


def _partners(left: Tensor, right: Tensor, disparity: int) -> tuple[Tensor, Tensor]:
    """The columns w ≥ d of the left map and the columns w − d of the right one: W − d of each, none if d ≥ W."""
    return left[..., disparity:], right[..., : max(right.shape[-1] - disparity, 0)]


def _pad_left(slab: Tensor, width: int) -> Tensor:
    return F.pad(slab, (width - slab.shape[-1], 0))
