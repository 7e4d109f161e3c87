"""Depth by the focal length: a picture says how large things look, and a longer lens as large from farther."""

from __future__ import annotations

from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.geometry import Camera, per_image


def scaled_by_focal(depth: Tensor, camera: Camera | None, reference_focal: float | None) -> Tensor:
    """Depth as a camera of the reference focal length would see it, for this camera: depth · fx / reference_focal.

    Args:
        depth: B×1×H×W, metres.
        camera: batched, of the image's size; read where there is a reference.
        reference_focal: pixels; None leaves depth as it is.

    Raises:
        InputError: a reference without a camera.
    """
    if reference_focal is None:
        return depth
    if camera is None:
        raise InputError("camera: a student with reference_focal needs the camera's focal length, got None")
    return depth * (per_image(camera.fx, depth) / reference_focal)
