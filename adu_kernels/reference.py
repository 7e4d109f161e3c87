"""The plain PyTorch twin of every operation: same name, same arguments but for `backend`, no checks of what is given.

Kernels are tested against them. In your own code call the operations of `adu_kernels`, with backend="torch" where
it must be these.
"""

from .attention_adaptation.reference import attention_adaptation
from .correlation_disparity.reference import correlation_disparity
from .cost_volume.reference import (
    combined_volume,
    concatenation_volume,
    correlation_volume,
    groupwise_correlation_volume,
    volume_with_scores,
)
from .depth_gradient_normal.reference import depth_gradient_normal_loss
from .depth_objective.reference import (
    depth_objective,
    focal_response_loss,
    laplace_nll,
    silog_loss,
    teacher_gate,
    uncertainty_guide,
)
from .disparity_regression.reference import disparity_regression
from .feature_distillation.reference import (
    feature_distillation_loss,
    feature_distillation_losses,
    pooled_guide,
)
from .group_norm.reference import cosine_features, group_norm
from .single_output_conv3d.reference import single_output_conv3d

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
]
