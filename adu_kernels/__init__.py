"""Operations on tensors for stereo and depth, each with a plain PyTorch reference of the same name.

The references are in `adu_kernels.reference`. Without Triton everything runs as its reference.

What autograd may ask of either: any derivative, checkpointing, hooks on saved tensors, results changed in place. The
kernels have a first derivative in reverse mode (batched too); whatever is beyond it is a RuntimeError that names the
operation and backend="torch". A tensor that was given to an operation and is changed in place before the backward makes
that raise where it would read it. Numbers may be numpy's, or arrays and tensors without dimensions.
"""

from .attention_adaptation.op import attention_adaptation
from .concat_free_conv.module import ConcatFreeConv3d
from .correlation_disparity.op import correlation_disparity
from .cost_volume.op import (
    combined_volume,
    concatenation_volume,
    correlation_volume,
    groupwise_correlation_volume,
    volume_with_scores,
)
from .depth_gradient_normal.op import (
    GradientNormalTerms,
    GradientNormalWeights,
    depth_gradient_normal_loss,
)
from .depth_objective.op import (
    ObjectiveTerms,
    ObjectiveWeights,
    depth_objective,
    focal_response_loss,
    laplace_nll,
    silog_loss,
    teacher_gate,
    uncertainty_guide,
)
from .disparity_regression.op import disparity_regression
from .feature_distillation.op import (
    feature_distillation_loss,
    feature_distillation_losses,
    pooled_guide,
)
from .group_norm.op import cosine_features, group_norm
from .single_output_conv3d.op import single_output_conv3d

__all__ = [
    "groupwise_correlation_volume",
    "correlation_volume",
    "concatenation_volume",
    "combined_volume",
    "volume_with_scores",
    "correlation_disparity",
    "disparity_regression",
    "attention_adaptation",
    "feature_distillation_loss",
    "feature_distillation_losses",
    "pooled_guide",
    "silog_loss",
    "laplace_nll",
    "focal_response_loss",
    "uncertainty_guide",
    "teacher_gate",
    "depth_objective",
    "depth_gradient_normal_loss",
    "group_norm",
    "single_output_conv3d",
    "cosine_features",
    "ConcatFreeConv3d",
    "ObjectiveTerms",
    "ObjectiveWeights",
    "GradientNormalTerms",
    "GradientNormalWeights",
]
