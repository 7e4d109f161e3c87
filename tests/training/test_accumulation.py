"""A step in micro-batches sees the samples of one without, and its gradients are those but for rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adu_depth.checkpoint import list_checkpoints
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import TeacherLossConfig
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.training import good_checkpoints
from adu_depth.training.batches import TrainingBatch, batches
from adu_depth.training.config import LoopConfig
from adu_depth.training.loop import make_accelerator
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.step import PartByPart, Terms, TrainingParts, whole_gradients
from adu_depth.training.tasks import OnlineTeacher, StepContext, StudentTask, TeacherTask, step_losses
from adu_depth.trees import tensors_of
from tests.training.tiny import DATA, LOOP, STUDENT, TEACHER, tiny_scenes, tiny_student, tiny_teacher

CPU = torch.device("cpu")
WHOLE, CUT = replace(LOOP, batch_size=4), replace(LOOP, batch_size=2, accumulate=2)
EVERY_CHANGE = PairAugmentationConfig(
    contrast=0.2, saturation=0.2, asymmetric=0.5, flip=0.5, zoom=1.5, vertical_jitter=1.0, erase=0.5
)


def read(loop: LoopConfig, group: ProcessGroup) -> list[TrainingBatch]:
    crops = replace(DATA, size=(32, 32))
    return list(batches(tiny_scenes(), crops, loop, 0, group, CPU))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_same_samples_are_read(rank: int) -> None:
    group = ProcessGroup(rank, 2)
    for one, other in zip(read(WHOLE, group), read(CUT, group), strict=True):
        assert one.sample.name == other.sample.name
        assert all(torch.equal(a, b) for a, b in zip(tensors_of(one), tensors_of(other), strict=True))


class PerImage(nn.Module):
    """A loss in which every image counts alike."""

    config = TeacherLossConfig()

    def forward(self, prediction: Any, *given: Any) -> dict[str, Tensor]:
        total = prediction.depth.log().square().mean() + prediction.log_scale.mean()
        return {"total": total, "log_scale": prediction.log_scale.detach().mean()}


def student_task() -> StudentTask:
    loss: Any = PerImage()
    return StudentTask(MonoStudent(STUDENT), loss, AugmentationConfig(cut_flip=0.5, contrast=0.2, rotate=5, zoom=1.5))


def teacher_task() -> TeacherTask:
    loss: Any = PerImage()
    return TeacherTask(StereoTeacher(TEACHER), loss, EVERY_CHANGE)


@pytest.mark.parametrize("make", [student_task, teacher_task])
def test_the_gradients_are_those_of_the_joined_batch(make: Any) -> None:
    batch = read(WHOLE, ProcessGroup())[0]
    found: list[tuple[Terms, list[Tensor | None], Terms]] = []
    for loop in (WHOLE, CUT):
        accelerator = make_accelerator(loop)
        torch.manual_seed(0)
        task = make()
        task.double()  # so that what is left is rounding, far below any difference
        parts = TrainingParts(
            task, task, torch.optim.AdamW(task.parameters()), accelerator,
            teach=lambda batch: batch, clip_norm=0.0, dense=False, accumulate=loop.accumulate,
        )  # fmt: skip
        context = StepContext(0, 3, 0, 0.5, False, loop.accumulate)
        looked = step_losses(task, batch, context)
        terms = PartByPart(parts, CPU).gradients(batch, context)
        found.append((terms, [p.grad for p in task.parameters()], looked))
    (whole, gradients, _), (cut, of_parts, looked) = found
    for name in ("total", "log_scale", "gradient_norm"):
        assert float(cut[name]) == pytest.approx(float(whole[name]), rel=1e-5), name
    assert float(looked["total"].detach()) == float(cut["total"]), "what looks at a checkpoint cuts its batch alike"
    norm = float(whole["gradient_norm"])
    assert norm > 0
    for one, other in zip(gradients, of_parts, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert float((one - other).norm()) < 1e-4 * norm


class Spying:
    """An accelerator, and an exchange, that notes in which order gradients are made and exchanged."""

    scaler = None

    def __init__(self) -> None:
        self.found: list[str] = []

    def average(self) -> None:
        self.found.append("exchange")

    def autocast(self) -> Any:
        return torch.enable_grad()

    def backward(self, total: Tensor) -> None:
        self.found.append(f"backward of {int(total.detach())}")

    def clip_grad_norm_(self, *given: Any) -> Tensor:
        self.found.append("clip")
        return torch.zeros(())


def test_processes_exchange_gradients_once_a_step() -> None:
    spy: Any = Spying()
    batch = read(replace(LOOP, batch_size=3), ProcessGroup())[0]

    def module(batch: TrainingBatch, draws: Any, dense: bool) -> Terms:
        spy.found.append(f"forward of {len(batch.sample.name)}")
        return {"total": torch.tensor(3.0)}

    task: Any = SimpleNamespace()
    wrapped: Any = module
    wrapped.parameters = list
    options: Any = {"clip_norm": 1.0, "dense": False, "accumulate": 3, "exchange": spy}
    parts = TrainingParts(task, wrapped, task, spy, teach=lambda b: b, **options)
    draws = student_task().draw(batch, StepContext(0, 0, 0, 0.0, False))
    assert float(whole_gradients(parts, batch, draws)["total"]) == 3
    assert spy.found == [*(["forward of 1", "backward of 1"] * 3), "exchange", "clip"]


def test_a_taught_batch_is_taught_in_parts_and_is_whole() -> None:
    sizes: list[int] = []
    batch = read(WHOLE, ProcessGroup())[0]
    teacher = OnlineTeacher(StereoTeacher(TEACHER), CPU)

    def teach(part: TrainingBatch) -> TrainingBatch:
        sizes.append(len(part.sample.name))
        return teacher(part)

    none: Any = None
    parts = TrainingParts(
        none, none, none, make_accelerator(CUT), teach=teach, clip_norm=1.0, dense=False, accumulate=2
    )
    taught, whole = parts.taught_whole(batch), teacher(batch)
    assert sizes == [2, 2]
    assert taught.sample is batch.sample
    for one, other in zip(tensors_of(taught.teacher), tensors_of(whole.teacher), strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def test_a_run_in_micro_batches_resumes_to_the_same_bits_and_keeps_their_number(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "teacher", loop=replace(LOOP, steps=1)))
    loop = replace(CUT, batch_size=1, steps=4, keep_checkpoints=3)
    run, taught = tmp_path / "run", {"teacher": tmp_path / "teacher"}
    train_student(tiny_student(run, loop=loop, **taught))
    files = [list_checkpoints(run)[-1] / name for name in ("model.safetensors", "training.safetensors")]
    whole = [load_file(file) for file in files]
    with pytest.raises(InputError, match=r"loop\.accumulate: 2 → 1"):
        train_student(tiny_student(run, loop=replace(loop, accumulate=1, resume=True), **taught))
    train_student(tiny_student(run, loop=replace(loop, resume_from="2"), **taught))
    for file, before in zip(files, whole, strict=True):
        again = load_file(file)
        assert [name for name in before if not torch.equal(before[name], again[name])] == []


def test_the_look_before_a_checkpoint_takes_a_micro_batch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    before = StereoTeacher.forward

    def forward(self: StereoTeacher, left: Tensor, *given: Any) -> Any:
        sizes.append(left.shape[0])
        return before(self, left, *given)

    monkeypatch.setattr(StereoTeacher, "forward", forward)
    train_teacher(tiny_teacher(tmp_path / "run", loop=replace(CUT, steps=1)))
    assert good_checkpoints.step_losses is step_losses
    assert sizes == [2] * 4


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match=r"loop\.accumulate: expected a whole number from 1 to 65,536, got 0"):
        LoopConfig(accumulate=0)
