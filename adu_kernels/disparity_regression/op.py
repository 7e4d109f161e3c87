"""Disparity regression: checks, choice of the implementation, and the public function."""

from __future__ import annotations

from torch import Tensor

from .. import checks
from ..backend import dispatch
from . import launch, reference


def disparity_regression(
    logits: Tensor,
    scale: int = 1,
    *,
    start: float = 0.0,
    interval: float = 1.0,
    temperature: float = 1.0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Soft-argmin (GC-Net, arXiv 1703.04309) with its variance, after trilinear upsampling (PSMNet, arXiv 1803.08669).

    L = trilinear(logits → B×sD×sH×sW, align_corners=False), p = softmax of L/temperature over disparity,
    disparity = Σ_d v_d·p_d, variance = Σ_d (v_d − disparity)²·p_d, v_d = start + interval·d.

    Args:
        logits: B×D×H×W or B×1×D×H×W, floating, any strides; a higher score is a better match, start first. −inf
            excludes a candidate (what is below −2¹⁰⁰ counts as −2¹⁰⁰).
        scale: the whole number s ≥ 1 by which height, width and disparities are upsampled.
        start, interval: the first of the sD upsampled candidates and the step between them, in pixels; a cascade's
            stage that looks in a narrower range gives its own. interval > 0.
        temperature: > 0; below 1 the distribution is sharper.
        backend: "auto", "triton" or "torch".

    Returns:
        disparity and variance, each B×sH×sW, in pixels and squared pixels of the upsampled map, fp32 (fp64 for fp64
        logits) whatever autocast says. The variance is never negative. Differentiable in logits through both (once:
        the Triton kernels have no second derivative).

    Raises:
        ValueError: a wrong shape or number; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> logits = torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1)  # two candidates, p = ¼ and ¾
        >>> disparity_regression(logits)
        (tensor([[[0.7500]]]), tensor([[[0.1875]]]))
        >>> disparity, variance = disparity_regression(torch.randn(1, 12, 8, 16), scale=4)  # of 48 candidates
        >>> disparity.shape
        torch.Size([1, 32, 64])
    """
    checks.check_tensor("logits", logits, "B×D×H×W", "B×1×D×H×W")
    scale = checks.check_count("scale", scale)
    start = checks.check_number("start", start)
    interval = checks.check_number("interval", interval, low=1e-6)
    temperature = checks.check_number("temperature", temperature, low=1e-6)
    run = dispatch(
        "disparity_regression", backend, logits,
        torch_twin=reference.disparity_regression, triton_twin=launch.disparity_regression,
    )  # fmt: skip
    return run(logits, scale, start=start, interval=interval, temperature=temperature)
