"""What one training step computes: the teacher's task and the student's.

A task is the module that is trained: `network` (what inference needs) beside whatever training adds. `draw` makes a
step's random numbers on the CPU. `forward` takes them on the device and gives the loss terms by name, "total" the one
with gradients, so that data-parallel wrappers see a single forward; it takes nothing else from the CPU, nor waits for
the device, so that a CUDA graph can hold it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adu_depth.checkpoint import Kind
from adu_depth.data.augmentation import (
    AugmentationConfig,
    ImageDraws,
    cut_rows,
    draw_generator,
    draw_image_changes,
    flip_where,
    recolour,
)
from adu_depth.data.pair_augmentation import PairAugmentationConfig, PairDraws, change_pair, draw_pair_changes
from adu_depth.data.rotation import moving_grid, turned
from adu_depth.distillation import LightLoss, StudentLoss, TeacherLoss
from adu_depth.distillation.left_right import disparity_of_right, left_right_consistent
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.inference.predictor import evaluating
from adu_depth.models import StereoTeacher, Student, takes_pairs
from adu_depth.models.inference_copy import inference_copy
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.training.accumulation import mean_terms, micro_batches
from adu_depth.training.batches import TrainingBatch
from adu_depth.transfer import upload_together


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
    accumulate: int = 1
    """Micro-batches of the step."""


@dataclass(frozen=True)
class StepDraws:
    """All that a step is told by the CPU, beside its batch. progress: that of its context."""

    changes: PairDraws | ImageDraws
    progress: float | Tensor

    def images(self, part: slice) -> StepDraws:
        """What some of the images are told."""
        return StepDraws(self.changes.images(part), self.progress)


class TeacherTask(nn.Module):
    """The stereo teacher on ground truth, and on the pair itself as it is beneath what makes its matching harder."""

    kind: Kind = "teacher"

    def __init__(self, network: StereoTeacher, loss: TeacherLoss, augmentation: PairAugmentationConfig) -> None:
        super().__init__()
        self.network, self.loss, self.augmentation = network, loss, augmentation

    def draw(self, batch: TrainingBatch, context: StepContext) -> StepDraws:
        left = batch.sample.left
        generator = draw_generator(context.seed, context.step, context.rank)
        changes = draw_pair_changes(left.shape[0], left.shape[-2:], self.augmentation, generator)
        return StepDraws(changes, context.progress)

    def forward(self, batch: TrainingBatch, draws: StepDraws, dense: bool) -> dict[str, Tensor]:
        """dense: supervise with the dense ground truth."""
        assert isinstance(draws.changes, PairDraws)
        sample, left, right = change_pair(batch.sample, draws.changes)
        # First, while nothing is kept for the backward yet.
        right_disparity = self.right_disparity(left, right, sample.camera) if self.loss.config.left_right else None
        prediction = self.network(left, right, sample.camera)
        target = sample.training_target(dense)
        terms: dict[str, Tensor] = self.loss(
            prediction,
            target,
            sample.left,
            sample.require_right("a stereo teacher"),
            sample.camera,
            right_disparity,
        )
        return terms

    @torch.no_grad()
    def right_disparity(self, left: Tensor, right: Tensor, camera: Camera) -> Tensor:
        """What the network as it is says of the right view, B×1×H×W pixels, from the pair in a mirror.

        left, right: the views as the network reads them: what covers a part of one of them hides it here too. The
        network is in eval mode for it, so that no running statistics and no random numbers of its training change, and
        what only a backward needs is not computed.
        """
        kind = left.device.type
        # Autocast keeps the weights that it rounds, for the pass that is trained by too: rounded here, without a
        # gradient, they must not be among them, whatever a release of torch makes of that.
        autocast = torch.autocast(
            kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False
        )
        with evaluating(self.network), autocast:
            return disparity_of_right(self.network, left, right, camera)


class StudentTask(nn.Module):
    """The monocular student, on ground truth and on what the teacher says of the unflipped, unchanged image or pair."""

    kind: Kind = "student"

    def __init__(
        self,
        network: Student,
        loss: StudentLoss | LightLoss,
        augmentation: AugmentationConfig,
        teacher_left_right: bool = False,
    ) -> None:
        """teacher_left_right: the teacher's depths have passed the left–right check, and are 0 where it failed; a step
        then gives "consistent", the share of all pixels that passed, which is in no loss."""
        super().__init__()
        self.network, self.loss, self.augmentation = network, loss, augmentation
        self.teacher_left_right = teacher_left_right

    def draw(self, batch: TrainingBatch, context: StepContext) -> StepDraws:
        left = batch.sample.left
        generator = draw_generator(context.seed, context.step, context.rank)
        changes = draw_image_changes(left.shape[0], left.shape[-2], self.augmentation, generator)
        return StepDraws(changes, context.progress)

    def forward(self, batch: TrainingBatch, draws: StepDraws, dense: bool) -> dict[str, Tensor]:
        """dense: supervise with the dense ground truth."""
        changes = draws.changes
        assert isinstance(changes, ImageDraws)
        sample, flips, height = batch.sample, changes.flips, batch.sample.left.shape[-2]

        def moved(maps: Tensor, measured: bool) -> Tensor:
            maps = flip_where(maps, flips)
            if changes.turns is None and changes.windows is None:
                return maps
            size, level = sample.left.shape[-2:], maps.shape[-2:]
            grid = moving_grid(changes.turns, changes.windows, sample.camera, size, level)
            return turned(maps, grid, measured=measured)

        def changed(maps: Tensor, measured: bool = True) -> Tensor:
            maps = moved(maps, measured)
            return maps if changes.cuts is None else cut_rows(maps, changes.cuts, height)

        image = recolour(moved(sample.left, measured=False), changes.colours)
        if changes.cuts is not None:
            image = cut_rows(image, changes.cuts, height)
        target = changed(sample.training_target(dense))
        teacher, watched = None, {}
        if batch.teacher is not None:
            targets = batch.teacher.decoded()
            if self.teacher_left_right:
                watched["consistent"] = (targets.depth > 0).float().mean()
            targets = (targets if self.loss.reads_features else targets.depth_alone()).stored()
            features = tuple(changed(level, measured=False) for level in targets.features)
            teacher = TeacherTargets(changed(targets.depth), features)
        camera = sample.camera
        if changes.windows is not None:
            camera = camera.magnified(changes.windows, sample.left.shape[-2:])
        prediction = self.network(image, camera)
        terms: dict[str, Tensor] = self.loss(prediction, teacher, target, draws.progress)
        return terms | watched


def step_losses(task: TeacherTask | StudentTask, batch: TrainingBatch, context: StepContext) -> dict[str, Tensor]:
    """The loss terms of a step as a whole: what it draws, sent to the batch's device, and what it computes."""
    draws = upload_together(task.draw(batch, context), batch.sample.left.device)
    parts = micro_batches(batch, draws, context.accumulate)
    return mean_terms([task(part, drawn, context.dense) for part, drawn in parts])


