"""Bringing a sample to the size a network works at: resized whole, or a window of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.data.augmentation import draw_integers, draw_uniform
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.files import refuse_larger


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


def draw_scaled_size(
    image_size: tuple[int, int], crop_size: tuple[int, int], scale: tuple[float, float], generator: torch.Generator
) -> tuple[int, int]:
    """(height, width) of an image resized by a factor drawn from `scale` (lowest, highest), both axes alike.

    The factor is log-uniform, so that half and twice the size come as often, and raised where the crop would not fit.
    InputError where it does not fit at the highest.
    """
    if not fits_at(image_size, crop_size, scale[1]):
        raise InputError(
            f"a crop of {crop_size[0]}×{crop_size[1]} does not fit an image of {image_size[0]}×{image_size[1]} at "
            f"{scale[1]:g} of its size: choose a smaller size, or a larger crop_scale"
        )
    low, high = math.log(scale[0]), math.log(scale[1])
    drawn = math.exp(low + (high - low) * float(draw_uniform(1, generator=generator)))
    factor = max(drawn, *(want / have for have, want in zip(image_size, crop_size, strict=True)))
    height, width = scaled_size(image_size, factor)
    return max(height, crop_size[0]), max(width, crop_size[1])  # a quotient's rounding must not cost a row


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) of an image of `size` resized by a factor, in whole pixels."""
    return round(size[0] * factor), round(size[1] * factor)


def fits_at(image_size: tuple[int, int], crop_size: tuple[int, int], factor: float) -> bool:
    """Whether a crop fits an image that is resized by this factor."""
    height, width = scaled_size(image_size, factor)
    return height >= crop_size[0] and width >= crop_size[1]


def short_side_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) of an image of `size` that is brought to this short side."""
    return scaled_size(size, short_side / min(size))


def size_for_middle(size: tuple[int, int], short_side: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) of an image of `size` whose middle is cut out: at the short side, or as much larger as a window
    of height×width needs. Of landscape images that is for wider ones than theirs; an upright photo always needs it."""
    found = short_side_size(size, short_side)
    if found[0] >= height and found[1] >= width:
        return found
    scale = max(height / size[0], width / size[1])
    return max(round(size[0] * scale), height), max(round(size[1] * scale), width)


def centre_sample(sample: StereoSample, short_side: int, height: int, width: int) -> StereoSample:
    """A single sample brought to a short side and cut to its middle, as indoor networks see NYU-v2 (1803.08673).

    One that is too narrow for the window there is brought to a larger one, see `size_for_middle`. InputError for one so
    long that it would then take more memory than a file may.
    """
    size = size_for_middle((sample.left.shape[-2], sample.left.shape[-1]), short_side, height, width)
    told = f"brought to {size[0]}×{size[1]} pixels, of which the middle is cut out"
    refuse_larger(str(sample.name), 12 * size[0] * size[1], told)
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

    def notes(self) -> list[str]:
        """What a user should hear of images that the middle does not fit at the short side."""
        if not isinstance(self.samples, FileDataset):
            return []
        data, enlarged = self.samples, []
        for index in range(len(data)):
            size = data.image_size(index)
            if size and size_for_middle(size, self.short_side, *self.size) != short_side_size(size, self.short_side):
                enlarged.append(data.names[index])
        if not enlarged:
            return []
        return [
            f"{data.root}: {len(enlarged):,} of {len(data):,} images are too narrow for a middle of "
            f"{'×'.join(map(str, self.size))} at short side {self.short_side} (such as {enlarged[0]}): each is brought "
            "to the size at which it fits, so that things look nearer there"
        ]

    def __getitem__(self, index: int) -> StereoSample:
        return centre_sample(self.samples[index], self.short_side, *self.size)


def require_fit(samples: FileDataset, size: tuple[int, int], largest: float = 1.0) -> None:
    """InputError for images that a window of `size` (height, width) does not fit in, resized by the `largest` factor
    of data.crop_scale: before the first is drawn."""
    small = []
    for index in range(len(samples)):
        found = samples.image_size(index)
        if found and not fits_at(found, size, largest):
            small.append(f"{samples.names[index]} of {found[0]}×{found[1]}")
    if small:
        some = ", ".join(small[:3]) + (", …" if len(small) > 3 else "")
        at = "" if largest == 1 else f" at {largest:g} of their size, the largest of data.crop_scale,"
        raise InputError(
            f"{samples.root}: {len(small):,} of {len(samples):,} images are smaller{at} than data.size "
            f"{size[0]}×{size[1]} that data.fit crop cuts out of them: {some}; choose a smaller data.size, "
            f"{'a larger data.crop_scale' if largest != 1 else 'data.fit resize'}, or leave them out by a split"
        )


def require_focal_lengths(needs: str, samples: Dataset, where: str, indices: Sequence[int] | None = None) -> None:
    """InputError where frames' files say no focal length, and depth is to be scaled by it: before the first is read.

    needs: who scales it, see `models.focal.needs_focal`; "" if nobody does. where: the data set's name, for messages.
    indices: of the samples that are used; None is all. Of samples that lie in no files the first is looked at.
    """
    frames = samples.samples if isinstance(samples, Resized) else samples
    indices = range(len(frames)) if indices is None else indices
    if not needs or not len(indices):
        return
    if not isinstance(frames, FileDataset):
        frames[indices[0]].require_focal(needs)
        return
    unknown = [name for index in indices if not frames.focal_known(name := frames.names[index])]
    if not unknown:
        return
    which = f"{where} does not know"
    if len(unknown) < len(indices):
        which = f"{len(unknown):,} of {len(indices):,} frames of {where} do not know (such as {unknown[0]})"
    raise InputError(f"{needs}, which {which}: {frames.where_focal_is}")
