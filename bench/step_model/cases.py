"""The trainings whose steps are modelled: the defaults, larger ones that papers use, and every preset."""

from __future__ import annotations

from dataclasses import replace

from adu_depth.models import StudentConfig, TeacherConfig
from adu_depth.training.config import DataConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.presets import CONVNEXT_ATTO, PRESETS, RESNET_50, SWIN_LARGE
from bench.step_model.steps import StepCase

SAME_SHAPE = {
    RESNET_50: "config:resnet",  # transformers' default is ResNet-50
    SWIN_LARGE: "config:swin?embed_dim=192&depths=2,2,18,2&num_heads=6,12,24,48&window_size=7&drop_path_rate=0.1",
    CONVNEXT_ATTO: "config:convnextv2?depths=2,2,6,2&hidden_sizes=40,80,160,320",
}
"""Encoders from the hub by what they are made of: the same layers at full size, with weights that no trace reads."""

DEEP = TeacherConfig(max_disparity=192)
GWC_SIZED = replace(
    DEEP, num_groups=40, correlation_channels=320, concat_channels=12, aggregation_channels=32, hourglasses=3
)
RECOMPUTED = replace(GWC_SIZED, recompute_aggregation=True)
CACHED = "kitti-eigen-resnet50"
"""The preset that also stands with its teacher's outputs from a cache."""
LARGER = DataConfig(size=(256, 512))


def cases() -> dict[str, StepCase]:
    """Every case by name."""
    found = [
        StepCase("teacher 96×320", TeacherTrainingConfig()),
        StepCase("teacher 256×512 D192", TeacherTrainingConfig(data=LARGER, model=DEEP)),
        StepCase("teacher gwc-sized 256×512", TeacherTrainingConfig(data=LARGER, model=GWC_SIZED)),
        StepCase("teacher gwc-sized 256×512, recomputed", TeacherTrainingConfig(data=LARGER, model=RECOMPUTED)),
        StepCase("student 96×320", StudentTrainingConfig(), TeacherConfig()),
        StepCase("student 256×512", StudentTrainingConfig(data=LARGER), DEEP),
        StepCase("student alone 256×512", StudentTrainingConfig(data=LARGER)),
        *(preset_case(name) for name in PRESETS),
        replace(preset_case(CACHED), name=f"{CACHED} cached", cached=True),
    ]
    return {case.name: case for case in found}


def preset_case(name: str) -> StepCase:
    """A preset as it is, a student with its data set's teacher online."""
    config = PRESETS[name].config
    if isinstance(config, TeacherTrainingConfig):
        return StepCase(name, replace(config, model=without_hub(config.model)))
    own = replace(config, model=without_hub(config.model))
    if config.teacher is None:
        return StepCase(name, own)
    teacher = PRESETS[f"{config.teacher.parent.name}-{config.teacher.name}"].config.model
    return StepCase(name, own, without_hub(teacher))


def without_hub(model: TeacherConfig | StudentConfig):  # type: ignore[no-untyped-def]
    """The same network with an encoder that needs no network."""
    return replace(model, encoder=SAME_SHAPE.get(model.encoder, model.encoder), pretrained=False)
