"""The stereo teacher: a rectified pair → disparity, metric depth, uncertainty, and geometry-aware features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.geometry import Camera, per_image
from adu_depth.images import check_image
from adu_depth.models.aggregation import VOLUME_MULTIPLE, Aggregation
from adu_depth.models.blocks import (
    Backend,
    KernelModule,
    Norm,
    channels_last,
    check_backend,
    check_norm,
    conv_norm_relu,
    first_images,
    initialise,
    refuse_single_values,
    set_backend,
    upsample,
)
from adu_depth.models.decoder import (
    LOG_SCALE_MAX,
    LOG_SCALE_MIN,
    DepthHead,
    FeatureDecoder,
    check_depth_range,
    check_feature_channels,
)
from adu_depth.models.encoder import build_encoder
from adu_depth.models.padding import crop_map, pad_to_cells
from adu_depth.models.prediction import DepthPrediction
from adu_depth.models.ranges import MOST_CHANNELS, MOST_LETTERS, Channels, Metres
from adu_depth.models.refinement import Refinement
from adu_depth.schema import Length, Range, check_ranges, require_kinds
from adu_kernels import cosine_features, disparity_regression, volume_with_scores

INITIAL_SHARPNESS = 20.0  # of cosines in [−1, 1]: 60 matches better untrained, 20 learns faster (5, 20, 60 tried)
SCALE = 4  # the volume stands at a quarter of the image


@dataclass(frozen=True)
class TeacherConfig:
    encoder: Annotated[str, Length(MOST_LETTERS)] = "small"
    """"small", a Hugging Face backbone by name, a local directory, or "config:<family>?<key>=<value>&…"."""
    pretrained: bool = False
    """Start the encoder from its trained weights (not for "small" and "config:…")."""
    max_disparity: Annotated[int, Range(16, 4096)] = 64
    """Disparities 0 … max_disparity − 1 pixels are searched; a multiple of 16."""
    num_groups: Channels = 8
    """Groups of the group-wise correlation; must divide correlation_channels."""
    correlation_channels: Channels = 64
    """Channels of the features that are correlated."""
    concat_channels: Channels = 4
    """Channels of the thinner features that are concatenated."""
    aggregation_channels: Channels = 16
    """Channels of the 3-D convolutions at 1/4."""
    hourglasses: Annotated[int, Range(0, 32)] = 1
    """Hourglasses in the aggregation; each adds a regression head to the training."""
    feature_channels: tuple[Channels, Channels, Channels] = (64, 96, 128)
    """Channels of the features at 1/8, 1/16 and 1/32."""
    refinement_channels: Annotated[int, Range(0, MOST_CHANNELS)] = 24
    """Channels of the full-size correction of the disparity; 0 leaves it out."""
    head_channels: Channels = 32
    """Channels at 1/4, which the decoder's own depth is read from."""
    min_depth: Metres = 0.5
    """Depths are clipped to at least this, metres."""
    max_depth: Metres = 80.0
    """Depths are clipped to at most this, metres."""
    norm: Norm = "group"
    """"group" or "batch" normalisation; see adu_depth.models.blocks."""
    recompute_aggregation: bool = False
    """Train with less memory: the hourglasses are run again in the backward instead of kept. The same bits."""
    concat_free: bool = False
    """Take the first 3-D convolution without writing the concatenated half of the volume: the same up to rounding."""
    backend: Backend = "auto"
    """Which implementation every operation of the network takes: kernels on a GPU and plain PyTorch elsewhere, or one
    of the two everywhere."""

    def __post_init__(self) -> None:
        require_kinds(self)
        check_depth_range(self.min_depth, self.max_depth)
        check_feature_channels(self.feature_channels)
        check_norm(self.norm)
        check_backend("backend", self.backend)
        for name in ("num_groups", "correlation_channels", "concat_channels", "aggregation_channels", "head_channels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("hourglasses", "refinement_channels"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected at least 0, got {getattr(self, name)}")
        step = SCALE * VOLUME_MULTIPLE
        if self.max_disparity < step or self.max_disparity % step:
            raise InputError(f"max_disparity: expected a positive multiple of {step}, got {self.max_disparity}")
        if self.correlation_channels % self.num_groups:
            raise InputError(
                f"num_groups: expected a divisor of correlation_channels={self.correlation_channels}, "
                f"got {self.num_groups}"
            )
        check_ranges(self)


