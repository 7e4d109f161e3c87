"""What a stereo pair goes through before the teacher reads it: every change leaves the pair a rectified one.

Two kinds. Some change the scene itself, ground truth and camera with it: the pair is mirrored (and its views change
places), or a window of it is magnified. Others only make the matching harder, and the supervision stays with the views
as they were: colours of their own per view, a right view that stands a little too high or low, patches of it covered
(the latter two as in RAFT-Stereo, 2109.07547). Never a rotation: rows would no longer be epipolar lines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.data.augmentation import (
    ColourConfig,
    Probability,
    draw_colours,
    draw_flips,
    draw_integers,
    draw_uniform,
    draw_windows,
    recolour,
)
from adu_depth.data.rotation import moving_grid
from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, depth_to_disparity
from adu_depth.schema import Range, check_ranges

PATCHES = 2  # at most, per image
Side = Annotated[int, Range(1, 16_384)]


@dataclass(frozen=True)
class PairAugmentationConfig(ColourConfig):
    """What a pair goes through before the teacher reads it; probabilities are per pair."""

    asymmetric: Probability = 1.0
    """Probability that the two views' colours change apart from each other; else the right changes as the left."""
    flip: Probability = 0.0
    """Both views are mirrored and change places. Ground truth is carried over to the right view, which loses some."""
    zoom: Annotated[float, Range(1, 64)] = 1.0
    """A window of both views is magnified by a factor from [1, zoom]; disparities and focal length grow with it."""
    vertical_jitter: Annotated[float, Range(0, 32, below=True)] = 0.0
    """The right view moves up or down by at most so many pixels, as a rig that is a little out of adjustment."""
    erase: Probability = 0.0
    """One or two patches of the right view are filled with its mean colour, as if something stood before it."""
    erase_size: tuple[Side, Side] = (50, 100)
    """Smallest and largest side of such a patch, pixels."""

    def __post_init__(self) -> None:
        check_ranges(self, "augmentation.")
        if not self.erase_size[0] <= self.erase_size[1]:
            raise InputError(f"augmentation.erase_size must be two sides, smallest first, got {self.erase_size}")


@dataclass(frozen=True)
class PairDraws:
    """What happens to each pair of a batch: made on the CPU, then with its tensors on the device; None where it is off.

    left_colours, right_colours: see `draw_colours`. flips: bool, B. window: see `draw_windows`. shift: B, pixels.
    patches: see `draw_patches`.
    """

    left_colours: Tensor
    right_colours: Tensor
    flips: Tensor | None = None
    window: Tensor | None = None
    shift: Tensor | None = None
    patches: Tensor | None = None

    def images(self, part: slice) -> PairDraws:
        """What happens to some of the pairs."""

        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[part]

        window = None if self.window is None else self.window[:, part]
        left, right = self.left_colours[part], self.right_colours[part]
        return PairDraws(left, right, some(self.flips), window, some(self.shift), some(self.patches))


def draw_pair_changes(
    count: int, size: tuple[int, ...], config: PairAugmentationConfig, generator: torch.Generator
) -> PairDraws:
    """All that a batch of `count` pairs of size (height, width) goes through. What is off draws nothing."""
    left, right = draw_colours(count, config, generator), draw_colours(count, config, generator)
    if config.asymmetric < 1:
        right = torch.where(draw_uniform(count, 1, generator=generator) < config.asymmetric, right, left)
    flips = draw_flips(count, config.flip, generator) if config.flip else None
    window = shift = None
    if config.zoom > 1:
        window = draw_windows(count, config.zoom, generator)
    if config.vertical_jitter:
        shift = config.vertical_jitter * (2 * draw_uniform(count, generator=generator) - 1)
    patches = draw_patches(count, size, config, generator) if config.erase else None
    return PairDraws(left, right, flips, window, shift, patches)


def change_pair(sample: StereoSample, draws: PairDraws) -> tuple[StereoSample, Tensor, Tensor]:
    """A batch as it is supervised, and the left and right view as the network reads them. draws: on its device.

    Raises InputError without right views.
    """
    sample.require_right("a stereo teacher")
    if draws.flips is not None:
        sample = mirror_pair(sample, draws.flips)
    if draws.window is not None:
        sample = magnify(sample, draws.window)
    left = recolour(sample.left, draws.left_colours)
    right = recolour(sample.require_right("a stereo teacher"), draws.right_colours)
    if draws.shift is not None:
        right = shift_rows(right, draws.shift)
    if draws.patches is not None:
        right = cover(right, draws.patches)
    return sample, left, right


