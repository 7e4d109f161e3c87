"""Depth, gradient and normal loss: checks, choice of the implementation, and the public function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .. import checks
from ..backend import dispatch
from ..precision import accumulation_dtype
from . import launch, reference
from .reference import GradientNormalTerms, GradientNormalWeights

NORMALIZE = ("batch", "image")


def depth_gradient_normal_loss(
    depth: Tensor,
    target: Tensor,
    *,
    weights: Sequence[float] | Mapping[str, float] = GradientNormalWeights(),
    offset: float = 0.5,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    normalize: str = "batch",
    backend: str = "auto",
) -> GradientNormalTerms:
    """Errors of depth, of its gradients and of surface normals (Hu et al., arXiv 1803.08673), in one.

    With e = depth − target in metres, ∂ the unnormalised 3×3 Sobel operator with 0 outside of the image, and the normal
    n = (−∂x, −∂y, 1) of each map: total = weights.depth · mean ln(|e| + offset) + weights.gradient_x ·
    mean ln(|∂x e| + offset) + weights.gradient_y · mean ln(|∂y e| + offset) + weights.normal · mean (1 − cos of the two
    normals). The depth term is a mean over the valid targets, the others over the pixels whose whole 3×3 window, as far
    as it lies in the image, is valid: where all of the target is, that is the loss as published. A LiDAR's points
    leave hardly a whole window. Whatever stands where the target is not valid changes neither loss nor gradient; a mean
    over nothing is exactly 0.

    Args:
        depth, target: B×1×H×W metres; a target of NaN, inf or outside [min_depth, max_depth] is not valid. depth is not
            clamped.
        weights: (depth, gradient_x, gradient_y, normal), a mapping with these keys, or `GradientNormalWeights`; finite
            numbers ≥ 0, by default 1 each, as published.
        offset: metres, > 0; published with 0.5. The terms are below 0 where errors are below 1 − offset.
        min_depth, max_depth: metres, 0 < min_depth < max_depth, the range of a valid target.
        normalize: "batch" takes the means over the batch; "image" over each image, and the terms are the mean of the
            images', one with nothing valid counting as 0.
        backend: "auto", "triton" or "torch".

    Returns:
        GradientNormalTerms(total, depth, gradient_x, gradient_y, normal): scalars, fp32 (fp64 if an input is) whatever
        autocast says. total is differentiable in depth (once: the Triton kernels have no second derivative); the terms
        are unweighted and detached, for logging.

    Raises:
        ValueError: a wrong shape, device, number or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> target = torch.full((1, 1, 4, 6), 2.0)
        >>> terms = depth_gradient_normal_loss(target + 0.5, target)  # half a metre off: ln 1; slopes at the border
        >>> terms.depth, terms.gradient_x, depth_gradient_normal_loss(target, target).normal
        (tensor(0.), tensor(-0.1939), tensor(0.))
    """
    for name, value in (("depth", depth), ("target", target)):
        checks.check_tensor(name, value, "B×1×H×W")
    checks.check_same_shape("target", target, "depth", depth)
    checks.check_same_device("target", target, "depth", depth)
    factors = checks.check_weights(weights, GradientNormalWeights)
    offset = checks.check_number("offset", offset)
    least = torch.finfo(
        accumulation_dtype(depth, target)
    ).tiny  # below, the exponent that kernels go by is not the size
    if offset < least:
        raise ValueError(f"offset: expected a number of at least {least:.1e}, got {offset}")
    min_depth, max_depth = checks.check_number("min_depth", min_depth), checks.check_number("max_depth", max_depth)
    if not 0 < min_depth < max_depth:
        raise ValueError(f"min_depth, max_depth: expected 0 < min_depth < max_depth, got {min_depth} and {max_depth}")
    checks.check_choice("normalize", normalize, NORMALIZE)
    run = dispatch(
        "depth_gradient_normal_loss", backend, depth,
        torch_twin=reference.depth_gradient_normal_loss, triton_twin=launch.depth_gradient_normal_loss,
    )  # fmt: skip
    return run(
        depth, target, weights=factors, offset=offset, min_depth=min_depth, max_depth=max_depth, normalize=normalize
    )
