"""Correlation disparity: checks, choice of the implementation, and the public function."""

from __future__ import annotations

from torch import Tensor

from .. import checks
from ..backend import runs_kernels
from ..stereo import REDUCTIONS, VIEWS, view_sign
from . import reference
from .launch import DisparityOptions, correlation_disparity_maps


def correlation_disparity(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    *,
    reduction: str = "mean",
    softmax_scale: float = 1.0,
    zero_fill: bool = False,
    view: str = "left",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Disparity and its variance from the correlation of two feature maps; the volume is never written.

    p = softmax over d of softmax_scale·Σ_c left[c,h,w]·right[c,h,w−d] (AANet, arXiv 2004.09548, without aggregation);
    disparity = Σ_d d·p_d, variance = Σ_d (d − disparity)²·p_d.

    Args:
        left, right: B×C×H×W of a rectified pair, one floating dtype, one device, any strides.
        num_disparities: D ≥ 1, may exceed W.
        reduction: the sum over channels times 1/C ("mean"), 1 ("sum") or 1/√C ("sqrt").
        softmax_scale: a number, how sharply the softmax decides.
        zero_fill: disparities that lead out of the image stay out of the softmax (False), or enter it with score 0
            (True), as in the softmax of a zero-filled volume.
        view: "left", or "right": disparities of the right map's pixels, partners at x + d.
        backend: "auto", "triton" or "torch".

    Returns:
        disparity and variance, each B×H×W, in columns of the map and their squares, fp32 (fp64 for fp64) whatever
        autocast says. Differentiable in left and right through both (once: the Triton kernels have no second
        derivative).

    Raises:
        ValueError: a wrong shape, device, count or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> right = torch.eye(6).view(1, 6, 1, 6)  # each of the six columns looks like no other
        >>> left = right.roll(2, dims=3)
        >>> disparity, variance = correlation_disparity(left, right, 4, reduction="sum", softmax_scale=30.0)
        >>> disparity  # the first two columns have their partners outside of the image
        tensor([[[0.0000, 0.5000, 2.0000, 2.0000, 2.0000, 2.0000]]])
    """
    checks.check_pair("left", left, "right", right)
    num_disparities = checks.check_count("num_disparities", num_disparities)
    checks.check_choice("reduction", reduction, REDUCTIONS)
    softmax_scale = checks.check_number("softmax_scale", softmax_scale)
    zero_fill = checks.check_flag("zero_fill", zero_fill)
    checks.check_choice("view", view, VIEWS)
    if not runs_kernels("correlation_disparity", backend, left):
        return reference.correlation_disparity(
            left, right, num_disparities,
            reduction=reduction, softmax_scale=softmax_scale, zero_fill=zero_fill, view=view,
        )  # fmt: skip
    options = DisparityOptions(num_disparities, float(softmax_scale), reduction, zero_fill, view_sign(view))
    base, match = (left, right) if view == "left" else (right, left)
    maps = correlation_disparity_maps(base, match, *options)
    return maps[0], maps[1]