def mirror_pair(sample: StereoSample, flips: Tensor) -> StereoSample:
    """The flagged pairs (bool, shape B) seen in a mirror: the right view, mirrored, is the new left one.

    Ground truth belongs to the left view, so each of its pixels is carried to where the right camera sees it, to the
    nearest column, the nearest surface in front; what is known to be hidden from the right camera is left out. A sparse
    map that does not know it (a LiDAR's) may keep points that shine through. Which pixels the new right view cannot see
    is not known: `occluded` is None.
    """
    width = sample.left.shape[-1]
    right, camera, occluded = sample.require_right("mirroring a pair"), sample.camera, sample.occluded
    hidden = torch.zeros_like(sample.valid) if occluded is None else occluded
    depth = _mirrored_depth(torch.where(sample.valid, sample.depth, 0.0), camera, hidden)
    disparity = depth_to_disparity(depth, camera)
    valid = (depth > 0) & (disparity > 0)
    sparse = sample.sparse_depth
    chosen = flips.reshape(-1, 1, 1, 1)
    return replace(
        sample,
        left=torch.where(chosen, right.flip(-1), sample.left),
        right=torch.where(chosen, sample.left.flip(-1), right),
        depth=torch.where(chosen, torch.where(valid, depth, 0.0), sample.depth),
        disparity=torch.where(chosen, torch.where(valid, disparity, 0.0), sample.disparity),
        valid=torch.where(chosen, valid, sample.valid),
        occluded=None,
        sparse_depth=None if sparse is None else torch.where(chosen, _mirrored_depth(sparse, camera, hidden), sparse),
        camera=replace(camera, cx=torch.where(flips, camera.pair_mirrored(width).cx, torch.as_tensor(camera.cx))),
    )


def _mirrored_depth(depth: Tensor, camera: Camera, hidden: Tensor) -> Tensor:
    """Depth of the mirrored right view from that of the left one, B×1×H×W, 0 = none in both."""
    width = depth.shape[-1]
    columns = torch.arange(width, device=depth.device) - depth_to_disparity(depth, camera)
    target = (width - 1 - columns.round()).long()
    seen = (depth > 0) & ~hidden & (target >= 0) & (target < width)
    nearest = depth.new_full((*depth.shape[:-1], width + 1), torch.inf)  # one column more, for what is not seen
    # The smallest of several values does not depend on their order: the same bits on every device and run.
    nearest = nearest.scatter_reduce(-1, torch.where(seen, target, width), torch.where(seen, depth, torch.inf), "amin")
    return torch.where(torch.isfinite(nearest), nearest, 0.0)[..., :width]


def magnify(sample: StereoSample, window: Tensor) -> StereoSample:
    """A window of each pair at the full size; the same window of both views.

    window: see `draw_windows`. Views are bilinear, maps take the nearest pixel (no depth is invented), disparities grow
    by the factor.
    """
    size = sample.left.shape[-2:]
    grid = moving_grid(None, window, sample.camera, size, size)

    def view(image: Tensor) -> Tensor:
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def nearest(values: Tensor) -> Tensor:
        taken = F.grid_sample(values.float(), grid, mode="nearest", padding_mode="border", align_corners=False)
        return taken.to(values.dtype)

    scale = window[0].reshape(-1, 1, 1, 1)
    return replace(
        sample,
        left=view(sample.left),
        right=view(sample.require_right("magnifying a pair")),
        depth=nearest(sample.depth),
        disparity=nearest(sample.disparity) * scale,
        valid=nearest(sample.valid),
        occluded=None if sample.occluded is None else nearest(sample.occluded),
        sparse_depth=None if sample.sparse_depth is None else nearest(sample.sparse_depth),
        camera=sample.camera.magnified(window, size),
    )


def shift_rows(images: Tensor, shift: Tensor) -> Tensor:
    """B×C×H×W images whose row y shows what row y + shift (pixels, shape B) showed, bilinear; edge rows go on."""
    height = images.shape[-2]
    rows = (torch.arange(height, device=images.device) + shift.unsqueeze(1)).clamp(0, height - 1)
    first = rows.floor().clamp(max=max(0, height - 2))
    share = (rows - first).to(images.dtype).reshape(-1, 1, height, 1)
    index = first.long().reshape(-1, 1, height, 1).expand_as(images)
    upper, lower = images.gather(-2, index), images.gather(-2, (index + 1).clamp(max=height - 1))
    return upper + (lower - upper) * share


def draw_patches(
    count: int, size: tuple[int, ...], config: PairAugmentationConfig, generator: torch.Generator
) -> Tensor:
    """Rectangles to cover, B×PATCHES×4 of (top, left, height, width) in pixels; height 0 where there is none."""
    height, width = size
    applied = draw_uniform(count, 1, generator=generator) < config.erase
    number = draw_integers(1, PATCHES + 1, count, 1, generator=generator)
    wanted = applied & (torch.arange(PATCHES, device=generator.device) < number)
    top = draw_integers(0, height, count, PATCHES, generator=generator)
    left = draw_integers(0, width, count, PATCHES, generator=generator)
    smallest, largest = config.erase_size
    sides = draw_integers(smallest, largest + 1, count, PATCHES, 2, generator=generator)
    return torch.stack([top, left, torch.where(wanted, sides[..., 0], 0), sides[..., 1]], -1)


def cover(images: Tensor, patches: Tensor) -> Tensor:
    """B×C×H×W images with the rectangles of `draw_patches` filled with each image's mean colour."""
    height, width = images.shape[-2:]
    top, left, high, wide = patches.unsqueeze(-1).unbind(2)  # B×PATCHES×1 each
    rows, columns = (torch.arange(n, device=images.device) for n in (height, width))
    in_rows = (rows >= top) & (rows < top + high)
    in_columns = (columns >= left) & (columns < left + wide)
    covered = (in_rows.unsqueeze(-1) & in_columns.unsqueeze(-2)).any(1, keepdim=True)
    return torch.where(covered, images.mean((-2, -1), keepdim=True), images)
