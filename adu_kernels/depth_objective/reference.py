"""The per-pixel losses of the depth student, in plain PyTorch. The kernels beside this file are held to them.

One rule keeps bad values out (METHOD §8): what stands at a masked pixel is replaced by a harmless number BEFORE any
arithmetic, so it can reach neither a sum nor, as NaN·0, a gradient. A NaN predicted at a valid pixel stays a NaN.
Nothing is indexed by a mask and no value is read back, so nothing waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_weights
from ..precision import accumulation_dtype, without_autocast

LOG_SCALE_RANGE = (-6.0, 3.0)
GUIDE_RANGE = (0.25, 4.0)
SILOG_FLOOR = 1e-6  # under the root, whose slope at 0 is infinite


class ObjectiveTerms(NamedTuple):
    """What `depth_objective` returns, scalars. total = Σ weight · term carries the gradient.

    The terms are unweighted and detached, for logging.

    Example:
        >>> terms = ObjectiveTerms(*torch.tensor([12.0, 1.0, 1.0, 1.0]))
        >>> [f"{name} {value:.0f}" for name, value in terms._asdict().items()]
        ['total 12', 'silog 1', 'uncertainty 1', 'response 1']
    """

    total: Tensor
    silog: Tensor
    uncertainty: Tensor
    response: Tensor


class ObjectiveWeights(NamedTuple):
    """What each term of `depth_objective` counts in the total: finite numbers ≥ 0.

    Example:
        >>> ObjectiveWeights(response=0.0)  # no distillation of depth
        ObjectiveWeights(silog=1.0, uncertainty=1.0, response=0.0)
    """

    silog: float = 1.0
    uncertainty: float = 1.0
    response: float = 10.0


class ObjectiveOptions(NamedTuple):
    """What `depth_objective` is told besides its maps, checked."""

    weights: ObjectiveWeights
    guide: str
    guide_strength: float | Tensor
    gate: bool
    beta: float
    gamma: float
    detach_focal: bool
    joint: bool
    beta_nll: float
    variance_focus: float
    min_depth: float
    max_depth: float
    normalize: str


def silog_loss(
    depth: Tensor,
    target: Tensor,
    variance_focus: float = 0.85,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    *,
    normalize: str = "batch",
) -> Tensor:
    """10·√(mean q² − variance_focus·(mean q)² + 1e-6), q = ln depth − ln target over the valid target."""
    depth, target = _in_one_dtype(depth, target.detach())
    with without_autocast(depth):
        mask = _has_target(target, min_depth, max_depth)
        q = _log_ratio(depth, target, mask, min_depth, max_depth)
        axes = _axes(normalize)
        count = _at_least_one(mask, axes)
        mean = q.sum(axes, keepdim=True) / count
        # mean q² − f·mean² = Var q + (1 − f)·mean²: this form cannot fall below 0 by cancellation.
        variance = torch.where(mask, q - mean, 0).square().sum(axes, keepdim=True) / count
        loss = 10 * (variance + (1 - variance_focus) * mean.square() + SILOG_FLOOR).sqrt()
        return torch.where(mask.sum(axes, keepdim=True) > 0, loss, 0).mean()


def laplace_nll(
    depth: Tensor,
    log_scale: Tensor,
    target: Tensor,
    joint: bool = False,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    beta_nll: float = 0.0,
    *,
    normalize: str = "batch",
) -> Tensor:
    """mean of e^{−s}·|ln depth − ln target| + s over the valid target, s = log_scale clamped to [−6, 3]."""
    depth, log_scale, target = _in_one_dtype(depth, log_scale, target.detach())
    with without_autocast(depth):
        mask = _has_target(target, min_depth, max_depth)
        residual = _log_ratio(depth, target, mask, min_depth, max_depth).abs()
        if not joint:
            residual = residual.detach()
        s = torch.where(mask, log_scale, 0).clamp(*LOG_SCALE_RANGE)
        nll = torch.exp(-s) * residual + s
        if beta_nll:
            nll = nll * torch.exp(2 * beta_nll * s).detach()
        return _mean(nll, mask, normalize)


def focal_response_loss(
    depth: Tensor,
    teacher_depth: Tensor,
    weight: Tensor | None = None,
    beta: float = 10.0,
    gamma: float = 1.0,
    detach_focal: bool = False,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    *,
    normalize: str = "batch",
) -> Tensor:
    """mean of weight·e·tanh(βe/2)^γ over the valid teacher depth, e = |ln depth − ln teacher_depth|."""
    depth, teacher_depth = _in_one_dtype(depth, teacher_depth.detach())
    with without_autocast(depth):
        mask = _has_teacher(teacher_depth)
        error = _log_ratio(depth, teacher_depth, mask, min_depth, max_depth).abs()
        focus = torch.tanh(beta / 2 * error)
        if detach_focal:
            focus = focus.detach()
        loss = error * focus**gamma
        if weight is not None:
            loss = loss * torch.where(mask, weight.detach().to(loss.dtype), 0)
        return _mean(loss, mask, normalize)


def uncertainty_guide(
    log_scale: Tensor,
    valid: Tensor,
    guide: str = "emphasise",
    strength: float | Tensor = 0.5,
    *,
    normalize: str = "batch",
) -> Tensor:
    """clip((1 − ρ) + ρ·exp(s − logmeanexp(s over valid)), ¼, 4), 1 where not valid; −s for "attenuate"."""
    (log_scale,) = _in_one_dtype(log_scale.detach())
    if guide == "none":
        return torch.ones_like(log_scale)
    rho = strength.detach().to(log_scale) if isinstance(strength, Tensor) else strength
    with without_autocast(log_scale):
        s = torch.where(valid, log_scale, 0).clamp(*LOG_SCALE_RANGE)
        scale = torch.exp(-s if guide == "attenuate" else s)  # s is clamped: the plain mean is safe
        axes = _axes(normalize)
        mean = torch.where(valid, scale, 0).sum(axes, keepdim=True) / _at_least_one(valid, axes)
        relative = torch.where(valid, scale / mean, 1)
        return ((1 - rho) + rho * relative).clamp(*GUIDE_RANGE)


def teacher_gate(
    teacher_depth: Tensor,
    target: Tensor,
    sharpness: float = 5.0,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
) -> Tensor:
    """exp(−sharpness·|d_t − g|/(d_t + g)) where teacher and target are both valid, else 1."""
    teacher_depth, target = _in_one_dtype(teacher_depth.detach(), target.detach())
    with without_autocast(teacher_depth):
        both = _has_teacher(teacher_depth) & _has_target(target, min_depth, max_depth)
        taught, true = torch.where(both, teacher_depth, 1), torch.where(both, target, 1)
        return torch.exp(-sharpness * ((taught - true).abs() / (taught + true)))


def depth_objective(
    depth: Tensor,
    log_scale: Tensor,
    teacher_depth: Tensor | None,
    target: Tensor,
    *,
    weights: Sequence[float] | Mapping[str, float] = ObjectiveWeights(),
    guide: str = "emphasise",
    guide_strength: float | Tensor = 0.5,
    gate: bool = True,
    beta: float = 10.0,
    gamma: float = 1.0,
    detach_focal: bool = False,
    joint: bool = False,
    beta_nll: float = 0.0,
    variance_focus: float = 0.85,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    normalize: str = "batch",
) -> ObjectiveTerms:
    """The weighted sum of `silog_loss`, `laplace_nll` and the guided, gated `focal_response_loss`, and its terms."""
    options = ObjectiveOptions(
        check_weights(weights, ObjectiveWeights), guide, guide_strength, gate, beta, gamma, detach_focal, joint,
        beta_nll, variance_focus, min_depth, max_depth, normalize,
    )  # fmt: skip
    return objective(depth, log_scale, teacher_depth, target, options)


def objective(
    depth: Tensor, log_scale: Tensor, teacher_depth: Tensor | None, target: Tensor, options: ObjectiveOptions
) -> ObjectiveTerms:
    """`depth_objective`, its options gathered."""
    factors, ends, normalize = options.weights, (options.min_depth, options.max_depth), options.normalize
    dtype = accumulation_dtype(depth, log_scale, teacher_depth, target)
    depth, log_scale, target = depth.to(dtype), log_scale.to(dtype), target.to(dtype)
    silog = silog_loss(depth, target, options.variance_focus, *ends, normalize=normalize)
    uncertainty = laplace_nll(
        depth, log_scale, target, options.joint, *ends, beta_nll=options.beta_nll, normalize=normalize
    )
    response = torch.zeros_like(silog)
    if teacher_depth is not None:
        teacher_depth = teacher_depth.to(dtype)
        weight = uncertainty_guide(
            log_scale, _has_teacher(teacher_depth), options.guide, options.guide_strength, normalize=normalize
        )
        if options.gate:
            weight = weight * teacher_gate(teacher_depth, target, min_depth=ends[0], max_depth=ends[1])
        response = focal_response_loss(
            depth, teacher_depth, weight, options.beta, options.gamma, options.detach_focal, *ends, normalize=normalize
        )
    with without_autocast(depth):
        total = factors.silog * silog + factors.uncertainty * uncertainty + factors.response * response
    return ObjectiveTerms(total, silog.detach(), uncertainty.detach(), response.detach())


def _has_target(target: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """M: comparisons with NaN are false, and infinity is above max_depth."""
    return (target >= min_depth) & (target <= max_depth)


def _has_teacher(teacher_depth: Tensor) -> Tensor:
    """Ω: finite and positive; a comparison with NaN is false."""
    return (teacher_depth > 0) & (teacher_depth < torch.inf)


def _axes(normalize: str) -> tuple[int, ...]:
    """What one mean is taken over: an image, or the batch."""
    return (1, 2, 3) if normalize == "image" else (0, 1, 2, 3)


def _at_least_one(mask: Tensor, axes: tuple[int, ...]) -> Tensor:
    return mask.sum(axes, keepdim=True).clamp(min=1)


def _mean(values: Tensor, mask: Tensor, normalize: str) -> Tensor:
    """Of values that are 0 off the mask; per image over all images, those with nothing valid at 0."""
    axes = _axes(normalize)
    return (values.sum(axes, keepdim=True) / _at_least_one(mask, axes)).mean()


def _log_ratio(depth: Tensor, other: Tensor, mask: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """ln depth − ln other, both clamped (no gradient where clamped), exactly 0 off the mask: ln of the same number."""
    depth, other = (torch.where(mask, x, 1).clamp(min_depth, max_depth).log() for x in (depth, other))
    return depth - other


def _in_one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    dtype = accumulation_dtype(*tensors)
    return tuple(t.to(dtype) for t in tensors)
