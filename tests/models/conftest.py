"""Small models and cameras that the tests of this folder share.

Kernels are interpreted where there is no GPU; that is decided before anything imports Triton.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from adu_depth.geometry import Camera
from adu_depth.models import MonoStudent, StereoTeacher, StudentConfig, TeacherConfig

TINY_RESNET = "config:resnet?depths=1,1,1,1&hidden_sizes=8,16,24,32&embedding_size=8"


@pytest.fixture
def make_camera() -> Callable[..., Camera]:
    def make(batch: int, fx: float = 100.0, baseline: float = 0.5, disparity_offset: float = 0.0) -> Camera:
        values = (fx, fx, 48.0, 32.0, baseline, disparity_offset)
        return Camera(*(torch.full((batch,), value) for value in values))

    return make


@pytest.fixture
def teacher() -> StereoTeacher:
    torch.manual_seed(0)
    return StereoTeacher(TeacherConfig(max_disparity=32, feature_channels=(16, 24, 32), head_channels=16))


@pytest.fixture
def student() -> MonoStudent:
    torch.manual_seed(0)
    return MonoStudent(StudentConfig(feature_channels=(16, 24, 32), head_channels=16))


@pytest.fixture
def make_pair() -> Callable[..., tuple[Tensor, Tensor]]:
    """Random views of one size, in [0, 1]."""

    def make(batch: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        left, right = torch.rand(2, batch, 3, height, width, generator=generator)
        return left, right

    return make
