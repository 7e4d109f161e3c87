"""What goes from the CPU to the training device in a step: the same draws on every device, and never a wait."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adu_depth.data import SyntheticStereo
from adu_depth.data.augmentation import AugmentationConfig, draw_colours, draw_cuts, draw_flips, draw_generator
from adu_depth.data.pair_augmentation import PairAugmentationConfig, draw_patches
from adu_depth.data.transforms import draw_window
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.distributed import ProcessGroup
from adu_depth.geometry import Camera, per_image
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.order import step_indices
from adu_depth.training.tasks import OnlineTeacher, StepContext, StudentTask, TeacherTask, step_losses
from adu_depth.transfer import upload
from tests.training.tiny import SIZE, STUDENT, TEACHER

META = torch.device("meta")
EVERYTHING = PairAugmentationConfig(
    contrast=0.2, saturation=0.2, asymmetric=0.5, flip=0.5, zoom=1.5, vertical_jitter=1.0, erase=0.5
)
CONTEXT = StepContext(seed=0, step=3, rank=0, progress=0.5, dense=False)


class Arrivals(TorchDispatchMode):
    """Copies from the CPU to "meta", which stands for a GPU here, that `upload` has not made."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads, self.others = 0, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [t for t in (*args, found) if isinstance(t, Tensor)]
        if {t.device.type for t in tensors} == {"cpu", "meta"} and any(t.is_cpu and t.ndim for t in tensors):
            names, frame = [], sys._getframe()
            while frame is not None:
                names.append(frame.f_code.co_name)
                frame = frame.f_back  # type: ignore[assignment]
            if upload.__name__ in names:
                self.uploads += 1
            else:
                self.others.append(str(func))
        return found


def scenes() -> TrainingBatch:
    return TrainingBatch(SyntheticStereo(None, *SIZE, device=META).render_batch(range(2)))


def teacher_task() -> TeacherTask:
    loss = TeacherLoss(TeacherLossConfig(), TEACHER.max_disparity, TEACHER.min_depth, TEACHER.max_depth)
    return TeacherTask(StereoTeacher(TEACHER), loss, EVERYTHING).to(META).train()


def student_task() -> StudentTask:
    loss = StudentLoss(DistillationConfig(), STUDENT.feature_channels, TEACHER.feature_channels, 0.5, 80.0)
    changes = AugmentationConfig(cut_flip=1.0, contrast=0.1)
    return StudentTask(MonoStudent(STUDENT), loss, changes).to(META).train()


@pytest.mark.parametrize("build", [teacher_task, student_task])
def test_a_step_gets_everything_by_upload(build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for "meta"
    task, teach = build(), OnlineTeacher(StereoTeacher(TEACHER), META)
    with Arrivals() as arrivals:
        batch = scenes() if isinstance(task, TeacherTask) else teach(scenes())
        step_losses(task, batch, CONTEXT)["total"].backward()
    assert arrivals.others == []
    assert arrivals.uploads > 20


def test_to_cuda_it_goes_through_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def to(tensor: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        made.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: made.append("pinned") or tensor)
    monkeypatch.setattr(Tensor, "to", to)
    upload(torch.zeros(3), torch.device("cuda", 0))
    upload(torch.zeros(3), torch.device("cpu"))
    assert made == ["pinned", ("cuda", True), ("cpu", True)]


DRAWS: dict[str, Callable[[torch.Generator], Any]] = {
    "flips": lambda g: draw_flips(9, 0.5, g),
    "cuts": lambda g: draw_cuts(9, 256, 0.5, g),
    "colours": lambda g: draw_colours(9, AugmentationConfig(contrast=0.1), g),
    "patches": lambda g: draw_patches(9, (64, 96), EVERYTHING, g),
    "window": lambda g: torch.tensor(draw_window((64, 96), (32, 32), g), device="cpu"),
    "indices": lambda g: torch.tensor(step_indices(9, 2, 4, int(g.initial_seed()), ProcessGroup()), device="cpu"),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_generators_whatever_the_default_device(name: str) -> None:
    expected = DRAWS[name](draw_generator(1, 2))
    with META:
        found = DRAWS[name](draw_generator(1, 2))
    assert found.device.type == "cpu"
    assert torch.equal(found, expected)


@pytest.mark.parametrize("value", [2.5, np.float64(2.5), np.array(2.5), torch.tensor([1.5, 2.5])])
def test_a_cameras_number_beside_maps(value: float | Tensor) -> None:
    maps = torch.zeros(2, 1, 3, 4)
    found = per_image(value, maps)
    assert found.shape == ((1, 1, 1, 1) if np.ndim(value) == 0 else (2, 1, 1, 1))
    assert (maps + found)[1].eq(2.5).all()
    assert found.dtype == torch.float32


def test_a_camera_of_plain_numbers_sends_nothing() -> None:
    camera = Camera(50.0, 50.0, 32.0, 16.0, 0.5)
    with Arrivals() as arrivals:
        per_image(camera.fx, torch.zeros(2, 1, 3, 4, device=META))
    assert (arrivals.others, arrivals.uploads) == ([], 0)
