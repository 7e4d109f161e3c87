"""How the kernels are started, as `table` divides the work: layouts, PyTorch's operators and their backward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.layout import INT32_LIMIT, ceil_div, merged_axes, reach
from .._triton.operators import operator
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import table

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


VECTOR = 8
"""What strides of a channels-first map are divisible by, or not: two compilations for all sizes."""


UNFUSED = {"enable_fp_fusion": False}
"""Fused with a sum across lanes, a product would be rounded in one of them alone, and both would be stored. And the
backward must find the sign that the forward found."""


class Layout(NamedTuple):
    """How x and what goes with it lie in memory; positions in three axes, of which those without gaps are one."""

    sizes: tuple[int, int, int]
    strides: tuple[tuple[int, ...], ...]
    """Of each map: of the batch, three of positions, of the channels; in units of `divisor` but for the unit one."""
    channels_last: bool
    contiguous_c: bool
    contiguous_p: bool
    divisor: int
    int64: bool

    @property
    def flat(self) -> bool:
        return self.sizes[:2] == (1, 1)

    @property
    def positions(self) -> int:
        return math.prod(self.sizes)


def layout_of(maps: Sequence[Tensor], channels_last: bool | None = None) -> Layout:
    """Of B×C×H×W or B×C×D×H×W maps of one shape. channels_last: how tiles lie, where not the first map decides it."""
    shape = tuple(maps[0].shape)
    if channels_last is None:
        channels_last = lies_channels_last(shape, maps[0].stride())
    return _layout(shape, tuple(m.stride() for m in maps), channels_last)


@lru_cache(maxsize=1024)
def _layout(shape: tuple[int, ...], map_strides: tuple[tuple[int, ...], ...], channels_last: bool) -> Layout:
    positions = (1, *shape[2:])[-3:]
    sizes, axes = merged_axes(positions, [(0, *one[2:])[-3:] for one in map_strides])
    full = [(one[0], *steps, one[1]) for one, steps in zip(map_strides, axes, strict=True)]
    contiguous_c = channels_last and all(one[1] == 1 for one in map_strides)
    contiguous_p = not contiguous_c and all(sizes[2] == 1 or steps[2] == 1 for steps in axes)
    unit = 4 if contiguous_c else 3 if contiguous_p else -1
    counted = (shape[0], *sizes, shape[1])
    others = [s for one in full for axis, s in enumerate(one) if axis != unit and counted[axis] > 1]
    if contiguous_c:
        divisor = math.gcd(2 * VECTOR, *others)
    else:  # so that no wide load of a row reaches beyond the last position
        divisor = VECTOR if _divides(VECTOR, [*others, math.prod(sizes)]) else 1
    strides = tuple(tuple(s if axis == unit else s // divisor for axis, s in enumerate(one)) for one in full)
    int64 = any(reach(shape, one) >= INT32_LIMIT for one in map_strides)
    return Layout(sizes, strides, channels_last, contiguous_c, contiguous_p, divisor, int64)


def lies_channels_last(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Of a map of one position no: it is either."""
    return shape[1] > 1 and strides[1] == 1 and math.prod(shape[2:]) > 1


def _divides(divisor: int, numbers: Sequence[int]) -> bool:
    return all(number % divisor == 0 for number in numbers)


def norm_config(
    layout: Layout, tile: table.Tile, x: Tensor, num_groups: int,
    weight: Tensor | None, bias: Tensor | None, residual: bool, relu: bool, eps: float = 0.0, joined: bool = False,
    stages: int = 1,
) -> NormConfig:  # fmt: skip
    options = weight is not None, bias is not None, residual, relu, joined
    return _config(layout, tile, x.shape[1], num_groups, options, eps, stages, x.dtype)


