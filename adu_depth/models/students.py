"""A student's network by its configuration: ours, or one of the light-weight pair."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

from torch import nn

from adu_depth.models.light import LightConfig, LightNetwork, LightStudent, LightTeacher
from adu_depth.models.mono_student import MonoStudent, StudentConfig
from adu_depth.models.stereo_teacher import StereoTeacher

Student: TypeAlias = MonoStudent | LightNetwork


def build_student(config: StudentConfig, backbone: dict[str, Any] | None = None) -> Student:
    """The network that `config.network` names, of random weights but for a pretrained encoder from `transformers`.

    backbone: see `build_encoder`.
    """
    if config.network == "adu":
        return MonoStudent(config, backbone)
    kind = {"light": LightStudent, "light-teacher": LightTeacher}[config.network]
    return kind(LightConfig(config.log_scale, config.min_depth, config.max_depth, config.reference_focal))


def takes_pairs(network: nn.Module) -> bool:
    """Whether a network looks at two views: its forward then has a parameter named `right`."""
    return "right" in inspect.signature(network.forward).parameters


def depth_range(network: nn.Module) -> tuple[float, float]:
    """The depths that a network was trained for, metres: what a light one says may lie outside."""
    assert isinstance(network, StereoTeacher | MonoStudent | LightNetwork)
    return network.config.min_depth, network.config.max_depth
