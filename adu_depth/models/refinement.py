"""What a volume at a quarter of the image cannot see: edges, and the last fraction of a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_depth.geometry import warp_right
from adu_depth.models.blocks import Norm, ResidualBlock, conv_norm_relu, initialise

AROUND = 2
"""The two views are compared once more, at full size: at the disparity, and so many pixels to both sides of it."""
COMPARED = 2 * AROUND + 1
FINE = 2  # works at half size: each cell holds 2×2 pixels


class Refinement(nn.Module):
    """Full-size disparity and both views → a correction of the disparity (in the spirit of StereoNet, 1807.08865).

    Starts as no correction. Works at half size on 2×2 cells, so that it costs little.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        inputs = (3 + COMPARED + 1) * FINE**2
        self.enter = conv_norm_relu(inputs, channels, norm=norm)
        self.blocks = nn.Sequential(*(ResidualBlock(channels, channels, norm=norm) for _ in range(2)))
        self.correct = nn.Conv2d(channels, FINE**2, 3, padding=1)
        initialise(self)
        nn.init.zeros_(self.correct.weight)

    def forward(self, left: Tensor, right: Tensor, disparity: Tensor, longest: float) -> Tensor:
        """left, right: B×3×H×W, H and W even; disparity: B×1×H×W pixels; longest: the largest disparity searched.

        Returns the corrected disparity, never negative. Its gradient reaches `disparity` through the sum alone.
        """
        given = disparity.detach()
        grey_left, grey_right = left.mean(1, keepdim=True), right.mean(1, keepdim=True)
        around = torch.arange(-AROUND, AROUND + 1, device=given.device, dtype=given.dtype)
        warped, _ = warp_right(grey_right.expand(-1, COMPARED, -1, -1), given + around.view(1, -1, 1, 1))
        seen = torch.cat([left - 0.5, grey_left - warped, given / longest], 1).to(left.dtype)
        cells = F.pixel_unshuffle(seen, FINE).contiguous(memory_format=torch.channels_last)
        corrections = self.correct(self.blocks(self.enter(cells)))
        return (disparity + F.pixel_shuffle(corrections, FINE).float()).clamp_min(0)
