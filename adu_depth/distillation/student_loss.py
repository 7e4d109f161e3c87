"""One objective for the student: supervision, uncertainty, response and feature distillation (METHOD §3–§8).

The equations are our reconstruction from the ADU-Depth abstract (2309.14744) and the papers METHOD.md names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from adu_depth.distillation.learned_scale import learned_scale_loss
from adu_depth.distillation.selective import selective_loss
from adu_depth.distillation.structure import structure_loss
from adu_depth.errors import InputError
from adu_depth.models import FeatureAdapters
from adu_depth.models.blocks import Backend, check_backend
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.models.ranges import Weight
from adu_depth.schema import Range, check_ranges, require_kinds
from adu_kernels import depth_objective, feature_distillation_losses, pooled_guide, uncertainty_guide

FROM_TEACHER = ("response", "features", "learned_scale", "structure")
"""Weights of the terms that need a teacher and no ground truth."""
TAUGHT_TERMS = (*FROM_TEACHER, "selective")
"""Weights of the terms that need a teacher."""


@dataclass(frozen=True)
class DistillationConfig:
    """Weights and options of the student's objective."""

    silog: Weight = 1.0
    uncertainty: Weight = 1.0
    response: Weight = 10.0
    features: Weight = 1.0
    guide: Literal["emphasise", "attenuate", "none"] = "emphasise"
    """What the student's own uncertainty does to distillation: weigh uncertain pixels up, down, or not at all."""
    guide_strength: float = 0.5
    guide_ramp: Weight = 0.1
    """Share of the steps over which the guide grows to its full strength."""
    gate: bool = True
    """Quieten the teacher where the ground truth contradicts it."""
    beta: Weight = 10.0
    gamma: Annotated[float, Range(1, 1e6)] = 1.0
    detach_focal: bool = False
    uncertainty_joint: bool = False
    """Let the uncertainty term train the depth too, not the scale alone."""
    beta_nll: Annotated[float, Range(0, 1e6)] = 0.0
    """β of the β-NLL: above 0 the uncertainty term keeps learning where the student is uncertain; ½ is its paper's."""
    normalize: Literal["batch", "image"] = "batch"
    """What the terms on depth, and the guide, are means over. "batch": the valid pixels of a process's batch. "image":
    each image's valid pixels, then all images, one without ground truth counting as 0 in the supervised terms: what an
    image adds depends on no other, so that micro-batches and processes compute what one batch does. With "batch" the
    light networks' unlabelled images weigh as much as the labelled ones together, with "image" by their number."""
    attention: bool = True
    """The adapters' attention, which lets each place of the student's features read all others before they are compared
    with the teacher's. Without it an adapter is one linear map of the channels."""
    key_bias: bool = True
    """Uncertain regions lend less to the others in the adapters' attention."""
    selective: Weight = 0.0
    """Weight of selective distillation, after arXiv 2205.08668: the mean distance to the teacher in metres, over the
    pixels where it is nearer to the ground truth than the student. Needs a teacher. No gain shown
    on the built-in scenes (ablation/README.md)."""
    learned_scale: Weight = 0.0
    """Weight of self-distillation with a learned scale, after arXiv 2111.09692: the likelihood of the teacher's depth
    under the student's own log scale, which trains both, without ground truth too. Needs a teacher. No gain
    shown on the built-in scenes."""
    structure: Weight = 0.0
    """Weight of structure affinity, after arXiv 2410.06982: which places of an image resemble which by the student's
    features is held to what the teacher's say, without an adapter. Needs a teacher. No gain shown
    on the built-in scenes."""
    truth_share: Annotated[float, Range(0, 1)] = 0.1
    """Light networks: λ in λ·L(student, truth) + (1 − λ)·L(student, teacher), L the loss of arXiv 1803.08673; where
    there is no ground truth the teacher's part is whole. Needs a teacher. Of the settings here they read this,
    normalize, backend, and with model.log_scale uncertainty."""
    backend: Backend = "auto"
    """Fused kernels on a GPU and plain PyTorch elsewhere, or one of the two everywhere."""

    def __post_init__(self) -> None:
        require_kinds(self, "distillation.")
        for name in ("silog", "uncertainty", *TAUGHT_TERMS, "guide_ramp", "beta_nll"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"distillation.{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.guide_strength <= 1:
            raise InputError(f"distillation.guide_strength must lie between 0 and 1, got {self.guide_strength}")
        if not 0 < self.beta < math.inf:
            raise InputError(f"distillation.beta must be above 0, got {self.beta}")
        if not 1 <= self.gamma < math.inf:
            raise InputError(f"distillation.gamma must be at least 1, got {self.gamma}")
        check_backend("distillation.backend", self.backend)
        check_ranges(self, "distillation.")


LIGHT_READS = ("truth_share", "normalize", "uncertainty", "backend")
"""What of a DistillationConfig the light networks' objective reads."""
ONLY_TAUGHT = (
    *TAUGHT_TERMS, "guide", "guide_strength", "guide_ramp", "gate", "beta", "gamma", "detach_focal", "attention",
    "key_bias", "truth_share",
)  # fmt: skip
"""What of it no network reads without a teacher."""


def check_objective(config: DistillationConfig, light: bool) -> None:
    """InputError for a setting of the objective that the network is not trained by."""
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        if (name not in LIGHT_READS if light else name == "truth_share") and value != field.default:
            told = f"a light network reads {', '.join(LIGHT_READS)} alone" if light else "it is for light networks"
            raise InputError(f"distillation.{name}: {told}, got {value!r}; leave it out")


def reads_teacher_depth(config: DistillationConfig) -> bool:
    """Whether a student that is no light network reads its teacher's depth, beside its features or alone."""
    guided = config.features > 0 and config.guide != "none"
    return guided or config.response > 0 or config.selective > 0 or config.learned_scale > 0


class StudentLoss(nn.Module):
    """Total and terms of the student's objective; holds the adapters, which are used in training only."""

    def __init__(
        self,
        config: DistillationConfig,
        student_channels: tuple[int, ...],
        teacher_channels: tuple[int, ...] | None,
        min_depth: float,
        max_depth: float,
    ) -> None:
        """teacher_channels: channels of the teacher's features per level; None for a student that trains alone."""
        super().__init__()
        self.config = config
        self.bounds: dict[str, Any] = {"min_depth": min_depth, "max_depth": max_depth}
        self.adapters: FeatureAdapters | None = None
        self.reads_features = teacher_channels is not None and (config.features > 0 or config.structure > 0)
        if teacher_channels is not None and config.features > 0:
            self.adapters = FeatureAdapters(
                student_channels,
                teacher_channels,
                uncertainty_bias=config.key_bias,
                attention=config.attention,
                backend=config.backend,
            )

    def forward(
        self, prediction: DepthPrediction, teacher: TeacherTargets | None, target: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        """Scalars by name, "total" with gradients. target: B×1×H×W metres, 0 = none.

        progress: 0 … 1 of the run, a number or (a CUDA graph would keep a number for ever) a 0-dim tensor beside the
        maps.
        """
        config = self.config
        strength = self._guide_strength(progress)
        log_scale = prediction.require_log_scale("the student's objective")
        objective = depth_objective(
            prediction.depth,
            log_scale,
            None if teacher is None else teacher.depth,
            target,
            weights=(config.silog, config.uncertainty, config.response),
            guide=config.guide,
            guide_strength=strength,
            gate=config.gate,
            beta=config.beta,
            gamma=config.gamma,
            detach_focal=config.detach_focal,
            joint=config.uncertainty_joint,
            beta_nll=config.beta_nll,
            normalize=config.normalize,
            backend=config.backend,
            **self.bounds,
        )
        total = objective.total
        terms = {"silog": objective.silog, "uncertainty": objective.uncertainty}
        if teacher is not None:
            terms["response"] = objective.response
        if teacher is not None and self.adapters is not None:
            features = self._feature_loss(self.adapters, prediction.features, log_scale.detach(), teacher, strength)
            terms["features"] = features.detach()
            total = total + config.features * features
        if teacher is not None:
            for name, term in self._options(prediction, log_scale, teacher, target).items():
                terms[name] = term.detach()
                total = total + getattr(config, name) * term
        return {"total": total, **terms}

    def _options(
        self, prediction: DepthPrediction, log_scale: Tensor, teacher: TeacherTargets, target: Tensor
    ) -> dict[str, Tensor]:
        """The terms of METHOD §10 that have a weight, by its name."""
        config, depth = self.config, prediction.depth
        options: dict[str, Any] = {"normalize": config.normalize, **self.bounds}
        found = {}
        if config.selective > 0:
            found["selective"] = selective_loss(depth, teacher.depth, target, **options)
        if config.learned_scale > 0:
            found["learned_scale"] = learned_scale_loss(
                depth, log_scale, teacher.depth, backend=config.backend, **options
            )
        if config.structure > 0:
            found["structure"] = structure_loss(prediction.features, teacher.features)
        return found

    def _guide_strength(self, progress: float | Tensor) -> float | Tensor:
        """How much the guide weighs now: it grows over the first `guide_ramp` of the run."""
        config = self.config
        if config.guide_ramp <= 0:
            return config.guide_strength
        if isinstance(progress, Tensor):
            return config.guide_strength * (progress / config.guide_ramp).clamp(max=1)
        return config.guide_strength * min(1.0, progress / config.guide_ramp)

    def _feature_loss(
        self,
        adapters: FeatureAdapters,
        features: tuple[Tensor, ...],
        log_scale: Tensor,
        teacher: TeacherTargets,
        strength: float | Tensor,
    ) -> Tensor:
        """Mean over levels of the weighted distance between adapted and teacher features."""
        config = self.config
        adapted = adapters(features, log_scale)
        weights = None
        if config.guide != "none":
            known = torch.isfinite(teacher.depth) & (teacher.depth > 0)
            weight = uncertainty_guide(
                log_scale, known, config.guide, strength, normalize=config.normalize, backend=config.backend
            )
            sizes = [(level.shape[2], level.shape[3]) for level in adapted]
            weights = pooled_guide(weight, sizes, backend=config.backend)
        return feature_distillation_losses(adapted, teacher.features, weights, backend=config.backend).mean()
