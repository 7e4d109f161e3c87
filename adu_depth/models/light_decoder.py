"""The decoder of the light-weight pair (arXiv 2105.06143): four gated stages brought to one size, joined, refined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adu_depth.models.bilinear import bilinear
from adu_depth.models.blocks import channels_last, conv_norm_relu

WIDTH = 64
"""Channels of the joined map, a quarter of them from each stage."""


class ChannelGate(nn.Module):
    """x times a factor in 0 … 1 for each channel, found from the means of all (squeeze and excitation, 1709.01507)."""

    def __init__(self, channels: int, shrink: int = 16) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // shrink, 1, bias=False)
        self.expand = nn.Conv2d(channels // shrink, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * self.expand(self.reduce(means).relu()).sigmoid()


class FusionDecoder(nn.Module):
    """Maps of four stages → `outputs` maps of twice the first stage's size, with no activation.

    336,113 parameters with one output and the channels of `MobileNetV2Encoder`.
    """

    def __init__(self, channels: Sequence[int], outputs: int = 1) -> None:
        super().__init__()
        self.gates = nn.ModuleList(ChannelGate(c) for c in channels)
        self.branches = nn.ModuleList(conv_norm_relu(c, WIDTH // 4, kernel=5, norm="batch") for c in channels)
        self.fuse = conv_norm_relu(WIDTH, WIDTH, kernel=5, norm="batch")
        self.refine = conv_norm_relu(WIDTH, WIDTH, kernel=5, norm="batch")
        self.head = nn.Conv2d(WIDTH, outputs, 5, padding=2)
        channels_last(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        size = [2 * side for side in maps[0].shape[-2:]]
        joined = [
            bilinear(branch(gate(x)), size) for x, gate, branch in zip(maps, self.gates, self.branches, strict=True)
        ]
        out: Tensor = self.head(self.refine(self.fuse(torch.cat(joined, 1))))
        return out
