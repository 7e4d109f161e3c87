"""What every data set hands out: one rectified stereo pair with its ground truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from adu_depth.errors import InputError
from adu_depth.geometry import Camera, stack_cameras
from adu_depth.images import from_levels


@dataclass(frozen=True)
class StereoSample:
    """A rectified pair and what is known of it. Shapes are those of one sample; `collate` puts a batch dimension first.

    Attributes:
        left, right: 3×H×W float32 in [0, 1], RGB. A point at column x of the left image is at x − disparity in the
            right. right is None in a data set of single images; its camera then has baseline 0.
        depth: 1×H×W float32 metres, 0 where unknown.
        disparity: 1×H×W float32 pixels, 0 where unknown.
        valid: 1×H×W bool, where depth and disparity are known.
        camera: fx, fy, cx, cy in pixels, baseline in metres.
        occluded: 1×H×W bool or None, left pixels the right camera cannot see, where known.
        sparse_depth: 1×H×W float32 metres or None, a LiDAR's measurements, 0 = none.
        name: which sample this is, for messages and file names (a list of names in a batch).

    Example:
        >>> pair = SyntheticStereo(1, 64, 128)[0]
        >>> half = pair.crop(top=0, left=64, height=64, width=64)
        >>> half.left.shape, pair.camera.cx - half.camera.cx  # the principal point moves with the window
        (torch.Size([3, 64, 64]), 64.0)
    """

    left: Tensor
    right: Tensor | None
    depth: Tensor
    disparity: Tensor
    valid: Tensor
    camera: Camera
    occluded: Tensor | None = None
    sparse_depth: Tensor | None = None
    name: str | list[str] = ""
    proxied: ClassVar[bool] = False
    """Whether depth, disparity and valid are no truth, but proxies of a classical matcher (`ProxiedSample`)."""

    def training_target(self, dense: bool = False) -> Tensor:
        """Depth to supervise with, 0 = none: the sparse LiDAR depth where the sample has one, unless `dense`."""
        if self.sparse_depth is not None and not dense:
            return self.sparse_depth
        return torch.where(self.valid, self.depth, 0.0)

    def require_right(self, purpose: str) -> Tensor:
        """The right image. Raises InputError, saying what it is needed for, in a data set of single images."""
        if self.right is None:
            name = self.name if isinstance(self.name, str) else ", ".join(self.name[:3])
            raise InputError(f"{name}: {purpose} needs pairs, but this data set has no right images")
        return self.right

    def require_focal(self, needs: str, root: str = "") -> None:
        """InputError, beginning with who needs it, for a sample (of a batch) of unknown focal length. root: of its data
        set, for the message. A camera on a device is waited for."""
        unknown = torch.isnan(torch.as_tensor(self.camera.fx)).reshape(-1).nonzero()
        if len(unknown):
            name = self.name if isinstance(self.name, str) else self.name[int(unknown[0])]
            of = f" of {root}" if root else ""
            raise InputError(
                f"{needs}, which {name}{of} does not know: expected fx in a camera.toml beside the image, or above"
            )

    def crop(self, top: int, left: int, height: int, width: int) -> StereoSample:
        """The same window of both views and of every map, with the principal point moved."""
        window = (..., slice(top, top + height), slice(left, left + width))
        return replace(self.map(lambda t: t[window]), camera=self.camera.cropped(top, left))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StereoSample:
        moved = self.map(lambda t: t.to(device, non_blocking=non_blocking))
        return replace(moved, camera=self.camera.to(device, non_blocking))

    def floats(self) -> StereoSample:
        """Views that `FileDataset.stored` has left as 8-bit levels, as what they stand for: float32 in [0, 1]."""
        if self.left.is_floating_point() and (self.right is None or self.right.is_floating_point()):
            return self
        return replace(self, left=from_levels(self.left), right=None if self.right is None else from_levels(self.right))

    def map(self, change: Callable[[Tensor], Tensor]) -> StereoSample:
        """Every image and map passed through `change`; the camera stays."""
        changed: dict[str, Any] = {n: change(t) for n, t in self._tensors().items()}
        return replace(self, **changed)

    def _tensors(self) -> dict[str, Any]:
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}


@dataclass(frozen=True)
class ProxiedSample(StereoSample):
    """A single sample in which a classical matcher's disparities stand in for ground truth."""

    proxied: ClassVar[bool] = True


def collate(samples: list[StereoSample]) -> StereoSample:
    """One batched StereoSample. An optional map, and the right image, is kept if every sample has it.

    Args:
        samples: at least one, with images of one size.

    Returns:
        A StereoSample whose tensors, the camera's numbers among them, have a batch dimension in front.

    Raises:
        InputError: images of several sizes.

    Example:
        >>> batch = collate(list(SyntheticStereo(2, 64, 128)))
        >>> batch.left.shape, batch.name
        (torch.Size([2, 3, 64, 128]), ['synthetic-0-000000', 'synthetic-0-000001'])
    """
    shapes = {tuple(s.left.shape[-2:]) for s in samples}
    if len(shapes) != 1:
        found = ", ".join(f"{h}×{w}" for h, w in sorted(shapes))
        raise InputError(f"a batch needs images of one size, got {found}: set a crop size, or batch size 1")
    if len({view.dtype for s in samples for view in (s.left, s.right) if view is not None}) > 1:
        samples = [s.floats() for s in samples]
    tensors: dict[str, Any] = {"right": None}
    for name in samples[0]._tensors():
        values = [getattr(s, name) for s in samples]
        if all(isinstance(v, Tensor) for v in values):
            tensors[name] = _stacked(values)
    return StereoSample(
        **tensors, camera=stack_cameras([s.camera for s in samples]), name=[str(s.name) for s in samples]
    )


def _stacked(values: list[Tensor]) -> Tensor:
    """Of a loader's worker in shared memory at once: sending it to the training is then no second copy."""
    if get_worker_info() is None:
        return torch.stack(values)
    shape = (len(values), *values[0].shape)
    shared = values[0].untyped_storage()._new_shared(values[0].element_size() * math.prod(shape))
    return torch.stack(values, out=values[0].new_empty(0).set_(shared, 0, shape))  # type: ignore[call-overload]
