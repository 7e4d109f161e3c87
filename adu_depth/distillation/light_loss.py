"""The objective of the light-weight pair (arXiv 2105.06143): the loss of 1803.08673 against truth and teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adu_depth.distillation.student_loss import DistillationConfig
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_kernels import depth_gradient_normal_loss, laplace_nll


class LightLoss(nn.Module):
    """λ·L(student, truth) + (1 − λ)·L(student, teacher) over the images that have ground truth, plus L(student,
    teacher) over those that have none; without a teacher L(student, truth). λ is `config.truth_share`.

    An image has ground truth if one of its pixels has, within the bounds. By `config.normalize` "batch" each L is a
    mean over what it is taken of: the last term weighs the same whatever share of the batch is unlabelled, and nothing
    without an unlabelled image (a micro-batch and a process's batch are batches). By "image" each is a mean over all
    images, the others counting as 0: the terms weigh by their shares of the batch, and what an image adds depends on
    no other. Terms by name are L itself in either case, a mean over the images that it is taken of (0 of none, which
    counts in a mean over micro-batches and processes). A network with a log scale learns that too, by the likelihood of
    the truth, which leaves its depth alone.
    """

    reads_features = False

    def __init__(self, config: DistillationConfig, min_depth: float, max_depth: float) -> None:
        super().__init__()
        self.config = config
        self.min_depth, self.max_depth = min_depth, max_depth

    def forward(
        self, prediction: DepthPrediction, teacher: TeacherTargets | None, target: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        """Scalars by name, "total" with gradients. target: B×1×H×W metres, 0 = none. progress: not read."""
        share = self.config.truth_share
        known = (target >= self.min_depth) & (target <= self.max_depth)
        labelled = known.flatten(1).any(1)[:, None, None, None]
        total, truth = self._loss(prediction.depth, target, labelled)
        terms = {"truth": truth}
        if teacher is not None:
            there, elsewhere = torch.where(labelled, teacher.depth, 0), torch.where(labelled, 0, teacher.depth)
            on_labelled, terms["teacher"] = self._loss(prediction.depth, there, labelled)
            on_others, terms["unlabelled"] = self._loss(prediction.depth, elsewhere, ~labelled)
            total = share * total + (1 - share) * on_labelled + on_others
        if prediction.log_scale is not None:
            likelihood = laplace_nll(
                prediction.depth,
                prediction.log_scale,
                target,
                min_depth=self.min_depth,
                max_depth=self.max_depth,
                normalize=self.config.normalize,
                backend=self.config.backend,
            )
            terms["uncertainty"] = self._mean(likelihood, labelled)
            total = total + self.config.uncertainty * likelihood
        return {"total": total, **terms}

    def _loss(self, depth: Tensor, target: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """What the total takes, with gradient; and L as a mean over the images that are counted, B×1×1×1, without."""
        found = depth_gradient_normal_loss(
            depth,
            target,
            min_depth=self.min_depth,
            max_depth=self.max_depth,
            normalize=self.config.normalize,
            backend=self.config.backend,
        ).total
        return found, self._mean(found, counted)

    def _mean(self, found: Tensor, counted: Tensor) -> Tensor:
        """A loss as a mean over the images that are counted, without gradient."""
        mean = found.detach()
        if self.config.normalize == "image":
            mean = mean * (counted.numel() / counted.sum().clamp(min=1))
        return mean
