"""The convolution blocks that every model here is built of, in two and in three dimensions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from adu_depth.errors import InputError

Norm = Literal["group", "batch"]

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def check_norm(norm: str) -> None:
    if norm not in ("group", "batch"):
        raise InputError(f"norm: expected 'group' or 'batch', got {norm!r}")


def make_norm(norm: Norm, channels: int, dims: int) -> nn.Module:
    """GroupNorm with at most 8 groups, or BatchNorm.

    GroupNorm is the default: a pair or two per step is common here, where batch statistics are noise; there is nothing
    to differ between training and inference; and on a CPU it is the faster one. On CUDA it leaves the channels-last
    layout, which BatchNorm keeps, so large GPU batches may prefer "batch".
    """
    if norm == "batch":
        return _BATCH_NORM[dims](channels)
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def conv_norm(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, norm: Norm = "group", dims: int = 2
) -> nn.Sequential:
    """Convolution ("conv") with same padding and no bias, then normalisation ("norm")."""
    layers = nn.Sequential()
    layers.add_module("conv", _CONV[dims](inputs, outputs, kernel, stride, kernel // 2, bias=False))
    layers.add_module("norm", make_norm(norm, outputs, dims))
    return layers


def conv_norm_relu(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, norm: Norm = "group", dims: int = 2
) -> nn.Sequential:
    """`conv_norm`, then ReLU."""
    layers = conv_norm(inputs, outputs, kernel=kernel, stride=stride, norm=norm, dims=dims)
    layers.add_module("relu", nn.ReLU(inplace=True))
    return layers


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a skip (He et al., 1512.03385); a 1×1 convolution on the skip where shapes differ."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, norm: Norm = "group", dims: int = 2) -> None:
        super().__init__()
        self.first = conv_norm_relu(inputs, outputs, stride=stride, norm=norm, dims=dims)
        self.second = conv_norm(outputs, outputs, norm=norm, dims=dims)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else conv_norm(inputs, outputs, kernel=1, stride=stride, norm=norm, dims=dims)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.second(self.first(x)))


def initialise(module: nn.Module) -> None:
    """He initialisation (1502.01852) of every convolution below `module`; biases start at zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def set_layout(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Store the convolution weights of that many dimensions in `memory_format` (in place)."""
    module.to(memory_format=memory_format)  # type: ignore[call-overload]


def channels_last(module: nn.Module) -> None:
    """The 2-D convolutions below `module` in the layout that runs fastest on CPU and GPU."""
    set_layout(module, torch.channels_last)


def parameter_count(module: nn.Module) -> int:
    """How many numbers `module` trains."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
