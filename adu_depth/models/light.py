"""The light-weight student of arXiv 2105.06143 and its teacher: two encoders, one decoder, metric depth.

Read from the authors' public code. Its network ends in a plain convolution, so that a depth of 0 or less can come out:
in training it stays, to be learned from; in eval mode it is brought to `NEAREST`, a depth that every reader can use.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from adu_depth.geometry import Camera
from adu_depth.images import check_image
from adu_depth.models.bilinear import bilinear
from adu_depth.models.blocks import refuse_single_values
from adu_depth.models.encoder import Encoder
from adu_depth.models.focal import scaled_by_focal
from adu_depth.models.light_decoder import FusionDecoder
from adu_depth.models.light_encoders import MobileNetV2Encoder, ResNet34Encoder
from adu_depth.models.prediction import DepthPrediction
from adu_depth.schema import require_kinds

NEAREST = 1e-3
"""Metres."""


@dataclass(frozen=True)
class LightConfig:
    log_scale: bool = False
    """Predict the uncertainty of each depth too, by a second output of the last convolution. The published network has
    none."""
    min_depth: float = 0.5
    max_depth: float = 80.0
    """Metres, the depths that it is trained for. What it says has no such bounds."""
    reference_focal: float | None = None
    """Pixels. If set, depth is as this focal length would see it, scaled by fx over it; the published has none."""

    def __post_init__(self) -> None:
        require_kinds(self)


class LightNetwork(nn.Module):
    """What the two have in common. See `LightStudent`."""

    def __init__(self, encoder: Encoder, config: LightConfig | None) -> None:
        super().__init__()
        self.config = config = config or LightConfig()
        self.encoder = encoder
        self.decoder = FusionDecoder(encoder.channels, outputs=2 if config.log_scale else 1)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of the features, finest first."""
        return tuple(self.encoder.channels[1:])

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        """image: B×3×H×W in [0, 1], any size. camera: batched, read where there is a `reference_focal`."""
        check_image("image", image)
        try:
            return self._predict(image.to(self.encoder.mean.dtype), camera)
        except ValueError as error:
            refuse_single_values(error, self, image)
            raise

    def _predict(self, image: Tensor, camera: Camera | None) -> DepthPrediction:
        maps = self.encoder(image)
        out = bilinear(self.decoder(maps), image.shape[-2:]).float()
        depth = scaled_by_focal(out[:, :1], camera, self.config.reference_focal)
        depth = depth if self.training else depth.clamp(min=NEAREST)
        return DepthPrediction(depth, out[:, 1:] if self.config.log_scale else None, tuple(maps[1:]))


class LightStudent(LightNetwork):
    """MobileNetV2 and a decoder of gated stages: 1,673,905 parameters, 4.02 GMAC on an image of 228×304 (2105.06143).

    The encoder starts from random weights; `load_encoder` takes ImageNet's, `load_published` the authors' whole ones.

    Args:
        config: a `LightConfig`; None is the published network.

    Returns:
        Called with image, B×3×H×W floats in [0, 1] of any size, a DepthPrediction: depth in metres (in training with
        no bounds, in eval mode from 1 mm), log_scale None unless configured,
        features the encoder's maps at 1/8, 1/16 and 1/32.

    Raises:
        InputError: an image of another shape or type, a camera that is missing.

    Example:
        >>> student = LightStudent().eval()
        >>> with torch.no_grad():
        ...     prediction = student(torch.rand(1, 3, 228, 304))
        >>> prediction.depth.shape, [tuple(f.shape) for f in prediction.features]
        (torch.Size([1, 1, 228, 304]), [(1, 32, 29, 38), (1, 96, 15, 19), (1, 160, 8, 10)])
    """

    def __init__(self, config: LightConfig | None = None) -> None:
        super().__init__(MobileNetV2Encoder(), config)


class LightTeacher(LightNetwork):
    """ResNet-34 and the student's decoder: 21,918,977 parameters (2105.06143).

    Args:
        config: a `LightConfig`; None is the published network.

    Returns:
        As `LightStudent`; the features have 128, 256 and 512 channels.

    Raises:
        InputError: an image of another shape or type.

    Example:
        >>> sum(p.numel() for p in LightTeacher().parameters())
        21918977
    """

    def __init__(self, config: LightConfig | None = None) -> None:
        super().__init__(ResNet34Encoder(), config)
