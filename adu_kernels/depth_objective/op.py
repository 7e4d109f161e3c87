"""The per-pixel losses of the depth student: checks, choice of the implementation, and the public functions.

All of them share METHOD §8. Maps are B×1×H×W, floating, on one device, any strides; depths in metres. A target is
valid where min_depth ≤ target ≤ max_depth, a teacher's depth where it is finite and positive; NaN, inf, 0 and negative
numbers mean "none". Valid depths are clamped to [min_depth, max_depth] before a logarithm, with zero gradient where
clamped. Whatever stands at a pixel that is not valid, in any of the maps, changes neither loss nor gradient; with
nothing valid both are exactly 0. A NaN predicted at a valid pixel makes the loss NaN. Results are fp32 (fp64 if an
input is) whatever autocast says. Nothing waits for a GPU, nothing writes into an input. No second derivative through
the Triton kernels: a RuntimeError says so.

`normalize`: "batch" takes every mean (of the losses, in SILog, in the guide) over the valid pixels of the whole batch.
"image" takes it over each image's own, and the loss is the sum of the images' losses divided by B, the number of all
images: one with nothing valid adds exactly 0 and counts in B, so that what an image contributes does not depend on the
others, and a batch split over devices gives the same mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .. import checks
from ..backend import dispatch
from . import launch, reference
from .reference import ObjectiveOptions, ObjectiveTerms, ObjectiveWeights

GUIDES = ("emphasise", "attenuate", "none")
NORMALIZE = ("batch", "image")
SMALLEST_DEPTH, LARGEST_DEPTH = 1e-18, 1e18
"""Metres; quotients of two such depths are numbers in fp32."""


def silog_loss(
    depth: Tensor,
    target: Tensor,
    variance_focus: float = 0.85,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    *,
    normalize: str = "batch",
    backend: str = "auto",
) -> Tensor:
    """Scale-invariant logarithmic loss (Eigen et al., arXiv 1406.2283, in the square-root form of BTS, 1907.10326).

    10·√(mean q² − variance_focus·(mean q)² + 1e-6), q = ln depth − ln target, means over the valid targets. AdaBins
    (2011.14141) and what followed it take torch.var there, with n − 1 in place of n, and no 1e-6: with variance_focus
    0.85, 10·√(var q + 0.15·(mean q)²), larger by a factor of at most √(n/(n − 1)) for n valid targets.

    Args:
        depth, target: B×1×H×W metres; a target of NaN, inf, ≤ 0 or outside [min_depth, max_depth] is not valid.
        variance_focus: in [0, 1]; 1 ignores the overall scale.
        min_depth, max_depth: metres, 0 < min_depth < max_depth.
        normalize: "batch" or "image".
        backend: "auto", "triton" or "torch".

    Returns:
        A scalar, fp32 (fp64 if an input is); exactly 0 where no target is valid. Differentiable in depth.

    Raises:
        ValueError: a wrong shape, device, number or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> depth, target = torch.tensor([[2.0, 4.0, 8.0], [4.0, 8.0, 0.0]]).view(2, 1, 1, 1, 3)
        >>> silog_loss(depth, target), silog_loss(depth, target, variance_focus=1.0)  # half as far, 0 counts as none
        (tensor(2.6846), tensor(0.0100))
    """
    _check_maps(depth=depth, target=target)
    variance_focus = checks.check_number("variance_focus", variance_focus, 0.0, 1.0)
    min_depth, max_depth = _check_range(min_depth, max_depth)
    checks.check_choice("normalize", normalize, NORMALIZE)
    run = dispatch("silog_loss", backend, depth, torch_twin=reference.silog_loss, triton_twin=launch.silog_loss)
    return run(depth, target, variance_focus, min_depth, max_depth, normalize=normalize)


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
    backend: str = "auto",
) -> Tensor:
    """Negative log-likelihood of ln depth under a Laplace distribution (Kendall & Gal, arXiv 1703.04977), less ln 2.

    mean over the valid targets of e^{−s}·|ln depth − ln target| + s, s = log_scale clamped to [−6, 3] (zero gradient
    where clamped).

    Args:
        depth, target: B×1×H×W metres.
        log_scale: B×1×H×W, natural log of the Laplace scale of ln depth.
        joint: also send the gradient to depth; by default it trains log_scale alone.
        min_depth, max_depth: metres, 0 < min_depth < max_depth, the range of a valid target.
        beta_nll: β ≥ 0; each pixel's term is multiplied by e^{2βs} without gradient (β-NLL, arXiv 2203.09168, with the
            Laplace scale in the place of σ), which keeps uncertain pixels learning. 0 is the plain likelihood.
        normalize: "batch" or "image".
        backend: "auto", "triton" or "torch".

    Returns:
        A scalar, fp32 (fp64 if an input is); exactly 0 where no target is valid. Differentiable in log_scale, and with
        `joint` in depth.

    Raises:
        ValueError: a wrong shape, device, number or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> depth, target, log_scale = torch.tensor([2.0, 4.0, 0.0]).view(3, 1, 1, 1, 1)
        >>> laplace_nll(depth, log_scale, target)  # off by ln 2 where an error of 1 was expected
        tensor(0.6931)
    """
    _check_maps(depth=depth, log_scale=log_scale, target=target)
    joint = checks.check_flag("joint", joint)
    min_depth, max_depth = _check_range(min_depth, max_depth)
    beta_nll = checks.check_number("beta_nll", beta_nll, 0.0)
    checks.check_choice("normalize", normalize, NORMALIZE)
    run = dispatch("laplace_nll", backend, depth, torch_twin=reference.laplace_nll, triton_twin=launch.laplace_nll)
    return run(depth, log_scale, target, joint, min_depth, max_depth, beta_nll, normalize=normalize)


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
    backend: str = "auto",
) -> Tensor:
    """Distance to the teacher's depth that dwells on hard pixels (our reconstruction, METHOD §5).

    After the focal loss (arXiv 1708.02002) and Focal-R (2102.09554): mean over the valid teacher depths of
    weight·e·tanh(βe/2)^γ, e = |ln depth − ln teacher_depth|.

    Args:
        depth, teacher_depth: B×1×H×W metres; a teacher's depth that is not finite and positive is not valid.
        weight: B×1×H×W or None (1 everywhere).
        beta: > 0, how soon an error counts as large.
        gamma: ≥ 1.
        detach_focal: no gradient through tanh(βe/2)^γ.
        min_depth, max_depth: metres, 0 < min_depth < max_depth; both depths are clamped to it.
        normalize: "batch" or "image".
        backend: "auto", "triton" or "torch".

    Returns:
        A scalar, fp32 (fp64 if a depth is); exactly 0 where no teacher depth is valid. Differentiable in depth alone.

    Raises:
        ValueError: a wrong shape, device, number or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> depth, teacher_depth = torch.tensor([2.0, 4.0]).view(2, 1, 1, 1, 1)
        >>> focal_response_loss(depth, teacher_depth), focal_response_loss(3.9 * depth / 2, teacher_depth)
        (tensor(0.6918), tensor(0.0032))
    """
    _check_maps(depth=depth, teacher_depth=teacher_depth)
    if weight is not None:
        _check_maps(depth=depth, weight=weight)
    beta, gamma, detach_focal = _check_focus(beta, gamma, detach_focal)
    min_depth, max_depth = _check_range(min_depth, max_depth)
    checks.check_choice("normalize", normalize, NORMALIZE)
    run = dispatch(
        "focal_response_loss", backend, depth,
        torch_twin=reference.focal_response_loss, triton_twin=launch.focal_response_loss,
    )  # fmt: skip
    return run(depth, teacher_depth, weight, beta, gamma, detach_focal, min_depth, max_depth, normalize=normalize)


def uncertainty_guide(
    log_scale: Tensor,
    valid: Tensor,
    guide: str = "emphasise",
    strength: float | Tensor = 0.5,
    *,
    normalize: str = "batch",
    backend: str = "auto",
) -> Tensor:
    """Weights that follow the student's own uncertainty (our reconstruction, METHOD §6); no gradient.

    clip((1 − ρ) + ρ·exp(s − logmeanexp(s)), ¼, 4), s = log_scale clamped to [−6, 3], the mean over the valid
    pixels. "emphasise" gives uncertain pixels more weight, "attenuate" (−s in place of s) less, "none" is 1 everywhere.

    Args:
        log_scale: B×1×H×W.
        valid: B×1×H×W bool.
        guide: "emphasise", "attenuate" or "none".
        strength: ρ, a number in [0, 1] or a floating 0-dim tensor (a ramp that lives on the GPU; its value is not
            checked).
        normalize: "batch" or "image".
        backend: "auto", "triton" or "torch".

    Returns:
        B×1×H×W, fp32 (fp64 for fp64), 1 where not valid.

    Raises:
        ValueError: a wrong shape, device, number or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> log_scale = torch.tensor([1.0, 3.0, 8.0]).log().view(1, 1, 1, 3)
        >>> uncertainty_guide(log_scale, log_scale < 2)  # the third is not valid; of the others the mean is 2
        tensor([[[[0.7500, 1.2500, 1.0000]]]])
    """
    _check_maps(log_scale=log_scale)
    checks.check_mask("valid", valid, "log_scale", log_scale)
    strength = _check_guide("guide", guide, "strength", strength)
    checks.check_choice("normalize", normalize, NORMALIZE)
    run = dispatch(
        "uncertainty_guide", backend, log_scale,
        torch_twin=reference.uncertainty_guide, triton_twin=launch.uncertainty_guide,
    )  # fmt: skip
    return run(log_scale, valid, guide, strength, normalize=normalize)


def teacher_gate(
    teacher_depth: Tensor,
    target: Tensor,
    sharpness: float = 5.0,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    *,
    backend: str = "auto",
) -> Tensor:
    """Weights that keep a wrong teacher quiet (after URCDC-Depth, arXiv 2302.08149; METHOD §6); no gradient.

    exp(−sharpness·|d_t − g|/(d_t + g)) where teacher depth d_t and target g are both valid, else 1. No clamp.

    Args:
        teacher_depth, target: B×1×H×W metres.
        sharpness: ≥ 0.
        min_depth, max_depth: metres, 0 < min_depth < max_depth, the range of a valid target.
        backend: "auto", "triton" or "torch".

    Returns:
        B×1×H×W in (0, 1], fp32 (fp64 if an input is).

    Raises:
        ValueError: a wrong shape, device or number; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> teacher_depth, target = torch.tensor([[4.0, 4.0, 4.0], [4.0, 6.0, 0.0]]).view(2, 1, 1, 1, 3)
        >>> teacher_gate(teacher_depth, target)  # right, off by a fifth of the sum, nothing known
        tensor([[[[1.0000, 0.3679, 1.0000]]]])
    """
    _check_maps(teacher_depth=teacher_depth, target=target)
    sharpness = checks.check_number("sharpness", sharpness, 0.0)
    min_depth, max_depth = _check_range(min_depth, max_depth)
    run = dispatch(
        "teacher_gate", backend, teacher_depth, torch_twin=reference.teacher_gate, triton_twin=launch.teacher_gate
    )
    return run(teacher_depth, target, sharpness, min_depth, max_depth)


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
    backend: str = "auto",
) -> ObjectiveTerms:
    """Supervision, uncertainty and response distillation of a depth map in one (our reconstruction, METHOD §5–§8).

    total = weights.silog · `silog_loss` + weights.uncertainty · `laplace_nll` + weights.response ·
    `focal_response_loss`, the last weighted per pixel by `uncertainty_guide` over the valid teacher depths times, with
    `gate`, `teacher_gate`. Each option means what it means there.

    Args:
        depth, target: B×1×H×W metres.
        log_scale: B×1×H×W, natural log of the Laplace scale of ln depth.
        teacher_depth: B×1×H×W metres, or None for a student without a teacher; the response term is then exactly 0.
        weights: (silog, uncertainty, response), a mapping with these keys, or `ObjectiveWeights`; finite numbers ≥ 0,
            by default (1, 1, 10), untuned.
        guide: "emphasise", "attenuate" or "none".
        guide_strength: ρ in [0, 1], a number or a floating 0-dim tensor.
        gate: whether `teacher_gate` takes part.
        beta, gamma, detach_focal: of the response.
        joint, beta_nll: of the uncertainty.
        variance_focus: of the supervision.
        min_depth, max_depth: metres, 0 < min_depth < max_depth, of all three.
        normalize: "batch" or "image".
        backend: "auto", "triton" or "torch".

    Returns:
        ObjectiveTerms(total, silog, uncertainty, response): scalars, fp32 (fp64 if an input is). total is
        differentiable in depth and log_scale; the terms are unweighted and detached, for logging.

    Raises:
        ValueError: a wrong shape, device, number or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> depth, log_scale, teacher_depth, target = torch.tensor([2.0, 0.0, 2.5, 4.0]).view(4, 1, 1, 1, 1)
        >>> terms = depth_objective(depth, log_scale, teacher_depth, target)
        >>> terms.silog, terms.uncertainty, terms.response, terms.total
        (tensor(2.6846), tensor(0.6931), tensor(0.0567), tensor(3.9451))
    """
    _check_maps(depth=depth, log_scale=log_scale, target=target)
    if teacher_depth is not None:
        _check_maps(depth=depth, teacher_depth=teacher_depth)
    factors = checks.check_weights(weights, ObjectiveWeights)
    guide_strength = _check_guide("guide", guide, "guide_strength", guide_strength)
    gate = checks.check_flag("gate", gate)
    beta, gamma, detach_focal = _check_focus(beta, gamma, detach_focal)
    joint = checks.check_flag("joint", joint)
    beta_nll = checks.check_number("beta_nll", beta_nll, 0.0)
    variance_focus = checks.check_number("variance_focus", variance_focus, 0.0, 1.0)
    min_depth, max_depth = _check_range(min_depth, max_depth)
    checks.check_choice("normalize", normalize, NORMALIZE)
    options = ObjectiveOptions(
        factors, guide, guide_strength, gate, beta, gamma, detach_focal, joint, beta_nll, variance_focus,
        min_depth, max_depth, normalize,
    )  # fmt: skip
    run = dispatch("depth_objective", backend, depth, torch_twin=reference.objective, triton_twin=launch.objective)
    return run(depth, log_scale, teacher_depth, target, options)


def _check_maps(**maps: Any) -> None:
    """Maps of one shape on one device, compared with the first."""
    (first_name, first), *others = maps.items()
    checks.check_tensor(first_name, first, "B×1×H×W")
    for name, value in others:
        checks.check_tensor(name, value, "B×1×H×W")
        checks.check_same_shape(name, value, first_name, first)
        checks.check_same_device(name, value, first_name, first)


def _check_range(min_depth: Any, max_depth: Any) -> tuple[float, float]:
    min_depth = checks.check_number("min_depth", min_depth)
    max_depth = checks.check_number("max_depth", max_depth)
    if not 0 < min_depth < max_depth:
        raise ValueError(f"min_depth, max_depth: expected 0 < min_depth < max_depth, got {min_depth} and {max_depth}")
    if min_depth < SMALLEST_DEPTH or max_depth > LARGEST_DEPTH:
        expected = f"expected a range within {SMALLEST_DEPTH} to {LARGEST_DEPTH} m"
        raise ValueError(f"min_depth, max_depth: {expected}, got {min_depth} and {max_depth}")
    return min_depth, max_depth


def _check_focus(beta: Any, gamma: Any, detach_focal: Any) -> tuple[float, float, bool]:
    beta = checks.check_number("beta", beta)
    if beta <= 0:
        raise ValueError(f"beta: expected a number > 0, got {beta}")
    gamma = checks.check_number("gamma", gamma, 1.0)  # below 1 the slope at e = 0 is infinite
    return beta, gamma, checks.check_flag("detach_focal", detach_focal)


def _check_guide(guide_name: str, guide: Any, strength_name: str, strength: Any) -> float | Tensor:
    checks.check_choice(guide_name, guide, GUIDES)
    if not isinstance(strength, Tensor):
        return checks.check_number(strength_name, strength, 0.0, 1.0)
    if strength.ndim or not strength.is_floating_point():
        got = f"{strength.dtype} {checks.shown(strength.shape)}"
        raise ValueError(f"{strength_name}: expected a number or a floating 0-dim tensor, got {got}")
    return strength
