"""One training step of a configuration, run on fake CUDA tensors as `adu_depth.training.loop` runs it, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor

from adu_depth.data.sample import StereoSample
from adu_depth.distillation import TeacherLoss
from adu_depth.geometry import Camera
from adu_depth.models import StereoTeacher, StudentConfig, TeacherConfig, build_student
from adu_depth.models.averages import Averages
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.graph import WARM_UP, Captured, StepByGraph
from adu_depth.training.kept_targets import shapes_of, with_names
from adu_depth.training.loop import make_accelerator
from adu_depth.training.runs import Teacher, student_objective
from adu_depth.training.step import (
    Terms,
    TrainingParts,
    make_optimizer,
    place_learning_rate,
    seed_step,
    set_learning_rate,
    whole_gradients,
)
from adu_depth.training.tasks import OnlineTeacher, StepContext, StepDraws, StudentTask, TeacherTask
from adu_depth.transfer import upload_together
from adu_kernels.backend import use_backend
from adu_kernels.testing.fake_cuda.device import DEVICE, capturing, fake_cuda, to_fake
from adu_kernels.testing.fake_cuda.recorder import Recorder, Row

Precision = Literal["bf16", "fp16", "fp32"]
Implementation = Literal["kernels", "references"]
AUTOCAST: dict[Precision, torch.dtype | None] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": None,
}
BACKENDS = {"kernels": "triton", "references": "torch"}


@dataclass(frozen=True)
class StepCase:
    """A training as its configuration describes it.

    teacher: what teaches a student; None for one alone. cached: its outputs come with the batch.
    """

    name: str
    training: TeacherTrainingConfig | StudentTrainingConfig
    teacher: TeacherConfig | StudentConfig | None = None
    cached: bool = False

    @property
    def batch(self) -> int:
        return self.training.loop.batch_size


class Recorded(TrainingParts):
    """The loop's own parts of a step, told apart in what is recorded."""

    recorder: Recorder

    def taught(self, batch: TrainingBatch) -> TrainingBatch:
        with self.recorder.during("teacher"):
            return super().taught(batch)

    def losses(self, batch: TrainingBatch, draws: StepDraws) -> Terms:
        with self.recorder.keeping():
            return super().losses(batch, draws)

    def backward(self, total: Tensor) -> None:
        with self.recorder.during("backward"):
            super().backward(total)

    def clip(self) -> Tensor:
        with self.recorder.during("clip"):
            return super().clip()

    def update(self) -> None:
        with self.recorder.during("optimizer"):
            super().update()


@dataclass(frozen=True)
class StepTrace:
    """What one step did. saved_bytes: what autograd kept between forward and backward, parameters left out."""

    rows: list[Row]
    saved_bytes: int
    without_gradient: list[str]
    parameters: int


def trace_step(
    case: StepCase,
    precision: Precision,
    implementation: Implementation = "kernels",
    change: Callable[[TeacherTask | StudentTask], None] | None = None,
) -> StepTrace:
    """The second step of the training (the first makes the optimizer's state). Runs in a FakeCudaProcess.

    change: called with the task before anything moves to the device; for tests that plant a fault.
    """
    recorder = Recorder()
    task, teacher = build(case)
    if change is not None:
        change(task)
    teach = frozen(case, teacher, precision)
    with use_backend(BACKENDS[implementation]), fake_cuda():
        parts = prepared(case, precision, recorder, task, teach)

        def step(number: int) -> list[str]:
            """As the loop's, between one look at the losses and the next."""
            with recorder.during("batch"):
                pinned = host_batch(case).pin_memory()
            batch, context = arrived(case, number, parts, pinned)
            with recorder.during("batch"):
                draws = upload_together(parts.draw(batch, context), DEVICE)
            seed_step(context)
            with capturing():
                whole_gradients(parts, batch, draws)
            missing = [n for n, p in parts.task.named_parameters() if p.requires_grad and p.grad is None]
            with capturing():
                parts.update()
            parts.clear()
            return missing

        step(0)
        with recorder:
            missing = step(1)
    parameters = sum(p.numel() for p in parts.task.parameters() if p.requires_grad)
    return StepTrace(recorder.rows, sum(recorder.saved.values()), missing, parameters)


def trace_replay(case: StepCase, precision: Precision) -> list[Row]:
    """What a step does beside its two replays, once it is captured as `adu_depth.training.graph` captures it; what the
    host does with tensors of its own included. Runs in a FakeCudaProcess."""
    recorder = Recorder()
    task, teacher = build(case)
    teach = frozen(case, teacher, precision)
    with use_backend(BACKENDS["kernels"]), fake_cuda():
        parts = prepared(case, precision, Recorder(), task, teach)
        runner = StepByGraph(parts, DEVICE, _NothingReplayed(), _fail)

        pinned = host_batch(case).pin_memory()  # by the loader's thread

        def step(number: int) -> None:
            runner.gradients(*arrived(case, number, parts, pinned))
            runner.update()

        for number in range(WARM_UP + 1):
            step(number)
        with recorder:
            step(WARM_UP + 1)
    return recorder.rows


