"""Drawing and changing in one call, as the tests want it; a training draws all of a step before it changes anything."""

from __future__ import annotations

import torch
from torch import Tensor

from adu_depth.data.augmentation import ColourConfig, draw_colours, recolour
from adu_depth.data.pair_augmentation import PairAugmentationConfig, change_pair, draw_pair_changes
from adu_depth.data.sample import StereoSample
from adu_depth.transfer import upload, upload_together


def colour_jitter(images: Tensor, config: ColourConfig, generator: torch.Generator) -> Tensor:
    return recolour(images, upload(draw_colours(images.shape[0], config, generator), images.device))


def augment_pair(
    sample: StereoSample, config: PairAugmentationConfig, generator: torch.Generator
) -> tuple[StereoSample, Tensor, Tensor]:
    left = sample.left
    draws = draw_pair_changes(left.shape[0], left.shape[-2:], config, generator)
    return change_pair(sample, upload_together(draws, left.device))
