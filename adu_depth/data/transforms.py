"""Bringing a sample to the size a network works at: resized whole, or a window of it."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.data.augmentation import draw_integers
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError


def resize_sample(sample: StereoSample, height: int, width: int) -> StereoSample:
    """A single (unbatched) sample at height×width: views antialiased, maps by nearest neighbour, camera to match.

    Nearest neighbour keeps every ground-truth value a measured one; a mean across a depth edge is at no real surface.
    """
    old_height, old_width = sample.left.shape[-2:]
    if (old_height, old_width) == (height, width):
        return sample
    scale_x, scale_y = width / old_width, height / old_height

    def view(image: Tensor) -> Tensor:
        resized = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)
        return resized[0].clamp(0, 1)

    def nearest(tensor: Tensor) -> Tensor:
        return F.interpolate(tensor[None].float(), (height, width), mode="nearest-exact")[0].to(tensor.dtype)

    return replace(
        sample,
        left=view(sample.left),
        right=None if sample.right is None else view(sample.right),
        depth=nearest(sample.depth),
        disparity=nearest(sample.disparity) * scale_x,
        valid=nearest(sample.valid),
        occluded=None if sample.occluded is None else nearest(sample.occluded),
        sparse_depth=None if sample.sparse_depth is None else nearest(sample.sparse_depth),
        camera=sample.camera.resized(scale_x, scale_y),
    )


def draw_window(
    image_size: tuple[int, int], crop_size: tuple[int, int], generator: torch.Generator, align: int = 1
) -> tuple[int, int]:
    """Top and left of a random crop, both multiples of `align`. InputError where the image is smaller than the crop."""
    corner = []
    for axis, have, want in zip(("height", "width"), image_size, crop_size, strict=True):
        if have < want:
            raise InputError(
                f"a crop of {axis} {want} does not fit an image of {axis} {have}: choose a smaller size, or fit=resize"
            )
        places = (have - want) // align + 1
        corner.append(int(draw_integers(0, places, 1, generator=generator)) * align)
    return corner[0], corner[1]
