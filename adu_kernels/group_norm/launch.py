"""How the kernels are started, as `table` plans each launch; PyTorch's operators and their backward."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.layout import INT32_LIMIT, ceil_div
from .._triton.operators import operator
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import table
from .table import Layout, Plan, Terms

if TYPE_CHECKING:
    from .tiles import NormConfig


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    graded = torch.is_grad_enabled() and any(
        one is not None and one.requires_grad for one in (x, weight, bias, residual)
    )
    relu = activation == "relu"
    y, _, _, _ = torch.ops.adu_kernels.group_norm(x, weight, bias, residual, num_groups, eps, relu, graded)
    return y


@lru_cache(maxsize=1024, typed=True)
def _with(config: NormConfig, groups: int, split: int, parts: int) -> NormConfig:
    return config._replace(GROUPS=groups, SPLIT=split, PARTS=parts)


def new_partials(like: Tensor, *size: int) -> Tensor:
    """Memory for what programs find, whose offsets kernels count in 32 bits."""
    count = math.prod(size)
    if count >= INT32_LIMIT:
        raise ValueError(f"x: {count} partial sums of its groups and channels are too many: use backend='torch'")
    return like.new_empty(size)


def statistics(x: Tensor, mean: Tensor, layout: Layout, plan: Plan) -> Tensor:
    """What each chunk found: 4 × B × G × parts, of mean's type. plan: of `table.STATISTICS`."""
    from . import kernels  # here and below: Triton is needed only where a kernel runs

    batch, cut, parts = x.shape[0], plan.cut, plan.cut.chunks * plan.tile.split
    partials = new_partials(mean, 4, batch, plan.config.NUM_GROUPS, parts)
    runtime.run(
        kernels.statistics, plan.programs, x, partials, *layout.strides[0], *layout.sizes,
        cut.chunks, cut.tiles, parts, batch, config=plan.config, **plan.options,
    )  # fmt: skip
    return partials


