"""Image encoders: a small one built in, and every backbone of `transformers` by name, directory or configuration.

`backbones.py` says what a name of transformers' means and reads it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.images import check_image
from adu_depth.models.backbone_settings import LABELS, counting
from adu_depth.models.backbones import (
    accepted,
    config_from_hub,
    config_from_settings,
    config_from_text,
    random_backbone,
    trained_backbone,
)
from adu_depth.models.blocks import Norm, ResidualBlock, channels_last, conv_norm_relu, initialise
from adu_depth.terminal import printable_name

STRIDES = (4, 8, 16, 32)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PROBE_SIZE = (96, 160)  # not square, so that rows and columns cannot be mixed up

logger = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Image B×3×H×W in [0, 1], H and W multiples of 32 → four maps B×channels[i]×H/s×W/s at s = 4, 8, 16, 32."""

    channels: tuple[int, int, int, int]
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).reshape(3, 1, 1), persistent=False)

    def normalised(self, image: Tensor) -> Tensor:
        """The image with ImageNet's mean and standard deviation taken out, channels last."""
        check_image("image", image)
        mean, std = self.mean.to(image.device), self.std.to(image.device)  # elsewhere only where shapes are probed
        return ((image - mean) / std).contiguous(memory_format=torch.channels_last)


def build_encoder(
    name: str, pretrained: bool = False, norm: Norm = "group", backbone: dict[str, Any] | None = None
) -> Encoder:
    """The encoder called `name`.

    "small": the built-in light one. "config:<family>?<key>=<value>&…": a transformers backbone of random weights, e.g.
    "config:resnet?depths=2,2,2,2". Anything with a slash: a local directory or a name on the Hugging Face hub, e.g.
    "microsoft/resnet-50", with its trained weights if `pretrained`, else with random ones. `norm` is the small
    encoder's. The log says which weights were taken: random ones when training starts from them.
    `backbone`: what `backbone_settings` said of a network built from this name, kept with its weights; the encoder is
    then rebuilt from that alone, without the hub, the directory or today's defaults of transformers.

    InputError: unknown name, family or key; trained weights asked for and not to be had, or NaN; a configuration that
    names code, or a network beyond any size. Nothing is replaced silently, no code of a hub or a folder is run, and of
    weights only safetensors are read.
    """
    if name == "small":
        if pretrained:
            raise InputError("encoder 'small' has no pretrained weights: set pretrained=False or name another encoder")
        return SmallEncoder(norm=norm)
    if backbone is not None:
        return _backbone_encoder(config_from_settings(backbone, name), name, pretrained=False)
    if name.startswith("config:"):
        if pretrained:
            raise InputError(f"encoder {name!r} is made from a configuration and has no pretrained weights: "
                             "set pretrained=False, or give a hub name or a directory")  # fmt: skip
        config = config_from_text(name)
    elif "/" in name or Path(name).is_dir():
        config = config_from_hub(name)
    else:
        raise InputError(f"encoder: unknown name {name!r}. {accepted()}")
    return _backbone_encoder(config, name, pretrained)


def is_built_in(name: str) -> bool:
    """Whether an encoder is made from its name alone, without a folder or a hub."""
    return name == "small" or name.startswith("config:")


def _backbone_encoder(config: Any, name: str, pretrained: bool) -> Encoder:
    try:
        return BackboneEncoder(config, name, pretrained)
    except InputError:
        raise
    except Exception as error:  # transformers believes what a configuration says, and fails where it is used
        raise InputError(f"encoder {name!r} cannot be built from its configuration: {error!r}") from error