class OnlineTeacher:
    """Runs a frozen teacher on each batch, as an inference network (see `inference_copy`).

    dtype: its autocast type; None computes in fp32, whatever is around it. What it gives is kept for the student's
    backward pass, so that it is made under `no_grad`: tensors of `inference_mode` cannot be kept.

    left_right: look twice. Its depth is then 0, nothing known, where its disparity of the right view, which it says of
    the pair in a mirror, does not confirm the left one's (`left_right_consistent`). InputError with a network for
    single images.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, dtype: torch.dtype | None = None, left_right: bool = False
    ) -> None:
        self.takes_pairs = takes_pairs(network)
        if left_right and not self.takes_pairs:
            raise InputError(
                "left_right: expected a stereo teacher, whose two views can be compared, got "
                f"{type(network).__name__}, which sees one"
            )
        self.network, self.device, self.dtype = inference_copy(network, dtype).to(device), device, dtype
        self.left_right = left_right

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch) -> TrainingBatch:
        sample = batch.sample
        views = (sample.left, sample.require_right("a stereo teacher")) if self.takes_pairs else (sample.left,)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            prediction: DepthPrediction = self.network(*views, sample.camera)
            targets = TeacherTargets.of(prediction)
            if self.left_right:
                assert prediction.disparity is not None
                right = sample.require_right("a stereo teacher")
                other = disparity_of_right(self.network, sample.left, right, sample.camera)
                # A depth that is NaN stays one: whoever looks for broken outputs must find them.
                shown = left_right_consistent(prediction.disparity, other) | ~torch.isfinite(prediction.depth)
                targets = replace(targets, depth=torch.where(shown, prediction.depth, 0.0))
        return TrainingBatch(sample, targets)
