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

    The volume is that of GC-Net (arXiv 1703.04309) and PSMNet (1803.08669), `concatenation_volume`.

    Args:
        channels: C of each map, ≥ 1.
        out_channels: O ≥ 1.
        num_disparities: D ≥ 1, may exceed the maps' width.
        bias: whether there is one. weight (O×2C×3×3×3) and bias (O) are those of the convolution it stands for, and
            begin as nn.Conv3d's do.
        mask_left: as in `concatenation_volume`.

    Returns:
        Called with left and right, B×C×H×W of the weight's dtype, B×O×D×H×W in channels_last_3d.

    Raises:
        ValueError: a wrong shape or count; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> layer = ConcatFreeConv3d(channels=12, out_channels=32, num_disparities=24)
        >>> layer(torch.randn(2, 12, 8, 16), torch.randn(2, 12, 8, 16)).shape
        torch.Size([2, 32, 24, 8, 16])
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
