"""Starts the kernels of this room. Maps and volumes as op.py has checked them; `plan` decides, nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator, factor
from .._triton.layout import (
    ceil_div,
    divided_strides,
    empty_like_map,
    is_channels_last,
    needs_int64,
    power_of_two,
    stride_divisor,
    unit_stride,
)
from . import banded, kernels, plan
from .plan import Request

Pair = tuple[Tensor, Tensor]


def forward(
    left: Tensor | None,
    right: Tensor | None,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    request: Request,
    force_int64: bool = False,
) -> Tensor:
    """The volume, in one launch."""
    volume = plan.new_volume(left, left_thin, request)
    grouped = volume.unsqueeze(1) if request.plain else volume
    wide, thin = _own_first(left, right, request), _own_first(left_thin, right_thin, request)
    if wide and not thin and request.num_groups == 1:
        _band_forward(wide, grouped, request, force_int64)
    else:
        _slide_forward(wide, thin, grouped, request, force_int64)
    return volume


def backward(
    upstream: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    request: Request,
    needed: Sequence[bool],
    force_int64: bool = False,
) -> list[Tensor | None]:
    """The gradients of the maps that need one, in one launch; None for the others."""
    maps = (left, right, left_thin, right_thin)
    grads = [empty_like_map(m) if m is not None and need else None for m, need in zip(maps, needed, strict=True)]
    if all(g is None for g in grads):
        return grads
    grouped = upstream.unsqueeze(1) if request.plain else upstream
    wide, thin = _own_first(left, right, request), _own_first(left_thin, right_thin, request)
    turn = slice(None) if request.view == "left" else slice(None, None, -1)
    wide_grads, thin_grads = grads[:2][turn], grads[2:][turn]
    if wide and not thin and request.num_groups == 1 and request.normalize == "none":
        _band_backward(wide, grouped, wide_grads, request, force_int64)
    else:
        _slide_backward(wide, thin, grouped, [*wide_grads, *thin_grads], request, force_int64)
    return grads


def _own_first(left: Tensor | None, right: Tensor | None, request: Request) -> Pair | None:
    if left is None or right is None:
        return None
    return (left, right) if request.view == "left" else (right, left)


def _slide_forward(wide: Pair | None, thin: Pair | None, volume: Tensor, request: Request, force_int64: bool) -> None:
    maps, thin_maps = wide or thin, thin or wide  # a pair that is absent is stood in for, and not read
    assert maps is not None
    assert thin_maps is not None
    constants, num_warps = _slide_constants(wide, thin, None, volume, request, force_int64)
    batch, _, num_disparities, height, width = volume.shape
    wide_tiles, thin_tiles = _wide_tiles(constants, width), _thin_tiles(constants, width, halves=2)
    runtime.run(
        kernels.volume_forward, batch * height * (wide_tiles + thin_tiles),
        maps[0], maps[1], *thin_maps, volume, height, width, num_disparities, wide_tiles, thin_tiles,
        *divided_strides(maps, constants["VEC"]), *divided_strides(thin_maps, constants["THIN_VEC"]),
        *divided_strides([volume], constants["VOLUME_VEC"]),
        **constants, num_warps=num_warps, enable_fp_fusion=False,
    )  # fmt: skip


def _slide_backward(
    wide: Pair | None, thin: Pair | None, upstream: Tensor, grads: Sequence[Tensor | None], request: Request,
    force_int64: bool,
) -> None:  # fmt: skip
    maps = wide or thin
    assert maps is not None
    constants, num_warps = _slide_constants(wide, thin, grads, upstream, request, force_int64)
    need = [g is not None for g in grads]
    spare = next(g for g in grads if g is not None)  # stands where no gradient is asked for, and is not written there
    written = [spare if g is None else g for g in grads]
    batch, _, num_disparities, height, width = upstream.shape
    wide_tiles, thin_tiles = _wide_tiles(constants, width), _thin_tiles(constants, width, halves=1)
    runtime.run(
        kernels.volume_backward, batch * height * (wide_tiles * sum(need[:2]) + thin_tiles * sum(need[2:])),
        maps[0], maps[1], upstream, *written, height, width, num_disparities, wide_tiles, thin_tiles,
        *divided_strides(maps, constants["VEC"]), *divided_strides([upstream], constants["VOLUME_VEC"]),
        *divided_strides(written[:2], constants["VEC"]), *divided_strides(written[2:], constants["THIN_VEC"]),
        NEED_OWN=need[0], NEED_OTHER=need[1], NEED_OWN_THIN=need[2], NEED_OTHER_THIN=need[3],
        **constants, num_warps=num_warps, enable_fp_fusion=False,
    )  # fmt: skip


def _slide_constants(
    wide: Pair | None, thin: Pair | None, grads: Sequence[Tensor | None] | None, volume: Tensor, request: Request,
    force_int64: bool,
) -> tuple[dict[str, Any], int]:  # fmt: skip
    """What the kernels of kernels.py are compiled for, and their warps.

    grads: of the four maps, in the backward; None in the forward. volume: it, or its gradient.
    """
    runtime.check_device(volume)  # before the GPU is asked what it is
    backward, grads = grads is not None, grads or (None,) * 4
    wide_all = [*(wide or ()), *(g for g in grads[:2] if g is not None)]
    thin_all = [*(thin or ()), *(g for g in grads[2:] if g is not None)]
    group_fastest = request.normalize == "all" or is_channels_last((wide_all or thin_all)[0])
    groups = request.num_groups if wide else 0
    channels, thin_channels = (pair[0].shape[1] if pair else 0 for pair in (wide, thin))
    per_group = channels // groups if groups else 1
    pitch = power_of_two(groups) if request.normalize == "all" else max(groups, 1)
    tile = plan.slide_tile(
        per_group, pitch if request.normalize == "all" else 1, group_fastest,
        dtype=volume.dtype, backward=backward, thin=thin is not None, before_hopper=runtime.before_hopper(),
    )  # fmt: skip
    unit_c, thin_unit_c, volume_unit_c = (unit_stride(t, 1) for t in (wide_all, thin_all, [volume]))
    constants = {
        "NUM_GROUPS": groups, "GROUPS": pitch, "K": per_group, "BLOCK_K": power_of_two(per_group),
        "BLOCK_N": tile.items, "PIXELS": tile.pixels, "SIGN": request.sign, "GROUP_FASTEST": group_fastest,
        "INT64": force_int64 or needs_int64([*wide_all, *thin_all, volume]),
        "SCALE": request.scale(channels) if wide else 1.0,
        "NORMALIZE": request.normalize, "EPS": request.eps, "EPS_ADDED": request.eps_rule == "add",
        "THIN": thin_channels, "MASK_OWN": request.mask_left,
        "THIN_SIZE": math.gcd(thin_channels, plan.THIN_VECTOR) if thin_unit_c and volume_unit_c else 1,
        "UNIT_C": unit_c, "UNIT_W": not unit_c and unit_stride(wide_all, 3),
        "VEC": stride_divisor(wide_all, 1) if unit_c else 1,
        "THIN_UNIT_C": thin_unit_c, "THIN_VEC": stride_divisor(thin_all, 1) if thin_unit_c else 1,
        "VOLUME_UNIT_C": volume_unit_c, "VOLUME_VEC": stride_divisor([volume], 1) if volume_unit_c else 1,
        "ACC": accumulator(volume),
    }  # fmt: skip
    return constants, tile.num_warps


def _wide_tiles(constants: dict[str, Any], width: int) -> int:
    """Programs of one image row that correlate."""
    if not constants["NUM_GROUPS"]:
        return 0
    blocks = ceil_div(width, constants["PIXELS"])
    if constants["GROUP_FASTEST"]:
        return ceil_div(blocks * constants["GROUPS"], constants["BLOCK_N"])
    return ceil_div(blocks, constants["BLOCK_N"]) * constants["GROUPS"]


def _thin_tiles(constants: dict[str, Any], width: int, halves: int) -> int:
    """Programs of one image row for one half of the concatenation, or both."""
    return ceil_div(width * halves * constants["THIN"] // (constants["THIN_SIZE"] or 1), constants["BLOCK_N"])


def _band_forward(wide: Pair, volume: Tensor, request: Request, force_int64: bool) -> None:
    constants, options = _band_constants([*wide], volume, request, force_int64, backward=False)
    batch, _, num_disparities, height, width = volume.shape
    wide_tiles, disparity_tiles = (ceil_div(n, constants["BLOCK"]) for n in (width, num_disparities))
    runtime.run(
        banded.band_forward, batch * height * wide_tiles * disparity_tiles,
        wide[0], wide[1], volume, height, width, num_disparities, wide_tiles, disparity_tiles,
        *divided_strides(wide, constants["VEC"]), *_strides_of_band(volume, constants["VOLUME_VEC"]),
        NORMALIZE=request.normalize, EPS=request.eps, EPS_ADDED=request.eps_rule == "add", **constants, **options,
    )  # fmt: skip


def _band_backward(
    wide: Pair, upstream: Tensor, grads: Sequence[Tensor | None], request: Request, force_int64: bool
) -> None:
    present = [g for g in grads if g is not None]
    constants, options = _band_constants([*wide, *present], upstream, request, force_int64, backward=True)
    written = [present[0] if g is None else g for g in grads]
    batch, _, num_disparities, height, width = upstream.shape
    wide_tiles = ceil_div(width, constants["BLOCK"])
    programs = wide_tiles * ceil_div(constants["C"], constants["BLOCK_C"]) * len(present)
    runtime.run(
        banded.band_backward, batch * height * programs,
        wide[0], wide[1], upstream, *written, height, width, num_disparities, wide_tiles,
        *divided_strides(wide, constants["VEC"]), *_strides_of_band(upstream, constants["VOLUME_VEC"]),
        *divided_strides(written, constants["VEC"]),
        NEED_OWN=grads[0] is not None, NEED_OTHER=grads[1] is not None, **constants, **options,
    )  # fmt: skip


def _band_constants(
    maps: list[Tensor], volume: Tensor, request: Request, force_int64: bool, *, backward: bool
) -> tuple[dict[str, Any], dict[str, int]]:
    """What the kernels of banded.py are compiled for, and how they are started."""
    channels = maps[0].shape[1]
    unit_c = unit_stride(maps, 1)
    int64 = force_int64 or needs_int64([*maps, volume])
    tile = plan.band_tile(volume.shape[2], volume.dtype, unit_c, int64, backward=backward)
    unit_d = unit_stride([volume], 2)
    constants = {
        "C": channels, "BLOCK": tile.block, "BLOCK_C": min(tile.channels, max(power_of_two(channels), 16)),
        "SIGN": request.sign, "INT64": int64, "SCALE": request.scale(channels),
        "UNIT_C": unit_c, "UNIT_W": not unit_c and unit_stride(maps, 3),
        "VEC": stride_divisor(maps, 1) if unit_c else 1,
        "VOLUME_UNIT_D": unit_d, "VOLUME_UNIT_W": not unit_d and unit_stride([volume], 4),
        "VOLUME_VEC": math.gcd(stride_divisor([volume], 2), volume.shape[2]) if unit_d else 1,
        "DOT": factor(volume), "ACC": accumulator(volume),
    }  # fmt: skip
    return constants, {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": False}


def _strides_of_band(volume: Tensor, unit: int) -> tuple[int, int, int, int]:
    """As `divided_strides`, but that the disparities' are those not in units."""
    batch, _, disparity, height, width = volume.stride()
    return batch // unit, disparity, height // unit, width // unit
