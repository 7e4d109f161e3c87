"""Image encoders: a small one built in, and every backbone of `transformers` by name, directory or configuration.

transformers is imported where it is used: it takes a second, and the built-in encoder needs none of it.
"""

from __future__ import annotations

import ast
import json
import logging
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.images import check_image
from adu_depth.models.backbone_settings import LABELS, check_settings, counting
from adu_depth.models.blocks import Norm, ResidualBlock, channels_last, conv_norm_relu, initialise
from adu_depth.schema import read_json, shown
from adu_depth.tensor_files import non_finite, read_forms, some
from adu_depth.terminal import printable_name

STRIDES = (4, 8, 16, 32)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_SHARD = re.compile(r"[\w.-]+\.safetensors")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.pkl")
"""Weights that are programs, or of libraries that are not used here."""
_PROBE_SIZE = (96, 160)  # not square, so that rows and columns cannot be mixed up

logger = logging.getLogger(__name__)


class _Index(TypedDict):
    """Which file each tensor of a network is in."""

    weight_map: dict[str, str]


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
        return _backbone_encoder(_config_from_settings(backbone, name), name, pretrained=False)
    if name.startswith("config:"):
        if pretrained:
            raise InputError(f"encoder {name!r} is made from a configuration and has no pretrained weights: "
                             "set pretrained=False, or give a hub name or a directory")  # fmt: skip
        config = _config_from_text(name)
    elif "/" in name or Path(name).is_dir():
        config = _config_from_hub(name)
    else:
        raise InputError(f"encoder: unknown name {name!r}. {_accepted()}")
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
        self.backbone = _load_weights(config, name) if pretrained else _from_config(config, name)
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
            maps = self._probe(_from_config(config, name), name)
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


def families() -> list[str]:
    """The backbone families that "config:<family>" accepts."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

    return sorted(set(MODEL_FOR_BACKBONE_MAPPING_NAMES) - {"timm_backbone"})  # timm is no dependency of ours


def _accepted() -> str:
    return (
        "Accepted: 'small'; a Hugging Face backbone such as 'microsoft/resnet-50'; a local directory with one; "
        f"'config:<family>?<key>=<value>&…' with a family of {', '.join(families())}"
    )


def _config_from_text(text: str) -> Any:
    """The transformers configuration that "config:<family>?<key>=<value>&…" describes."""
    from transformers import AutoConfig

    family, _, query = text.removeprefix("config:").partition("?")
    if family not in families():
        raise InputError(f"encoder: unknown backbone family {family!r} in {text!r}. {_accepted()}")
    options = {}
    known = AutoConfig.for_model(family)
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if not equals or not hasattr(known, key):  # transformers itself would swallow an unknown key
            raise InputError(f"encoder: {item!r} in {text!r} is no <key>=<value> that {family} has")
        options[key] = _parse(value)
    check_settings(options, text)
    try:
        return AutoConfig.for_model(family, **options)
    except Exception as error:
        raise InputError(f"encoder: {family} refuses the configuration {text!r}: {error}") from error


def _parse(value: str) -> Any:
    """A Python literal; comma-separated values are a list; a bare word is text."""
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the latter two: brackets without end
        return value
    return list(parsed) if isinstance(parsed, tuple) else parsed


def _config_from_hub(name: str) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    folder = Path(name)
    try:
        # Plain JSON, before anything follows what it says.
        settings = read_json(folder / CONFIG) if folder.is_dir() else PretrainedConfig.get_config_dict(name)[0]
        check_settings(settings, name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_unreachable(name, error)) from error
    if not hasattr(config, "out_features") or config.model_type not in families():
        raise InputError(f"encoder {name!r} is a {config.model_type!r}, which is no backbone. {_accepted()}")
    return config


def _config_from_settings(settings: dict[str, Any], name: str) -> Any:
    from transformers import AutoConfig

    family = settings.get("model_type")
    if family not in families():
        raise InputError(f"encoder {name!r}: the kept configuration is of a {shown(family)}, which is no backbone here")
    check_settings(settings, name)
    try:
        return AutoConfig.for_model(family, **{k: v for k, v in settings.items() if k != "model_type"})
    except Exception as error:
        raise InputError(f"encoder {name!r}: {family} refuses the kept configuration: {error}") from error


def _from_config(config: Any, name: str) -> nn.Module:
    from transformers import AutoBackbone

    try:
        return AutoBackbone.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"encoder {name!r} cannot be built: {error}") from error


def _load_weights(config: Any, name: str) -> nn.Module:
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING
    from transformers.utils import cached_file

    folder = Path(name)
    try:
        if folder.is_dir():
            _require_safetensors(folder, name)
        elif index := cached_file(name, INDEX, _raise_exceptions_for_missing_entries=False):
            require_weights_within(Path(index), name)
        # The class itself, not AutoBackbone: that one asks the hub even for a directory, and may hand over to timm.
        backbone_class = MODEL_FOR_BACKBONE_MAPPING[type(config)]
        backbone, info = backbone_class.from_pretrained(
            name, config=config, output_loading_info=True, use_safetensors=True, trust_remote_code=False
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(_unreachable(name, error)) from error
    # Norms of single stages belong to the backbone head and are in no checkpoint of a classifier.
    missing = [key for key in info["missing_keys"] if "hidden_states_norms" not in key]
    if missing:
        raise InputError(f"encoder {name!r}: its weights lack {len(missing)} tensors, e.g. {sorted(missing)[:3]}")
    broken = non_finite(backbone.state_dict())
    if broken:
        raise InputError(f"encoder {name!r}: its weights are NaN or infinite in {len(broken)} tensors ({some(broken)})")
    logger.info("encoder %s: pretrained weights loaded", name)
    return backbone


def _require_safetensors(folder: Path, name: str) -> None:
    """InputError where a folder has no weights that can be read without running what is in them."""
    require_weights_within(folder / INDEX, name)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        others = sorted(p.name for pattern in PICKLED for p in folder.glob(pattern))
        found = f"{some(others)}, which are pickles and never loaded" if others else "none"
        raise InputError(f"encoder {name!r}: expected weights in *.safetensors, got {found}")
    for path in weights:
        read_forms(path)


def require_weights_within(index: Path, name: str) -> None:
    """InputError where the list of a network's weight files names any but safetensors beside it: transformers follows
    it to pickles, and out of the folder. Nothing where there is no such list."""
    if not os.path.lexists(index):
        return
    listed: dict[str, str] = read_json(index, _Index)["weight_map"]
    outside = sorted({file for file in listed.values() if not _SHARD.fullmatch(file)})
    if outside:
        raise InputError(
            f"encoder {name!r}: {index.name}: expected names of *.safetensors files beside it, got "
            f"{shown(outside[0])}, which is never loaded"
        )


def _unreachable(name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"encoder {name!r} cannot be loaded: {reason} Check the name and the network; without a network give a local "
        "directory, or train from random weights with 'small' or 'config:…' and pretrained=False. " + _accepted()
    )
