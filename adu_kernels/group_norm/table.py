"""The launch table of the norms: how large a program's tile is, and how many programs share an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.layout import ceil_div, power_of_two


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
