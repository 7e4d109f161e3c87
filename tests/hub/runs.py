"""Runs of every kind of network as a training leaves them, of random weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from adu_depth.checkpoint import Kind, checkpoint_path, config_dict
from adu_depth.checkpoint.wholeness import sums
from adu_depth.data.config import DataConfig
from adu_depth.files import write_json
from adu_depth.models import StereoTeacher, StudentConfig, TeacherConfig, build_student
from adu_depth.models.encoder import backbone_settings
from adu_depth.training.config import LoopConfig
from tests.training.tiny import STUDENT, TEACHER

RESNET = "config:resnet?depths=1,1,1,1&embedding_size=8&hidden_sizes=8,8,16,16&layer_type=basic"


@dataclass(frozen=True)
class Kept:
    """A run to be made: its network, how images were brought to it, and the numbers of a camera that it needs."""

    kind: Kind
    model: TeacherConfig | StudentConfig
    data: DataConfig = field(default_factory=lambda: DataConfig(size=(64, 96)))
    camera: tuple[str, ...] = ()


RUNS = {
    "student": Kept("student", STUDENT),
    "student of a backbone": Kept(
        "student", StudentConfig(encoder=RESNET, feature_channels=(8, 8, 8), head_channels=8)
    ),
    "student by focal length": Kept(
        "student",
        StudentConfig(feature_channels=(8, 8, 8), head_channels=8, reference_focal=60.0),
        camera=("fx",),
    ),
    "student of windows": Kept("student", STUDENT, DataConfig(size=(64, 96), fit="crop")),
    "light": Kept("student", StudentConfig(network="light"), DataConfig(size=(60, 90))),
    "light by focal length": Kept(
        "student",
        StudentConfig(network="light", log_scale=True, reference_focal=60.0),
        DataConfig(size=(60, 90), fit="centre", short_side=64),
        ("fx",),
    ),
    "light teacher": Kept("student", StudentConfig(network="light-teacher"), DataConfig(size=(60, 90))),
    "stereo teacher": Kept("teacher", TEACHER, camera=("fx", "baseline")),
    "stereo teacher of windows": Kept(
        "teacher", TEACHER, DataConfig(size=(64, 96), fit="crop"), ("fx", "baseline", "disparity_offset")
    ),
}


def make_run(folder: Path, kept: Kept, seed: int = 0, **config: Any) -> Path:
    """Writes RUN/checkpoints/step-00000003 as `save_checkpoint` does, without what only a training reads."""
    torch.manual_seed(seed)
    network: nn.Module
    if isinstance(kept.model, TeacherConfig):
        network = StereoTeacher(kept.model)
    else:
        network = build_student(kept.model)
    shaken(network)
    path = checkpoint_path(folder, 3)
    path.mkdir(parents=True)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path / "model.safetensors")
    write_json(path / "state.json", {"step": 3, "files": sums(path, ("model.safetensors",))})
    settings = {
        "run": folder,
        "data": kept.data,
        "model": kept.model,
        "loop": LoopConfig(steps=3, batch_size=4, seed=11),
        **config,
    }
    plain = {n: config_dict(v) if hasattr(v, "__dataclass_fields__") else v for n, v in settings.items()}
    whole = {"kind": kept.kind, **plain, "run": str(folder), "backbone": backbone_settings(network)}
    write_json(path / "config.json", whole)
    return folder


def shaken(network: nn.Module) -> None:
    """Depth that differs from pixel to pixel: a network's first weights make it all but flat."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
