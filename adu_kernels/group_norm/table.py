"""How the norms' kernels are launched: the launch table, how maps lie, how the work is divided, all of it in a `Plan`.

The table says how large a program's tile is, and how many programs share an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.layout import INT32_LIMIT, ceil_div, merged_axes, power_of_two, reach

if TYPE_CHECKING:
    from .tiles import NormConfig


@dataclass(frozen=True)
class LaunchShape:
    """How a kernel divides its work."""

    elements: int
    """Of a tile."""
    programs: int
    """A launch has about so many, where there are positions enough for a tile each."""
    threads: int = 128
    stages: int = 1
    """Tiles that are loaded ahead, and one; for `statistics` and `gradient_sums`."""

    @property
    def warps(self) -> int:
        return self.threads // runtime.WARP_SIZE


# Measured (H200, 65f2ad8, bench/results/h200: bf16, B 8, C 32, G 8, 48×64×128). Sums stay in registers over the tiles
# of a program, so those that add up are few: what they find is put together by every program after them.
# STATISTICS, 4096 → 2048 elements: 255 → 218 µs forward; 72 registers instead of 130, twice the warps a multiprocessor.
# NORMALISE, 2048 elements by 128 threads → 4096 by 256: 255 → 249 µs forward; 64 registers instead of 80.
# INPUT_GRADIENT, 132·16 → 132·32 programs: 305 → 290 µs backward.
# stages: without them a thread waits for one 16-byte load of its tile before it asks for the next, 8 KB on their way a
# multiprocessor where the memory's rate needs some 30. STATISTICS: 166 µs forward, with three 168, with one 212.
# GRADIENT_SUMS: 251 µs backward, with two 268, with one 292 (H200, tune at 70ed244).
STATISTICS = LaunchShape(elements=2048, programs=132 * 4, stages=4)
NORMALISE = LaunchShape(elements=4096, programs=132 * 16, threads=256)
GRADIENT_SUMS = LaunchShape(elements=2048, programs=132 * 4, stages=3)
INPUT_GRADIENT = LaunchShape(elements=2048, programs=132 * 32)
LANES = 256
"""At most, of a tile over channels; a power of two."""
FEWEST_LANES = 16
"""Of a tile over the positions of a channels-first map: as many channels as there are, up to this."""
PARTS = 4096
"""Results of programs that are put together at once, times groups or lanes."""
JOINED_GROUPS, TOTALLED_LANES = 16, 32
"""At most, of a program that puts parts together: few, so that many programs do."""
MOST_PARTS = 4096
"""Of a block's groups: where there are more, a launch of its own puts them together."""


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


class Cut(NamedTuple):
    """How an image is cut into programs."""

    blocks: int
    """Across the channels."""
    chunks: int
    """Across the positions."""
    tiles: int
    """Of a chunk."""


class Tile(NamedTuple):
    positions: int
    groups: int
    lanes: int
    split: int

    def blocks(self, num_groups: int) -> int:
        """Of an image."""
        return num_groups * self.split if self.split > 1 else ceil_div(num_groups, self.groups)


def tile_of(x: Tensor, num_groups: int, elements: int, channels_last: bool) -> Tile:
    if x.dtype == torch.float64:  # whose sums would not stay in registers
        elements //= 4
    return _known_tile(x.shape[1] // num_groups, num_groups, elements, channels_last)


def tile_of_sizes(channels: int, num_groups: int, elements: int, channels_last: bool) -> Tile:
    """channels: of a group."""
    lanes = min(power_of_two(channels), LANES)
    widest = LANES if channels_last else FEWEST_LANES
    groups = min(max(widest // lanes, 1), power_of_two(num_groups))
    return Tile(max(elements // (groups * lanes), 1), groups, lanes, ceil_div(channels, lanes))


_known_tile = lru_cache(maxsize=1024)(tile_of_sizes)  # traced sizes (SymInt) have no hash


@lru_cache(maxsize=1024)
def cut_of(shape: LaunchShape, tile: Tile, batch: int, num_groups: int, positions: int) -> Cut:
    blocks = tile.blocks(num_groups)
    tiles = ceil_div(positions, tile.positions)
    chunks = min(max(shape.programs // (batch * blocks), 1), tiles)
    tiles = ceil_div(tiles, chunks)
    return Cut(blocks, ceil_div(positions, tiles * tile.positions), tiles)


def sign_bytes(x: Tensor, num_groups: int) -> int:
    """A bit for every lane of the tiles over x."""
    # Traced shapes are no keys of a cache: neither layout_of nor tile_of.
    tile = tile_of_sizes(x.shape[1] // num_groups, num_groups, 1, lies_channels_last(x.shape, x.stride()))
    blocks = tile.blocks(num_groups)
    return x.shape[0] * blocks * math.prod(x.shape[2:]) * ceil_div(tile.groups * tile.lanes, 8)


class Terms(NamedTuple):
    """What a kernel does beside the norm; each combination is another compilation."""

    weighted: bool = False
    biased: bool = False
    residual: bool = False
    relu: bool = False
    signed: bool = False
    joined: bool = False


class Plan(NamedTuple):
    """One launch over a map."""

    programs: int
    tile: Tile
    cut: Cut
    config: NormConfig
    """What the kernel is compiled for."""
    options: dict[str, Any]


PLAIN = Terms()


def plan(
    shape: LaunchShape, x: Tensor, num_groups: int, layout: Layout, terms: Terms = PLAIN, eps: float = 0.0,
    tile: Tile | None = None,
) -> Plan:  # fmt: skip
    """shape: the row of the table. tile: where it is another than `tile_of` x."""
    tile = tile or tile_of(x, num_groups, shape.elements, layout.channels_last)
    batch, channels = x.shape[:2]
    cut = cut_of(shape, tile, batch, num_groups, layout.positions)
    config = _config(layout, tile, channels, num_groups, terms, eps, shape.stages, x.dtype)
    return Plan(batch * cut.blocks * cut.chunks, tile, cut, config, {"num_warps": shape.warps, **UNFUSED})


@lru_cache(maxsize=1024)
def _config(
    layout: Layout, tile: Tile, channels: int, num_groups: int, terms: Terms, eps: float, stages: int,
    dtype: torch.dtype,
) -> NormConfig:  # fmt: skip
    from .tiles import NormConfig  # Triton is needed only where a kernel runs

    return NormConfig(
        NUM_GROUPS=num_groups, CHANNELS=channels // num_groups,
        POSITIONS=tile.positions, GROUPS=tile.groups, LANES=tile.lanes, SPLIT=tile.split,
        PARTS=max(PARTS // (tile.groups * tile.lanes), 16),
        FLAT=layout.flat, CONTIGUOUS_C=layout.contiguous_c, CONTIGUOUS_P=layout.contiguous_p,
        STRIDE_DIVISOR=layout.divisor, INT64=layout.int64,
        WEIGHTED=terms.weighted, BIASED=terms.biased, RESIDUAL=terms.residual, RELU=terms.relu, SIGNED=terms.signed,
        JOINED=terms.joined, EPS=eps, STAGES=stages, ACC="fp64" if dtype == torch.float64 else "fp32",
    )  # fmt: skip
