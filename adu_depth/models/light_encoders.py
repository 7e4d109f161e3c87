"""The two encoders of the light-weight pair (arXiv 2105.06143), with torchvision's names, so that its weights load.

Both give four maps at 1/4, 1/8, 1/16 and 1/32 of images of any size; sides that do not divide are rounded up.
"""

from __future__ import annotations

from torch import Tensor, nn

from adu_depth.models.blocks import channels_last, initialise
from adu_depth.models.encoder import Encoder

_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
"""MobileNetV2 (1801.04381, table 2) without its last block: expansion, channels, repeats, stride of the first."""
_STAGES = ((0, 4), (4, 7), (7, 14), (14, 17))
"""Where the layers of one stage begin and end: each but the first begins with a halving."""


class MobileNetV2Encoder(Encoder):
    """`features[0:17]` of MobileNetV2: the layers of 320 and 1280 channels are left out. 1,337,792 parameters."""

    channels = (24, 32, 96, 160)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_relu6(3, 32, kernel=3, stride=2)]
        inputs = 32
        for expansion, outputs, repeats, stride in _BLOCKS:
            for repeat in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers)
        initialise(self)
        channels_last(self)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.normalised(image), []
        for first, end in _STAGES:
            x = self.features[first:end](x)
            maps.append(x)
        return tuple(maps)


class InvertedResidual(nn.Module):
    """1×1 up, 3×3 per channel, 1×1 down; with a skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        widen = [_conv_relu6(inputs, inner)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            _conv_relu6(inner, inner, kernel=3, stride=stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


def _conv_relu6(inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class ResNet34Encoder(Encoder):
    """ResNet-34 (1512.03385) without its classifier."""

    channels = (64, 128, 256, 512)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _basic_blocks(64, 64, 3, stride=1)
        self.layer2 = _basic_blocks(64, 128, 4, stride=2)
        self.layer3 = _basic_blocks(128, 256, 6, stride=2)
        self.layer4 = _basic_blocks(256, 512, 3, stride=2)
        initialise(self)
        channels_last(self)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.bn1(self.conv1(self.normalised(image))).relu_()
        x, maps = nn.functional.max_pool2d(x, 3, 2, 1), []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def _basic_blocks(inputs: int, outputs: int, count: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs) for _ in range(count - 1)))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a skip, which is a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_())) + skip).relu_()
