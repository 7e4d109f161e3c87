"""What a stereo pair says about its own disparity, without ground truth.

A LiDAR measures a tenth of the pixels and none above the horizon. Where it is silent the two views still must agree:
the right one, warped by the disparity, has to look like the left (Garg et al., 1603.04992; Godard et al., 1609.03677).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.distillation.means import masked_mean
from adu_depth.geometry import warp_right
from adu_depth.images import check_image

WINDOW = 5
FLOOR = 1e-4
"""Local variance of grey levels in [0, 1] below which a window has nothing to compare: sensor noise."""


def reflected(maps: Tensor, margin: int) -> Tensor:
    """`F.pad(maps, [margin] * 4, mode="reflect")`, whose gradient CUDA adds up in any order where pixels coincide: a
    resumed run would have other bits."""
    for axis in (-1, -2):
        first, last = maps.narrow(axis, 1, margin), maps.narrow(axis, maps.shape[axis] - 1 - margin, margin)
        maps = torch.cat((first.flip(axis), maps, last.flip(axis)), axis)
    return maps


def dissimilarity(one: Tensor, other: Tensor) -> Tensor:
    """1 − local correlation of grey levels in 5×5 windows, B×1×H×W in [0, 2].

    The structure term of SSIM (Wang et al., TIP 2004): brightness and contrast are left out, since two cameras differ
    in both.
    """
    one, other = (reflected(views.mean(1, keepdim=True), WINDOW // 2) for views in (one, other))

    def local(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, WINDOW, stride=1)

    mean_one, mean_other = local(one), local(other)
    variance_one = (local(one * one) - mean_one * mean_one).clamp_min(0)
    variance_other = (local(other * other) - mean_other * mean_other).clamp_min(0)
    covariance = local(one * other) - mean_one * mean_other
    return 1 - (covariance + FLOOR) / torch.sqrt((variance_one + FLOOR) * (variance_other + FLOOR))


def photometric_loss(
    left: Tensor, right: Tensor, disparity: Tensor, normalize: str = "batch", believed: Tensor | None = None
) -> Tensor:
    """Mean dissimilarity of the left view and the warped right one, over pixels the right view contains.

    left, right: B×3×H×W in [0, 1]; disparity: B×1×H×W pixels, at least 3×3. Differentiable in disparity. normalize:
    see `masked_mean`. believed: bool B×1×H×W, the pixels that are compared; the others count as 0.
    """
    check_image("left", left)
    check_image("right", right)
    warped, inside = warp_right(right, disparity)
    error = dissimilarity(left, warped)
    if believed is not None:
        # The divisor stays: where hardly any pixel is believed, as at the start of a training, a mean over those alone
        # would give a handful the pull of a whole image, and jump with each of them.
        error = torch.where(believed, error, 0.0)
    return masked_mean(error, inside, normalize)


def smoothness_loss(left: Tensor, disparity: Tensor) -> Tensor:
    """Mean slope of the disparity relative to its image's mean, less where the left view has an edge (1609.03677)."""
    check_image("left", left)
    relative = disparity / disparity.mean((-2, -1), keepdim=True).clamp_min(1e-3)
    slopes = []
    for axis in (-1, -2):
        edge = left.diff(dim=axis).abs().mean(1, keepdim=True)
        slopes.append((relative.diff(dim=axis).abs() * torch.exp(-10 * edge)).mean())
    return slopes[0] + slopes[1]