class _NothingReplayed:
    """Runs what is to be captured once, under a capture's rules; a replay does nothing here."""

    def running(self) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(self, work: Callable[[], Tensor | None]) -> Captured:
        with capturing():
            return Captured(lambda: None, work())


def _fail(text: str) -> None:
    raise RuntimeError(text)


def prepared(
    case: StepCase,
    precision: Precision,
    recorder: Recorder,
    task: TeacherTask | StudentTask,
    teach: OnlineTeacher | None,
) -> Recorded:
    """The parts of the case's steps on the fake device, as the loop makes them, of what `build` and `frozen` gave."""
    accelerator = fresh_accelerator(case, precision)
    to_fake(task)
    ema = case.training.loop.ema
    averages = Averages(task.network, ema) if ema else None
    recorder.watch(task.network, "network")
    recorder.watch(task.loss, "loss")
    if teach is not None:
        recorder.watch(to_fake(teach.network), "teacher")
        teach.device = accelerator.device
    config = case.training.optimizer
    module, optimizer = accelerator.prepare(task, make_optimizer(task, config, accelerator.device))
    place_learning_rate(optimizer, accelerator.device)
    module.train()
    parts = Recorded(
        task, module, optimizer, accelerator,
        teach=teach or (lambda batch: batch), clip_norm=config.clip_norm, dense=case.training.data.dense,
        averages=averages,
        accumulate=case.training.loop.accumulate,
    )  # fmt: skip
    parts.recorder = recorder
    return parts


def arrived(case: StepCase, number: int, parts: Recorded, pinned: TrainingBatch) -> tuple[TrainingBatch, StepContext]:
    """A step's batch on the device, and where in the run it stands; its learning rate is set."""
    with parts.recorder.during("batch"):
        batch = pinned.to(DEVICE)
        set_learning_rate(parts.optimizer, case.training.optimizer.learning_rate)
    return batch, StepContext(case.training.loop.seed, number, 0, 0.5, case.training.data.dense)


def build(case: StepCase) -> tuple[TeacherTask | StudentTask, Teacher | None]:
    """The task and who teaches it, as `adu_depth.training.runs` makes them, but on "meta": weights need no values."""
    training = case.training
    with torch.device("meta"):
        if isinstance(training, TeacherTrainingConfig):
            model = training.model
            loss = TeacherLoss(training.loss, model.max_disparity, model.min_depth, model.max_depth)
            return TeacherTask(StereoTeacher(model), loss, training.augmentation), None
        student = build_student(training.model)
        teacher: Teacher | None = None
        if isinstance(case.teacher, TeacherConfig):
            teacher = StereoTeacher(case.teacher)
        elif case.teacher is not None:
            teacher = build_student(case.teacher)
        objective = student_objective(training, student, teacher)
    task = StudentTask(student, objective, training.augmentation, training.teacher_left_right)
    return task, None if case.cached else teacher


def frozen(case: StepCase, teacher: Teacher | None, precision: Precision) -> OnlineTeacher | None:
    """Who teaches, on "meta" so far."""
    if teacher is None:
        return None
    left_right = isinstance(case.training, StudentTrainingConfig) and case.training.teacher_left_right
    return OnlineTeacher(teacher, torch.device("meta"), AUTOCAST[precision], left_right)


def fresh_accelerator(case: StepCase, precision: Precision) -> Accelerator:
    """The loop's own; accelerate keeps one for the process, so the one before is forgotten."""
    for state in (AcceleratorState, PartialState, GradientState):
        state._shared_state.clear()
    return make_accelerator(
        replace(case.training.loop, device="cuda", mixed_precision="no" if precision == "fp32" else precision)
    )


def host_batch(case: StepCase) -> TrainingBatch:
    """A batch as the loader collates it. What renders endless scenes instead is not part of the step's model."""
    batch, (height, width) = case.training.loop.pairs_per_step, case.training.data.size

    def maps(channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(batch, channels, height, width, dtype=dtype)

    sample = StereoSample(
        left=maps(3), right=maps(3), depth=maps(1), disparity=maps(1), valid=maps(1, torch.bool),
        camera=Camera(*(torch.empty(batch) for _ in range(6))),
        occluded=maps(1, torch.bool), sparse_depth=maps(1), name=["fake"] * batch,
    )  # fmt: skip
    if not case.cached or case.teacher is None:
        return TrainingBatch(sample)
    forms = shapes_of(height, width, case.teacher.feature_channels)
    levels = len(case.teacher.feature_channels)
    kept = with_names(lambda name: torch.empty(batch, *forms[name][0][1:], dtype=forms[name][1]), levels)
    return TrainingBatch(sample, kept)
