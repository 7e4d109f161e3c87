"""The left–right check: a pixel is believed where the right view, matched by itself, gives its point its disparity.

No ground truth is needed. What one of the views alone sees (occluded, beyond the image, covered) has no partner: each
view guesses for itself, and the guesses differ (Fua, MVA 1993; of networks Godard et al., 1609.03677). A network that
knows the left view's disparity alone gives the right one's too: the pair is mirrored and its views exchanged, which is
a pair again whose left view is the right one's mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.images import check_image
from adu_depth.models.prediction import DepthPrediction

PIXELS = 1.0
"""Pixels that the two disparities of a point may always differ by."""
SHARE = 0.05
"""Share of the left disparity that they may differ by where that is more: an error of so much is none by KITTI's D1."""


def mirrored_views(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The pair in a mirror: its left view is the right one, mirrored, its right view the left one, mirrored.

    Done twice it gives the pair again. The disparity of its left view, mirrored back (`flip(-1)`), is that of the right
    view; its camera is that of `Camera.pair_mirrored`.

    Args:
        left, right: B×3×H×W floats in [0, 1], rectified.

    Returns:
        The new left and right view, of the same shape.

    Raises:
        InputError: views that are no images, or of two shapes.

    Example:
        >>> left, right = torch.rand(1, 3, 4, 8), torch.rand(1, 3, 4, 8)
        >>> mirrored_left, mirrored_right = mirrored_views(left, right)
        >>> bool((mirrored_left[..., 0] == right[..., 7]).all())
        True
    """
    check_image("left", left)
    check_image("right", right)
    if left.shape != right.shape:
        raise InputError(f"right: expected the left view's shape {tuple(left.shape)}, got {tuple(right.shape)}")
    return right.flip(-1), left.flip(-1)


def disparity_of_right(
    look: Callable[[Tensor, Tensor, Camera], DepthPrediction], left: Tensor, right: Tensor, camera: Camera
) -> Tensor:
    """What a stereo method says of the right view: it is shown the pair in a mirror, and its answer is mirrored back.

    Args:
        look: the method, of left view, right view and camera; its prediction must have a disparity.
        left, right: B×3×H×W floats in [0, 1], rectified.
        camera: of the pair as it stands.

    Returns:
        B×1×H×W pixels of the right view, where a point at column x is at x + d in the left one.

    Raises:
        InputError: views that `mirrored_views` refuses, a prediction without a disparity.

    Example:
        >>> def by_column(left, right, camera):  # says 0, 1, 2, 3 pixels from left to right
        ...     columns = torch.arange(4.0).expand(1, 1, 1, 4)
        ...     return DepthPrediction(1 + columns, None, (), disparity=columns)
        >>> view = torch.rand(1, 3, 1, 4)
        >>> disparity_of_right(by_column, view, view, Camera(1.0, 1.0, 1.5, 0.0, 0.5)).flatten().tolist()
        [3.0, 2.0, 1.0, 0.0]
    """
    found = look(*mirrored_views(left, right), camera.pair_mirrored(left.shape[-1])).disparity
    if found is None:
        raise InputError("look: expected a stereo method's prediction, with a disparity, got one without")
    return found.flip(-1)


@torch.no_grad()
def left_right_consistent(
    disparity: Tensor, right_disparity: Tensor, pixels: float = PIXELS, share: float = SHARE
) -> Tensor:
    """Where two disparities of the same point agree: |d_L(x) − d_R(x − d_L(x))| ≤ max(pixels, share·d_L(x)).

    d_R is read at the nearest column: between two columns at the edge of a thing it would be a disparity that nothing
    has, neither the thing nor what is behind it. A point outside the right image fails, and so does NaN or infinity in
    either of the two. No gradient passes. Nothing waits for a GPU.

    Args:
        disparity: d_L of the left view, B×1×H×W floats, pixels.
        right_disparity: d_R of the right view as it stands, not mirrored; the same shape.
        pixels: what the two may always differ by, at least 0.
        share: of d_L, what they may differ by where that is more, at least 0.

    Returns:
        bool, B×1×H×W.

    Raises:
        InputError: another shape or type, a tolerance that is negative or no number.

    Example:
        >>> left = torch.tensor([2.0, 2.0, 2.0, 2.0]).reshape(1, 1, 1, 4)
        >>> right = torch.tensor([2.9, 3.1, 0.0, 0.0]).reshape(1, 1, 1, 4)
        >>> left_right_consistent(left, right).flatten().tolist()  # the first two lie outside the right view
        [False, False, True, False]
    """
    _check_disparity("disparity", disparity)
    _check_disparity("right_disparity", right_disparity)
    if disparity.shape != right_disparity.shape:
        raise InputError(
            f"right_disparity: expected the shape of disparity, {tuple(disparity.shape)}, "
            f"got {tuple(right_disparity.shape)}"
        )
    for name, value in (("pixels", pixels), ("share", share)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name}: expected a number of at least 0, got {value}")
    # Half precision has no whole columns beyond 256 (bf16) or 2048 (fp16).
    own = disparity.to(torch.promote_types(disparity.dtype, torch.float32))
    width = own.shape[-1]
    columns = torch.arange(width, device=own.device, dtype=own.dtype) - own
    inside = (columns >= 0) & (columns <= width - 1)
    nearest = columns.round().nan_to_num(nan=0.0).clamp(0, width - 1).long()
    other = right_disparity.to(own.dtype).gather(-1, nearest)
    return inside & ((own - other).abs() <= (share * own).clamp(min=pixels))


def _check_disparity(name: str, disparity: Tensor) -> None:
    if disparity.ndim != 4 or disparity.shape[1] != 1 or not disparity.is_floating_point():
        raise InputError(
            f"{name}: expected a B×1×H×W floating-point tensor, got {tuple(disparity.shape)} {disparity.dtype}"
        )
