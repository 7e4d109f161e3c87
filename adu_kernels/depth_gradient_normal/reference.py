"""The loss of arXiv 1803.08673 in plain PyTorch. The kernels beside this file are held to it.

What stands where the target is not valid is replaced by 0 in both maps BEFORE any arithmetic, so it can reach neither a
sum nor, as NaN·0, a gradient. No value is read back, so nothing waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..checks import check_weights
from ..precision import accumulation_dtype, without_autocast


class GradientNormalTerms(NamedTuple):
    """What `depth_gradient_normal_loss` returns, scalars. total = Σ weight · term carries the gradient.

    The terms are unweighted and detached, for logging.

    Example:
        >>> terms = GradientNormalTerms(*torch.tensor([6.0, 1.0, 2.0, 2.0, 1.0]))
        >>> [f"{name} {value:.0f}" for name, value in terms._asdict().items()]
        ['total 6', 'depth 1', 'gradient_x 2', 'gradient_y 2', 'normal 1']
    """

    total: Tensor
    depth: Tensor
    gradient_x: Tensor
    gradient_y: Tensor
    normal: Tensor


class GradientNormalWeights(NamedTuple):
    """What each term of `depth_gradient_normal_loss` counts in the total: finite numbers ≥ 0.

    Example:
        >>> GradientNormalWeights(normal=0.0)  # depths and their slopes alone
        GradientNormalWeights(depth=1.0, gradient_x=1.0, gradient_y=1.0, normal=0.0)
    """

    depth: float = 1.0
    gradient_x: float = 1.0
    gradient_y: float = 1.0
    normal: float = 1.0


def depth_gradient_normal_loss(
    depth: Tensor,
    target: Tensor,
    *,
    weights: Sequence[float] | Mapping[str, float] = GradientNormalWeights(),
    offset: float = 0.5,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    normalize: str = "batch",
) -> GradientNormalTerms:
    """mean ln(|e| + offset), the same of ∂x e and ∂y e, and mean 1 − cos(n_depth, n_target); e = depth − target."""
    factors = check_weights(weights, GradientNormalWeights)
    dtype = accumulation_dtype(depth, target)
    depth, target = depth.to(dtype), target.detach().to(dtype)
    with without_autocast(depth):
        valid = (target >= min_depth) & (target <= max_depth)  # comparisons with NaN are false
        window = _whole_window(valid)
        depth, target = torch.where(valid, depth, 0), torch.where(valid, target, 0)
        error = depth - target
        error_x, error_y = _sobel(error)
        # ½|a − b|² of unit normals is 1 − cos, and stays exact, smooth and at least 0 where they are nearly the same.
        normal = 0.5 * (_unit_normal(*_sobel(depth)) - _unit_normal(*_sobel(target))).square().sum(1, keepdim=True)
        terms = [
            _mean((error.abs() + offset).log(), valid, normalize),
            _mean((error_x.abs() + offset).log(), window, normalize),
            _mean((error_y.abs() + offset).log(), window, normalize),
            _mean(normal, window, normalize),
        ]
        total = sum((factor * term for factor, term in zip(factors, terms, strict=True)), torch.zeros_like(terms[0]))
    return GradientNormalTerms(total, *(term.detach() for term in terms))


def _whole_window(valid: Tensor) -> Tensor:
    """Where a pixel and its eight neighbours are valid. What lies outside of the image counts as valid: both maps are
    0 there, as published."""
    for axis in (-1, -2):
        padded = functional.pad(valid, (1, 1) if axis == -1 else (0, 0, 1, 1), value=True)
        size = valid.shape[axis]
        valid = padded.narrow(axis, 0, size) & padded.narrow(axis, 1, size) & padded.narrow(axis, 2, size)
    return valid


def _sobel(values: Tensor) -> tuple[Tensor, Tensor]:
    """∂x and ∂y, 3×3, not normalised, 0 outside of the image. No convolution, which a GPU may round to TF32."""
    padded = functional.pad(values, (1, 1, 1, 1))
    left, middle, right = (padded[..., first : first + values.shape[-1]] for first in range(3))
    smooth, slope = left + 2 * middle + right, right - left
    height = values.shape[-2]
    above, here, below = (slope[..., first : first + height, :] for first in range(3))
    return above + 2 * here + below, smooth[..., 2:, :] - smooth[..., :height, :]


def _unit_normal(slope_x: Tensor, slope_y: Tensor) -> Tensor:
    return functional.normalize(torch.cat((-slope_x, -slope_y, torch.ones_like(slope_x)), 1))


def _mean(values: Tensor, mask: Tensor, normalize: str) -> Tensor:
    """Over the mask in the batch; or in each image, then over all images, those with an empty mask at 0."""
    axes = (1, 2, 3) if normalize == "image" else (0, 1, 2, 3)
    count = mask.sum(axes, keepdim=True).clamp(min=1)
    return (torch.where(mask, values, 0).sum(axes, keepdim=True) / count).mean()