class SmallEncoder(Encoder):
    """A ResNet of 3×3 convolutions for CPU training: few, wide-enough layers rather than many thin ones.

    Plain convolutions beat depthwise ones of equal cost here, because oneDNN runs them near the machine's peak.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (32, 64, 96, 128),
        blocks: tuple[int, int, int, int] = (1, 2, 2, 2),
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        self.channels = widths
        self.stem = conv_norm_relu(3, widths[0], kernel=4, stride=2, norm=norm)
        stages = []
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            inputs = widths[max(i - 1, 0)]
            first = ResidualBlock(inputs, width, halve=True, norm=norm)
            stages.append(nn.Sequential(first, *(ResidualBlock(width, width, norm=norm) for _ in range(count - 1))))
        self.stages = nn.ModuleList(stages)
        initialise(self)
        channels_last(self)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(self.normalised(image))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class BackboneEncoder(Encoder):
    """A transformers backbone whose maps are brought to strides 4, 8, 16 and 32.

    For each stride the deepest stage nearest to it is taken and, where its own stride differs, resampled bilinearly. A
    plain vision transformer has one stride: four layers evenly spread over its depth are taken, shallow for fine. Where
    its patches do not divide 32 (14, say) the image is first resized so that one patch covers 16 pixels.
    Parameters that these maps do not depend on are frozen.
    """

    def __init__(self, config: Any, name: str, pretrained: bool) -> None:
        super().__init__()
        self.config, self._patch = config, _odd_patch(config)
        with torch.random.fork_rng(devices=[]):  # looking at the backbone must not move the caller's random numbers
            chosen = self._choose_stages(config, name)
        stages = sorted(set(chosen), key=config.stage_names.index)
        config.out_features = stages
        self.backbone = trained_backbone(config, name) if pretrained else random_backbone(config, name)
        channels_last(self.backbone)  # as its images are: else each convolution copies its weights first
        self._taken = tuple(stages.index(stage) for stage in chosen)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():  # the caller may build under no_grad
            maps = self._probe(self.backbone, name)
            self._freeze_unused(maps)
        c4, c8, c16, c32 = (maps[i].shape[1] for i in self._taken)
        self.channels = (c4, c8, c16, c32)
        self._name, self._random = name, not pretrained
        self.register_load_state_dict_post_hook(_has_weights)

    def train(self, mode: bool = True) -> BackboneEncoder:
        """As of any module. Training from random weights is worth a line; they are no news where others are loaded."""
        if mode and self._random:
            logger.warning("encoder %s: random weights (pretrained=False)", printable_name(self._name))
            self._random = False
        super().train(mode)
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self._run(self.backbone, image)
        return tuple(_at_stride(maps[i], s, image) for i, s in zip(self._taken, STRIDES, strict=True))

    def _run(self, backbone: nn.Module, image: Tensor) -> Sequence[Tensor]:
        image = self.normalised(image)
        if self._patch is not None:
            size = [side // 16 * self._patch for side in image.shape[-2:]]
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
        return backbone(image).feature_maps

    def _probe(self, backbone: nn.Module, name: str) -> Sequence[Tensor]:
        training = backbone.training
        try:
            return self._run(backbone.eval(), torch.zeros(1, 3, *_PROBE_SIZE))
        except Exception as error:  # whatever a third-party model does, the user hears which one it was
            raise InputError(
                f"encoder {name!r} does not run on a {_PROBE_SIZE[0]}×{_PROBE_SIZE[1]} image: {error}"
            ) from error
        finally:
            backbone.train(training)

    def _choose_stages(self, config: Any, name: str) -> list[str]:
        """For each of STRIDES the name of the stage to take."""
        names = list(config.stage_names)[1:]  # the first is the stem
        config.out_features = names
        with torch.no_grad(), torch.device("meta"), counting(name):  # its shapes alone, without memory
            maps = self._probe(random_backbone(config, name), name)
        strides = [_PROBE_SIZE[0] / m.shape[-2] for m in maps]
        if len(set(strides)) == 1:
            return [names[max(math.ceil(len(names) * (i + 1) / 4) - 1, 0)] for i in range(4)]
        # max() keeps the first of equals, so the reversed list gives the deepest stage of a stride.
        by_depth = list(zip(names, strides, strict=True))[::-1]
        return [max(by_depth, key=lambda stage: -abs(math.log(stage[1] / wanted)))[0] for wanted in STRIDES]

    def _freeze_unused(self, maps: Sequence[Tensor]) -> None:
        """Distributed training stops at a parameter that never gets a gradient (a mask token, a last norm)."""
        parameters = [p for p in self.backbone.parameters() if p.requires_grad]
        total = torch.stack([m.sum() for m in maps]).sum()
        for parameter, grad in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
            if grad is None:
                parameter.requires_grad_(False)


def backbone_settings(network: nn.Module) -> dict[str, Any] | None:
    """The transformers configuration of a network's encoder as JSON values; None where it has the built-in one."""
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, BackboneEncoder):
        return None
    settings: dict[str, Any] = json.loads(encoder.config.to_json_string(use_diff=False))
    for labels in LABELS:
        settings.pop(labels, None)
    return settings


def _has_weights(encoder: nn.Module, _: object) -> None:
    """Called when weights have been loaded."""
    assert isinstance(encoder, BackboneEncoder)
    encoder._random = False


def _at_stride(maps: Tensor, stride: int, image: Tensor) -> Tensor:
    size = (image.shape[-2] // stride, image.shape[-1] // stride)
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _odd_patch(config: Any) -> int | None:
    """The patch size of a vision transformer whose patches do not tile cells of 32 pixels, else None."""
    patch = getattr(config, "patch_size", None)
    patch = patch[0] if isinstance(patch, list | tuple) and patch else patch
    return patch if isinstance(patch, int) and 32 % patch else None
