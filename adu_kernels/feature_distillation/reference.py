"""The feature distillation loss and the guide's pooling in plain PyTorch: what the kernels are held to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast

POWER_FLOOR = 1e-6  # keeps a level of all-zero teacher features from dividing by zero


def feature_distillation_loss(adapted: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """(1/(B·N)) Σ_{b,i} w · mean_c (adapted − teacher)² / v, v = mean(teacher²) + 1e-6 over the whole level."""
    dtype = accumulation_dtype(adapted, teacher)
    with without_autocast(adapted):
        target = teacher.detach().to(dtype)
        power = target.square().mean() + POWER_FLOOR
        error = (adapted.to(dtype) - target).square().mean(1, keepdim=True)
        if weight is not None:
            error = error * weight.detach().to(dtype)
        return error.mean() / power


def feature_distillation_losses(
    adapted: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> Tensor:
    """`feature_distillation_loss` of each level, one after the other."""
    per_level = [None] * len(adapted) if weights is None else weights
    levels = zip(adapted, teacher, per_level, strict=True)
    return torch.stack([feature_distillation_loss(*level) for level in levels])


def pooled_guide(weight: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Adaptive average pooling of B×1×H×W to each size."""
    with without_autocast(weight):
        exact = weight.detach().to(accumulation_dtype(weight))
        return tuple(F.adaptive_avg_pool2d(exact, size) for size in sizes)
