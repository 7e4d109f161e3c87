"""Starts the kernels of this room: which maps and numbers they need, and how the work is divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from .._triton import runtime
from ..precision import accumulation_dtype
from . import kernels
from .registration import Numbers


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
# the compiler takes 102, and 2 fit. Measured (H200, Triton 3.6.0, bench/results/h200, B 8, 384×1248, every term): 64 µs
# forward; with 528 programs of the first launch 68, with 264 81; with 2 programs of the second a multiprocessor 73.
# That was the joint loss, which takes the next row since: without it the second launch has less to do.
SINGLE = Tile(lanes=256, pixels=4, statistics=1056, values=396, registers=80)
# Maps of 2 bytes, β-NLL, γ ≠ 1, the joint loss: with 80 registers these spill on sm_100.
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
    def of(maps: Maps, numbers: Numbers, per_image: bool, joint: bool = False) -> Division:
        first = maps.given[0]
        segments, length = (first.shape[0], first[0].numel()) if per_image else (1, first.numel())
        plain = not joint and numbers.beta_nll == 0 and numbers.gamma == 1
        plain = plain and all(m.dtype == torch.float32 for m in maps.given)
        tile = DOUBLE if maps.dtype == torch.float64 else SINGLE if plain else LARGER
        blocks = -(-length // (tile.lanes * tile.pixels))
        most = [max(programs // segments, 1) for programs in (tile.statistics, tile.values)]
        parts, chunks = (min(blocks, m) for m in most)
        return Division(segments, length, parts, chunks, 1 << (max(most) - 1).bit_length(), tile)


def losses(
    maps: Maps,
    strength: Tensor | None,
    numbers: Numbers,
    outputs: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    silog: bool,
    laplace: bool,
    guide: int,
    gate: bool,
    joint: bool,
    detach_focal: bool,
    per_image: bool,
    need_depth: bool,
    need_scale: bool,
) -> None:
    """Writes total, terms and the gradients that are needed, in two launches."""
    total, terms, grad_depth, grad_scale = outputs
    assert maps.depth is not None
    plan = Division.of(maps, numbers, per_image, joint)
    options = _options(maps, plan)
    sums, counts, arrived = _statistics(maps, numbers, plan, options, ratio=silog, guide=guide)
    response = maps.teacher_depth is not None
    wanted = need_depth or need_scale or laplace or response
    chunks = plan.chunks if wanted else 1
    late, ready = total.new_empty(2 * plan.segments * chunks), total.new_empty(3 * plan.segments)
    runtime.run(
        kernels.values, plan.segments * chunks,
        total, terms, late, ready, grad_depth if need_depth else None, grad_scale if need_scale else None,
        sums, counts, arrived, *maps, strength, *_strides(maps, options),
        plan.length, plan.parts, chunks, plan.segments, *maps.depth.shape[2:],
        _passed(numbers, options, {
            "variance_focus": silog, "beta_nll": laplace and numbers.beta_nll != 0, "beta": response,
            "gamma": response and numbers.gamma != 1, "sharpness": gate, "strength": guide and strength is None,
            "silog": silog, "uncertainty": laplace, "response": response,
        }),
        SILOG=silog, LAPLACE=laplace, GUIDE=guide, GATE=gate, JOINT=joint, DETACH=detach_focal, PIXELS=wanted,
        PARTS=plan.most_parts, ROWS=FINISHED_AT_ONCE // plan.most_parts, **options,
        **_register_limit(plan.tile),
    )  # fmt: skip


def response_weights(
    result: Tensor, maps: Maps, strength: Tensor | None, numbers: Numbers, guide: int, per_image: bool
) -> None:
    """Writes the guide (guide ±1; teacher_depth is 1 where known, else 0) or the gate (guide 0)."""
    plan = Division.of(maps, numbers, per_image)
    options = _options(maps, plan)
    sums = counts = None
    if guide:
        sums, counts, _ = _statistics(maps, numbers, plan, options, ratio=False, guide=guide)
    passed = _passed(numbers, options, {"sharpness": not guide, "strength": guide and strength is None})
    runtime.run(
        kernels.weights, plan.segments * plan.parts,
        result, sums, counts, *maps[1:4], strength, *_strides(maps, options)[3:12],
        plan.length, plan.parts, *result.shape[2:], passed,
        GUIDE=guide, PARTS=plan.most_parts, **options,
    )  # fmt: skip


def _statistics(
    maps: Maps, numbers: Numbers, plan: Division, options: dict[str, Any], *, ratio: bool, guide: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What the other kernels need of all pixels: partial sums, partial counts, and a counter at 0."""
    first = maps.given[0]
    programs = plan.segments * plan.parts
    sums = first.new_empty(3 * programs, dtype=maps.dtype)
    counts = first.new_empty(2 * programs + 1, dtype=torch.int32)
    counts, arrived = counts[:-1], counts[-1:]
    used = maps._replace(depth=maps.depth if ratio else None, log_scale=maps.log_scale if guide else None)
    runtime.run(
        kernels.statistics, programs,
        sums, counts, arrived, *used[:4], *_strides(maps, options)[:12],
        plan.length, plan.parts, *first.shape[2:], _passed(numbers, options, {}),
        RATIO=ratio, GUIDE=guide, **options,
    )  # fmt: skip
    return sums, counts, arrived


def _options(maps: Maps, plan: Division) -> dict[str, Any]:
    """What all kernels of a call are compiled for. ALIGNED: no block ends within 16 neighbouring pixels."""
    return {
        "LANES": plan.tile.lanes, "V": plan.tile.pixels, "ALIGNED": plan.length % 16 == 0,
        "FLAT": all(m.is_contiguous() for m in maps.given),
        "ACC": tl.float64 if maps.dtype == torch.float64 else tl.float32,
        "num_warps": plan.tile.warps,
        "enable_fp_fusion": False,  # fused with a sum across lanes, a product would be rounded in one of them alone
    }  # fmt: skip


def _register_limit(tile: Tile) -> dict[str, int]:
    return {"maxnreg": tile.registers} if tile.registers and runtime.WARP_SIZE == 32 else {}


def _strides(maps: Maps, options: dict[str, Any]) -> list[int | None]:
    """Of image, row and column, map by map; None where all maps lie in a row."""
    return [
        None if m is None or options["FLAT"] else m.stride(axis)
        for m in maps
        for axis in (0, 2, 3)
    ]  # fmt: skip


def _passed(numbers: Numbers, options: dict[str, Any], used: dict[str, Any]) -> Numbers:
    """The numbers as the kernels take them: fp32, in fp64 constants (Triton passes no fp64), None where not used."""
    used = {"min_depth": True, "max_depth": True, **used}
    given = [value if used.get(name) else None for name, value in numbers._asdict().items()]
    if options["ACC"] == tl.float64:
        given = [None if value is None else tl.constexpr(value) for value in given]
    return Numbers(*given)  # type: ignore[arg-type]