class StereoTeacher(KernelModule):
    """Shared encoder → thin matching features at 1/4 → combined volume → 3-D aggregation → disparity → depth.

    The features for distillation come from a decoder over the left view's encoder maps and what the matching found.

    Args:
        config: a `TeacherConfig`; None is the default one.
        backbone: see `build_encoder`; for networks rebuilt from a checkpoint.

    Returns:
        Called with left and right, B×3×H×W floats in [0, 1], rectified, of any size, and the left view's camera
        (batched), a DepthPrediction; in training mode it also carries `heads` and `decoder_depth`.

    Raises:
        InputError: views of another shape or type, a setting out of range.

    Example:
        >>> pair = collate([SyntheticStereo(1, 64, 96)[0]])
        >>> teacher = StereoTeacher(TeacherConfig(max_disparity=32)).eval()
        >>> with torch.no_grad():
        ...     prediction = teacher(pair.left, pair.right, pair.camera)
        >>> prediction.depth.shape, prediction.disparity.shape
        (torch.Size([1, 1, 64, 96]), torch.Size([1, 1, 64, 96]))
    """

    def __init__(self, config: TeacherConfig | None = None, backbone: dict[str, Any] | None = None) -> None:
        """backbone: see `build_encoder`; for networks rebuilt from a checkpoint."""
        super().__init__()
        self.config = config = config or TeacherConfig()
        self.encoder = build_encoder(config.encoder, config.pretrained, config.norm, backbone)
        self.matching = MatchingFeatures(
            self.encoder.channels, config.correlation_channels, config.concat_channels, config.norm
        )
        self.aggregation = Aggregation(
            config.num_groups + 2 * config.concat_channels,
            config.aggregation_channels,
            config.hourglasses,
            config.norm,
        )
        self.aggregation.recompute = config.recompute_aggregation
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(INITIAL_SHARPNESS)))
        self.refinement = Refinement(config.refinement_channels, config.norm) if config.refinement_channels else None
        self.geometry = GeometryMaps(config.aggregation_channels, config.norm)
        widths = [c + g for c, g in zip(self.encoder.channels, self.geometry.channels, strict=True)]
        self.decoder = FeatureDecoder(widths, config.feature_channels, config.head_channels, config.norm)
        self.decoder_head = DepthHead(
            config.head_channels, config.min_depth, config.max_depth, log_scale=False, norm=config.norm
        )
        for part in (self.matching, self.refinement, self.geometry, self.decoder, self.decoder_head):
            if part is not None:
                channels_last(part)
        set_backend(self, config.backend)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of the features, finest first."""
        return self.config.feature_channels

    def forward(self, left: Tensor, right: Tensor, camera: Camera) -> DepthPrediction:
        """left, right: B×3×H×W in [0, 1], rectified, any size. camera: of the left view, batched (tensors of shape B).

        In training mode the prediction also carries `heads` and `decoder_depth`.
        """
        check_image("left", left)
        check_image("right", right)
        if left.shape != right.shape:
            raise InputError(f"right: expected the left view's shape {tuple(left.shape)}, got {tuple(right.shape)}")
        try:
            return self._predict(torch.cat([left, right]).to(self.encoder.mean.dtype), camera)
        except ValueError as error:
            refuse_single_values(error, self, left)
            raise

    def _predict(self, views: Tensor, camera: Camera) -> DepthPrediction:
        """views: the left ones, then the right ones."""
        batch, height, width = views.shape[0] // 2, views.shape[-2], views.shape[-1]
        views = pad_to_cells(views)
        maps = self.encoder(views)
        volume, scores, thin = self._volume(maps)
        logits, volume = self.aggregation(volume, self._prior(scores), thin)
        heads = [self._regress(head) for head in logits]
        disparity, variance = heads[-1]
        if self.refinement is not None:
            disparity = self.refinement(*views.chunk(2), disparity, self.config.max_disparity)
            heads.append((disparity, variance))
        depth, log_scale = self._metric(disparity, variance, camera)
        # The decoder learns from the geometry, it does not steer it.
        geometry = self.geometry(volume.detach(), logits[-1].detach(), depth.detach(), log_scale.detach())
        features, decoder_depth = self._decode([first_images(m, batch) for m in maps], geometry)
        return DepthPrediction(
            depth=crop_map(depth, height, width),
            log_scale=crop_map(log_scale, height, width),
            features=tuple(crop_map(f, height, width, s) for f, s in zip(features, (8, 16, 32), strict=True)),
            disparity=crop_map(disparity, height, width),
            heads=tuple((crop_map(d, height, width), crop_map(v, height, width)) for d, v in heads)
            if self.training
            else (),
            decoder_depth=None if decoder_depth is None else crop_map(decoder_depth, height, width),
        )

    def _decode(self, maps: Sequence[Tensor], geometry: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor | None]:
        """The features, and in training the depth that they give by themselves: nothing else reads the map at 1/4."""
        finest = 0 if self.training else 1
        joined = [torch.cat(pair, 1) for pair in zip(maps[finest:], geometry[finest:], strict=True)]
        if not self.training:
            return self.decoder.features(joined), None
        quarter, features = self.decoder(joined)
        return features, self.decoder_head(quarter)[0]

    def _volume(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """The combined volume; with `concat_free` that of the correlation alone, and the pair left to concatenate.
        Between them the mean correlation over the groups."""
        wide, thin = self.matching(maps)
        (left, right), (left_thin, right_thin) = wide.chunk(2), thin.chunk(2)
        levels, groups, backend = self.config.max_disparity // SCALE, self.config.num_groups, self.backend
        if self.config.concat_free:
            volume, scores = volume_with_scores(left, right, None, None, levels, groups, backend=backend)
            return volume, scores, (left_thin, right_thin)
        volume, scores = volume_with_scores(left, right, left_thin, right_thin, levels, groups, backend=backend)
        return volume, scores, None

    def _prior(self, scores: Tensor) -> Tensor:
        """Mean correlation over the groups, sharpened: random features match by it already, so training starts there.

        Level k of the volume compares at 4k pixels, but the ×4 regression reads level k as 4k + 1.5 (the middle of the
        pixels 4k … 4k + 3), so the scores are read ⅜ of a level further on. Without that all starts 1.5 pixels off.
        """
        following = torch.cat([scores[:, 1:], scores[:, -1:]], 1)
        return self.log_sharpness.exp() * torch.lerp(scores, following, 0.5 - 0.5 / SCALE)

    def _regress(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        disparity, variance = disparity_regression(logits, scale=SCALE, backend=self.backend)
        return disparity.unsqueeze(1), variance.unsqueeze(1)

    def _metric(self, disparity: Tensor, variance: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
        """Depth in metres and the log scale of ln(depth), ½·ln(variance) − ln(disparity) (METHOD §2).

        The disparity is held in the range that [min_depth, max_depth] allows, so neither of them can leave its own.
        """
        config = self.config

        focal_baseline = per_image(camera.fx, disparity) * per_image(camera.baseline, disparity)
        shifted = disparity + per_image(camera.disparity_offset, disparity)
        shifted = torch.minimum(
            torch.maximum(shifted, focal_baseline / config.max_depth), focal_baseline / config.min_depth
        )
        log_scale = 0.5 * torch.log(variance.clamp(min=1e-6)) - torch.log(shifted)
        return focal_baseline / shifted, log_scale.clamp(LOG_SCALE_MIN, LOG_SCALE_MAX)


class MatchingFeatures(KernelModule):
    """Encoder maps → features to correlate and thinner ones to concatenate, both at 1/4.

    Coarser maps are joined in, faintly at first, so that a pixel on a plain wall is matched by its surroundings too.
    The features to correlate have zero mean over the image, unit variance per channel, then the length √C per pixel:
    the mean of their products is a cosine, blind to contrast and exposure.
    """

    def __init__(self, inputs: Sequence[int], correlation: int, concat: int, norm: Norm) -> None:
        super().__init__()
        self.join = nn.ModuleList(conv_norm_relu(c, correlation, kernel=1, norm=norm) for c in inputs[:3])
        self.mix = conv_norm_relu(correlation, correlation, norm=norm)
        self.correlate = nn.Conv2d(correlation, correlation, 1, bias=False)
        self.concatenate = nn.Conv2d(correlation, concat, 1, bias=False)
        initialise(self)
        for coarser in list(self.join)[1:]:
            nn.init.constant_(coarser.norm.weight, 0.1)  # type: ignore[union-attr, arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        size = maps[0].shape[-2:]
        joined = self.join[0](maps[0])
        for join, coarser in zip(list(self.join)[1:], maps[1:], strict=False):
            joined = joined + upsample(join(coarser), size)
        mixed = self.mix(joined)
        return cosine_features(self.correlate(mixed), backend=self.backend), self.concatenate(mixed)


class GeometryMaps(nn.Module):
    """What the matching found, as maps at 1/4, 1/8, 1/16 and 1/32 for the decoder.

    At 1/4: the aggregated volume, averaged over disparity with the final head's probabilities, ln depth and log scale.
    Nothing in it depends on how many disparities were searched.
    """

    channels = (16, 32, 32, 32)

    def __init__(self, volume_channels: int, norm: Norm) -> None:
        super().__init__()
        widths = self.channels
        self.enter = conv_norm_relu(volume_channels + 2, widths[0], norm=norm)
        self.down = nn.ModuleList(conv_norm_relu(a, b, kernel=4, stride=2, norm=norm) for a, b in pairwise(widths))
        initialise(self)

    def forward(self, volume: Tensor, logits: Tensor, depth: Tensor, log_scale: Tensor) -> list[Tensor]:
        """volume: B×A×D×H/4×W/4; logits: B×D×H/4×W/4; depth, log_scale: B×1×H×W."""
        probability = torch.softmax(logits.float(), 1).to(volume.dtype)
        expected = (volume * probability.unsqueeze(1)).sum(2)
        measured = F.avg_pool2d(torch.cat([torch.log(depth), log_scale], 1), SCALE).to(volume.dtype)
        joined = torch.cat([expected, measured], 1).contiguous(memory_format=torch.channels_last)
        maps = [self.enter(joined)]
        for down in self.down:
            maps.append(down(maps[-1]))
        return maps
