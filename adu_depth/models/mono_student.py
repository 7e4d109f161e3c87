"""The monocular student: one image → depth, uncertainty, and the features that distillation compares."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.images import check_image
from adu_depth.models.blocks import (
    Backend,
    Norm,
    channels_last,
    check_backend,
    check_norm,
    refuse_single_values,
    set_backend,
)
from adu_depth.models.decoder import DepthHead, FeatureDecoder, check_depth_range, check_feature_channels
from adu_depth.models.encoder import build_encoder
from adu_depth.models.focal import scaled_by_focal
from adu_depth.models.padding import crop_map, pad_to_cells
from adu_depth.models.prediction import DepthPrediction
from adu_depth.models.ranges import MOST_LETTERS, MOST_PIXELS, Channels, Metres
from adu_depth.schema import Length, Range, check_ranges, require_kinds

NetworkKind = Literal["adu", "light", "light-teacher"]
LIGHT_READS = ("network", "log_scale", "encoder_weights", "min_depth", "max_depth", "reference_focal")
"""What of a StudentConfig the light networks read."""


@dataclass(frozen=True)
class StudentConfig:
    network: NetworkKind = "adu"
    """"adu"; "light": the light-weight student of arXiv 2105.06143, 1.7 M parameters; "light-teacher": its ResNet-34
    teacher, trained as a student that nobody teaches. The light ones read log_scale, encoder_weights, min_depth,
    max_depth and reference_focal alone."""
    log_scale: bool = False
    """Light networks: predict the uncertainty too, which the published ones do not."""
    encoder_weights: Annotated[str, Length(MOST_LETTERS)] = ""
    """Light networks: start the encoder from ImageNet weights with torchvision's names: a file (safetensors, or a state
    dict of torch.save), or a repository of the hub that has model.safetensors, such as timm/resnet34.tv_in1k. Not
    needed any more when the run goes on."""
    encoder: Annotated[str, Length(MOST_LETTERS)] = "small"
    """"small", a Hugging Face backbone by name, a local directory, or "config:<family>?<key>=<value>&…"."""
    pretrained: bool = False
    """Start the encoder from its trained weights (not for "small" and "config:…")."""
    feature_channels: tuple[Channels, Channels, Channels] = (64, 96, 128)
    """Channels of the features at 1/8, 1/16 and 1/32."""
    head_channels: Channels = 32
    """Channels at 1/4, which depth and log scale are read from."""
    min_depth: Metres = 0.5
    """Nearest depth the student can say, metres; of a light one, that is learned."""
    max_depth: Metres = 80.0
    """Farthest depth the student can say, metres; of a light one, that is learned."""
    reference_focal: Annotated[float, Range(0, MOST_PIXELS, above=True)] | None = None
    """If set, depth is predicted as a camera of this focal length (pixels) would see it and scaled by fx over it; the
    student then needs the camera. The published light networks have none: their metres are those of the camera that
    they were trained with."""
    norm: Norm = "group"
    """"group" or "batch" normalisation; see adu_depth.models.blocks."""
    backend: Backend = "auto"
    """Which implementation every operation of the network takes: kernels on a GPU and plain PyTorch elsewhere, or one
    of the two everywhere."""

    def __post_init__(self) -> None:
        require_kinds(self)
        check_depth_range(self.min_depth, self.max_depth)
        check_feature_channels(self.feature_channels)
        check_norm(self.norm)
        check_backend("backend", self.backend)
        if self.head_channels < 1:
            raise InputError(f"head_channels: expected at least 1, got {self.head_channels}")
        if self.reference_focal is not None and self.reference_focal <= 0:
            raise InputError(f"reference_focal: expected a positive focal length or None, got {self.reference_focal}")
        check_ranges(self)
        self._check_network()

    def _check_network(self) -> None:
        """InputError for a setting that the network of the other kind would read."""
        light = self.network != "adu"
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            unread = name not in LIGHT_READS if light else name in ("log_scale", "encoder_weights")
            if unread and value != field.default:
                reads = ", ".join(LIGHT_READS[1:])
                told = f"network {self.network} reads {reads} alone" if light else "it is for the light networks"
                raise InputError(f"{name}: {told}, got {value!r}; leave it out, or take another --model.network")


class MonoStudent(nn.Module):
    """Encoder → decoder → depth bounded in [min_depth, max_depth], log scale, features at 1/8, 1/16 and 1/32.

    Args:
        config: a `StudentConfig`; None is the default one.
        backbone: see `build_encoder`; for networks rebuilt from a checkpoint.

    Returns:
        Called with image, B×3×H×W floats in [0, 1] of any size, and camera (batched, read where the configuration has a
        `reference_focal`), a DepthPrediction.

    Raises:
        InputError: an image of another shape or type, a camera that is missing, a setting out of range.

    Example:
        >>> student = MonoStudent().eval()
        >>> with torch.no_grad():
        ...     prediction = student(torch.rand(1, 3, 64, 96))
        >>> prediction.depth.shape, [tuple(f.shape) for f in prediction.features]
        (torch.Size([1, 1, 64, 96]), [(1, 64, 8, 12), (1, 96, 4, 6), (1, 128, 2, 3)])
    """

    def __init__(self, config: StudentConfig | None = None, backbone: dict[str, Any] | None = None) -> None:
        """backbone: see `build_encoder`; for networks rebuilt from a checkpoint."""
        super().__init__()
        self.config = config = config or StudentConfig()
        self.encoder = build_encoder(config.encoder, config.pretrained, config.norm, backbone)
        self.decoder = FeatureDecoder(self.encoder.channels, config.feature_channels, config.head_channels, config.norm)
        self.head = DepthHead(
            config.head_channels, config.min_depth, config.max_depth, log_scale=True, norm=config.norm
        )
        channels_last(self.decoder)
        channels_last(self.head)
        set_backend(self, config.backend)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of the features, finest first."""
        return self.config.feature_channels

    def forward(self, image: Tensor, camera: Camera | None = None) -> DepthPrediction:
        """image: B×3×H×W in [0, 1], any size. camera: batched; read where the configuration has a `reference_focal`."""
        check_image("image", image)
        try:
            return self._predict(image.to(self.encoder.mean.dtype), camera)
        except ValueError as error:
            refuse_single_values(error, self, image)
            raise

    def _predict(self, image: Tensor, camera: Camera | None) -> DepthPrediction:
        height, width = image.shape[-2:]
        quarter, features = self.decoder(self.encoder(pad_to_cells(image)))
        depth, log_scale = self.head(quarter)
        assert log_scale is not None
        return DepthPrediction(
            depth=crop_map(self._scaled(depth, camera), height, width),
            log_scale=crop_map(log_scale, height, width),
            features=tuple(crop_map(f, height, width, s) for f, s in zip(features, (8, 16, 32), strict=True)),
        )

    def _scaled(self, depth: Tensor, camera: Camera | None) -> Tensor:
        config = self.config
        scaled = scaled_by_focal(depth, camera, config.reference_focal)
        return depth if scaled is depth else scaled.clamp(config.min_depth, config.max_depth)
