"""The launch table: how many programs share the pixels, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .._triton import runtime
from .._triton.layout import ceil_div, power_of_two


class Layout(NamedTuple):
    """How the maps of a call lie, and what is calculated in."""

    images: int
    rows: int
    columns: int
    strides: tuple[int | None, ...]
    """Of image, row and column, map by map; None where all maps lie in a row."""
    flat: bool
    dtype: torch.dtype
    acc: str
    single: bool
    """All maps are fp32."""


@dataclass(frozen=True)
class Tile:
    """One program: `lanes` threads, each of so many neighbouring pixels at a time."""

    lanes: int
    pixels: int
    statistics: int
    """Programs of the first launch at most; `values`: of the second."""
    values: int
    registers: int | None
    """What a thread of the second launch may have, where that can be said (not on AMD)."""

    @property
    def warps(self) -> int:
        return self.lanes // runtime.WARP_SIZE


# 4 pixels are 16 bytes of fp32; with 8, fp16 would spill. For an H200's 132 multiprocessors: 8 programs each, whose
# partial sums every program of the second launch reads; then as many as fit at a time: 3 with 80 registers. Left alone
# the compiler takes 115, and 2 fit. Measured (H200, bench/results/h200, B 8, 384×1248, every term, joint):
# 64 µs forward; with 528 programs of the first launch 68, with 264 81; with 2 programs of the second a multiprocessor
# 73. While the joint loss took the row below, for it spilled on sm_100 with 80 registers and no longer does, 75.
SINGLE = Tile(lanes=256, pixels=4, statistics=1056, values=396, registers=80)
# Maps of 2 bytes, β-NLL, γ ≠ 1: with 80 registers the joint loss of these spills on sm_100 and sm_120.
LARGER = Tile(lanes=256, pixels=4, statistics=528, values=264, registers=None)
DOUBLE = Tile(lanes=256, pixels=2, statistics=528, values=264, registers=None)
FINISHED_AT_ONCE = 2048
"""Partial sums that the last program adds up in one go."""


@dataclass(frozen=True)
class Division:
    """Segments (the batch, or its images) of `length` pixels, and how many programs share one."""

    segments: int
    length: int
    parts: int
    """In the first launch; `chunks`: in the second."""
    chunks: int
    most_parts: int
    """The power of two that neither ever passes, whatever the size of the images."""
    tile: Tile
    options: dict[str, Any]
    """Without fusion: fused with a sum across lanes, a product would be rounded in one of them alone."""

    @staticmethod
    def of(layout: Layout, plain: bool, per_image: bool) -> Division:
        """plain: neither β-NLL nor a γ other than 1."""
        pixels = layout.rows * layout.columns
        segments, length = (layout.images, pixels) if per_image else (1, layout.images * pixels)
        tile = DOUBLE if layout.dtype == torch.float64 else SINGLE if plain and layout.single else LARGER
        blocks = ceil_div(length, tile.lanes * tile.pixels)
        most = [max(programs // segments, 1) for programs in (tile.statistics, tile.values)]
        parts, chunks = (min(blocks, m) for m in most)
        options = {"num_warps": tile.warps, "enable_fp_fusion": False}
        return Division(segments, length, parts, chunks, power_of_two(max(most)), tile, options)
