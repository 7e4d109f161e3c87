"""Bringing a sample to the size a network works at: resized whole, or a window of it."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.data.augmentation import draw_integers
from adu_depth.data.dataset import Dataset
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


def short_side_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) of an image of `size` that is brought to this short side."""
    scale = short_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def centre_sample(sample: StereoSample, short_side: int, height: int, width: int) -> StereoSample:
    """A single sample brought to a short side and cut to its middle, as indoor networks see NYU-v2 (1803.08673)."""
    before = (sample.left.shape[-2], sample.left.shape[-1])
    size = short_side_size(before, short_side)
    if size[0] < height or size[1] < width:
        raise InputError(
            f"{sample.name}: a window of {height}×{width} does not fit an image of {before[0]}×{before[1]}, which "
            f"data.fit centre brings to {size[0]}×{size[1]}: choose a smaller data.size, or a larger data.short_side"
        )
    resized = resize_sample(sample, *size)
    return resized.crop((size[0] - height) // 2, (size[1] - width) // 2, height, width)


class Resized:
    """A data set whose samples are all brought to one size."""

    def __init__(self, samples: Dataset, size: tuple[int, int]) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> StereoSample:
        return resize_sample(self.samples[index], *self.size)


class CentreCut(Resized):
    """A data set whose samples are all brought to one short side and cut to their middle."""

    def __init__(self, samples: Dataset, size: tuple[int, int], short_side: int) -> None:
        super().__init__(samples, size)
        self.short_side = short_side

    @property
    def about(self) -> str:
        """What an evaluation on it says."""
        cut = "×".join(map(str, self.size))
        return f"images and ground truth at short side {self.short_side}, their middle of {cut}, as in training"

    def __getitem__(self, index: int) -> StereoSample:
        return centre_sample(self.samples[index], self.short_side, *self.size)
