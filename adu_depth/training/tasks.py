"""What one training step computes: the teacher's task and the student's.

A task is the module that is trained: `network` (what inference needs) beside whatever training adds. Its forward gives
the loss terms by name, "total" the one with gradients, so that data-parallel wrappers see a single forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adu_depth.checkpoint import Kind
from adu_depth.data.augmentation import (
    AugmentationConfig,
    colour_jitter,
    cut_rows,
    draw_cuts,
    draw_flips,
    draw_generator,
    flip_where,
)
from adu_depth.data.pair_augmentation import PairAugmentationConfig, augment_pair
from adu_depth.distillation import StudentLoss, TeacherLoss
from adu_depth.models import MonoStudent, StereoTeacher
from adu_depth.models.prediction import DepthPrediction
from adu_depth.training.batches import TrainingBatch
from adu_depth.transfer import upload


@dataclass(frozen=True)
class StepContext:
    """Where in the run a step stands; all randomness of the step follows from it."""

    seed: int
    step: int
    rank: int
    progress: float
    """Share of the run done, 0 … 1."""
    dense: bool
    """Supervise with the dense ground truth."""


class TeacherTask(nn.Module):
    """The stereo teacher on ground truth, and on the pair itself as it is beneath what makes its matching harder."""

    kind: Kind = "teacher"

    def __init__(self, network: StereoTeacher, loss: TeacherLoss, augmentation: PairAugmentationConfig) -> None:
        super().__init__()
        self.network, self.loss, self.augmentation = network, loss, augmentation

    def forward(self, batch: TrainingBatch, context: StepContext) -> dict[str, Tensor]:
        generator = draw_generator(context.seed, context.step, context.rank)
        sample, left, right = augment_pair(batch.sample, self.augmentation, generator)
        prediction = self.network(left, right, sample.camera)
        target = sample.training_target(context.dense)
        terms: dict[str, Tensor] = self.loss(
            prediction, target, sample.left, sample.require_right("a stereo teacher"), sample.camera
        )
        return terms


class StudentTask(nn.Module):
    """The monocular student, on ground truth and on what the teacher says of the unflipped, unchanged pair."""

    kind: Kind = "student"

    def __init__(self, network: MonoStudent, loss: StudentLoss, augmentation: AugmentationConfig) -> None:
        super().__init__()
        self.network, self.loss, self.augmentation = network, loss, augmentation

    def forward(self, batch: TrainingBatch, context: StepContext) -> dict[str, Tensor]:
        sample = batch.sample
        generator = draw_generator(context.seed, context.step, context.rank)
        device = sample.left.device
        flips = upload(draw_flips(sample.left.shape[0], self.augmentation.flip, generator), device)
        image = colour_jitter(flip_where(sample.left, flips), self.augmentation, generator)
        target = flip_where(sample.training_target(context.dense), flips)
        teacher = None if batch.teacher is None else batch.teacher.stored().map(lambda t: flip_where(t, flips))
        if self.augmentation.cut_flip:
            height = image.shape[-2]
            cuts = upload(draw_cuts(len(image), height, self.augmentation.cut_flip, generator), device)
            image, target = cut_rows(image, cuts, height), cut_rows(target, cuts, height)
            teacher = None if teacher is None else teacher.map(lambda t: cut_rows(t, cuts, height))
        prediction = self.network(image, sample.camera)
        terms: dict[str, Tensor] = self.loss(prediction, teacher, target, context.progress)
        return terms


class OnlineTeacher:
    """Runs a frozen teacher on each batch: eval mode, no gradients, running statistics untouched."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch) -> TrainingBatch:
        sample = batch.sample
        right = sample.require_right("a stereo teacher")
        prediction: DepthPrediction = self.network(sample.left, right, sample.camera)
        return TrainingBatch(sample, prediction)
