"""Depth by the focal length: a picture says how large things look, and a longer lens as large from farther."""

from __future__ import annotations

from torch import Tensor, nn

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


def needs_focal(network: nn.Module | None, who: str) -> str:
    """Why the focal length of every image must be known to whoever runs this network, for messages; "" where it need
    not. who: the network, or the setting it has its reference from."""
    reference = getattr(getattr(network, "config", None), "reference_focal", None)
    return "" if reference is None else because_of(reference, who)


def because_of(reference: float, who: str) -> str:
    """`needs_focal`, of this reference focal length."""
    return f"{who} {reference:g} scales depth by the camera's focal length"
