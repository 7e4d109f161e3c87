"""Stereo cost volumes: checks, choice of the implementation, and the public functions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from adu_kernels import checks
from adu_kernels.backend import choose
from adu_kernels.cost_volume import reference
from adu_kernels.cost_volume.reference import channels_per_group


def groupwise_correlation_volume(
    left: Tensor, right: Tensor, num_disparities: int, num_groups: int, *, backend: str = "auto"
) -> Tensor:
    """Group-wise correlation of a rectified pair of feature maps (GwcNet, arXiv 1903.04025).

    V[b,g,d,h,w] = (1/K) Σ over the K = C/G channels c of group g of left[b,c,h,w] · right[b,c,h,w−d]; 0 where w < d.

    left, right: B×C×H×W, one floating dtype, one device, any strides. A point at column x of the left map is at x − d
    in the right one, d in columns of the map.
    num_disparities: D ≥ 1, may exceed W. num_groups: G ≥ 1, divides C.
    backend: "auto", "triton" or "torch".

    Returns B×G×D×H×W in the inputs' dtype; sums are taken in fp32 (fp64 for fp64). Differentiable in left and right.
    Raises ValueError for wrong shapes, devices or counts, TypeError for wrong types; each names the argument.
    """
    _check_pair("left", left, "right", right)
    checks.check_count("num_disparities", num_disparities)
    checks.check_count("num_groups", num_groups)
    channels_per_group(left.shape[1], num_groups)
    run = choose("groupwise_correlation_volume", backend, left, torch_twin=reference.groupwise_correlation_volume)
    return run(left, right, num_disparities, num_groups)


def correlation_volume(left: Tensor, right: Tensor, num_disparities: int, *, backend: str = "auto") -> Tensor:
    """Correlation of a rectified pair of feature maps, averaged over the channels.

    V[b,d,h,w] = (1/C) Σ_c left[b,c,h,w] · right[b,c,h,w−d]; 0 where w < d.

    left, right: B×C×H×W, one floating dtype, one device, any strides. num_disparities: D ≥ 1, may exceed W.
    backend: "auto", "triton" or "torch".

    Returns B×D×H×W in the inputs' dtype; sums are taken in fp32 (fp64 for fp64). Differentiable in left and right.
    Raises ValueError for wrong shapes, devices or counts, TypeError for wrong types; each names the argument.
    """
    _check_pair("left", left, "right", right)
    checks.check_count("num_disparities", num_disparities)
    run = choose("correlation_volume", backend, left, torch_twin=reference.correlation_volume)
    return run(left, right, num_disparities)


def concatenation_volume(left: Tensor, right: Tensor, num_disparities: int, *, backend: str = "auto") -> Tensor:
    """Left features beside the shifted right ones (GC-Net, arXiv 1703.04309; PSMNet, arXiv 1803.08669).

    V[b,:C,d,h,w] = left[b,:,h,w], V[b,C:,d,h,w] = right[b,:,h,w−d]; both 0 where w < d.

    left, right: B×C×H×W, one floating dtype, one device, any strides. num_disparities: D ≥ 1, may exceed W.
    backend: "auto", "triton" or "torch".

    Returns B×2C×D×H×W in the inputs' dtype, values copied exactly. Differentiable in left and right.
    Raises ValueError for wrong shapes, devices or counts, TypeError for wrong types; each names the argument.
    """
    _check_pair("left", left, "right", right)
    checks.check_count("num_disparities", num_disparities)
    run = choose("concatenation_volume", backend, left, torch_twin=reference.concatenation_volume)
    return run(left, right, num_disparities)


def combined_volume(
    left: Tensor,
    right: Tensor,
    left_thin: Tensor,
    right_thin: Tensor,
    num_disparities: int,
    num_groups: int,
    *,
    backend: str = "auto",
) -> Tensor:
    """Group-wise correlation of one pair and concatenation of a second, thinner pair, in one volume (GwcNet-gc).

    left, right: B×C×H×W. left_thin, right_thin: B×C'×H×W, same B, H, W, dtype and device; any strides.
    num_disparities: D ≥ 1, may exceed W. num_groups: G ≥ 1, divides C.
    backend: "auto", "triton" or "torch".

    Returns B×(G+2C')×D×H×W in the inputs' dtype: channels [0, G) as `groupwise_correlation_volume`, the rest as
    `concatenation_volume`. Differentiable in all four maps.
    Raises ValueError for wrong shapes, devices or counts, TypeError for wrong types; each names the argument.
    """
    _check_pair("left", left, "right", right)
    _check_pair("left_thin", left_thin, "right_thin", right_thin)
    _check_thin(left_thin, left)
    checks.check_count("num_disparities", num_disparities)
    checks.check_count("num_groups", num_groups)
    channels_per_group(left.shape[1], num_groups)
    run = choose("combined_volume", backend, left, torch_twin=reference.combined_volume)
    return run(left, right, left_thin, right_thin, num_disparities, num_groups)


def _check_pair(left_name: str, left: Any, right_name: str, right: Any) -> None:
    checks.check_tensor(left_name, left, "B×C×H×W")
    checks.check_tensor(right_name, right, "B×C×H×W")
    checks.check_same_shape(right_name, right, left_name, left)
    checks.check_same_dtype(right_name, right, left_name, left)
    checks.check_same_device(right_name, right, left_name, left)


def _check_thin(left_thin: Tensor, left: Tensor) -> None:
    batch, _, height, width = left.shape
    if left_thin.shape != (batch, left_thin.shape[1], height, width):
        expected = checks.shown((batch, "C'", height, width))
        raise ValueError(f"left_thin: expected {expected} like left, got {checks.shown(left_thin.shape)}")
    checks.check_same_dtype("left_thin", left_thin, "left", left)
    checks.check_same_device("left_thin", left_thin, "left", left)