def join(partials: Tensor, mean: Tensor, rstd: Tensor, config: NormConfig) -> None:
    """partials: 4 × B × G × parts, as `statistics` leaves them."""
    from . import kernels

    groups = min(config.GROUPS, table.JOINED_GROUPS)
    _, batch, num_groups, parts = partials.shape
    runtime.run(
        kernels.join, batch * ceil_div(num_groups, groups), partials, mean, rstd, parts, batch,
        config=_with(config, groups, 1, table.PARTS // (4 * groups)), num_warps=4, **table.UNFUSED,
    )  # fmt: skip


def totals(
    partials: Tensor, weight: Tensor | None, group_sums: Tensor, channel_sums: Tensor, config: NormConfig
) -> None:
    """partials: 2 × B × chunks × C, as `gradient_sums` leaves them."""
    from . import backward_kernels

    groups = min(config.GROUPS, max(table.TOTALLED_LANES // config.LANES, 1))
    blocks = table.Tile(1, groups, config.LANES, config.SPLIT).blocks(config.NUM_GROUPS)
    _, batch, chunks, _ = partials.shape
    runtime.run(
        backward_kernels.totals, batch * blocks, partials, _or(weight, partials), group_sums, channel_sums,
        chunks, batch,
        config=_with(config, groups, config.SPLIT, max(table.PARTS // (groups * config.LANES), 16)),
        num_warps=4, **table.UNFUSED,
    )  # fmt: skip


@operator("adu_kernels::group_norm")
def norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None,
    num_groups: int, eps: float, relu: bool, graded: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y; of each image and group the mean and what its rounding leaves out (B×G×2), and 1/√(variance + eps), B×G; with
    a residual and ReLU, if a backward may follow (`graded`), the signs behind the sum, a bit each, else none."""
    from . import kernels

    weight, bias = _dense(weight), _dense(bias)
    y, mean, rstd, signs = outputs = _new_outputs(x, weight, bias, residual, num_groups, eps, relu, graded)
    layout = table.layout_of([x, y] if residual is None else [x, y, residual])
    of_x, of_y, of_r = layout.strides[0], layout.strides[1], layout.strides[-1]
    plan = table.plan(table.STATISTICS, x, num_groups, layout, eps=eps)
    partials = statistics(x, mean, layout, plan)
    parts = partials.shape[-1]
    apart = plan.config.GROUPS * parts > table.MOST_PARTS
    if apart:
        join(partials, mean, rstd, plan.config)
    terms = Terms(weight is not None, bias is not None, residual is not None, relu, signs.numel() > 0, apart)
    plan = table.plan(table.NORMALISE, x, num_groups, layout, terms, eps)
    runtime.run(
        kernels.normalise, plan.programs, x, _or(weight, x), _or(bias, x), _or(residual, x),
        partials, y, mean, rstd, signs, *of_x, *of_r, *of_y, *layout.sizes, plan.cut.chunks, plan.cut.tiles, parts,
        x.shape[0], config=plan.config, **plan.options,
    )  # fmt: skip
    return outputs


@norm.register_fake
def _new_outputs(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None,
    num_groups: int, eps: float, relu: bool, graded: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    size, dtype = (x.shape[0], num_groups), accumulation_dtype(x)
    mean, rstd = x.new_empty((*size, 2), dtype=dtype), x.new_empty(size, dtype=dtype)
    signs = table.sign_bytes(x, num_groups) if residual is not None and relu and graded else 0
    return torch.empty_like(x), mean, rstd, x.new_empty(signs, dtype=torch.uint8)


def _dense(parameter: Tensor | None) -> Tensor | None:
    """A parameter's channels are read as neighbours. So few are copied where they are not, an expanded number say."""
    return None if parameter is None else parameter.contiguous()


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """A kernel compiled without a tensor does not read what is given in its place."""
    return stand_in if tensor is None else tensor


@operator("adu_kernels::group_norm_backward")
def norm_backward(
    grad_output: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor,
    signs: Tensor, num_groups: int, relu: bool, channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight and bias, and where there are signs what ReLU leaves of grad_output; those that are not
    there have no elements.

    channels_last: of the x that the forward saw, for the signs lie as its tiles do. What comes out of saved tensors may
    lie differently (`torch.autograd.graph.save_on_cpu` with pinned memory hands contiguous copies back).
    """
    from . import backward_kernels

    weight, bias = _dense(weight), _dense(bias)
    grad_x, grad_weight, grad_bias, behind = _new_gradients(
        grad_output, x, weight, bias, mean, rstd, signs, num_groups, relu, channels_last
    )
    residual = signs.numel() > 0
    batch = x.shape[0]
    layout = table.layout_of([x, grad_output, grad_x, behind] if residual else [x, grad_output, grad_x], channels_last)
    of_x, of_g, of_d = layout.strides[:3]
    of_behind = layout.strides[-1]
    terms = Terms(weight is not None, bias is not None, residual, relu)
    plan = table.plan(table.GRADIENT_SUMS, x, num_groups, layout, terms)
    partials = new_partials(mean, 2, batch, plan.cut.chunks, x.shape[1])
    runtime.run(
        backward_kernels.gradient_sums, plan.programs, x, _or(weight, x), _or(bias, x), mean, rstd,
        grad_output, signs, behind, partials, *of_x, *of_g, *of_behind, *layout.sizes,
        plan.cut.chunks, plan.cut.tiles, batch, config=plan.config, **plan.options,
    )  # fmt: skip
    group_sums = mean.new_empty((2, batch, num_groups, plan.tile.split))
    channel_sums = mean.new_empty((2, batch, x.shape[1]))
    totals(partials, weight, group_sums, channel_sums, plan.config)
    plan = table.plan(table.INPUT_GRADIENT, x, num_groups, layout, terms)
    runtime.run(
        backward_kernels.input_gradient, plan.programs, x, _or(weight, x), _or(bias, x), mean, rstd,
        behind if residual else grad_output, group_sums, grad_x, channel_sums, grad_weight, grad_bias,
        *of_x, *(of_behind if residual else of_g), *of_d, *layout.sizes, plan.cut.chunks, plan.cut.tiles, batch,
        config=plan.config, **plan.options,
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias, behind


@norm_backward.register_fake
def _new_gradients(
    grad_output: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor,
    signs: Tensor, num_groups: int, relu: bool, channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_weight, grad_bias = (x.new_empty(0) if one is None else torch.empty_like(one) for one in (weight, bias))
    behind = torch.empty_like(x) if signs.numel() else x.new_empty(0)
    return torch.empty_like(x), grad_weight, grad_bias, behind


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, residual, ctx.num_groups, _, ctx.relu, graded = inputs
    if not graded:
        raise RuntimeError("group_norm: expected graded=True where a gradient may be asked for, got False")
    _, mean, rstd, signs = output
    ctx.channels_last = bool(table.lies_channels_last(x.shape, x.stride()))
    ctx.residual_dtype = None if residual is None else residual.dtype
    keep(ctx, "group_norm", [x, weight, bias, mean, rstd, signs])
    ctx.mark_non_differentiable(mean, rstd, signs)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, *others: None) -> tuple[Tensor | None, ...]:
    (x, weight, bias, mean, rstd, signs), _ = kept(ctx)
    if grad_output is None:
        return (None,) * 8
    grad_x, grad_weight, grad_bias, behind = norm_backward(
        grad_output, x, weight, bias, mean, rstd, signs, ctx.num_groups, ctx.relu, ctx.channels_last
    )
    grad_residual = None
    if ctx.residual_dtype is not None:
        grad_residual = (behind if ctx.relu else grad_output).to(ctx.residual_dtype)
    return (
        grad_x, None if weight is None else grad_weight, None if bias is None else grad_bias, grad_residual,
        None, None, None, None,
    )  # fmt: skip


differentiable_once(
    norm, norm_backward,
    setup_context=_setup_context, backward=_backward, operation=lambda *_: "group_norm",
)  # fmt: skip
