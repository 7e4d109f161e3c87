"""The convolution blocks that every model here is built of, in two and in three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from adu_depth.errors import InputError
from adu_kernels import group_norm
from adu_kernels.precision import without_autocast

Norm = Literal["group", "batch"]
Backend = Literal["auto", "triton", "torch"]

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def check_norm(norm: str) -> None:
    if norm not in ("group", "batch"):
        raise InputError(f"norm: expected 'group' or 'batch', got {norm!r}")


def check_backend(name: str, backend: str) -> None:
    if backend not in get_args(Backend):
        raise InputError(f"{name}: expected one of {', '.join(get_args(Backend))}, got {backend!r}")


def make_norm(norm: Norm, channels: int, dims: int) -> nn.Module:
    """GroupNorm with at most 8 groups, or BatchNorm.

    GroupNorm is the default: a pair or two a step is common here, where batch statistics are noise, and nothing differs
    between training and inference. "batch" wants eight images or more on every GPU, and in training more than one value
    per channel.
    """
    if norm == "batch":
        return _BATCH_NORM[dims](channels)
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def refuse_single_values(error: ValueError, network: nn.Module, images: Tensor) -> None:
    """InputError where `error` is torch's refusal to normalise one value per channel; else nothing.

    In training BatchNorm takes a channel's mean and variance over the batch and the map: of a batch of one and a map of
    1×1 there is none. images: what the network was given, B×3×H×W.
    """
    if "more than 1 value per channel" not in str(error):
        return
    kinds = sorted({type(m).__name__ for m in network.modules() if isinstance(m, _BatchNorm) and m.training})
    batch, _, height, width = images.shape
    raise InputError(
        f"{' and '.join(kinds) or 'normalisation'} in training needs more than one value per channel, but images of "
        f"{height}×{width} in a batch of {batch} leave one ({error}): take larger images, a larger batch, or a network "
        "without BatchNorm (norm 'group', another encoder)"
    ) from error


class KernelModule(nn.Module):
    """A module that calls operations of adu_kernels itself: `backend` says which implementation, `set_backend` sets it.

    Neither parameter nor buffer: checkpoints know nothing of it.
    """

    backend: Backend = "auto"


def set_backend(network: nn.Module, backend: Backend) -> None:
    """Which implementation every operation of adu_kernels in `network` takes: "auto", "triton" or "torch"."""
    check_backend("backend", backend)
    for module in network.modules():
        if isinstance(module, KernelModule):
            module.backend = backend


class ConvNorm(KernelModule):
    """Convolution ("conv"), normalisation ("norm"), then the sum with a residual, if one is given, and ReLU, if set.

    With a GroupNorm what follows the convolution is one operation (adu_kernels/group_norm). Under autocast on a GPU it
    keeps type and layout of the convolution's result, of which PyTorch's own makes fp32 in the contiguous layout.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, *, relu: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = conv, norm, relu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """residual: None, or of the result's shape."""
        return self.normalise(self.conv(x), residual)

    def normalise(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """What follows the convolution, whose result is x."""
        if isinstance(self.norm, nn.GroupNorm):
            norm, activation = self.norm, "relu" if self.relu else "none"
            return group_norm(
                x,
                norm.num_groups,
                norm.weight,
                norm.bias,
                norm.eps,
                activation=activation,
                residual=residual,
                backend=self.backend,
            )
        x = self.norm(x)
        if residual is not None:
            x = x + residual
        return torch.relu_(x) if self.relu else x

    def extra_repr(self) -> str:
        return f"relu={self.relu}"


def conv_norm(
    inputs: int,
    outputs: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    norm: Norm = "group",
    dims: int = 2,
    relu: bool = False,
) -> ConvNorm:
    """`ConvNorm` with same padding and no bias.

    Halving with kernel 4 puts each output in the middle of the inputs it replaces; kernel 3 would leave every map half
    an input cell up and to the left of where upsampling (align_corners=False) takes it to be.
    """
    conv = _CONV[dims](inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
    return ConvNorm(conv, make_norm(norm, outputs, dims), relu=relu)


conv_norm_relu = partial(conv_norm, relu=True)


class ResidualBlock(nn.Module):
    """Two convolutions and a skip (He et al., 1512.03385), in 2-D; with `halve` at half the size, centred.

    Where shapes differ the skip is an average (1812.01187) and a 1×1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False, norm: Norm = "group") -> None:
        super().__init__()
        self.first = conv_norm_relu(inputs, outputs, kernel=4 if halve else 3, stride=2 if halve else 1, norm=norm)
        self.second = conv_norm_relu(outputs, outputs, norm=norm)
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()
        same = not halve and inputs == outputs
        self.skip = nn.Identity() if same else conv_norm(inputs, outputs, kernel=1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x), residual=self.skip(self.pool(x)))


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """B×C×H×W → B×C×size by nearest neighbours, in x's dtype: autocast would make fp32 of what is only copied."""
    with without_autocast(x):
        return F.interpolate(x, size=tuple(size), mode="nearest")


def first_images(maps: Tensor, count: int) -> Tensor:
    """The first `count` of N×C×H×W maps. Sliced with the channels last, so that the gradient of all of them, zeros but
    for the first, lies in memory as channels-last maps do."""
    return maps.permute(0, 2, 3, 1)[:count].permute(0, 3, 1, 2)


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
