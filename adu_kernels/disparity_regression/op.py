"""Disparity regression: checks, choice of the implementation, and the public function."""

from __future__ import annotations

from torch import Tensor

from adu_kernels import checks
from adu_kernels.backend import choose
from adu_kernels.disparity_regression import reference


def disparity_regression(logits: Tensor, scale: int = 1, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Soft-argmin (GC-Net, arXiv 1703.04309) with its variance, after trilinear upsampling (PSMNet, arXiv 1803.08669).

    L = trilinear(logits → B×sD×sH×sW, align_corners=False), p = softmax of L over disparity,
    disparity = Σ_d d·p_d, variance = Σ_d (d − disparity)²·p_d.

    logits: B×D×H×W or B×1×D×H×W, floating, any strides; a higher score is a better match, disparity 0 first.
    scale: the whole number s ≥ 1 by which the map is smaller than the image.
    backend: "auto", "triton" or "torch".

    Returns disparity and variance, each B×sH×sW, in pixels and squared pixels of the upsampled map, fp32 (fp64 for
    fp64 logits) whatever autocast says. The variance is never negative. Differentiable in logits through both.
    Raises ValueError for a wrong shape or scale, TypeError for a wrong type; each names the argument.
    """
    checks.check_tensor("logits", logits, "B×D×H×W", "B×1×D×H×W")
    checks.check_count("scale", scale)
    run = choose("disparity_regression", backend, logits, torch_twin=reference.disparity_regression)
    return run(logits, scale)
