"""The loss of arXiv 1803.08673, by which the light-weight pair of 2105.06143 learns, in plain PyTorch.

What stands where the target is not valid is replaced by 0 in both maps BEFORE any arithmetic, so it can reach neither a
sum nor, as NaN·0, a gradient. No value is read back, so nothing waits for a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from adu_depth.distillation.means import masked_mean
from adu_depth.errors import InputError
from adu_kernels.precision import accumulation_dtype, without_autocast


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


def depth_gradient_normal_loss(
    depth: Tensor,
    target: Tensor,
    *,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    offset: float = 0.5,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    normalize: str = "batch",
) -> GradientNormalTerms:
    """Errors of depth, of its gradients and of surface normals (Hu et al., arXiv 1803.08673).

    mean ln(|e| + offset), the same of ∂x e and ∂y e, and mean 1 − cos of the normals (−∂x, −∂y, 1); e = depth − target
    in metres, B×1×H×W, ∂ the unnormalised 3×3 Sobel operator with 0 outside of the image. A target is valid within
    [min_depth, max_depth]; the depth term is a mean over valid targets, the others over pixels whose whole 3×3 window,
    as far as it lies in the image, is valid: with a dense target that is the loss as published. Whatever stands where a
    target is not valid changes neither loss nor gradient; a mean over nothing is 0.

    weights: of depth, gradient_x, gradient_y and normal. offset: > 0, published with 0.5. normalize: "batch" takes the
    means over the batch; "image" over each image, then over all images, one with nothing valid counting as 0.
    """
    if depth.shape != target.shape:
        raise InputError(f"target: expected the depth's shape {tuple(depth.shape)}, got {tuple(target.shape)}")
    if not offset > 0:
        raise InputError(f"offset: expected a number > 0, got {offset}")
    if not 0 < min_depth < max_depth:  # 0 stands where nothing is known
        raise InputError(f"min_depth, max_depth: expected 0 < min_depth < max_depth, got {min_depth} and {max_depth}")
    if normalize not in ("batch", "image"):
        raise InputError(f"normalize: expected 'batch' or 'image', got {normalize!r}")
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
            masked_mean((error.abs() + offset).log(), valid, normalize),
            masked_mean((error_x.abs() + offset).log(), window, normalize),
            masked_mean((error_y.abs() + offset).log(), window, normalize),
            masked_mean(normal, window, normalize),
        ]
        total = sum((factor * term for factor, term in zip(weights, terms, strict=True)), torch.zeros_like(terms[0]))
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
