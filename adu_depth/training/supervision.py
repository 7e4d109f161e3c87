"""Whether there is anything to learn from, asked before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from adu_depth.data import SyntheticStereo
from adu_depth.data.dataset import Dataset, FileDataset
from adu_depth.data.identity import spread
from adu_depth.errors import InputError
from adu_depth.progress import Progress
from adu_depth.training.batches import Resized
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig

MOST_LOOKED_AT = 64
"""Frames that are read in search of one with ground truth; of usual data the first has some."""


def require_supervision(
    config: TeacherTrainingConfig | StudentTrainingConfig, source: Dataset, progress: Progress
) -> None:
    """InputError where no frame has ground truth to learn from, and no teacher stands in for it; or where there is no
    frame, or every weight that would teach is 0.

    A stereo teacher needs ground truth: the pair itself teaches it neither its uncertainty nor the features that are
    distilled. A student may learn from a teacher alone, which is said.
    """
    taught = isinstance(config, StudentTrainingConfig) and config.teacher is not None
    if isinstance(config, StudentTrainingConfig):
        weights = config.distillation
        from_truth = weights.silog > 0 or weights.uncertainty > 0
        from_teacher = taught and (weights.response > 0 or weights.features > 0)
        if not from_truth and not from_teacher:
            names = "silog, uncertainty" + (", response and features" if taught else " (and there is no teacher)")
            raise InputError(f"nothing to learn from: distillation.{names} are all 0")
        if not from_truth:
            return
    else:
        from_teacher = False
    if isinstance(source, SyntheticStereo) and source.length is None:
        return
    missing = _missing_truth(config, source)
    if not missing:
        return
    if from_teacher:
        progress.say(f"{missing}: the student learns from its teacher alone")
        return
    advice = "" if config.data.root == "synthetic" else f"; `adu-depth doctor {config.data.root}` says what is there"
    if isinstance(config, StudentTrainingConfig):
        advice += "; with --teacher a student may learn from that alone"
    raise InputError(f"nothing to learn from: {missing}{advice}")


def require_camera(config: StudentTrainingConfig, source: Dataset) -> None:
    """InputError where depth is to be scaled by a focal length that the data set does not know."""
    focal = config.model.reference_focal
    if focal is None or isinstance(source, SyntheticStereo) or not math.isnan(float(source[0].camera.fx)):
        return
    raise InputError(
        f"model.reference_focal {focal:g} scales depth by the camera's focal length, which {config.data.root} does not "
        "know: expected fx in a camera.toml there"
    )


def _missing_truth(config: TeacherTrainingConfig | StudentTrainingConfig, source: Dataset) -> str:
    """What is wrong with the ground truth, in words; "" as soon as one frame has a pixel of it in the model's range."""
    if len(source) == 0:
        raise InputError(f"nothing to learn from: {config.data.root} has no frames")
    low, high = config.model.min_depth, config.model.max_depth
    looked = 0
    for index in _labelled(source):
        if looked == MOST_LOOKED_AT:
            break
        looked += 1
        target = source[index].training_target(config.data.dense)
        if bool((torch.isfinite(target) & (target >= low) & (target <= high)).any()):
            return ""
    if not looked:
        return f"none of the {len(source)} frames has ground truth"
    return (
        f"none of the {looked} frames looked at (of {len(source)}) has ground truth between {low:g} and {high:g} m "
        "(what is negative, NaN or infinite is none)"
    )


def _labelled(source: Dataset) -> Iterator[int]:
    """The frames that have a file of ground truth, evenly spread ones first."""
    named = source.samples if isinstance(source, Resized) else source
    for index in spread(len(source)):
        if not isinstance(named, FileDataset) or named.labelled(named.names[index]):
            yield index
