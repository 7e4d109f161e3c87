"""Disparity and its variance from matching scores, in plain PyTorch. The kernels beside this file are held to it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast

LOWEST = -(2.0**100)
"""What −inf counts as. A power of two, so that its product with an interpolation weight is exact: fused with a sum it
would otherwise be rounded by what it is added to, and candidates that are all excluded would no longer be equal."""
NOTHING = -(2.0**80)
"""Where the largest upsampled logit is below, each was interpolated with an excluded one: there is a mean (that of the
least excluded), but nothing to learn from."""


def disparity_regression(
    logits: Tensor, scale: int = 1, *, start: float = 0.0, interval: float = 1.0, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Trilinear upsampling of B×D×H×W (or B×1×D×H×W) by `scale`, softmax over disparity, mean and variance."""
    with without_autocast(logits):
        scores = logits.to(accumulation_dtype(logits))
        if scores.ndim == 5:
            scores = scores.squeeze(1)
        # −inf excludes a candidate; finite, its interpolation with a neighbour is no NaN. NaN stays NaN.
        scores = (scores / temperature).clamp(min=LOWEST)
        for axis in (3, 2, 1):  # the disparity axis last: the fewest values are interpolated
            scores = _upsample(scores, axis, scale)
        probability = torch.softmax(scores, dim=1)
        steps = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype).view(1, -1, 1, 1)
        candidates = start + interval * steps
        disparity = (candidates * probability).sum(1, keepdim=True)
        # Around the mean, not E[d²] − E[d]²: that difference loses a sharp peak at a large disparity, and its sign.
        variance = ((candidates - disparity).square() * probability).sum(1)
        nothing = scores.detach().amax(1) < NOTHING
        disparity = disparity.squeeze(1)
        return torch.where(nothing, disparity.detach(), disparity), torch.where(nothing, variance.detach(), variance)


def _upsample(values: Tensor, axis: int, scale: int) -> Tensor:
    """Linear interpolation by a whole factor along one axis, half-pixel centres (align_corners=False), edges held.

    Equal to F.interpolate, whose backward on a GPU adds with atomics in no fixed order (and on a CPU is several times
    slower in 3-D). Every output of phase k lies at the same offset from its coarse cell, so slices are enough.
    """
    if scale == 1:
        return values
    count = values.shape[axis]
    before = torch.cat((values.narrow(axis, 0, 1), values.narrow(axis, 0, count - 1)), axis)
    after = torch.cat((values.narrow(axis, 1, count - 1), values.narrow(axis, count - 1, 1)), axis)
    phases = []
    for k in range(scale):
        offset = (k + 0.5) / scale - 0.5
        neighbour, weight = (before, -offset) if offset < 0 else (after, offset)
        phases.append(values * (1 - weight) + neighbour * weight if weight else values)
    return torch.stack(phases, dim=axis + 1).flatten(axis, axis + 1)
