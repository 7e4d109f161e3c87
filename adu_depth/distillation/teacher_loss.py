"""How the stereo teacher is supervised: smooth-L1 on each regression head, SILog and uncertainty on its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adu_depth.distillation.left_right import left_right_consistent
from adu_depth.distillation.means import masked_mean
from adu_depth.distillation.photometric import photometric_loss, smoothness_loss
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, depth_to_disparity
from adu_depth.models.blocks import Backend, check_backend
from adu_depth.models.prediction import DepthPrediction
from adu_depth.models.ranges import Weight
from adu_depth.schema import Length, check_ranges, require_kinds
from adu_kernels import laplace_nll, silog_loss


@dataclass(frozen=True)
class TeacherLossConfig:
    """Weights of the teacher's loss terms."""

    head_weights: Annotated[tuple[Weight, ...], Length(64)] = (0.5, 0.7, 1.0)
    """Smooth-L1 weights of the regression heads, the final one's last; heads before them take the first weight."""
    silog: Weight = 1.0
    uncertainty: Weight = 1.0
    uncertainty_joint: bool = False
    """Let the uncertainty term train the disparity too, not its spread alone."""
    photometric: Weight = 2.0
    """The right view warped by the disparity must look like the left: teaches where no LiDAR point is."""
    left_right: bool = False
    """Leave out of the photometric term where the two views' disparities disagree (occluded, mistaken): the network is
    run a second time, on the pair in a mirror."""
    smoothness: Weight = 0.05
    """Slope of the disparity where the left view has no edge."""
    decoder: Weight = 1.0
    """SILog of the feature decoder's own depth: what teaches the features that are distilled."""
    normalize: Literal["batch", "image"] = "batch"
    """Means over the valid pixels of a process's batch, or over each image's and then over all images: then several
    processes compute what one does with their batches joined."""
    backend: Backend = "auto"
    """Fused kernels on a GPU and plain PyTorch elsewhere, or one of the two everywhere."""

    def __post_init__(self) -> None:
        require_kinds(self, "loss.")
        if not self.head_weights or min(self.head_weights) < 0:
            raise InputError(f"loss.head_weights must be one or more numbers ≥ 0, got {self.head_weights}")
        check_backend("loss.backend", self.backend)
        check_ranges(self, "loss.")
        if self.left_right and not self.photometric > 0:
            raise InputError(
                "loss.left_right is a mask of the photometric term: with loss.photometric "
                f"{self.photometric:g} nothing reads it; leave it out too (--loss.no-left-right)"
            )


def masked_smooth_l1(prediction: Tensor, target: Tensor, mask: Tensor, normalize: str = "batch") -> Tensor:
    """Mean over `mask` (see `masked_mean`) of smooth-L1 (threshold 1 px)."""
    error = F.smooth_l1_loss(prediction, torch.where(mask, target, prediction.detach()), reduction="none")
    return masked_mean(error, mask, normalize)


class TeacherLoss(nn.Module):
    """Total and terms of the teacher's loss for one batch."""

    def __init__(self, config: TeacherLossConfig, max_disparity: int, min_depth: float, max_depth: float) -> None:
        super().__init__()
        self.config, self.max_disparity = config, max_disparity
        self.bounds: dict[str, Any] = {"min_depth": min_depth, "max_depth": max_depth}
        self._options: dict[str, Any] = {**self.bounds, "backend": config.backend, "normalize": config.normalize}

    def forward(
        self,
        prediction: DepthPrediction,
        target: Tensor,
        left: Tensor,
        right: Tensor,
        camera: Camera,
        right_disparity: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Scalars by name, "total" the one with gradients, the sum of the others but for "consistent".

        target: B×1×H×W metres; 0, NaN or inf = none. left, right: the views, B×3×H×W in [0, 1]. right_disparity: the
        right view's, B×1×H×W pixels; needed with `left_right`, which then gives "consistent", the share of all pixels
        whose disparity it confirms.
        """
        config = self.config
        known = torch.isfinite(target) & (target >= self.bounds["min_depth"]) & (target <= self.bounds["max_depth"])
        disparity = depth_to_disparity(torch.where(known, target, 0.0), camera)
        matchable = known & (disparity > 0) & (disparity < self.max_disparity)
        heads = len(prediction.heads)
        weights = ((config.head_weights[0],) * heads + config.head_weights)[-heads:]
        head_losses = [masked_smooth_l1(d, disparity, matchable, config.normalize) for d, _ in prediction.heads]
        log_scale = prediction.require_log_scale("the teacher's loss")
        terms = {
            "disparity": torch.stack([w * loss for w, loss in zip(weights, head_losses, strict=True)]).sum(),
            "silog": config.silog * silog_loss(prediction.depth, target, **self._options),
            "uncertainty": config.uncertainty
            * laplace_nll(prediction.depth, log_scale, target, joint=config.uncertainty_joint, **self._options),
        }
        final_disparity = prediction.heads[-1][0]
        believed, watched = None, {}
        if config.left_right:
            if right_disparity is None:
                raise InputError("right_disparity: loss.left_right needs the right view's disparity, got None")
            believed = left_right_consistent(final_disparity, right_disparity)
            watched["consistent"] = believed.float().mean()
        if config.photometric > 0:
            photometric = photometric_loss(left, right, final_disparity, config.normalize, believed)
            terms["photometric"] = config.photometric * photometric
        if config.smoothness > 0:
            terms["smoothness"] = config.smoothness * smoothness_loss(left, final_disparity)
        if prediction.decoder_depth is not None:
            terms["decoder"] = config.decoder * silog_loss(prediction.decoder_depth, target, **self._options)
        total = torch.stack(list(terms.values())).sum()
        return {"total": total, **{name: value.detach() for name, value in terms.items()}, **watched}
