"""What reaches an operation in a step of training, under CUDA's rules: its dtype, and how it lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import adu_depth.distillation.student_loss as student_loss
import adu_depth.models.adapter as adapter
import adu_depth.models.aggregation as aggregation
import adu_depth.models.stereo_teacher as stereo_teacher
from adu_depth.data import SyntheticStereo
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.distributed import ProcessGroup
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.progress import Progress
from adu_depth.training.batches import TrainingBatch, batches
from adu_depth.training.config import DataConfig
from adu_depth.training.tasks import OnlineTeacher, StepContext, StudentTask, TeacherTask, step_losses
from adu_depth.training.teacher_outputs import OutputsOnDisk
from adu_kernels import volume_with_scores
from adu_kernels.precision import storage_dtype
from tests.training.tiny import LOOP, SIZE, STUDENT, TEACHER, tiny_scenes

CPU = torch.device("cpu")
CONTEXT = StepContext(seed=0, step=100, rank=0, progress=0.5, dense=False)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


class CudaRules(TorchFunctionMode):
    """Over the CPU's autocast, what CUDA's does otherwise to functions these networks call (ATen/autocast_mode.h).

    These give fp32 there, and the norms contiguous maps besides, with autocast or without.
    """

    contiguous = frozenset({"group_norm", "instance_norm"})
    single = frozenset(
        {"group_norm", "layer_norm", "normalize", "norm", "vector_norm", "interpolate", "smooth_l1_loss", "softmax"}
        | {"exp", "log", "pow", "__pow__", "rsqrt", "reciprocal", "sum"}
    )

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

    def spy(module: Any, name: str, count: int = 4) -> None:
        operation = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            for value in args[:count]:
                for one in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(one, Tensor):
                        found.append((name, one))
            return operation(*args, **options)

        monkeypatch.setattr(module, name, call)

    spy(stereo_teacher, "volume_with_scores")
    spy(stereo_teacher, "disparity_regression")
    spy(aggregation, "concat_free_conv3d", 2)
    spy(adapter, "attention_adaptation")
    spy(student_loss, "feature_distillation_losses", 2)
    return found


@DTYPES
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("concat_free", [False, True])
def test_a_teacher_takes_a_step(norm: Any, concat_free: bool, dtype: torch.dtype, seen: Seen) -> None:
    torch.manual_seed(0)
    config = replace(TEACHER, norm=norm, concat_free=concat_free)
    loss = TeacherLoss(TeacherLossConfig(), config.max_disparity, config.min_depth, config.max_depth)
    task = TeacherTask(StereoTeacher(config), loss, PairAugmentationConfig())
    run(task, scenes(), dtype)
    volumes = {"volume_with_scores", *(["concat_free_conv3d"] if concat_free else [])}
    assert {name for name, _ in seen} == {"disparity_regression", *volumes}
    check_storage(seen, dtype)


@DTYPES
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("cut_flip", [0.0, 1.0])
def test_a_taught_student_takes_a_step(
    cached: bool, cut_flip: float, dtype: torch.dtype, seen: Seen, tmp_path: Path
) -> None:
    """The teacher beside it, under autocast too, or its outputs from a folder."""
    torch.manual_seed(0)
    teacher, student = StereoTeacher(TEACHER).eval(), MonoStudent(STUDENT)
    loss = StudentLoss(DistillationConfig(), STUDENT.feature_channels, TEACHER.feature_channels, 0.5, 80.0)
    with CudaRules():
        if cached:
            outputs = OutputsOnDisk(tmp_path, {}, 2, TEACHER.feature_channels)
            outputs.claim()
            outputs.fill(teacher, tiny_scenes(2), CPU, [0], Progress(enabled=False))
            batch = next(batches(tiny_scenes(2), DataConfig(size=SIZE), LOOP, 0, ProcessGroup(), CPU, outputs))
        else:
            batch = OnlineTeacher(teacher, CPU, None if dtype == torch.float32 else dtype)(scenes())
    seen.clear()
    run(StudentTask(student, loss, AugmentationConfig(cut_flip=cut_flip)), batch, dtype)
    assert {name for name, _ in seen} == {"attention_adaptation", "feature_distillation_losses"}
    check_storage(seen, dtype)


def scenes() -> TrainingBatch:
    return TrainingBatch(SyntheticStereo(None, *SIZE).render_batch(range(2)))


def under(dtype: torch.dtype) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)


def run(task: TeacherTask | StudentTask, batch: TrainingBatch, dtype: torch.dtype) -> None:
    """One step; every parameter gets a gradient."""
    with CudaRules():
        with under(dtype):
            terms = step_losses(task.train(), batch, CONTEXT)
        terms["total"].backward()
    assert torch.isfinite(terms["total"])
    assert all(p.grad is not None for p in task.parameters())


def check_storage(seen: Seen, dtype: torch.dtype) -> None:
    """The step's type, and channels that are neighbours: of maps, of volumes, and of B×heads×N×d attention inputs."""
    wrong = {(name, str(one.dtype)) for name, one in seen if one.dtype != dtype}
    assert not wrong
    for name, one in seen:
        if name == "disparity_regression":  # B×D×H×W is a volume of one channel
            assert one.unsqueeze(1).is_contiguous(memory_format=torch.channels_last_3d), (name, one.stride())
        elif one.ndim == 4:
            axis = 3 if name == "attention_adaptation" else 1
            assert one.stride(axis) == 1, (name, one.shape, one.stride())


@pytest.mark.parametrize("concat_free", [False, True])
def test_no_volume_is_copied_before_the_3d_convolutions(concat_free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written channels-last, as the kernels do, it is what the first convolution reads; so are the weights."""
    written: list[Tensor] = []

    def as_kernels_write(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        volume, scores = volume_with_scores(*args, **options)
        written.append(volume.contiguous(memory_format=torch.channels_last_3d))
        return written[-1], scores

    monkeypatch.setattr(stereo_teacher, "volume_with_scores", as_kernels_write)
    read: list[tuple[Tensor, Tensor]] = []

    class Convolutions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.conv3d:
                read.append((args[0], args[1]))
            return func(*args, **(kwargs or {}))

    sample = scenes().sample
    with CudaRules(), Convolutions():
        StereoTeacher(replace(TEACHER, concat_free=concat_free, norm="batch"))(sample.left, sample.right, sample.camera)
    assert read[0][0].data_ptr() == written[0].data_ptr()
    assert all(volume.stride(1) == 1 for volume, _ in read), [v.stride() for v, _ in read]
    assert all(weight.stride(1) == 1 for _, weight in read)


def test_autocast_leaves_doubles_as_they_are() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert storage_dtype(torch.zeros(1, dtype=torch.float64)) == torch.float64
        assert storage_dtype(torch.zeros(1)) == torch.bfloat16
