"""Feature distillation: checks, choice of the implementation, and the public function."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from adu_kernels import checks
from adu_kernels.backend import choose
from adu_kernels.feature_distillation import reference


def feature_distillation_loss(
    adapted: Tensor, teacher: Tensor, weight: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Weighted squared distance of two feature maps, in units of the teacher's power (our reconstruction, SPEC §4).

    (1/(B·H·W)) Σ_{b,i} weight · mean_c (adapted − teacher)² / v, v = mean(teacher²) + 1e-6 over B, C, H and W.

    adapted, teacher: B×C×H×W, floating, one device, any strides; the dtypes may differ.
    weight: B×1×H×W or None (1 everywhere), floating. A weight of 0 does not hide a NaN: v covers the whole level.
    backend: "auto", "triton" or "torch".

    Returns a scalar, fp32 (fp64 if a feature map is), whatever autocast says. Differentiable in adapted alone.
    Raises ValueError for wrong shapes or devices, TypeError for wrong types; each names the argument.
    """
    checks.check_tensor("adapted", adapted, "B×C×H×W")
    checks.check_tensor("teacher", teacher, "B×C×H×W")
    checks.check_same_shape("teacher", teacher, "adapted", adapted)
    checks.check_same_device("teacher", teacher, "adapted", adapted)
    if weight is not None:
        _check_weight(weight, adapted)
    run = choose("feature_distillation_loss", backend, adapted, torch_twin=reference.feature_distillation_loss)
    return run(adapted, teacher, weight)


def _check_weight(weight: Any, adapted: Tensor) -> None:
    checks.check_tensor("weight", weight, "B×1×H×W")
    batch, _, height, width = adapted.shape
    expected = (batch, 1, height, width)
    if weight.shape != expected:
        raise ValueError(f"weight: expected B×1×H×W, {checks.shown(expected)}, got {checks.shown(weight.shape)}")
    checks.check_same_device("weight", weight, "adapted", adapted)
