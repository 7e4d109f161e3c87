"""The teacher with and without the concatenation volume."""

from __future__ import annotations

import torch

from adu_depth.geometry import Camera
from adu_depth.models.stereo_teacher import StereoTeacher, TeacherConfig


def test_the_switch_changes_nothing_but_rounding() -> None:
    torch.manual_seed(0)
    teachers = [StereoTeacher(TeacherConfig(max_disparity=32, concat_free=free)) for free in (False, True)]
    teachers[1].load_state_dict(teachers[0].state_dict())
    left, right = torch.rand(1, 3, 48, 64), torch.rand(1, 3, 48, 64)
    camera = Camera(*(torch.tensor([v]) for v in (50.0, 50.0, 32.0, 24.0, 0.5)))
    results = [teacher(left, right, camera) for teacher in teachers]
    torch.testing.assert_close(results[1].disparity, results[0].disparity, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[1].depth, results[0].depth, rtol=1e-4, atol=1e-4)
    name = "aggregation.enter.0.conv.weight"
    gradients = []
    for teacher, result in zip(teachers, results, strict=True):
        result.disparity.mean().backward()
        gradients.append(dict(teacher.named_parameters())[name].grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
