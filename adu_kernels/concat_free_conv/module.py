"""The convolution of op.py as a layer, with the weights of the one it stands for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import checks
from .op import concat_free_conv3d

__all__ = ["ConcatFreeConv3d", "concat_free_conv3d"]


class ConcatFreeConv3d(nn.Module):
    """`nn.Conv3d(2·channels, out_channels, 3, padding=1)` over the concatenation volume of two maps, never made.

    weight and bias are those of the convolution it stands for: O×2C×3×3×3 and O.
    """

    def __init__(
        self, channels: int, out_channels: int, num_disparities: int, bias: bool = True, mask_left: bool = True
    ) -> None:
        super().__init__()
        channels = checks.check_count("channels", channels)
        out_channels = checks.check_count("out_channels", out_channels)
        num_disparities = checks.check_count("num_disparities", num_disparities)
        mask_left = checks.check_flag("mask_left", mask_left)
        self.num_disparities = num_disparities
        self.mask_left = mask_left
        self.weight = nn.Parameter(torch.empty(out_channels, 2 * channels, 3, 3, 3))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As nn.Conv3d does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """left, right: B×C×H×W → B×O×D×H×W."""
        return concat_free_conv3d(
            left, right, self.weight, self.bias, num_disparities=self.num_disparities, mask_left=self.mask_left
        )

    def extra_repr(self) -> str:
        return f"num_disparities={self.num_disparities}, mask_left={self.mask_left}"
