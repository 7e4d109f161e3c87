"""What a call carries, and the launch table: how many programs share the pixels, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.layout import ceil_div, power_of_two
from ..precision import accumulation_dtype


class Maps(NamedTuple):
    """B×1×H×W each, in the order of the kernels' arguments."""

    depth: Tensor | None = None
    log_scale: Tensor | None = None
    teacher_depth: Tensor | None = None
    target: Tensor | None = None
    weight: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What is calculated in: that of the maps, but for a weight."""
        return accumulation_dtype(*self[:4])

    @property
    def given(self) -> list[Tensor]:
        return [m for m in self if m is not None]

    @property
    def first(self) -> Tensor:
        """Of those given: depth, wherever a loss is meant."""
        return self.given[0]


class Numbers(NamedTuple):
    """What may change from call to call without another compilation."""

    min_depth: float = 1e-3
    max_depth: float = 80.0
    variance_focus: float = 0.0
    beta_nll: float = 0.0
    beta: float = 1.0
    gamma: float = 1.0
    sharpness: float = 5.0
    strength: float = 0.0
    silog: float = 0.0
    uncertainty: float = 0.0
    response: float = 0.0


class LossOptions(NamedTuple):
    """Which losses, and how; another combination is another compilation. The response is computed where a
    teacher_depth is given."""

    silog: bool = False
    laplace: bool = False
    guide: int = 0
    """1: uncertain pixels weigh more, -1: less, 0: all the same."""
    gate: bool = False
    joint: bool = False
    detach_focal: bool = False
    per_image: bool = False
    """Each mean is an image's and not the batch's."""
    need_depth: bool = False
    need_scale: bool = False


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

    @staticmethod
    def of(maps: Maps, numbers: Numbers, per_image: bool) -> Division:
        first = maps.first
        segments, length = (first.shape[0], first[0].numel()) if per_image else (1, first.numel())
        plain = numbers.beta_nll == 0 and numbers.gamma == 1
        plain = plain and all(m.dtype == torch.float32 for m in maps.given)
        tile = DOUBLE if maps.dtype == torch.float64 else SINGLE if plain else LARGER
        blocks = ceil_div(length, tile.lanes * tile.pixels)
        most = [max(programs // segments, 1) for programs in (tile.statistics, tile.values)]
        parts, chunks = (min(blocks, m) for m in most)
        return Division(segments, length, parts, chunks, power_of_two(max(most)), tile)
