"""Disparity regression: checks, launch shapes, registration, and the public function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from .._triton import runtime
from .._triton.dtypes import accumulator
from ..backend import choose
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import reference


def disparity_regression(
    logits: Tensor,
    scale: int = 1,
    *,
    start: float = 0.0,
    interval: float = 1.0,
    temperature: float = 1.0,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Soft-argmin (GC-Net, arXiv 1703.04309) with its variance, after trilinear upsampling (PSMNet, arXiv 1803.08669).

    L = trilinear(logits → B×sD×sH×sW, align_corners=False), p = softmax of L/temperature over disparity,
    disparity = Σ_d v_d·p_d, variance = Σ_d (v_d − disparity)²·p_d, v_d = start + interval·d.

    logits: B×D×H×W or B×1×D×H×W, floating, any strides; a higher score is a better match, start first. −inf excludes
    a candidate (what is below −2¹⁰⁰ counts as −2¹⁰⁰).
    scale: the whole number s ≥ 1 by which the map is smaller than the image.
    start, interval: the first of the sD upsampled candidates and the step between them, in pixels; a cascade's stage
    that looks in a narrower range gives its own. interval > 0.
    temperature: > 0; below 1 the distribution is sharper.
    backend: "auto", "triton" or "torch".

    Returns disparity and variance, each B×sH×sW, in pixels and squared pixels of the upsampled map, fp32 (fp64 for
    fp64 logits) whatever autocast says. The variance is never negative. Differentiable in logits through both (once:
    the Triton kernels have no second derivative).
    Raises ValueError for a wrong shape or number, TypeError for a wrong type; each names the argument.
    """
    checks.check_tensor("logits", logits, "B×D×H×W", "B×1×D×H×W")
    scale = checks.check_count("scale", scale)
    start = checks.check_number("start", start)
    interval = checks.check_number("interval", interval, low=1e-6)
    temperature = checks.check_number("temperature", temperature, low=1e-6)
    run = choose(
        "disparity_regression", backend, logits, torch_twin=reference.disparity_regression, triton_twin=_triton
    )
    return run(logits, scale, start=start, interval=interval, temperature=temperature)


