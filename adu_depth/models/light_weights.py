"""Weights that others trained, taken into the light-weight networks: torchvision's encoders, the authors' networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.files import require_regular
from adu_depth.models.light import LightNetwork
from adu_depth.tensor_files import Form, differences, non_finite, read_forms, read_tensors, some

Network = TypeVar("Network", bound=LightNetwork)
_UNUSED = re.compile(r"(features\.1[78]|classifier|fc)\.")
"""Of MobileNetV2 and ResNet-34, what comes after the last map that is read."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COUNTER = "num_batches_tracked"
"""Read in training without a fixed momentum alone, and not in every file."""
_PUBLISHED = (
    ("E.mv2.", "encoder.features."),
    ("E.", "encoder."),
    ("MFF.conv.", "decoder.fuse.conv."),
    ("MFF.bn.", "decoder.fuse.norm."),
    ("R.conv0.", "decoder.refine.conv."),
    ("R.bn0.", "decoder.refine.norm."),
    ("R.conv2.", "decoder.head."),
)
_PUBLISHED_STAGE = re.compile(r"MFF\.(att|up)([1-4])\.(1|3|conv1|bn1)\.(.+)")
_STAGE_PARTS = {"1": "reduce", "3": "expand", "conv1": "conv", "bn1": "norm"}


def load_encoder(network: Network, source: str | Path) -> Network:
    """Takes a torchvision encoder's weights into `network.encoder`.

    Args:
        network: a LightStudent (MobileNetV2) or LightTeacher (ResNet-34).
        source: a file with torchvision's names, safetensors or a state dict by `torch.save`; or a repository of the
            Hugging Face hub that has such a model.safetensors, as timm/resnet34.tv_in1k. The layers that the network
            leaves out may be in it.

    Returns:
        The network, changed in place.

    Raises:
        InputError: no such file, or the hub is out of reach; tensors missing, strange or of another shape, values that
            are NaN or infinite.
    """
    path = weights_file(source)
    if path.suffix == ".safetensors":
        forms = {name: form for name, form in read_forms(path).items() if not _UNUSED.match(name)}
        _require(source, forms, network.encoder)
        weights = {name: tensor for name, tensor in read_tensors(path).items() if name in forms}
    else:
        weights = {name: tensor for name, tensor in _state_dict(path).items() if not _UNUSED.match(name)}
        _require(source, {name: Form.of(tensor) for name, tensor in weights.items()}, network.encoder)
    _load(weights, network.encoder, source)
    return network


def weights_file(source: str | Path) -> Path:
    """The file that `load_encoder` reads: itself, or of the hub's local cache. InputError if there is none."""
    path = Path(source)
    return path if path.is_file() else _from_hub(str(source))


def _from_hub(name: str) -> Path:
    """The model.safetensors of a repository, from the hub or its local cache."""
    expected = "expected torchvision's weights: a file, safetensors or of torch.save, or OWNER/NAME on the hub"
    if not _REPOSITORY.fullmatch(name):
        raise InputError(f"encoder weights: {name} is not a file; {expected}")
    from huggingface_hub import hf_hub_download  # a second, and needed here alone

    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # of the network, of the hub, of what it holds
        reason = str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"encoder weights: {name} is not a file, and the hub does not give it ({reason}); {expected}"
        ) from error


def _state_dict(path: Path) -> dict[str, Tensor]:
    """What `torch.save` wrote; no code in it is run."""
    require_regular(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive fails in many ways
        reason = str(error).strip().partition("\n")[0][:200]
        raise InputError(f"{path} cannot be read as weights of torch.save: {reason}") from error
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"{path}: expected a state dict, tensors by name, got {type(found).__name__}")
    return {str(name): tensor for name, tensor in found.items()}


def load_published(network: Network, weights: Mapping[str, Tensor]) -> Network:
    """Takes the weights of the authors' public code, as they name them, into the whole network.

    Args:
        network: a LightStudent or LightTeacher of the default configuration.
        weights: their state dict, with or without "module." before each name (from a file of theirs:
            `torch.load(file, map_location="cpu", weights_only=True)`).

    Returns:
        The network, changed in place.

    Raises:
        InputError: tensors missing, strange or of another shape, values that are NaN or infinite.
    """
    renamed = {_our_name(name.removeprefix("module.")): tensor for name, tensor in weights.items()}
    _require("published weights", {name: Form.of(tensor) for name, tensor in renamed.items()}, network)
    _load(renamed, network, "published weights")
    return network


def _our_name(name: str) -> str:
    stage = _PUBLISHED_STAGE.fullmatch(name)
    if stage is not None:
        kind, number, part, rest = stage.groups()
        return f"decoder.{'gates' if kind == 'att' else 'branches'}.{int(number) - 1}.{_STAGE_PARTS[part]}.{rest}"
    for theirs, ours in _PUBLISHED:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _require(source: object, found: Mapping[str, Form], module: nn.Module) -> None:
    expected = {name: Form.of(tensor) for name, tensor in module.state_dict().items()}
    wrong = differences(found, expected, [name for name in expected if name.endswith(_COUNTER)])
    if wrong:
        raise InputError(f"{source}: not the weights of a {type(module).__name__}: {wrong}")


def _load(weights: Mapping[str, Tensor], module: nn.Module, source: object) -> None:
    if broken := non_finite(weights):
        raise InputError(f"{source}: NaN or infinite in {len(broken)} of {len(weights)} tensors ({some(broken)})")
    with torch.no_grad():
        module.load_state_dict(dict(weights), strict=False)  # what may be missing is a counter: `_require` has looked
