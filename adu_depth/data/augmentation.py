"""Changes to a batch that keep its geometry true, a function of (seed, step, process): a resumed run repeats them.

All of it runs on the training device, for a whole batch at once. The draws are made on the CPU, so that they are the
same on every device, and all of a step's before their first use: they go up together, and what uses them takes nothing
from the CPU, as a CUDA graph must not. Here is what the student sees; what a pair for the teacher goes through is in
`pair_augmentation.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from adu_depth.images import check_image
from adu_depth.schema import Range, check_ranges

CUT_CELL = 32  # rows are cut between cells of the coarsest features, so that every map can follow exactly
CUT_FROM, CUT_TO = 0.2, 0.8  # where an image is cut, as URCDC-Depth does (2302.08149, its CutFlip)
Probability = Annotated[float, Range(0, 1)]
Change = Annotated[float, Range(0, 1, below=True)]
GREY = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class ColourConfig:
    """Colour changes. Defaults are BTS's; with contrast and saturation 0.2 they come near Monodepth2's."""

    colour: Probability = 0.5
    """Probability that an image's colours change."""
    strength: Change = 0.1
    """Gamma, brightness and per-channel gain, each factor from [1 − strength, 1 + strength]."""
    contrast: Change = 0.0
    """Contrast about the image's mean grey, a factor from [1 − contrast, 1 + contrast]."""
    saturation: Change = 0.0
    """Distance of the colours from grey, a factor from [1 − saturation, 1 + saturation]."""

    def __post_init__(self) -> None:
        check_ranges(self, "augmentation.")


@dataclass(frozen=True)
class AugmentationConfig(ColourConfig):
    """What the student's image goes through; probabilities are per image."""

    flip: Probability = 0.5
    """The student sees the mirrored left view; the teacher never does, its outputs are mirrored instead."""
    cut_flip: Probability = 0.0
    """The image is cut along a row and its two parts change places, as URCDC-Depth does; every map follows."""
    rotate: Annotated[float, Range(0, 45)] = 0.0
    """Every image is turned by an angle from [−rotate, rotate] degrees (5 in 1803.08673), its maps with it, by the
    nearest pixel; the corners that nothing shows are mirrored in the image, with no depth to learn."""
    zoom: Annotated[float, Range(1, 64)] = 1.0
    """A window of the image is magnified by a factor from [1, zoom], its maps with it, as through a longer lens: depths
    stay, the focal length grows. For a teacher whose outputs are cached; beside an online one data.crop_scale is
    sharper."""


def draw_seed(seed: int, step: int, rank: int = 0) -> int:
    """One number from these three, unlike those of other steps and ranks."""
    return (seed * 1_000_003 + step) * 4099 + rank


def draw_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """A CPU generator that depends on these three numbers and on nothing else."""
    return torch.Generator("cpu").manual_seed(draw_seed(seed, step, rank))


def draw_uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Numbers from [0, 1) on the generator's device, whatever torch's default device is."""
    return torch.rand(*shape, generator=generator, device=generator.device)


def draw_integers(low: int, end: int, *shape: int, generator: torch.Generator) -> Tensor:
    """Whole numbers low … end − 1 on the generator's device."""
    return torch.randint(low, end, shape, generator=generator, device=generator.device)


