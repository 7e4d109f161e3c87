"""How the kernels of the volumes are started. `table` decides how the work is cut; nothing is tuned at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator, factor, in_parts
from .._triton.layout import (
    MapLayout,
    by_layout,
    ceil_div,
    divided_strides,
    empty_like_map,
    is_channels_last,
    map_layout,
    needs_int64,
    power_of_two,
    stride_divisor,
    unit_stride,
)
from ..stereo import reduction_factor, view_sign
from . import table

if TYPE_CHECKING:
    from .banded import BandConfig
    from .shared import SlideConfig

Maps = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""left, right, left_thin, right_thin."""
Pair = tuple[Tensor, Tensor]
"""The base map, whose columns the volume's are, and the match map: left and right in the left view."""


class VolumeOptions(NamedTuple):
    """One call, as the operators take it after their tensors."""

    num_disparities: int
    num_groups: int = 1
    plain: bool = False
    """B×D×H×W of one group, without the group axis."""
    normalize: str = "none"
    reduction: str = "mean"
    mask_left: bool = True
    view: str = "left"
    eps: float = 1e-12
    eps_rule: str = "max"
    scores: bool = False
    """Whether the mean over the groups is asked for too."""

    def scale(self, channels: int) -> float:
        return reduction_factor(self.reduction, channels // self.num_groups)


def run_forward(maps: Maps, options: VolumeOptions) -> tuple[Tensor, Tensor]:
    """The volume, in one launch; the scores, where they are asked for, in another."""
    volume, scores = new_outputs(maps[0], maps[2], options)
    grouped = volume.unsqueeze(1) if options.plain else volume
    correlated, concatenated = _base_first(*maps[:2], options), _base_first(*maps[2:], options)
    if correlated and not concatenated and options.num_groups == 1:
        _band_forward(correlated, grouped, options)
    else:
        _slide_forward(correlated, concatenated, grouped, options)
    if options.scores:
        assert correlated is not None
        _mean_over_groups(correlated, volume, scores, options)
    return volume, scores


def _mean_over_groups(correlated: Pair, volume: Tensor, scores: Tensor, options: VolumeOptions) -> None:
    """Of maps of 2 bytes the mean is the correlation of all channels, which matrix units make from the maps in less
    time than the volume takes to be read. Without them, in wider types, it takes longer; and groups that are
    normalised each by itself have no such sum."""
    if volume.dtype.itemsize > 2 or options.normalize == "group":
        torch.mean(volume[:, : options.num_groups], 1, out=scores)
        return
    _band_forward(correlated, scores.unsqueeze(1), options)


def run_backward(
    grad_output: Tensor,
    maps: Maps,
    needed: Sequence[bool],
    options: VolumeOptions,
    grad_scores: Tensor | None = None,
) -> list[Tensor]:
    """The gradients of the maps that are there and need one, in one launch."""
    grads = [empty_like_map(m) if m is not None and need else None for m, need in zip(maps, needed, strict=True)]
    present = [g for g in grads if g is not None]
    if not present:
        return present
    grouped = grad_output.unsqueeze(1) if options.plain else grad_output
    correlated, concatenated = _base_first(*maps[:2], options), _base_first(*maps[2:], options)
    turn = slice(None) if options.view == "left" else slice(None, None, -1)
    written = [*grads[:2][turn], *grads[2:][turn]]
    if correlated and not concatenated and options.num_groups == 1 and options.normalize == "none":
        if grad_scores is not None:  # of the only group
            grouped = grouped + grad_scores.unsqueeze(1)
        _band_backward(correlated, grouped, written[:2], options)
    else:
        _slide_backward(correlated, concatenated, grouped, grad_scores, written, options)
    return present


def new_outputs(left: Tensor | None, left_thin: Tensor | None, options: VolumeOptions) -> tuple[Tensor, Tensor]:
    """Volume and scores, unwritten."""
    first = left if left is not None else left_thin
    assert first is not None
    batch, _, height, width = first.shape
    shape = (batch, options.num_disparities, height, width) if options.scores else (0,)
    return new_volume(left, left_thin, options), first.new_empty(shape)


def new_volume(left: Tensor | None, left_thin: Tensor | None, options: VolumeOptions) -> Tensor:
    """The volume, unwritten: channels-last where the (first) left map is, else contiguous."""
    first = left if left is not None else left_thin
    assert first is not None
    batch, _, height, width = first.shape
    slab = (options.num_disparities, height, width)
    if options.plain:  # its disparities take the place of channels
        if is_channels_last(first):
            return first.new_empty(batch, height, width, options.num_disparities).permute(0, 3, 1, 2)
        return first.new_empty(batch, *slab)
    channels = (0 if left is None else options.num_groups) + (0 if left_thin is None else 2 * left_thin.shape[1])
    if is_channels_last(first):
        return first.new_empty(batch, *slab, channels).permute(0, 4, 1, 2, 3)
    return first.new_empty(batch, channels, *slab)


def _base_first(left: Tensor | None, right: Tensor | None, options: VolumeOptions) -> Pair | None:
    if left is None or right is None:
        return None
    return (left, right) if options.view == "left" else (right, left)


def _slide_forward(correlated: Pair | None, concatenated: Pair | None, volume: Tensor, options: VolumeOptions) -> None:
    from . import kernels  # here and below: Triton is needed only where a kernel runs

    maps, concat_maps = correlated or concatenated, concatenated or correlated  # what is absent is stood in for, unread
    assert maps is not None
    assert concat_maps is not None
    tile = _slide_tile(correlated, concatenated, volume, options, backward=False)
    config = _slide_config(correlated, concatenated, None, volume, options, None, tile)
    batch, _, num_disparities, height, width = volume.shape
    correlating, concatenating = _programs(config, width, halves=2)
    runtime.run(
        kernels.volume_forward, batch * height * (correlating + concatenating),
        *maps, *concat_maps, volume, height, width, num_disparities, correlating, concatenating,
        *divided_strides(maps, config.FEATURES.STRIDE_DIVISOR),
        *divided_strides(concat_maps, config.CONCAT_FEATURES.STRIDE_DIVISOR),
        *divided_strides([volume], config.VOLUME.STRIDE_DIVISOR),
        config=config, num_warps=tile.num_warps, enable_fp_fusion=False,
    )  # fmt: skip


def _slide_backward(
    correlated: Pair | None,
    concatenated: Pair | None,
    grad_output: Tensor,
    grad_scores: Tensor | None,
    grads: Sequence[Tensor | None],
    options: VolumeOptions,
) -> None:
    from . import kernels

    maps = correlated or concatenated
    assert maps is not None
    tile = _slide_tile(correlated, concatenated, grad_output, options, backward=True)
    config = _slide_config(correlated, concatenated, grads, grad_output, options, grad_scores, tile)
    scores = grad_output if grad_scores is None else grad_scores  # without them not read
    needed = config.NEEDED
    spare = next(g for g in grads if g is not None)  # stands where no gradient is asked for, and is not written there
    written = [spare if g is None else g for g in grads]
    batch, _, num_disparities, height, width = grad_output.shape
    correlating, concatenating = _programs(config, width, halves=1)
    runtime.run(
        kernels.volume_backward,
        batch * height * (correlating * sum(needed[:2]) + concatenating * sum(needed[2:])),
        *maps, grad_output, scores, *written, height, width, num_disparities, correlating, concatenating,
        *divided_strides(maps, config.FEATURES.STRIDE_DIVISOR),
        *divided_strides([grad_output], config.VOLUME.STRIDE_DIVISOR), *scores.stride()[-4:],
        *divided_strides(written[:2], config.FEATURES.STRIDE_DIVISOR),
        *divided_strides(written[2:], config.CONCAT_FEATURES.STRIDE_DIVISOR),
        config=config, num_warps=tile.num_warps, enable_fp_fusion=False,
    )  # fmt: skip


def _slide_tile(
    correlated: Pair | None, concatenated: Pair | None, volume: Tensor, options: VolumeOptions, *, backward: bool
) -> table.SlideTile:
    runtime.check_device(volume)  # before the GPU is asked what it is
    pair = correlated or concatenated
    assert pair is not None
    channels_last, groups, pitch = _groups(pair[0], correlated, options)
    return table.slide_tile(
        pair[0].shape[1] // groups if groups else 1, pitch if options.normalize == "all" else 1, channels_last,
        dtype=volume.dtype, backward=backward, concat=concatenated is not None, before_hopper=runtime.before_hopper(),
    )  # fmt: skip


def _groups(first: Tensor, correlated: Pair | None, options: VolumeOptions) -> tuple[bool, int, int]:
    """Whether a program has the channels of all of its groups, the groups, and how many of them it takes."""
    groups = options.num_groups if correlated else 0
    across = options.normalize == "all"
    return across or is_channels_last(first), groups, power_of_two(groups) if across else max(groups, 1)


@by_layout
def _slide_config(
    correlated: Pair | None,
    concatenated: Pair | None,
    grads: Sequence[Tensor | None] | None,
    volume: Tensor,
    options: VolumeOptions,
    grad_scores: Tensor | None,
    tile: table.SlideTile,
) -> SlideConfig:
    """What the kernels of kernels.py are compiled for.

    grads: of the four maps, in the backward; None in the forward. volume: it, or its gradient.
    """
    from .shared import SlideConfig

    backward, grads = grads is not None, grads or (None,) * 4
    features = [*(correlated or ()), *(g for g in grads[:2] if g is not None)]
    concat_features = [*(concatenated or ()), *(g for g in grads[2:] if g is not None)]
    channels_last, groups, pitch = _groups((features or concat_features)[0], correlated, options)
    channels, concat = (pair[0].shape[1] if pair else 0 for pair in (correlated, concatenated))
    per_group = channels // groups if groups else 1
    # A concatenating program takes neighbouring columns through their stride: it is no constant there.
    concat_layout, volume_layout = (map_layout(t)._replace(CONTIGUOUS_W=False) for t in (concat_features, [volume]))
    whole = concat_layout.CONTIGUOUS_C and volume_layout.CONTIGUOUS_C
    return SlideConfig(
        NUM_GROUPS=groups,
        GROUPS=pitch,
        K=per_group,
        BLOCK_K=power_of_two(per_group),
        BLOCK_N=tile.items,
        PIXELS=tile.pixels,
        SIGN=view_sign(options.view),
        CHANNELS_LAST=channels_last,
        INT64=needs_int64([*features, *concat_features, volume, *([] if grad_scores is None else [grad_scores])]),
        SCALE=options.scale(channels) if correlated else 1.0,
        NORMALIZE=options.normalize,
        EPS=options.eps,
        EPS_ADDED=options.eps_rule == "add",
        CONCAT=concat,
        CONCAT_SIZE=math.gcd(concat, table.CONCAT_VECTOR) if whole else 1,
        MASK_BASE=options.mask_left,
        FEATURES=map_layout(features),
        CONCAT_FEATURES=concat_layout,
        VOLUME=volume_layout,
        ACC=str(accumulator(volume)),
        NEEDED=tuple(g is not None for g in grads) if backward else (True,) * 4,
        SCORE_SHARE=0.0 if grad_scores is None else 1 / groups,
    )


def _programs(config: SlideConfig, width: int, halves: int) -> tuple[int, int]:
    """Of one image row those that correlate, and those for one half of the concatenation, or both."""
    blocks = ceil_div(width, config.PIXELS)
    if config.CHANNELS_LAST:
        correlating = ceil_div(blocks * config.GROUPS, config.BLOCK_N)
    else:
        correlating = ceil_div(blocks, config.BLOCK_N) * config.GROUPS
    concatenating = ceil_div(width * halves * config.CONCAT // config.CONCAT_SIZE, config.BLOCK_N)
    return correlating if config.NUM_GROUPS else 0, concatenating


def _band_forward(maps: Pair, volume: Tensor, options: VolumeOptions) -> None:
    """The correlation of all channels; of several groups their mean."""
    from . import banded

    config, how = _band_config([*maps], volume, options, backward=False)
    config = config._replace(NORMALIZE=options.normalize, EPS=options.eps, EPS_ADDED=options.eps_rule == "add")
    batch, _, num_disparities, height, width = volume.shape
    column_blocks, disparity_blocks = (ceil_div(n, config.BLOCK) for n in (width, num_disparities))
    runtime.run(
        banded.band_forward, batch * height * column_blocks * disparity_blocks,
        *maps, volume, height, width, num_disparities, column_blocks, disparity_blocks,
        *divided_strides(maps, config.FEATURES.STRIDE_DIVISOR), *_strides_of_band(volume, config.STRIDE_DIVISOR),
        config=config, **how,
    )  # fmt: skip


def _band_backward(maps: Pair, grad_output: Tensor, grads: Sequence[Tensor | None], options: VolumeOptions) -> None:
    from . import banded

    present = [g for g in grads if g is not None]
    config, how = _band_config([*maps, *present], grad_output, options, backward=True)
    config = config._replace(NEEDED=tuple(g is not None for g in grads))
    written = [present[0] if g is None else g for g in grads]
    batch, _, num_disparities, height, width = grad_output.shape
    column_blocks = ceil_div(width, config.BLOCK)
    programs = column_blocks * ceil_div(config.C, config.BLOCK_C) * len(present)
    runtime.run(
        banded.band_backward, batch * height * programs,
        *maps, grad_output, *written, height, width, num_disparities, column_blocks,
        *divided_strides(maps, config.FEATURES.STRIDE_DIVISOR), *_strides_of_band(grad_output, config.STRIDE_DIVISOR),
        *divided_strides(written, config.FEATURES.STRIDE_DIVISOR), config=config, **how,
    )  # fmt: skip


def _band_config(
    maps: list[Tensor], volume: Tensor, options: VolumeOptions, *, backward: bool
) -> tuple[BandConfig, dict[str, Any]]:
    """What the kernels of banded.py are compiled for, and how they are started. maps: the gradients too."""
    layout, int64 = _band_layout(maps, volume)
    parts = in_parts(volume)
    tile = table.band_tile(volume.shape[2], volume.dtype, layout.CONTIGUOUS_C, int64, backward=backward, parts=parts)
    how = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": False}
    return _known_band_config(maps, volume, options, tile, parts), how


@by_layout
def _band_layout(maps: list[Tensor], volume: Tensor) -> tuple[MapLayout, bool]:
    """And whether an element lies beyond 2³¹."""
    return map_layout(maps), needs_int64([*maps, volume])


@by_layout
def _known_band_config(
    maps: list[Tensor], volume: Tensor, options: VolumeOptions, tile: table.BandTile, parts: bool
) -> BandConfig:
    from .banded import BandConfig

    channels, (layout, int64) = maps[0].shape[1], _band_layout(maps, volume)
    contiguous_d = unit_stride([volume], 2)
    return BandConfig(
        C=channels,
        BLOCK=tile.block,
        BLOCK_C=min(tile.channels, max(power_of_two(channels), 16)),
        SIGN=view_sign(options.view),
        INT64=int64,
        SCALE=options.scale(channels) / options.num_groups,
        FEATURES=layout,
        CONTIGUOUS_D=contiguous_d,
        CONTIGUOUS_W=not contiguous_d and unit_stride([volume], 4),
        STRIDE_DIVISOR=math.gcd(stride_divisor([volume], 2), volume.shape[2]) if contiguous_d else 1,
        DOT=str(factor(volume)),
        ACC=str(accumulator(volume)),
        IN_PARTS=parts and not runtime.interpreting(),
    )


def _strides_of_band(volume: Tensor, unit: int) -> tuple[int, int, int, int]:
    """As `divided_strides`, but that the disparities' are those not in units."""
    batch, _, disparity, height, width = volume.stride()
    return batch // unit, disparity, height // unit, width // unit
