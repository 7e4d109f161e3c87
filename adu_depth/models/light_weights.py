"""Weights that others trained, taken into the light-weight networks: torchvision's encoders, the authors' networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from adu_depth.errors import InputError
from adu_depth.models.light import LightNetwork
from adu_depth.tensor_files import Form, differences, non_finite, read_forms, read_tensors, some

Network = TypeVar("Network", bound=LightNetwork)
_UNUSED = re.compile(r"(features\.1[78]|classifier|fc)\.")
"""Of MobileNetV2 and ResNet-34, what comes after the last map that is read."""
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


def load_encoder(network: Network, path: str | Path) -> Network:
    """Takes a torchvision encoder's weights into `network.encoder`.

    Args:
        network: a LightStudent (MobileNetV2) or LightTeacher (ResNet-34).
        path: a safetensors file with torchvision's names; the layers that the network leaves out may be in it.

    Returns:
        The network, changed in place.

    Raises:
        InputError: no such file, tensors missing, strange or of another shape, values that are NaN or infinite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"encoder weights: {path} is not a file; expected torchvision's weights as safetensors")
    forms = {name: form for name, form in read_forms(path).items() if not _UNUSED.match(name)}
    _require(path, forms, network.encoder)
    _load({name: tensor for name, tensor in read_tensors(path).items() if name in forms}, network.encoder, path)
    return network


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