def draw_flips(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Which images of a batch to mirror: bool, shape B."""
    return draw_uniform(count, generator=generator) < probability


def flip_where(maps: Tensor, flips: Tensor) -> Tensor:
    """Mirrors the columns of those of B×C×H×W maps whose flag (bool, shape B, on the same device) is set."""
    return torch.where(flips.reshape(-1, 1, 1, 1), maps.flip(-1), maps)


def draw_cuts(count: int, height: int, probability: float, generator: torch.Generator) -> Tensor:
    """The row each image of a batch is cut at: whole numbers of shape B, multiples of 32, 0 = not cut.

    An image too low for a cut between 0.2 and 0.8 of its height stays whole.
    """
    first, last = -int(-CUT_FROM * height // CUT_CELL), int(CUT_TO * height // CUT_CELL)
    applied = draw_uniform(count, generator=generator) < probability
    places = draw_integers(first, max(last, first) + 1, count, generator=generator) * CUT_CELL
    return torch.where(applied & (places < height), places, 0)


def cut_rows(maps: Tensor, cuts: Tensor, height: int) -> Tensor:
    """Rows from each image's cut on come first, those above it last. B×C×H×W; cuts in rows of an image of `height`.

    The layout stays, contiguous or channels-last (`gather` would leave contiguous maps).
    """
    rows = maps.shape[-2]
    start = (cuts * rows) // height
    index = (torch.arange(rows, device=maps.device) + start.reshape(-1, 1)) % rows
    image = torch.arange(maps.shape[0], device=maps.device).reshape(-1, 1)
    if maps.is_contiguous():
        return maps.take_along_dim(index[:, None, :, None], 2)
    return maps.permute(0, 2, 3, 1)[image, index].permute(0, 3, 1, 2)


def draw_colours(count: int, config: ColourConfig, generator: torch.Generator) -> Tensor:
    """Factors of gamma, brightness and three channels, B×5, and of contrast and saturation where wanted, B×7.

    All of an image's are 1 where it does not change.
    """
    applied = (draw_uniform(count, 1, generator=generator) < config.colour).float()
    factors = 1 + config.strength * applied * (2 * draw_uniform(count, 5, generator=generator) - 1)
    if not (config.contrast or config.saturation):  # nothing more is drawn either: a plain run keeps its numbers
        return factors
    strengths = torch.tensor([config.contrast, config.saturation], device=generator.device)
    return torch.cat([factors, 1 + strengths * applied * (2 * draw_uniform(count, 2, generator=generator) - 1)], 1)


def recolour(images: Tensor, factors: Tensor) -> Tensor:
    """B×3×H×W images in [0, 1] with the factors of `draw_colours`, on their device; stays in [0, 1]."""
    check_image("images", images)
    factors = factors.to(images.dtype)[..., None, None]
    changed = (images.pow(factors[:, 0:1]) * (factors[:, 1:2] * factors[:, 2:5])).clamp(0, 1)
    if factors.shape[1] == 5:
        return changed
    contrast, saturation = factors[:, 5:6], factors[:, 6:7]
    weights = torch.cat([images.new_full((1, 1, 1, 1), weight) for weight in GREY], 1)  # filled in on the device
    mean = (changed * weights).sum(1, keepdim=True).mean((-2, -1), keepdim=True)
    changed = (mean + contrast * (changed - mean)).clamp(0, 1)
    grey = (changed * weights).sum(1, keepdim=True)
    return (grey + saturation * (changed - grey)).clamp(0, 1)


@dataclass(frozen=True)
class ImageDraws:
    """What happens to each image of a batch: made on the CPU, then with its tensors on the device.

    flips: see `draw_flips`. colours: see `draw_colours`. cuts: see `draw_cuts`; turns: cosines and sines, 2×B (see
    `rotation.py`); None where none is ever cut, or turned.
    """

    flips: Tensor
    colours: Tensor
    cuts: Tensor | None
    turns: Tensor | None = None
    windows: Tensor | None = None

    def images(self, part: slice) -> ImageDraws:
        """What happens to some of the images."""
        turns, windows = (None if drawn is None else drawn[:, part] for drawn in (self.turns, self.windows))
        cuts = None if self.cuts is None else self.cuts[part]
        return ImageDraws(self.flips[part], self.colours[part], cuts, turns, windows)


def draw_image_changes(count: int, height: int, config: AugmentationConfig, generator: torch.Generator) -> ImageDraws:
    """All that a batch of `count` images goes through. What is off draws nothing."""
    flips = draw_flips(count, config.flip, generator)
    colours = draw_colours(count, config, generator)
    cuts = draw_cuts(count, height, config.cut_flip, generator) if config.cut_flip else None
    turns = draw_turns(count, config.rotate, generator) if config.rotate else None
    windows = draw_windows(count, config.zoom, generator) if config.zoom > 1 else None
    return ImageDraws(flips, colours, cuts, turns, windows)


def draw_windows(count: int, largest: float, generator: torch.Generator) -> Tensor:
    """Windows to magnify, 3×B: the factor from [1, largest], and where the window, 1 / factor as wide and high, stands
    between the left and right and the top and bottom edges, both in [0, 1]."""
    draws = draw_uniform(3, count, generator=generator)
    return torch.cat([1 + (largest - 1) * draws[:1], draws[1:]])


def draw_turns(count: int, degrees: float, generator: torch.Generator) -> Tensor:
    """Cosine and sine, 2×B, of angles from [−degrees, degrees], one an image."""
    angles = (2 * draw_uniform(count, generator=generator) - 1) * math.radians(degrees)
    return torch.stack([angles.cos(), angles.sin()])
