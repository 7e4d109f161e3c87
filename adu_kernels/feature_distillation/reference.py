"""The feature distillation loss in plain PyTorch. The arbiter of every kernel in this room."""

from __future__ import annotations

from torch import Tensor

from adu_kernels.precision import accumulation_dtype, without_autocast

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