@lru_cache(maxsize=1024)
def _config(
    layout: Layout, tile: table.Tile, channels: int, num_groups: int, options: tuple[bool, ...], eps: float,
    stages: int, dtype: torch.dtype,
) -> NormConfig:  # fmt: skip
    """options: weighted, biased, with a residual, with ReLU, joined."""
    from .tiles import NormConfig  # here and below: Triton is needed only where a kernel runs

    weighted, biased, residual, relu, joined = options
    return NormConfig(
        NUM_GROUPS=num_groups, CHANNELS=channels // num_groups,
        POSITIONS=tile.positions, GROUPS=tile.groups, LANES=tile.lanes, SPLIT=tile.split,
        PARTS=max(table.PARTS // (tile.groups * tile.lanes), 16),
        FLAT=layout.flat, CONTIGUOUS_C=layout.contiguous_c, CONTIGUOUS_P=layout.contiguous_p,
        STRIDE_DIVISOR=layout.divisor, INT64=layout.int64,
        WEIGHTED=weighted, BIASED=biased, RESIDUAL=residual, RELU=relu, SIGNED=False, JOINED=joined, EPS=eps,
        STAGES=stages, ACC="fp64" if dtype == torch.float64 else "fp32",
    )  # fmt: skip


@lru_cache(maxsize=1024, typed=True)
def _signed(config: NormConfig, signed: bool) -> NormConfig:
    return config._replace(SIGNED=signed)


@lru_cache(maxsize=1024, typed=True)
def _with(config: NormConfig, groups: int, split: int, parts: int) -> NormConfig:
    return config._replace(GROUPS=groups, SPLIT=split, PARTS=parts)


def new_partials(like: Tensor, *size: int) -> Tensor:
    """Memory for what programs find, whose offsets kernels count in 32 bits."""
    count = math.prod(size)
    if count >= INT32_LIMIT:
        raise ValueError(f"x: {count} partial sums of its groups and channels are too many: use backend='torch'")
    return like.new_empty(size)


def statistics(x: Tensor, mean: Tensor, layout: Layout, num_groups: int, eps: float) -> tuple[Tensor, NormConfig]:
    """What each chunk found (3 × B × G × parts, of mean's type), and how its kernel was compiled."""
    from . import kernels

    batch = x.shape[0]
    tile = table.tile_of(x, num_groups, table.STATISTICS.elements, layout.channels_last)
    cut = table.cut_of(table.STATISTICS, tile, batch, num_groups, layout.positions)
    parts = cut.chunks * tile.split
    partials = new_partials(mean, 3, batch, num_groups, parts)
    config = norm_config(layout, tile, x, num_groups, None, None, False, False, eps, stages=table.STATISTICS.stages)
    runtime.run(
        kernels.statistics, batch * cut.blocks * cut.chunks, x, partials, *layout.strides[0], *layout.sizes,
        cut.chunks, cut.tiles, parts, batch, config=config, num_warps=table.STATISTICS.warps, **UNFUSED,
    )  # fmt: skip
    return partials, config


def join(partials: Tensor, mean: Tensor, rstd: Tensor, config: NormConfig) -> None:
    """partials: 3 × B × G × parts, as `statistics` leaves them."""
    from . import kernels

    groups = min(config.GROUPS, table.JOINED_GROUPS)
    _, batch, num_groups, parts = partials.shape
    runtime.run(
        kernels.join, batch * ceil_div(num_groups, groups), partials, mean, rstd, parts, batch,
        config=_with(config, groups, 1, table.PARTS // (4 * groups)), num_warps=4, **UNFUSED,
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
        num_warps=4, **UNFUSED,
    )  # fmt: skip


@operator("adu_kernels::group_norm")
def norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None,
    num_groups: int, eps: float, relu: bool, graded: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y; of each image and group the mean and 1/√(variance + eps), B×G; with a residual and ReLU, if a backward may
    follow (`graded`), the signs behind the sum, a bit each, else none."""
    from . import kernels

    weight, bias = _dense(weight), _dense(bias)
    y, mean, rstd, signs = outputs = _new_outputs(x, weight, bias, residual, num_groups, eps, relu, graded)
    batch = x.shape[0]
    layout = layout_of([x, y] if residual is None else [x, y, residual])
    of_x, of_y, of_r = layout.strides[0], layout.strides[1], layout.strides[-1]
    partials, config = statistics(x, mean, layout, num_groups, eps)
    parts = partials.shape[-1]
    apart = config.GROUPS * parts > table.MOST_PARTS
    if apart:
        join(partials, mean, rstd, config)
    tile = table.tile_of(x, num_groups, table.NORMALISE.elements, layout.channels_last)
    cut = table.cut_of(table.NORMALISE, tile, batch, num_groups, layout.positions)
    config = norm_config(layout, tile, x, num_groups, weight, bias, residual is not None, relu, eps, apart)
    config = _signed(config, signs.numel() > 0)
    runtime.run(
        kernels.normalise, batch * cut.blocks * cut.chunks, x, _or(weight, x), _or(bias, x), _or(residual, x),
        partials, y, mean, rstd, signs, *of_x, *of_r, *of_y, *layout.sizes, cut.chunks, cut.tiles, parts, batch,
        config=config, num_warps=table.NORMALISE.warps, **UNFUSED,
    )  # fmt: skip
    return outputs


@norm.register_fake
def _new_outputs(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None,
    num_groups: int, eps: float, relu: bool, graded: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    size, dtype = (x.shape[0], num_groups), accumulation_dtype(x)
    mean, rstd = x.new_empty(size, dtype=dtype), x.new_empty(size, dtype=dtype)
    signs = sign_bytes(x, num_groups) if residual is not None and relu and graded else 0
    return torch.empty_like(x), mean, rstd, x.new_empty(signs, dtype=torch.uint8)


def sign_bytes(x: Tensor, num_groups: int) -> int:
    """A bit for every lane of the tiles over x."""
    # Traced shapes are no keys of a cache: neither layout_of nor tile_of.
    tile = table.tile_of_sizes(x.shape[1] // num_groups, num_groups, 1, lies_channels_last(x.shape, x.stride()))
    blocks = tile.blocks(num_groups)
    return x.shape[0] * blocks * math.prod(x.shape[2:]) * ceil_div(tile.groups * tile.lanes, 8)


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
    layout = layout_of([x, grad_output, grad_x, behind] if residual else [x, grad_output, grad_x], channels_last)
    of_x, of_g, of_d = layout.strides[:3]
    of_behind = layout.strides[-1]
    tile = table.tile_of(x, num_groups, table.GRADIENT_SUMS.elements, layout.channels_last)
    cut = table.cut_of(table.GRADIENT_SUMS, tile, batch, num_groups, layout.positions)
    partials = new_partials(mean, 2, batch, cut.chunks, x.shape[1])
    config = norm_config(layout, tile, x, num_groups, weight, bias, residual, relu, stages=table.GRADIENT_SUMS.stages)
    runtime.run(
        backward_kernels.gradient_sums, batch * cut.blocks * cut.chunks, x, _or(weight, x), _or(bias, x), mean, rstd,
        grad_output, signs, behind, partials, *of_x, *of_g, *of_behind, *layout.sizes,
        cut.chunks, cut.tiles, batch, config=config, num_warps=table.GRADIENT_SUMS.warps, **UNFUSED,
    )  # fmt: skip
    group_sums = mean.new_empty((2, batch, num_groups, tile.split))
    channel_sums = mean.new_empty((2, batch, x.shape[1]))
    totals(partials, weight, group_sums, channel_sums, config)
    tile = table.tile_of(x, num_groups, table.INPUT_GRADIENT.elements, layout.channels_last)
    cut = table.cut_of(table.INPUT_GRADIENT, tile, batch, num_groups, layout.positions)
    config = norm_config(layout, tile, x, num_groups, weight, bias, residual, relu)
    runtime.run(
        backward_kernels.input_gradient, batch * cut.blocks * cut.chunks, x, _or(weight, x), _or(bias, x), mean, rstd,
        behind if residual else grad_output, group_sums, grad_x, channel_sums, grad_weight, grad_bias,
        *of_x, *(of_behind if residual else of_g), *of_d, *layout.sizes, cut.chunks, cut.tiles, batch,
        config=config, num_warps=table.INPUT_GRADIENT.warps, **UNFUSED,
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
    ctx.channels_last = bool(lies_channels_last(x.shape, x.stride()))
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
