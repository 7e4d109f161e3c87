"""3-D aggregation of a cost volume (hourglasses after PSMNet 1803.08669 and GwcNet 1903.04025, narrowed)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_depth.models.blocks import ConvNorm, KernelModule, Norm, conv_norm_relu, initialise, make_norm, set_layout
from adu_depth.models.recomputing import recomputed
from adu_kernels import single_output_conv3d
from adu_kernels.concat_free_conv.module import concat_free_conv3d
from adu_kernels.precision import autocast_dtype

VOLUME_MULTIPLE = 4  # an hourglass halves disparities, rows and columns twice


class Hourglass(nn.Module):
    """Two halvings, a bottom, two doublings with skips; what it finds is added to what came in."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        wide, wider = 2 * channels, 3 * channels
        self.down1 = conv_norm_relu(channels, wide, stride=2, norm=norm, dims=3)
        self.same1 = ConvNorm(_SameConv3d(wide), make_norm(norm, wide, 3), relu=True)
        self.down2 = conv_norm_relu(wide, wider, stride=2, norm=norm, dims=3)
        self.same2 = ConvNorm(_SameConv3d(wider), make_norm(norm, wider, 3), relu=True)
        self.up2 = _doubling(wider, wide, norm)
        self.up1 = _doubling(wide, channels, norm)

    def forward(self, volume: Tensor) -> Tensor:
        half = self.same1(self.down1(volume))
        quarter = self.same2(self.down2(half))
        half = self.up2(quarter, residual=half)
        return self.up1(half, residual=volume)


class _SameConv3d(nn.Conv3d):
    """A 3×3×3 convolution that keeps size and channels.

    Of two disparities (max_disparity 16 or 32) in bf16 on a CPU, oneDNN makes the weights' gradient of memory that is
    nobody's where it pads them itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 2 and x.device.type == "cpu" and torch.bfloat16 in (x.dtype, autocast_dtype(x)):
            return F.conv3d(F.pad(x, (0, 0, 0, 0, 1, 1)), self.weight, padding=(0, 1, 1))
        return super().forward(x)


def _doubling(inputs: int, outputs: int, norm: Norm) -> ConvNorm:
    conv = nn.ConvTranspose3d(inputs, outputs, 4, 2, 1, bias=False)
    return ConvNorm(conv, make_norm(norm, outputs, 3), relu=True)


class Aggregation(KernelModule):
    """Volume B×C×D×H×W → logits B×D×H×W of every head, and the aggregated volume B×A×D×H×W.

    `prior`, B×D×H×W, is what every head's logits are added to: the 3-D layers learn to correct it.
    D, H and W must be multiples of 4. One head reads the volume before the hourglasses and one follows each of them;
    outside training only the last is computed. `memory_format` is the layout of the volume and of the 3-D weights.
    `recompute`: in training, run each hourglass again in the backward instead of keeping what it made.
    """

    recompute = False

    def __init__(
        self,
        inputs: int,
        channels: int,
        hourglasses: int = 1,
        norm: Norm = "group",
        memory_format: torch.memory_format = torch.channels_last_3d,
    ) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            conv_norm_relu(inputs, channels, norm=norm, dims=3), conv_norm_relu(channels, channels, norm=norm, dims=3)
        )
        self.hourglasses = nn.ModuleList(Hourglass(channels, norm) for _ in range(hourglasses))
        self.heads = nn.ModuleList(nn.Conv3d(channels, 1, 3, padding=1, bias=False) for _ in range(hourglasses + 1))
        initialise(self)
        for head in self.heads:
            # The corrections start small, so that training starts from what the prior says.
            nn.init.normal_(head.weight, std=0.5 / (27 * channels) ** 0.5)  # type: ignore[arg-type]
        self.use_layout(memory_format)

    def use_layout(self, memory_format: torch.memory_format) -> None:
        """Sets the layout of the volume and of the 3-D weights."""
        self._memory_format = str(memory_format).removeprefix("torch.")  # as it is, torch.save could not pickle it
        set_layout(self, memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        return getattr(torch, self._memory_format)

    def forward(
        self, volume: Tensor, prior: Tensor, thin: tuple[Tensor, Tensor] | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """thin: the pair of maps whose concatenation volume would be the last channels of `volume`, if it is not."""
        volume = self._enter(volume.contiguous(memory_format=self.memory_format), thin)
        stages = [volume]
        for hourglass in self.hourglasses:
            kept = not (self.recompute and self.training and torch.is_grad_enabled())
            stages.append(hourglass(stages[-1]) if kept else recomputed(hourglass, stages[-1]))
        first = 0 if self.training else len(stages) - 1
        heads = list(zip(self.heads, stages, strict=True))[first:]
        logits = [prior + self._head(head, x) for head, x in heads]
        return logits, stages[-1]

    def _head(self, head: nn.Module, volume: Tensor) -> Tensor:
        weight = head.weight
        assert isinstance(weight, Tensor)
        return single_output_conv3d(volume, weight, backend=self.backend).squeeze(1)

    def _enter(self, volume: Tensor, thin: tuple[Tensor, Tensor] | None) -> Tensor:
        if thin is None:
            return self.enter(volume)
        first, second = self.enter
        assert isinstance(first, ConvNorm)
        assert isinstance(first.conv, nn.Conv3d)
        weight, bias = first.conv.weight, first.conv.bias  # of an inference copy it has one
        # A convolution is linear: the correlated channels from their volume, the concatenated ones without one.
        correlated, levels = volume.shape[1:3]
        entered = F.conv3d(volume, weight[:, :correlated], bias, padding=1)
        entered = entered + concat_free_conv3d(*thin, weight[:, correlated:], num_disparities=levels)
        return second(first.normalise(entered))
