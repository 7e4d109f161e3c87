"""How the kernels are started: which axis lanes follow and how wide they load, the launch table, PyTorch's operators.

Nothing is measured and no value is read. Triton is imported only where a kernel runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator
from .._triton.layout import INT32_LIMIT, by_layout, ceil_div, merged_axes, needs_int64
from .._triton.operators import Operator
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from .reference import POWER_FLOOR

if TYPE_CHECKING:
    from .kernels import LossConfig

WIDE_LOAD = 16
"""Bytes a thread loads at once where the layout allows it."""
Maps = Sequence[Tensor]
UNFUSED = {"enable_fp_fusion": False}
"""Fused with a sum across lanes, a product would be rounded in one of them alone, and both would be stored."""


@dataclass(frozen=True)
class _LaunchShape:
    threads: int

    @property
    def warps(self) -> int:
        return self.threads // runtime.WARP_SIZE


@dataclass(frozen=True)
class LossShape(_LaunchShape):
    """How a program of the loss and of its gradient is cut."""

    last_lanes: int
    """Vectors of a channels-last tile."""
    last_tiles: int
    """Tiles a channels-last program visits."""
    first_lanes: int
    """Vectors side by side of a channels-first block."""
    first_channels: int
    """Channels a channels-first program walks through."""
    unroll: int
    """Of them, under way at once."""
    narrow: int
    """Elements of each map a thread has under way where rows start anywhere."""


@dataclass(frozen=True)
class FinishShape(_LaunchShape):
    values: int
    """Partial sums that are added at once."""


@dataclass(frozen=True)
class PoolShape(_LaunchShape):
    columns: int
    """Pixels across of a tile of nested cells; it is as high as the coarsest cell."""
    cells: int
    """Cells of a program where they do not nest."""
    span: int
    """Columns of each of these read at a time."""


# Chosen from the machine code (README), no row is measured yet. Both layouts have 128 bytes per thread under way: four
# vectors of each map. 16 channels: the weights, read once for all of them, are 6 % of what a 2-byte program reads.
# Narrow loads: with 32 under way in place of 16 the sums need 163 registers in place of 128.
LOSS = LossShape(threads=128, last_lanes=512, last_tiles=4, first_lanes=128, first_channels=16, unroll=4, narrow=16)
FINISH = FinishShape(threads=256, values=2048)
POOL = PoolShape(threads=128, columns=128, cells=16, span=32)
LARGEST_CELL = 64
"""Beyond it a tile of nested cells would not stay in registers."""


@dataclass(frozen=True)
class Level:
    """One level as the kernels see it: positions in at most three axes, outermost first, and strides along them."""

    sizes: tuple[int, int, int]
    channels: int
    strides: tuple[tuple[int, ...], ...]
    """Of adapted, teacher, (gradient): three of positions, then the channels'. Of the weight, last: three."""
    channels_last: bool
    vector: int
    """Elements of a wide load; channels-first: where `wide` says so, else 1."""
    wide: bool

    @property
    def flat(self) -> bool:
        """All positions lie at one stride."""
        return self.sizes[:2] == (1, 1)

    @property
    def positions(self) -> int:
        return self.sizes[0] * self.sizes[1] * self.sizes[2]

    @property
    def lanes(self) -> int:
        return LOSS.last_lanes if self.channels_last else LOSS.first_lanes

    @property
    def programs(self) -> int:
        if self.channels_last:
            return ceil_div(self.positions * (self.channels // self.vector), LOSS.last_lanes * LOSS.last_tiles)
        blocks = ceil_div(self.positions, LOSS.first_lanes * self.vector)
        return blocks * ceil_div(self.channels, LOSS.first_channels)


def level(maps: Sequence[Tensor], weight: Tensor | None) -> Level:
    """maps: adapted, teacher, and in the backward the gradient, all B×C×H×W. weight: B×1×H×W."""
    adapted = maps[0]
    channels = adapted.shape[1]
    shape = (adapted.shape[0], *adapted.shape[2:])
    strides: list[tuple[int, ...]] = [(m.stride(0), m.stride(2), m.stride(3)) for m in maps]
    strides.append((0, 0, 0) if weight is None else (weight.stride(0), weight.stride(2), weight.stride(3)))
    sizes, strides = merged_axes(shape, strides)
    of_maps, across = strides[:-1], [m.stride(1) for m in maps]
    vector = WIDE_LOAD // max(m.element_size() for m in maps)
    channels_last = channels > 1 and adapted.stride(1) == 1
    if channels_last:
        steps = [channels, *(s for one in of_maps for s in one)]
        wide = all(s == 1 for s in across) and _divides(vector, steps)
        vector = vector if wide else 1
    else:
        steps = [sizes[2], *across, *(s for one in strides for s in one[:2])]
        wide = all(one[2] == 1 for one in (of_maps if weight is None else strides)) and _divides(vector, steps)
    full = [(*one, c) for one, c in zip(of_maps, across, strict=True)]
    return Level(sizes, channels, (*full, strides[-1]), channels_last, vector, wide)


def _levels(weights: Sequence[Tensor], *maps: Sequence[Tensor]) -> list[Level]:
    per_level: Sequence[Tensor | None] = weights or [None] * len(maps[0])
    return [level(one, weight) for one, weight in zip(zip(*maps, strict=True), per_level, strict=True)]


def loss_config(levels: Sequence[Level], maps: Sequence[Tensor], weights: Sequence[Tensor]) -> LossConfig:
    """maps: adapted, teacher and gradients of all levels."""
    from .kernels import LossConfig

    return LossConfig(
        LEVELS=len(levels),
        CHANNELS=tuple(one.channels for one in levels),
        CHANNELS_LAST=tuple(one.channels_last for one in levels),
        VECTOR=tuple(one.vector for one in levels),
        LANES=tuple(one.lanes for one in levels),
        TILES=LOSS.last_tiles,
        CHUNK=LOSS.first_channels,
        UNROLL=LOSS.unroll,
        NARROW=LOSS.narrow,
        WEIGHTED=bool(weights),
        FLAT=all(one.flat for one in levels if one.channels_last),
        INT64=needs_int64([*maps, *weights]) or any(one.positions * one.channels >= INT32_LIMIT for one in levels),
        ACC=str(accumulator(*maps)),
    )


Numbers = tuple[tuple[int, ...], ...]


def encoded(numbers: Iterable[Iterable[int]]) -> Numbers:
    """Numbers a kernel takes in tuples, as 2n + 3: `decoded` in kernels.py turns them back.

    In tuples Triton compiles anew for a 1 and for what 16 divides, `do_not_specialize` or not; odd numbers from 3 on
    are neither.
    """
    return tuple(tuple(2 * number + 3 for number in one) for one in numbers)


def _first_programs(levels: Sequence[Level]) -> list[int]:
    """Of each level, and one past the last."""
    return list(accumulate((one.programs for one in levels), initial=0))


def _shapes_and_strides(levels: Sequence[Level]) -> tuple[Numbers, ...]:
    """What varies with the image, per level: the shape (see kernels.py), then each map's strides, then the weight's."""
    firsts = _first_programs(levels)
    shapes = [(first, *one.sizes, one.vector if one.wide else 0) for first, one in zip(firsts, levels, strict=False)]
    return tuple(encoded(numbers) for numbers in (shapes, *zip(*(one.strides for one in levels), strict=True)))


@by_layout
def _plan(maps: Sequence[Maps], weights: Maps, loss: LossShape) -> tuple[list[Level], LossConfig, list[int], tuple]:
    """What follows from how the maps lie: levels, what the kernel is compiled for, each level's first program (and one
    past the last), shapes and strides. loss: the row of the launch table, which the levels read for themselves."""
    levels = _levels(weights, *maps)
    config = loss_config(levels, [one for level_maps in maps for one in level_maps], weights)
    return levels, config._replace(TILES=loss.last_tiles), _first_programs(levels), _shapes_and_strides(levels)


def forward(adapted: Maps, teacher: Maps, weights: Maps) -> tuple[Tensor, Tensor]:
    """The losses of L levels, and 2/(elements · power) of each, which the backward needs; in two launches.

    weights: L, or none.
    """
    from . import kernels

    levels, config, firsts, numbers = _plan((adapted, teacher), weights, LOSS)
    programs = firsts[-1]
    partials, losses, slopes = (
        adapted[0].new_empty(size, dtype=accumulation_dtype(*adapted, *teacher))
        for size in (2 * programs, len(levels), len(levels))
    )
    runtime.run(
        kernels.sums, programs, partials, tuple(adapted), tuple(teacher), tuple(weights or adapted),
        *numbers, config=config, num_warps=LOSS.warps, **UNFUSED,
    )  # fmt: skip
    elements = [one.positions * one.channels for one in levels]
    spans = zip(firsts, firsts[1:], elements, strict=False)
    runtime.run(
        kernels.finish, len(levels), partials, losses, slopes, encoded(spans), programs, num_warps=FINISH.warps,
        config=kernels.FinishConfig(len(levels), FINISH.values, POWER_FLOOR, config.ACC), **UNFUSED,
    )  # fmt: skip
    return losses, slopes


def gradients(grad_output: Tensor, slopes: Tensor, adapted: Maps, teacher: Maps, weights: Maps) -> list[Tensor]:
    """Of the adapted maps, in their dtypes; in one launch."""
    from . import kernels

    found = [torch.empty_like(one) for one in adapted]
    _, config, firsts, numbers = _plan((adapted, teacher, found), weights, LOSS)
    shapes, adapted_strides, teacher_strides, gradient_strides, weight_strides = numbers
    runtime.run(
        kernels.gradients, firsts[-1],
        grad_output, slopes, tuple(adapted), tuple(teacher), tuple(weights or adapted), tuple(found),
        grad_output.stride(0), shapes, adapted_strides, teacher_strides, weight_strides, gradient_strides,
        config=config, num_warps=LOSS.warps, **UNFUSED,
    )  # fmt: skip
    return found


def _pooled(weight: Tensor, heights: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    dtype = accumulation_dtype(weight)
    return [weight.new_empty((weight.shape[0], 1, h, w), dtype=dtype) for h, w in zip(heights, widths, strict=True)]


def pool(weight: Tensor, heights: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    """Adaptive averages of B×1×H×W at each size, in one launch. Has no gradient."""
    from . import pooling

    pooled = _pooled(weight, heights, widths)
    batch, _, height, width = weight.shape
    strides = (weight.stride(0), weight.stride(2), weight.stride(3))
    order = nested_cells((height, width), list(zip(heights, widths, strict=True)))
    acc = str(accumulator(weight))
    if order:
        cells = tuple(height // pooled[number].shape[2] for number in order)
        columns = max(POOL.columns, cells[-1])
        tiles = ceil_div(width, columns)
        vector = row_vector(weight)
        nested = pooling.NestedConfig(len(cells), cells, columns, vector > 1, vector, needs_int64([weight]), acc)
        runtime.run(
            pooling.nested, batch * (height // cells[-1]) * tiles,
            weight, tuple(pooled[number] for number in order), height, width, *strides, tiles,
            config=nested, num_warps=POOL.warps, **UNFUSED,
        )  # fmt: skip
        return pooled
    *firsts, programs = accumulate((ceil_div(one.numel(), POOL.cells) for one in pooled), initial=0)
    spans = zip(firsts, heights, widths, strict=True)
    int64 = needs_int64([weight, *pooled]) or any(
        max(height * one.shape[2], width * one.shape[3]) >= INT32_LIMIT // 2 for one in pooled
    )
    runtime.run(
        pooling.windows, programs, weight, tuple(pooled), encoded(spans), height, width, *strides, batch,
        config=pooling.WindowsConfig(len(pooled), POOL.cells, POOL.span, int64, acc), num_warps=POOL.warps, **UNFUSED,
    )  # fmt: skip
    return pooled


def nested_cells(image: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> list[int]:
    """The order of `sizes`, finest first, if each is the image over a power of two up to LARGEST_CELL; else nothing."""
    cells = [image[0] // size[0] for size in sizes]
    for size, k in zip(sizes, cells, strict=True):
        if not 1 <= k <= LARGEST_CELL or k & (k - 1) or (size[0] * k, size[1] * k) != image:
            return []
    return sorted(range(len(sizes)), key=cells.__getitem__)


def row_vector(weight: Tensor) -> int:
    """Elements that load at once along the rows of a B×1×H×W map."""
    vector = WIDE_LOAD // weight.element_size()
    steps = [weight.shape[3], *(weight.stride(axis) for axis in (0, 2) if weight.shape[axis] > 1)]
    return vector if weight.stride(3) == 1 and _divides(vector, steps) else 1


def _divides(vector: int, numbers: Sequence[int]) -> bool:
    return all(number % vector == 0 for number in numbers)


feature_distillation = Operator("adu_kernels::feature_distillation", forward)


@feature_distillation.register_fake
def _(adapted, teacher, weights):  # type: ignore[no-untyped-def]
    dtype = accumulation_dtype(*adapted, *teacher)
    return adapted[0].new_empty(len(adapted), dtype=dtype), adapted[0].new_empty(len(adapted), dtype=dtype)


feature_distillation_backward = Operator("adu_kernels::feature_distillation_backward", gradients)


@feature_distillation_backward.register_fake
def _(grad_output, slopes, adapted, teacher, weights):  # type: ignore[no-untyped-def]
    return [torch.empty_like(one) for one in adapted]


def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    adapted, teacher, weights = inputs
    ctx.levels, ctx.weighted = len(adapted), len(weights)
    keep(ctx, "feature_distillation_losses", [output[1], *adapted, *teacher, *weights])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def backward(ctx, grad_output, _):  # type: ignore[no-untyped-def]
    (slopes, *maps), _ = kept(ctx)
    adapted, teacher, weights = maps[: ctx.levels], maps[ctx.levels : 2 * ctx.levels], maps[2 * ctx.levels :]
    nothing = [None] * ctx.levels, [None] * ctx.weighted
    if grad_output is None:
        return [None] * ctx.levels, *nothing
    return feature_distillation_backward(grad_output, slopes, adapted, teacher, weights), *nothing


differentiable_once(
    feature_distillation,
    feature_distillation_backward,
    setup_context=setup_context,
    backward=backward,
    operation=lambda *_: "feature_distillation_losses",
)


pooled_guide = Operator("adu_kernels::pooled_guide", pool)
pooled_guide.register_fake(_pooled)
