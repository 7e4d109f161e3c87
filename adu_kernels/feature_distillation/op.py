"""Feature distillation: checks, choice of the implementation, and the public functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..backend import dispatch
from . import launch, reference


def feature_distillation_loss(
    adapted: Tensor, teacher: Tensor, weight: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Weighted squared distance of two feature maps, in units of the teacher's power (our reconstruction, METHOD §4).

    (1/(B·H·W)) Σ_{b,i} weight · mean_c (adapted − teacher)² / v, v = mean(teacher²) + 1e-6 over B, C, H and W.

    Args:
        adapted, teacher: B×C×H×W, floating, one device, any strides; the dtypes may differ.
        weight: B×1×H×W or None (1 everywhere), floating. A weight of 0 does not hide a NaN: v covers the whole level.
        backend: "auto", "triton" or "torch".

    Returns:
        A scalar, fp32 (fp64 if a feature map is), whatever autocast says. Differentiable in adapted alone (once: the
        Triton kernels have no second derivative).

    Raises:
        ValueError: a wrong shape or device; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> adapted, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
        >>> feature_distillation_loss(adapted, teacher)  # as far away as the teacher's features are from 0
        tensor(1.0000)
    """
    _check_level(adapted, teacher, weight)
    run = dispatch(
        "feature_distillation_loss",
        backend,
        adapted,
        torch_twin=reference.feature_distillation_loss,
        triton_twin=_triton_loss,
    )
    return run(adapted, teacher, weight)


def feature_distillation_losses(
    adapted: Sequence[Tensor],
    teacher: Sequence[Tensor],
    weights: Sequence[Tensor] | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """`feature_distillation_loss` of several levels at once: with Triton as many launches as one level needs.

    Our reconstruction, METHOD §4.

    Args:
        adapted, teacher: L ≥ 1 maps each, B×C×H×W, all on one device; sizes, channels, dtypes and strides may differ
            from level to level.
        weights: L maps B×1×H×W, or None (1 everywhere).
        backend: "auto", "triton" or "torch".

    Returns:
        The L losses in one tensor, fp32 (fp64 if any feature map is). Differentiable in adapted (once: the Triton
        kernels have no second derivative).

    Raises:
        ValueError: a wrong shape, device or number of levels; it names the argument and the level.
        TypeError: a wrong type; it names the argument and the level.

    Example:
        >>> teacher = [torch.ones(1, 8, 4, 4), torch.ones(1, 16, 2, 2)]
        >>> feature_distillation_losses([1.5 * teacher[0], 2.0 * teacher[1]], teacher)
        tensor([0.2500, 1.0000])
    """
    _check_levels("adapted", adapted)
    for name, maps in (("teacher", teacher), ("weights", weights)):
        if maps is not None:
            _check_levels(name, maps)
            if len(maps) != len(adapted):
                raise ValueError(f"{name}: expected one map per level of adapted, {len(adapted)}, got {len(maps)}")
    for number, (mine, theirs) in enumerate(zip(adapted, teacher, strict=True)):
        checks.check_tensor(f"adapted[{number}]", mine, "B×C×H×W")
        checks.check_same_device(f"adapted[{number}]", mine, "adapted[0]", adapted[0])
        _check_level(mine, theirs, None if weights is None else weights[number], f"[{number}]")
    run = dispatch(
        "feature_distillation_losses",
        backend,
        adapted[0],
        torch_twin=reference.feature_distillation_losses,
        triton_twin=_triton_losses,
    )
    return run(adapted, teacher, weights)


def pooled_guide(weight: Tensor, sizes: Sequence[tuple[int, int]], *, backend: str = "auto") -> tuple[Tensor, ...]:
    """The guide's map averaged to the sizes of several levels (METHOD §4), with the cells of adaptive average pooling.

    Output (i, j) of a size h×w is the mean over rows ⌊i·H/h⌋ to ⌈(i+1)·H/h⌉ and columns ⌊j·W/w⌋ to ⌈(j+1)·W/w⌉, the
    ends left out, as in torch.nn.functional.adaptive_avg_pool2d. With Triton all sizes take one launch; where they are
    H/k×W/k with powers of two k ≤ 64, the map is read once for all of them, else once for each.

    Args:
        weight: B×1×H×W, floating, any strides.
        sizes: at least one (h, w), whole numbers ≥ 1.
        backend: "auto", "triton" or "torch".

    Returns:
        One B×1×h×w per size, contiguous, fp32 (fp64 for fp64), without gradient. A NaN stays in its cells.

    Raises:
        ValueError: a wrong shape or size; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> fine, coarse = pooled_guide(torch.arange(16.0).view(1, 1, 4, 4), [(2, 2), (1, 1)])
        >>> fine[0, 0], coarse.item()
        (tensor([[ 2.5000,  4.5000],
                [10.5000, 12.5000]]), 7.5)
    """
    checks.check_tensor("weight", weight, "B×1×H×W")
    _check_levels("sizes", sizes)
    checked = [_check_size(f"sizes[{number}]", size) for number, size in enumerate(sizes)]
    run = dispatch("pooled_guide", backend, weight, torch_twin=reference.pooled_guide, triton_twin=_triton_pooled)
    return run(weight, checked)


def _check_size(name: str, size: Any) -> tuple[int, int]:
    if not isinstance(size, Sequence) or len(size) != 2:
        raise ValueError(f"{name}: expected (height, width), got {size!r}")
    return checks.check_count(f"{name}, height", size[0]), checks.check_count(f"{name}, width", size[1])


def _triton_loss(adapted: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    return _triton_losses([adapted], [teacher], None if weight is None else [weight]).squeeze(0)


def _triton_losses(
    adapted: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> Tensor:
    constants = [[one.detach() for one in maps] for maps in (teacher, weights or ())]
    losses, _ = launch.feature_distillation(list(adapted), *constants)
    return losses


def _triton_pooled(weight: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    return tuple(launch.pooled_guide(weight.detach(), [h for h, _ in sizes], [w for _, w in sizes]))


def _check_levels(name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor | str) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected a sequence with one entry per level, got {type(value).__name__}")
    if not value:
        raise ValueError(f"{name}: expected at least one level, got none")


def _check_level(adapted: Any, teacher: Any, weight: Any, level: str = "") -> None:
    """level: "[2]" where the maps stand in sequences."""
    checks.check_tensor(f"adapted{level}", adapted, "B×C×H×W")
    checks.check_tensor(f"teacher{level}", teacher, "B×C×H×W")
    checks.check_same_shape(f"teacher{level}", teacher, f"adapted{level}", adapted)
    checks.check_same_device(f"teacher{level}", teacher, f"adapted{level}", adapted)
    if weight is None:
        return
    name = f"weights{level}" if level else "weight"
    checks.check_tensor(name, weight, "B×1×H×W")
    expected = (adapted.shape[0], 1, *adapted.shape[2:])
    if weight.shape != expected:
        raise ValueError(f"{name}: expected B×1×H×W, {checks.shown(expected)}, got {checks.shown(weight.shape)}")
    checks.check_same_device(name, weight, f"adapted{level}", adapted)
