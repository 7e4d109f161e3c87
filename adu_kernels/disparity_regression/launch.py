"""How the kernels are started: the public call, the launch table, PyTorch's operators and their backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator
from .._triton.layout import ceil_div
from .._triton.operators import operator
from ..checks import shown
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype


def disparity_regression(
    logits: Tensor, scale: int = 1, *, start: float = 0.0, interval: float = 1.0, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    scores = logits.squeeze(1) if logits.ndim == 5 else logits
    if scale * scores.shape[2] * scale * (scores.shape[3] + 1) >= 2**31:
        raise ValueError(f"logits: expected an upsampled map of less than 2³¹ pixels, got {shown(logits.shape)}")
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
    forward: tuple[int, int]
    """Fine rows and columns of a cell per thread, forward: its loads serve so many pixels."""
    backward: tuple[int, int]
    lanes: int
    """Cells per program, one per thread: then all sums over a cell's pixels stay in its thread."""
    candidates: int
    """Coarse candidates per program, backward: the one before them is calculated twice."""
    most_candidates: int
    """The same where that leaves `PROGRAMS_WANTED` programs."""
    forward_registers: int | None = None
    """What a thread may have, where that can be said (not on AMD); None: what the compiler takes."""
    backward_registers: int | None = None

    @property
    def warps(self) -> int:
        return self.lanes // runtime.WARP_SIZE

    def programs(self, scale: int, height: int, width: int) -> tuple[int, int]:
        """Of one image, forward: tiles of lanes, and programs beside one another for the columns of a cell.

        A row of cells has its s fine rows in groups; of the first row, which hangs over the border, groups above the
        image are left out, of the last those below.
        """
        rows, columns = self.forward
        above, within = (scale - scale // 2) // rows, ceil_div(scale - scale // 2, rows)
        groups = height * ceil_div(scale, rows) + within - above
        return ceil_div(groups * (width + 1), self.lanes), ceil_div(scale, columns)

    def candidates_of(self, tiles: int, candidates: int) -> int:
        """Per program, for so many coarse candidates of so many tiles of all images."""
        enough = tiles * ceil_div(candidates, self.most_candidates) >= PROGRAMS_WANTED
        return self.most_candidates if enough else self.candidates


LAUNCH_SHAPES = (
    # Chosen from the machine code (README): registers, no exchange between threads. Measured for ×4 alone (H200,
    # bench/results/h200, `gpu_check.sh tune`): backward at B 8 with 16 candidates 157 µs, 48 142 µs; at B 1, where 48
    # leave 66 programs, 25 and 44. Forward two fine rows a thread are 43.6 instructions a pixel and candidate, one row
    # 53 (before intervals were summed by twelves); at 70ed244, whose first pass had a fault, two took 105.5 µs, one and
    # four 103.7, two in 96 registers 98.8, in which sums by twelves spill.
    LaunchShape(scale=1, forward=(1, 1), backward=(1, 1), lanes=128, candidates=16, most_candidates=16),
    LaunchShape(scale=2, forward=(1, 2), backward=(2, 2), lanes=128, candidates=16, most_candidates=16),
    LaunchShape(scale=4, forward=(2, 4), backward=(4, 4), lanes=128, candidates=16, most_candidates=48),
    # With 4 × 4 pixels the longer series of s = 8 spills on gfx942.
    LaunchShape(scale=2**31, forward=(2, 4), backward=(2, 2), lanes=128, candidates=16, most_candidates=16),
)
PROGRAMS_WANTED = 264
"""Two for each of an H200's 132 multiprocessors: the registers leave room for no more."""
GATHER_LANES = 256


def launch_shape(scale: int) -> LaunchShape:
    return next(shape for shape in LAUNCH_SHAPES if scale <= shape.scale)


def _limit(registers: int | None) -> dict[str, int]:
    return {"maxnreg": registers} if registers and runtime.WARP_SIZE == 32 else {}


@operator("adu_kernels::disparity_regression")
def regression(logits: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance, row_max (the largest fine logit) and row_sum (Σ exp(logit − row_max)): all B×sH×sW."""
    from . import kernels  # here and below: Triton is needed only where a kernel runs

    batch, candidates, height, width = logits.shape
    outputs = _new_outputs(logits, scale)
    shape = launch_shape(scale)
    tiles, across = shape.programs(scale, height, width)
    runtime.run(
        kernels.forward, batch * tiles * across, logits, *outputs, candidates, height, width, tiles, *logits.stride(),
        config=kernels.RegressionConfig(scale, *shape.forward, shape.lanes, 0, str(accumulator(logits))),
        num_warps=shape.warps, num_stages=1, **_limit(shape.forward_registers),
    )  # fmt: skip
    return outputs


@regression.register_fake
def _new_outputs(logits: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, height, width = logits.shape
    size, dtype = (batch, scale * height, scale * width), accumulation_dtype(logits)
    mean, variance, row_max, row_sum = (logits.new_empty(size, dtype=dtype) for _ in range(4))
    return mean, variance, row_max, row_sum


@operator("adu_kernels::disparity_regression_backward")
def regression_backward(
    logits: Tensor, mean: Tensor, variance: Tensor, row_max: Tensor, row_sum: Tensor,
    grad_mean: Tensor, grad_variance: Tensor, scale: int,
) -> Tensor:  # fmt: skip
    """Gradient of logits."""
    from . import kernels

    batch, candidates, height, width = logits.shape
    shape = launch_shape(scale)
    grad_corners = mean.new_empty((4, batch, candidates, height + 1, width + 1))
    tiles = ceil_div((height + 1) * (width + 1), shape.lanes)
    each = shape.candidates_of(batch * tiles, candidates)
    programs = batch * tiles * ceil_div(candidates, each)
    runtime.run(
        kernels.backward, programs, logits, mean, variance, row_max, row_sum, grad_mean, grad_variance, grad_corners,
        *logits.shape, tiles, *logits.stride(), *grad_mean.stride(), *grad_variance.stride(),
        config=kernels.RegressionConfig(scale, *shape.backward, shape.lanes, each, str(accumulator(logits))),
        num_warps=shape.warps, num_stages=1, **_limit(shape.backward_registers),
    )  # fmt: skip
    grad_logits = torch.empty_like(logits)
    tiles = ceil_div(height * width, GATHER_LANES)
    runtime.run(
        kernels.gather, batch * candidates * tiles, grad_corners, logits, grad_logits,
        *logits.shape, tiles, *logits.stride(), *grad_logits.stride(), LANES=GATHER_LANES, num_warps=4,
    )  # fmt: skip
    return grad_logits


@regression_backward.register_fake
def _(logits: Tensor, *others: object) -> Tensor:
    return torch.empty_like(logits)


def _setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, ...]) -> None:
    logits, ctx.scale = inputs
    mean, variance, row_max, row_sum = output
    keep(ctx, "disparity_regression", [logits, row_max, row_sum], [mean, variance])
    ctx.mark_non_differentiable(row_max, row_sum)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_mean: Tensor | None, grad_variance: Tensor | None, *others: None) -> tuple[Tensor, None]:
    (logits, row_max, row_sum), (mean, variance) = kept(
        ctx, lambda logits, *_: torch.ops.adu_kernels.disparity_regression(logits, ctx.scale)[:2]
    )
    given = (torch.zeros_like(mean) if gradient is None else gradient for gradient in (grad_mean, grad_variance))
    return regression_backward(logits, mean, variance, row_max, row_sum, *given, ctx.scale), None


differentiable_once(
    regression, regression_backward,
    setup_context=_setup_context, backward=_backward, operation=lambda *_: "disparity_regression",
)  # fmt: skip
