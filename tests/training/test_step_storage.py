"""What reaches an operation in a step of training, under CUDA's rules: its dtype, and how it lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import adu_depth.distillation.student_loss as student_loss
import adu_depth.models.adapter as adapter
import adu_depth.models.stereo_teacher as stereo_teacher
from adu_depth.data import SyntheticStereo
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.models import MonoStudent, StereoTeacher, TeacherConfig
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.tasks import OnlineTeacher, StepContext, StudentTask, TeacherTask
from tests.training.tiny import SIZE, STUDENT, TEACHER

CPU = torch.device("cpu")
CONTEXT = StepContext(seed=0, step=100, rank=0, progress=0.5, dense=False)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


class CudaRules(TorchFunctionMode):
    """Over the CPU's autocast, what CUDA's does otherwise to functions these networks call (ATen/autocast_mode.h).

    These give fp32 there, and the norms contiguous maps besides, with autocast or without.
    """

    single = frozenset(
        [
            "exp",
            "log",
            "pow",
            "__pow__",
            "rsqrt",
            "reciprocal",
            "group_norm",
            "layer_norm",
            "normalize",
            "norm",
            "vector_norm",
            "softmax",
            "sum",
            "smooth_l1_loss",
            "interpolate",
        ]
    )
    contiguous = frozenset({"group_norm", "instance_norm"})

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.single and torch.is_autocast_enabled("cpu"):
            args = [a.float() if isinstance(a, Tensor) and a.dtype == torch.bfloat16 else a for a in args]
        found = func(*args, **(kwargs or {}))
        return found.contiguous() if name in self.contiguous else found


Seen = list[tuple[str, Tensor]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Every tensor that the networks hand to an operation, with the operation's name."""
    found: Seen = []

    def spy(module: Any, name: str) -> None:
        operation = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            for value in args:
                for one in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(one, Tensor):
                        found.append((name, one))
            return operation(*args, **options)

        monkeypatch.setattr(module, name, call)

    spy(stereo_teacher, "combined_volume")
    spy(stereo_teacher, "groupwise_correlation_volume")
    spy(stereo_teacher, "disparity_regression")
    spy(adapter, "attention_adaptation")
    spy(student_loss, "feature_distillation_losses")
    return found


def teacher_step(config: TeacherConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = StereoTeacher(config)
    loss = TeacherLoss(TeacherLossConfig(), config.max_disparity, config.min_depth, config.max_depth)
    return run(TeacherTask(network, loss, PairAugmentationConfig()), scenes(), dtype)


def scenes() -> TrainingBatch:
    return TrainingBatch(SyntheticStereo(None, *SIZE).render_batch(range(2)))


def under(dtype: torch.dtype) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)


def run(task: TeacherTask | StudentTask, batch: TrainingBatch, dtype: torch.dtype) -> dict[str, Tensor]:
    with CudaRules():
        with under(dtype):
            terms: dict[str, Tensor] = task.train()(batch, CONTEXT)
        terms["total"].backward()
    assert torch.isfinite(terms["total"])
    assert all(p.grad is not None for p in task.parameters())
    return terms


@DTYPES
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("concat_free", [False, True])
def test_a_teacher_takes_a_step(norm: Any, concat_free: bool, dtype: torch.dtype, seen: Seen) -> None:
    teacher_step(replace(TEACHER, norm=norm, concat_free=concat_free), dtype)
    assert {name for name, _ in seen} >= {"disparity_regression"}
    assert {(name, str(one.dtype)) for name, one in seen if one.dtype != dtype} == set()


@DTYPES
def test_a_student_takes_a_step_with_its_teacher_beside_it(dtype: torch.dtype, seen: Seen) -> None:
    torch.manual_seed(0)
    teach = OnlineTeacher(StereoTeacher(TEACHER), CPU)
    student = MonoStudent(STUDENT)
    loss = StudentLoss(DistillationConfig(), STUDENT.feature_channels, TEACHER.feature_channels, 0.5, 80.0)
    with CudaRules(), under(dtype):
        batch = teach(scenes())
    run(StudentTask(student, loss, AugmentationConfig()), batch, dtype)
    assert {name for name, _ in seen} >= {"combined_volume", "attention_adaptation"}
