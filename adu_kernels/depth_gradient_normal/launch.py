"""The Triton kernels as two PyTorch operators, their launch table, and how they are started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator
from .._triton.layout import ceil_div, divided_strides, needs_int64, stride_divisor, unit_stride
from .._triton.operators import operator
from ..checks import check_weights
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from .reference import GradientNormalTerms, GradientNormalWeights

if TYPE_CHECKING:
    from .kernels import GradientNormalConfig

NAME = "depth_gradient_normal_loss"


@dataclass(frozen=True)
class LaunchShape:
    """A program's tile: columns of a thread, rows of all; and its warps."""

    columns: int
    rows: int
    num_warps: int


# Not measured: chosen by the counts in bench/LOG.md. A thread of four columns makes six of windows backward, not
# twelve. Of its rows the forward reads two more, the backward four: 16 would be 7 % and 15 % fewer instructions, and
# half as many warps, 14 a multiprocessor at B 8, 384×1248. A warp a program, so that no two wait for each other.
# columns·rows may not pass 126: so many factors in [1, 2) are multiplied (`windows.times`).
PIXELS = LaunchShape(columns=4, rows=8, num_warps=1)
FINISH_WARPS = 4


class Numbers(NamedTuple):
    """What may change from call to call without another compilation."""

    offset: float
    min_depth: float
    max_depth: float
    depth: float
    gradient_x: float
    gradient_y: float
    normal: float


class Division(NamedTuple):
    """Images in strips of rows, those in tiles of a warp's columns: one program each."""

    segments: int
    """What one mean is taken over: the batch, or an image each."""
    strips: int
    tiles: int
    programs: int

    @staticmethod
    def of(depth: Tensor, per_image: bool) -> Division:
        batch, _, height, width = depth.shape
        strips, tiles = ceil_div(height, PIXELS.rows), ceil_div(width, PIXELS.columns * runtime.WARP_SIZE)
        return Division(batch if per_image else 1, strips, tiles, batch * strips * tiles)


def depth_gradient_normal_loss(
    depth: Tensor, target: Tensor, *, weights: Sequence[float] | Mapping[str, float] = GradientNormalWeights(),
    offset: float = 0.5, min_depth: float = 1e-3, max_depth: float = 80.0, normalize: str = "batch",
) -> GradientNormalTerms:  # fmt: skip
    numbers = Numbers(offset, min_depth, max_depth, *check_weights(weights, GradientNormalWeights))
    total, terms, _ = losses(depth, target.detach(), [float(number) for number in numbers], normalize == "image")
    return GradientNormalTerms(total, *terms.unbind())


@operator("adu_kernels::depth_gradient_normal")
def losses(
    depth: Tensor, target: Tensor, numbers: Sequence[float], per_image: bool
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Total, the four terms, and what the sums of each segment are divided by. numbers: those of `Numbers`."""
    from . import kernels  # here and below: Triton is needed only where a kernel runs

    total, terms, divisors = _new_outputs(depth, target, numbers, per_image)
    plan, config = Division.of(depth, per_image), _config(depth, target, per_image)
    partial_sums = total.new_empty(4 * plan.programs)
    partial_counts = total.new_empty(2 * plan.programs, dtype=torch.int32)
    passed = _passed(depth, target, numbers)
    runtime.run(
        kernels.sums, plan.programs, partial_sums, partial_counts, depth, target,
        *_sizes(depth, target, config), plan.strips, plan.tiles, passed, config=config, **_compiled(PIXELS.num_warps),
    )  # fmt: skip
    runtime.run(
        kernels.finish, 1, total, terms, divisors, partial_sums, partial_counts, plan.segments,
        plan.programs // plan.segments, passed, config=config, **_compiled(FINISH_WARPS),
    )  # fmt: skip
    return total, terms, divisors


@losses.register_fake
def _new_outputs(
    depth: Tensor, target: Tensor, numbers: Sequence[float], per_image: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = accumulation_dtype(depth, target)
    segments = depth.shape[0] if per_image else 1
    total, terms, divisors = (depth.new_empty(shape, dtype=dtype) for shape in ((), (4,), (2, segments)))
    return total, terms, divisors


@operator("adu_kernels::depth_gradient_normal_backward")
def losses_backward(
    grad_total: Tensor, depth: Tensor, target: Tensor, divisors: Tensor, numbers: Sequence[float], per_image: bool
) -> Tensor:
    """The gradient in depth, in a row, from what the forward was given and its divisors."""
    from . import kernels

    grad_depth = _new_gradient(grad_total, depth)
    plan, config = Division.of(depth, per_image), _config(depth, target, per_image)
    runtime.run(
        kernels.gradient, plan.programs, grad_depth, grad_total, divisors, depth, target,
        *_sizes(depth, target, config), plan.strips, plan.tiles, plan.segments, _passed(depth, target, numbers),
        config=config, **_compiled(PIXELS.num_warps),
    )  # fmt: skip
    return grad_depth


@losses_backward.register_fake
def _new_gradient(grad_total: Tensor, depth: Tensor, *others: Any) -> Tensor:
    return depth.new_empty(depth.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.options = inputs[2:]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    keep(ctx, NAME, [*inputs[:2], output[2]])


def _backward(ctx: Any, grad_total: Tensor | None, *others: None) -> tuple[Tensor | None, ...]:
    if grad_total is None or not ctx.needs_input_grad[0]:
        return None, None, None, None
    inputs, _ = kept(ctx)
    return losses_backward(grad_total, *inputs, *ctx.options), None, None, None


differentiable_once(
    losses, losses_backward, setup_context=_setup_context, backward=_backward, operation=lambda *_: NAME
)


def _config(depth: Tensor, target: Tensor, per_image: bool) -> GradientNormalConfig:
    """What all three kernels are compiled for."""
    from .kernels import GradientNormalConfig

    maps = [depth, target]
    contiguous = unit_stride(maps, 3)
    wide = contiguous and depth.shape[3] % PIXELS.columns == 0 and stride_divisor(maps, 3) % PIXELS.columns == 0
    return GradientNormalConfig(
        runtime.WARP_SIZE, PIXELS.columns, PIXELS.rows, wide, contiguous, needs_int64(maps), per_image,
        str(accumulator(*maps)), SEGMENTS=4 if per_image else 1, PARTS=64 if per_image else 256,
    )  # fmt: skip


def _compiled(warps: int) -> dict[str, Any]:
    return {"num_warps": warps, "enable_fp_fusion": False}


def _sizes(depth: Tensor, target: Tensor, config: GradientNormalConfig) -> list[int]:
    """Strides of image, row and column of both, height and width."""
    divisor = PIXELS.columns if config.WIDE else 1
    strides = divided_strides([depth, target], divisor, unit_axis=3)
    return [*strides[:1], *strides[2:5], *strides[6:], depth.shape[2], depth.shape[3] // divisor]


def _passed(depth: Tensor, target: Tensor, numbers: Sequence[float]) -> Numbers:
    """The numbers as the kernels take them: fp32, in fp64 constants (Triton passes no fp64)."""
    given: list[Any] = list(numbers)
    if accumulation_dtype(depth, target) == torch.float64:
        import triton.language as tl

        given = [tl.constexpr(number) for number in given]
    return Numbers(*given)