def _triton(
    logits: Tensor, scale: int = 1, *, start: float = 0.0, interval: float = 1.0, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    scores = logits.squeeze(1) if logits.ndim == 5 else logits
    if scale * scores.shape[2] * scale * (scores.shape[3] + 1) >= 2**31:
        raise ValueError(f"logits: expected an upsampled map of less than 2³¹ pixels, got {checks.shown(logits.shape)}")
    if temperature != 1:
        scores = scores.to(accumulation_dtype(scores)) / temperature
    mean, variance, _, _ = torch.ops.adu_kernels.disparity_regression(scores, scale)
    if (start, interval) != (0, 1):
        return start + interval * mean, interval * interval * variance
    return mean, variance


@dataclass(frozen=True)
class LaunchShape:
    """How the kernels divide their work, for every scale up to `scale`."""

    scale: int
    columns: int
    """Fine columns of a cell per thread, forward: its loads serve so many pixels."""
    rows: int
    """Side of the square of fine pixels per thread, backward."""
    lanes: int
    """Cells per program, one per thread: then all sums over a cell's pixels stay in its thread."""
    candidates: int
    """Coarse candidates per program, backward: the one before them is calculated twice."""

    @property
    def warps(self) -> int:
        return self.lanes // runtime.WARP_SIZE


LAUNCH_SHAPES = (
    # Chosen from the machine code (README): registers, no exchange between threads. No row is measured yet.
    LaunchShape(scale=1, columns=1, rows=1, lanes=128, candidates=16),
    LaunchShape(scale=2, columns=2, rows=2, lanes=128, candidates=16),
    LaunchShape(scale=4, columns=4, rows=4, lanes=128, candidates=16),
    # With 4 × 4 pixels the longer series of s = 8 spills on gfx942.
    LaunchShape(scale=2**31, columns=4, rows=2, lanes=128, candidates=16),
)
GATHER_LANES = 256


def launch_shape(scale: int) -> LaunchShape:
    return next(shape for shape in LAUNCH_SHAPES if scale <= shape.scale)


@torch.library.custom_op("adu_kernels::disparity_regression", mutates_args=())
def _forward(logits: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance, largest fine logit, and Σ exp(logit − largest): all B×sH×sW."""
    from . import kernels

    batch, candidates, height, width = logits.shape
    mean, variance, peak, mass = outputs = _fine_maps(logits, scale)
    shape = launch_shape(scale)
    tiles = -(-scale * height * (width + 1) // shape.lanes)
    runtime.run(
        kernels.forward,
        batch * tiles * -(-scale // shape.columns),
        logits,
        *outputs,
        candidates,
        height,
        width,
        tiles,
        *logits.stride(),
        S=scale,
        P=shape.columns,
        N=shape.lanes,
        ACC=accumulator(logits),
        num_warps=shape.warps,
        num_stages=1,
    )
    return mean, variance, peak, mass


@_forward.register_fake
def _fine_maps(logits: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, height, width = logits.shape
    size, dtype = (batch, scale * height, scale * width), accumulation_dtype(logits)
    mean, variance, peak, mass = (logits.new_empty(size, dtype=dtype) for _ in range(4))
    return mean, variance, peak, mass


@torch.library.custom_op("adu_kernels::disparity_regression_backward", mutates_args=())
def _backward(
    logits: Tensor,
    mean: Tensor,
    variance: Tensor,
    peak: Tensor,
    mass: Tensor,
    grad_mean: Tensor,
    grad_variance: Tensor,
    scale: int,
) -> Tensor:
    from . import kernels

    batch, candidates, height, width = logits.shape
    shape = launch_shape(scale)
    corners = mean.new_empty((4, batch, candidates, height + 1, width + 1))
    tiles = -(-(height + 1) * (width + 1) // shape.lanes)
    runtime.run(
        kernels.backward,
        batch * tiles * -(-candidates // shape.candidates),
        logits,
        mean,
        variance,
        peak,
        mass,
        grad_mean,
        grad_variance,
        corners,
        batch,
        candidates,
        height,
        width,
        tiles,
        *logits.stride(),
        *grad_mean.stride(),
        *grad_variance.stride(),
        S=scale,
        R=shape.rows,
        N=shape.lanes,
        CHUNK=shape.candidates,
        ACC=accumulator(logits),
        num_warps=shape.warps,
        num_stages=1,
    )
    gradient = torch.empty_like(logits)
    tiles = -(-height * width // GATHER_LANES)
    runtime.run(
        kernels.gather,
        batch * candidates * tiles,
        corners,
        logits,
        gradient,
        batch,
        candidates,
        height,
        width,
        tiles,
        *logits.stride(),
        *gradient.stride(),
        N=GATHER_LANES,
        num_warps=4,
    )
    return gradient


@_backward.register_fake
def _(logits: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(logits)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    logits, ctx.scale = inputs
    mean, variance, peak, mass = output
    keep(ctx, "disparity_regression", [logits, peak, mass], [mean, variance])
    ctx.mark_non_differentiable(peak, mass)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_mean, grad_variance, grad_peak, grad_mass):  # type: ignore[no-untyped-def]
    (logits, peak, mass), (mean, variance) = kept(
        ctx, lambda logits, *_: torch.ops.adu_kernels.disparity_regression(logits, ctx.scale)[:2]
    )
    given = (torch.zeros_like(mean) if gradient is None else gradient for gradient in (grad_mean, grad_variance))
    return _backward(logits, mean, variance, peak, mass, *given, ctx.scale), None


differentiable_once(
    _forward, _backward, setup_context=_save, backward=_differentiate, operation=lambda *_: "disparity_regression"
)
