"""Stereo cost volumes in plain PyTorch; autograd does the backward. Every kernel here is held to it.

Inputs are taken as `op.py` has checked them. Each disparity is computed on the columns that have a partner and padded,
so whatever stands in the other columns, NaN included, never meets the zeros. One slab per disparity and one `stack` is
also the fastest of the forms tried on a CPU: writing slabs into one buffer makes autograd copy the whole gradient once
per disparity, `unfold` writes all C×D products. The same pad-and-stack form is what an exported graph holds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast
from ..stereo import reduction_factor


def groupwise_correlation_volume(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    num_groups: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
) -> Tensor:
    """V[b,g,d,h,w] = mean over the channels c of group g of left[b,c,h,w] · right[b,c,h,w−d], 0 where w < d."""
    per_group = left.shape[1] // num_groups
    factor = reduction_factor(reduction, per_group)
    dtype = accumulation_dtype(left, right)
    with without_autocast(left):
        # Contiguous: each map is read once for every disparity, and sums over channels that are neighbours are slow.
        exact = [x.to(dtype).contiguous() for x in (left, right)]
        grouped = [torch.unflatten(x, 1, (num_groups, per_group)) for x in exact]
        grouped_left, grouped_right = (_normalized(x, normalize, eps, eps_rule) for x in grouped)
        slabs = []
        for d in range(num_disparities):
            a, b = _partners(grouped_left, grouped_right, d)
            slabs.append(_pad(((a * b).sum(2) * factor).to(left.dtype), left.shape[-1], view))
        return torch.stack(slabs, dim=2)


def correlation_volume(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
) -> Tensor:
    """The group-wise volume with one group: V[b,d,h,w] = mean over c of left[b,c,h,w] · right[b,c,h,w−d]."""
    return groupwise_correlation_volume(
        left, right, num_disparities, 1,
        normalize=normalize, reduction=reduction, view=view, eps=eps, eps_rule=eps_rule,
    ).squeeze(1)  # fmt: skip


def concatenation_volume(
    left: Tensor, right: Tensor, num_disparities: int, *, mask_left: bool = True, view: str = "left"
) -> Tensor:
    """V[b,:C,d,h,w] = left[b,:,h,w], V[b,C:,d,h,w] = right[b,:,h,w−d], both 0 where w < d."""
    slabs = []
    for d in range(num_disparities):
        a, b = (_pad(half, left.shape[-1], view) for half in _partners(left, right, d))
        if not mask_left:
            a, b = (left, b) if view == "left" else (a, right)
        slabs.append(torch.cat((a, b), dim=1))
    return torch.stack(slabs, dim=2)


def combined_volume(
    left: Tensor,
    right: Tensor,
    left_thin: Tensor,
    right_thin: Tensor,
    num_disparities: int,
    num_groups: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    mask_left: bool = True,
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
) -> Tensor:
    """The group-wise correlation of one pair, then the concatenation of a second, thinner pair, along the channels."""
    correlation = groupwise_correlation_volume(
        left, right, num_disparities, num_groups,
        normalize=normalize, reduction=reduction, view=view, eps=eps, eps_rule=eps_rule,
    )  # fmt: skip
    thin = concatenation_volume(left_thin, right_thin, num_disparities, mask_left=mask_left, view=view)
    return torch.cat((correlation, thin), dim=1)


def volume_with_scores(
    left: Tensor,
    right: Tensor,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    num_disparities: int,
    num_groups: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    mask_left: bool = True,
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
) -> tuple[Tensor, Tensor]:
    """The combined volume, without thin maps the group-wise one, and its mean over the groups."""
    volume = groupwise_correlation_volume(
        left, right, num_disparities, num_groups,
        normalize=normalize, reduction=reduction, view=view, eps=eps, eps_rule=eps_rule,
    )  # fmt: skip
    scores = volume.mean(1)
    if left_thin is None or right_thin is None:
        return volume, scores
    thin = concatenation_volume(left_thin, right_thin, num_disparities, mask_left=mask_left, view=view)
    return torch.cat((volume, thin), dim=1), scores


def _normalized(grouped: Tensor, normalize: str, eps: float, eps_rule: str) -> Tensor:
    """B×G×K×H×W divided by the norm of each pixel's group ("group") or of all its channels ("all")."""
    if normalize == "none":
        return grouped
    squares = grouped.square().sum((2,) if normalize == "group" else (1, 2), keepdim=True)
    # √ has no slope at 0; the inner `where` keeps its infinity out of the gradient.
    present = squares > (eps * eps if eps_rule == "max" else 0.0)
    norm = torch.where(present, squares, 1.0).sqrt()
    if eps_rule == "max":
        return grouped * torch.where(present, 1.0 / norm, 0.0)
    return grouped * torch.where(present, 1.0 / (norm + eps), 1.0 / eps)


def _partners(left: Tensor, right: Tensor, disparity: int) -> tuple[Tensor, Tensor]:
    """The columns w ≥ d of the left map and the columns w − d of the right one: W − d of each, none if d ≥ W."""
    width = left.shape[-1]
    kept = max(width - disparity, 0)
    return left[..., width - kept :], right[..., :kept]


def _pad(slab: Tensor, width: int, view: str) -> Tensor:
    """The slab where the view's own columns stand: right of the missing ones for the left view, left of them else."""
    missing = width - slab.shape[-1]
    return F.pad(slab, (missing, 0) if view == "left" else (0, missing))
