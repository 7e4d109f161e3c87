"""The rectified stereo camera, the way between depth and disparity, and from the right view to the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", Tensor, np.ndarray)


class Turning(NamedTuple):
    """How an image is turned upright: rows and columns exchanged, then upside down, then mirrored."""

    sideways: bool
    upside_down: bool
    mirrored: bool

    @classmethod
    def of(cls, orientation: int) -> Turning:
        """What EXIF's orientation, 1 to 8, says."""
        return cls(orientation in (5, 6, 7, 8), orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width afterwards, or before: a turning that exchanges them does so both ways."""
        return (width, height) if self.sideways else (height, width)


@dataclass(frozen=True)
class Camera:
    """Left camera of a rectified pair. Floats for one sample, tensors of shape B for a batch.

    fx, fy, cx, cy are in pixels of the image they travel with (pixel centres at whole numbers), baseline in metres.
    disparity_offset is cx of the right view minus cx of the left (Middlebury's `doffs`), in pixels, 0 for most rigs:
    depth = fx * baseline / (disparity + disparity_offset).
    """

    fx: float | Tensor
    fy: float | Tensor
    cx: float | Tensor
    cy: float | Tensor
    baseline: float | Tensor
    disparity_offset: float | Tensor = 0.0

    def cropped(self, top: int | Tensor, left: int | Tensor) -> Camera:
        """The camera of the crop whose first pixel is (left, top); both views are cropped alike."""
        return replace(self, cx=self.cx - left, cy=self.cy - top)

    def mirrored(self, width: int) -> Camera:
        """The camera of the image (of this width) mirrored left to right: of one view alone, not of the pair."""
        return replace(self, cx=width - 1 - self.cx)

    def pair_mirrored(self, width: int) -> Camera:
        """The camera of the pair (of this width) in a mirror, where its views change places: the left one is the right
        one's mirror image."""
        return replace(self, cx=width - 1 - (self.cx + self.disparity_offset))

    def turned(self, orientation: int, height: int, width: int) -> Camera:
        """The camera of the image (of this size as stored) once it is turned upright as EXIF's orientation, 1 to 8,
        says: of one view alone, not of the pair."""
        camera, turning = self, Turning.of(orientation)
        if turning.sideways:
            camera = replace(self, fx=self.fy, fy=self.fx, cx=self.cy, cy=self.cx)
        height, width = turning.size(height, width)
        if turning.upside_down:
            camera = replace(camera, cy=height - 1 - camera.cy)
        return camera.mirrored(width) if turning.mirrored else camera

    def resized(self, scale_x: float | Tensor, scale_y: float | Tensor) -> Camera:
        """The camera after the image was resized by these factors (pixel areas scale, as in cv2.resize)."""
        return replace(
            self,
            fx=self.fx * scale_x,
            fy=self.fy * scale_y,
            cx=(self.cx + 0.5) * scale_x - 0.5,
            cy=(self.cy + 0.5) * scale_y - 0.5,
            disparity_offset=self.disparity_offset * scale_x,
        )

    def magnified(self, window: Tensor, size: Sequence[int]) -> Camera:
        """The camera of a window of an image of this (height, width), magnified to that size.

        window: 3×B. The factor, at least 1: the window is 1 / factor as wide and high. Where it stands between the left
        and right, and the top and bottom edges, both in [0, 1].
        """
        (height, width), (factor, across, down) = size, window
        shrunk = 1 - 1 / factor
        return self.cropped(down * shrunk * height, across * shrunk * width).resized(factor, factor)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Camera:
        """The same camera with its tensors on `device`."""
        return self.map(lambda t: t.to(device, non_blocking=non_blocking))

    def map(self, change: Callable[[Tensor], Tensor]) -> Camera:
        """Every tensor passed through `change`; floats stay as they are."""
        return Camera(**{name: change(v) if isinstance(v, Tensor) else v for name, v in vars(self).items()})


def stack_cameras(cameras: list[Camera]) -> Camera:
    """One batched camera (float32 tensors of shape B) from the cameras of single samples."""
    names = ("fx", "fy", "cx", "cy", "baseline", "disparity_offset")
    return Camera(*(torch.tensor([float(getattr(c, n)) for c in cameras], dtype=torch.float32) for n in names))


def per_image(value: float | Tensor, maps: Tensor) -> Tensor:
    """A camera's number, one for all images or one each, as a tensor beside B×1×H×W maps, in their type."""
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value)
    if not isinstance(value, Tensor):  # filled in where the maps are: a number uploaded would wait for the device
        value = maps.new_full((1,), value)
    return value.to(maps.device, maps.dtype).reshape(-1, 1, 1, 1)


def _broadcast(value: float | Tensor, like: Tensor | np.ndarray) -> float | Tensor:
    """A batch of values shaped to broadcast over `like`'s trailing dimensions."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.reshape(-1, *([1] * (like.ndim - 1)))
    return value


def disparity_to_depth(disparity: Array, camera: Camera) -> Array:
    """Depth in metres of a disparity in pixels, any shape (leading dimension B if the camera is batched).

    Where disparity + offset is not positive (nothing there, or at infinity) depth is 0.
    """
    shifted = disparity + _broadcast(camera.disparity_offset, disparity)
    focal_baseline = _broadcast(camera.fx, disparity) * _broadcast(camera.baseline, disparity)
    if isinstance(shifted, np.ndarray):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(shifted > 0, focal_baseline / shifted, 0.0).astype(disparity.dtype)
    positive = shifted > 0
    return torch.where(positive, focal_baseline / torch.where(positive, shifted, 1.0), 0.0)


def depth_to_disparity(depth: Array, camera: Camera) -> Array:
    """Disparity in pixels of a depth in metres; 0 where depth is not positive (nothing there)."""
    focal_baseline = _broadcast(camera.fx, depth) * _broadcast(camera.baseline, depth)
    offset = _broadcast(camera.disparity_offset, depth)
    if isinstance(depth, np.ndarray):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(depth > 0, focal_baseline / depth - offset, 0.0).astype(depth.dtype)
    positive = depth > 0
    return torch.where(positive, focal_baseline / torch.where(positive, depth, 1.0) - offset, 0.0)


def warp_right(right: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
    """The right view as the left camera would see it, and where it can be seen.

    right: B×C×H×W; disparity: B×1×H×W pixels, or B×C×H×W, each channel's own. Returns B×C×H×W, bilinear between the two
    nearest columns, and a bool of disparity's shape that is False where x − disparity lies outside the right image.
    """
    width = right.shape[-1]
    columns = torch.arange(width, device=right.device, dtype=disparity.dtype) - disparity
    inside = (columns >= 0) & (columns <= width - 1)
    columns = columns.clamp(0, width - 1)
    first = columns.detach().floor().clamp(max=max(0, width - 2))
    share = columns - first
    # A NaN disparity must give a NaN view, which a loss can show, and not an index outside the image.
    index = first.nan_to_num(nan=0.0).long().expand(-1, right.shape[1], -1, -1)
    near = right.gather(-1, index)
    far = right.gather(-1, (index + 1).clamp(max=width - 1))
    return near + (far - near) * share, inside
