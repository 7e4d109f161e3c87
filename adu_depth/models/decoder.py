"""The decoder teacher and student share: encoder maps → features at 1/8, 1/16, 1/32 → a map at 1/4 → the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.models.blocks import Norm, ResidualBlock, conv_norm_relu, initialise, upsample

LOG_SCALE_MIN, LOG_SCALE_MAX = -6.0, 3.0  # METHOD §6


class FeatureDecoder(nn.Module):
    """Top-down decoder: each level joins the coarser level, upsampled, with the encoder's map of its own stride.

    inputs: channels of the four maps at 1/4, 1/8, 1/16, 1/32. features: channels of its outputs at 1/8, 1/16, 1/32,
    finest first. quarter: channels of its output at 1/4, which the heads read.
    """

    def __init__(self, inputs: Sequence[int], features: Sequence[int], quarter: int, norm: Norm = "group") -> None:
        super().__init__()
        f8, f16, f32 = features
        self.level32 = ResidualBlock(inputs[3], f32, norm=norm)
        self.level16 = _Join(f32, inputs[2], f16, norm)
        self.level8 = _Join(f16, inputs[1], f8, norm)
        self.level4 = _Join(f8, inputs[0], quarter, norm)
        initialise(self)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Four B×C×H/s×W/s maps, finest first → the map at 1/4, and the features at 1/8, 1/16, 1/32."""
        features = self.features(maps[1:])
        return self.level4(features[0], maps[0]), features

    def features(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The features alone, for which the maps at 1/8, 1/16 and 1/32 are enough."""
        at8, at16, at32 = maps
        coarse = self.level32(at32)
        middle = self.level16(coarse, at16)
        return self.level8(middle, at8), middle, coarse


class _Join(nn.Module):
    """Narrow the coarse map, double its size, add the skip of the same width, and mix."""

    def __init__(self, coarse: int, skip: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.coarse = conv_norm_relu(coarse, outputs, kernel=1, norm=norm)
        self.skip = conv_norm_relu(skip, outputs, kernel=1, norm=norm)
        self.mix = ResidualBlock(outputs, outputs, norm=norm)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        # Nearest: the 3×3 convolutions that follow smooth it, and bilinear costs more than they do on a CPU.
        return self.mix(upsample(self.coarse(coarse), skip.shape[-2:]) + self.skip(skip))


class DepthHead(nn.Module):
    """Depth, bounded and metric, and optionally its log scale, from a map at 1/4 (sub-pixel convolution, 1609.05158).

    ln depth = ln min + (ln max − ln min)·σ(x); every pixel starts near `initial_depth` metres, log scale near −1.5.
    """

    def __init__(
        self,
        inputs: int,
        min_depth: float,
        max_depth: float,
        *,
        log_scale: bool,
        initial_depth: float = 15.0,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        self.log_min, self.log_max = math.log(min_depth), math.log(max_depth)
        outputs = 2 if log_scale else 1
        self.hidden = conv_norm_relu(inputs, inputs, norm=norm)
        self.predict = nn.Conv2d(inputs, outputs * 16, 3, padding=1)
        initialise(self.hidden)
        share = (math.log(initial_depth) - self.log_min) / (self.log_max - self.log_min)
        share = min(max(share, 0.1), 0.9)  # a range that excludes 15 m still starts where the sigmoid has a slope
        starts = [math.log(share / (1 - share)), -1.5][:outputs]
        # All 16 sub-pixels of a cell start alike, so that training does not begin with a checkerboard (1707.02937).
        weight = torch.randn(outputs, inputs, 3, 3) * (0.1 / math.sqrt(9 * inputs))
        with torch.no_grad():
            self.predict.weight.copy_(weight.repeat_interleave(16, dim=0))
            self.predict.bias.copy_(torch.tensor(starts).repeat_interleave(16))  # type: ignore[union-attr]

    def forward(self, quarter: Tensor) -> tuple[Tensor, Tensor | None]:
        """B×C×H/4×W/4 → depth B×1×H×W in metres, and log scale B×1×H×W or None; both fp32.

        Log scale is clamped to [−6, 3] and has no gradient where clamped.
        """
        maps = F.pixel_shuffle(self.predict(self.hidden(quarter)).float(), 4)
        depth = torch.exp(self.log_min + (self.log_max - self.log_min) * torch.sigmoid(maps[:, :1]))
        return depth, maps[:, 1:].clamp(LOG_SCALE_MIN, LOG_SCALE_MAX) if maps.shape[1] == 2 else None


def check_depth_range(min_depth: float, max_depth: float) -> None:
    if not 0 < min_depth < max_depth < math.inf:
        raise InputError(f"expected 0 < min_depth < max_depth, got min_depth={min_depth}, max_depth={max_depth}")


def check_feature_channels(channels: Sequence[int]) -> None:
    if len(channels) != 3 or min(channels) < 1:
        raise InputError(f"feature_channels: expected 3 positive counts (1/8, 1/16, 1/32), got {tuple(channels)}")
