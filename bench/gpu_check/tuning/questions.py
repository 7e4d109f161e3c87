"""What is asked of the launch tables, the most valuable first: a case that takes a row, and other rows to try.

A candidate is here because registers, shared memory and occupancy of its machine code allow it (sm_90, Triton 3.6):
what spilled or did not fit was left out, and the stage looks again on the machine itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import adu_kernels
from adu_kernels import reference
from bench import (
    attention_adaptation,
    cost_volume,
    depth_objective,
    disparity_regression,
    feature_distillation,
    group_norm,
)
from bench.correlation_disparity import correlation_case
from bench.gpu_check.tuning.rows import Change
from bench.harness.case import Case, Work

HALF, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Candidate:
    name: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Question:
    name: str
    case: Case
    candidates: tuple[Candidate, ...]


def one_row(row: str, *to: Mapping[str, Any] | int) -> tuple[Candidate, ...]:
    """A candidate for each change of one row."""
    short = row.split(".", 2)[2]
    return tuple(Candidate(f"{short} {_said(change)}", (Change(row, change),)) for change in to)


def _said(change: Mapping[str, Any] | int) -> str:
    return str(change) if isinstance(change, int) else " ".join(f"{name}={value}" for name, value in change.items())


# The fewer columns, the more threads wait for loads side by side; the more, the fewer instructions a cell. Few items: a
# finer grid. With 8 pairs of the crop none of these is faster than the present rows (H200, tune at 70ed244), nor are 4
# and 8 columns, or 64 items of 2 (bench/results/h200).
SLIDE_BACKWARD = one_row("cost_volume.table.SLIDE_BACKWARD", {"items": 128, "num_warps": 4}, {"pixels": 2})
SLIDE = one_row("cost_volume.table.SLIDE_CHANNELS_LAST", {"items": 256, "num_warps": 8}) + SLIDE_BACKWARD
SLIDE_SINGLE = (
    *one_row(
        "cost_volume.table.SLIDE_WIDE_TYPES", {"pixels": 3}, {"pixels": 1}, {"pixels": 2}, {"items": 64, "num_warps": 2}
    ),
    *one_row("cost_volume.table.SLIDE_BACKWARD_WIDE_TYPES", {"pixels": 3}),
)
# The larger the tile the less of a record is written in parts: 256 items took 460 µs, 512 take 402.
SLIDE_COMBINED = one_row("cost_volume.table.SLIDE_BESIDE_CONCAT", {"items": 1024, "num_warps": 32}, {"pixels": 4})
REGRESSION = "disparity_regression.launch.LAUNCH_SHAPES[2]"
# Both passes are bound by instructions and by what they wait for with few warps: 128 and 239 registers a thread leave
# 16 and 8 a multiprocessor, 96 and 168 leave 20 and 12.
REGRESSION_ROWS = one_row(
    REGRESSION,
    {"backward_registers": 168},
    {"forward_registers": 96},
    {"forward": (1, 4)},
    {"forward": (4, 4)},
    {"lanes": 64},
)
REGRESSION_FEW = one_row(REGRESSION, {"forward": (1, 4)}, {"lanes": 64})
ATTENTION = "attention_adaptation.table.LAUNCH_SHAPES"
# One group of warps a program: a finer grid, and programs that hide each other's waits. The keys' pass holds two
# accumulators, so that half the keys let three programs stand on a multiprocessor in place of one. A dry run, which has
# no matrix units, asks the first two: another row of the keys' pass would change nothing there.
ATTENTION_HALF = (
    *one_row(f"{ATTENTION}[1].forward", {"queries": 64, "threads": 128}, {"keys": 128, "stages": 2}, {"stages": 2}),
    *one_row(
        f"{ATTENTION}[1].backward_keys",
        {"queries": 32, "keys": 128, "threads": 256, "stages": 3},
        {"queries": 32, "stages": 3},
        {"stages": 3},
    ),
    *one_row(f"{ATTENTION}[1].exact_delta", {"queries": 64, "threads": 128}, {"keys": 64}, {"stages": 2}),
    *one_row("attention_adaptation.table.PROGRAMS_WANTED", 264),
)
ATTENTION_UNBIASED = (
    *one_row(f"{ATTENTION}[1].backward_queries", {"queries": 64, "threads": 128}, {"keys": 32}, {"stages": 2}),
    *one_row(f"{ATTENTION}[1].forward", {"queries": 64, "threads": 128}, {"keys": 128, "stages": 2}),
)
# Of 64 queries the keys' pass was faster with two stages than with three; of 32 it has half the shared memory anyway.
ATTENTION_NARROW = (
    *one_row(f"{ATTENTION}[0].forward", {"stages": 2}),
    *one_row(f"{ATTENTION}[0].exact_delta", {"stages": 2}),
    *one_row(f"{ATTENTION}[0].backward_keys", {"stages": 2}, {"keys": 128, "threads": 256}),
)
ATTENTION_PARTS = "attention_adaptation.table.IN_PARTS[0]"
ATTENTION_SINGLE = (
    *one_row(f"{ATTENTION_PARTS}.forward", {"queries": 32}, {"threads": 256}, {"keys": 16}),
    *one_row(f"{ATTENTION_PARTS}.backward_queries", {"keys": 16}, {"queries": 32}),
    *one_row(f"{ATTENTION_PARTS}.backward_keys", {"queries": 16}, {"keys": 32}),
)
EXPECTATION_SINGLE = (
    *one_row("correlation_disparity.launch.PARTS", {"num_warps": 8}, {"channels": 16}),
    *one_row(
        "correlation_disparity.launch.PARTS_BACKWARD",
        {"block": 64},
        {"num_stages": 3},
        {"channels": 32, "chunks": 1},
        {"block": 32, "channels": 32, "chunks": 3, "num_stages": 1, "window": 0},
    ),
)
# A window that holds every disparity, its scores made once, and loads that run ahead: in one step a gradient of bf16 is
# rounded once. Which of the two rows is taken, the GPU says.
EXPECTATION_HALF = tuple(
    Candidate(
        f"HALF_BACKWARD {_said(change)}",
        tuple(
            Change(f"correlation_disparity.launch.HALF_BACKWARD{where}", change) for where in ("", "_FROM_REGISTERS")
        ),
    )
    for change in (
        {"block": 16, "window": 64, "channels": 32, "chunks": 2, "num_warps": 4, "num_stages": 3},
        {"window": 128, "chunks": 1, "num_stages": 3},
        {"window": 128, "chunks": 1, "num_warps": 4, "num_stages": 3},
    )
)
BAND_SINGLE = (
    *one_row("cost_volume.table.BAND_PARTS", {"block": 32}, {"channels": 32, "num_stages": 2}, {"num_warps": 8}),
    *one_row("cost_volume.table.BAND_PARTS_BACKWARD", {"channels": 128}, {"num_stages": 2}),
)
BAND_CONTIGUOUS = one_row("cost_volume.table.BAND_OTHER", {"channels": 64}, {"block": 64, "num_warps": 8})
OBJECTIVE = one_row(
    "depth_objective.table.SINGLE",
    {"statistics": 528, "values": 264, "registers": None},
    {"values": 264, "registers": None},
    {"statistics": 528},
    {"lanes": 128, "statistics": 2112, "values": 792},
)
LOSS_LAST = one_row(
    "feature_distillation.launch.LOSS",
    {"last_tiles": 2},
    {"last_tiles": 8},
    {"last_lanes": 1024},
    {"threads": 256, "last_lanes": 1024, "last_tiles": 2},
    {"last_lanes": 256},
    {"threads": 256},
)
LOSS_FIRST = one_row(
    "feature_distillation.launch.LOSS",
    {"first_channels": 32},
    {"first_channels": 8},
    {"unroll": 2},
    {"unroll": 8},
    {"first_lanes": 256, "threads": 256},
)
NESTED = one_row("feature_distillation.launch.POOL", {"columns": 64}, {"columns": 256}, {"threads": 256})
WINDOWS = one_row("feature_distillation.launch.POOL", {"cells": 8}, {"cells": 32}, {"span": 16}, {"span": 64})
SLIDE_CONTIGUOUS = one_row(
    "cost_volume.table.SLIDE_OTHER",
    {"items": 32, "num_warps": 1},
    {"items": 128, "num_warps": 2},
    {"items": 256, "num_warps": 8},
)


# Each stage more was faster so far: 292, 268, 251 µs backward.
NORM = one_row("group_norm.table.GRADIENT_SUMS", {"stages": 4}, {"elements": 1024, "stages": 4})


def questions(dry_run: bool) -> list[Question]:
    """dry_run: tiny cases and two candidates each, for the interpreter."""
    tiny = cost_volume.TINY
    crop, kitti, band = (tiny, tiny, _TINY_BAND) if dry_run else (cost_volume.CROP, cost_volume.KITTI, cost_volume.CROP)
    regression = disparity_regression.TINY if dry_run else disparity_regression.CROP
    narrow, wide = (_TINY_TOKENS, _TINY_WIDE) if dry_run else (attention_adaptation.EIGHTH, attention_adaptation.WIDE)
    maps = depth_objective.TINY if dry_run else depth_objective.KITTI
    level = _TINY_LEVEL if dry_run else feature_distillation.LEVEL
    volume, attention = cost_volume.volume_case, attention_adaptation.attention_case
    regress, distance = disparity_regression.regression_case, feature_distillation.distance_case
    norm = group_norm.TINY if dry_run else group_norm.CROP
    found = [
        Question("group norm bf16", group_norm.norm_case(norm, HALF), NORM),
        Question("combined bf16", volume("combined", crop, HALF), SLIDE_COMBINED),
        Question("attention bf16 d 32", attention(narrow, HALF, biased=True), ATTENTION_NARROW),
        Question("disparity regression fp32", regress(regression, SINGLE), REGRESSION_ROWS),
        Question("attention bf16 d 64", attention(wide, HALF, biased=True), ATTENTION_HALF),
        Question("depth objective fp32", depth_objective.loss_case("depth objective", maps), OBJECTIVE),
        Question("feature loss bf16", distance(level, HALF), LOSS_LAST),
        Question("groupwise bf16, one pair", volume("groupwise", replace(crop, batch=1), HALF), SLIDE),
        Question("disparity regression fp32, one image", regress(replace(regression, batch=1), SINGLE), REGRESSION_FEW),
        Question("attention bf16 d 64, no bias", attention(wide, HALF, biased=False), ATTENTION_UNBIASED),
        Question("groupwise fp32", volume("groupwise", kitti, SINGLE), SLIDE_SINGLE),
        Question("feature loss bf16, contiguous", distance(level, HALF, channels_last=False), LOSS_FIRST),
        Question("guide, nested cells", pooled_case(dry_run, nested=True), NESTED),
        Question("guide, any cells", pooled_case(dry_run, nested=False), WINDOWS),
        Question("correlation disparity fp32", correlation_case(band, SINGLE), EXPECTATION_SINGLE),
        Question("correlation disparity bf16", correlation_case(band, HALF), EXPECTATION_HALF),
        Question("attention fp32 d 32", attention(narrow, SINGLE, biased=True), ATTENTION_SINGLE),
        Question("plain correlation fp32", volume("plain", band, SINGLE), BAND_SINGLE),
        Question("cosine bf16", volume("cosine", crop, HALF), SLIDE),
        Question("groupwise bf16, contiguous", volume("groupwise", crop, HALF, channels_last=False), SLIDE_CONTIGUOUS),
        Question(
            "plain correlation bf16, contiguous", volume("plain", band, HALF, channels_last=False), BAND_CONTIGUOUS
        ),
    ]
    return [Question(q.name, q.case, q.candidates[:2]) for q in found] if dry_run else found


_TINY_BAND = cost_volume.Shape(1, 1, 34, 48, 1, 33, 2)  # more channels than a step of the rows takes
_TINY_TOKENS = attention_adaptation.Shape(1, 1, 12, 5, 16)
_TINY_WIDE = attention_adaptation.Shape(1, 1, 12, 5, 64)
_TINY_LEVEL = feature_distillation.Shape(1, 16, 4, 8)
_GUIDES = {True: (8, 352, 1216), False: (8, 375, 1242)}
_TINY_GUIDES = {True: (1, 32, 64), False: (1, 33, 47)}


def pooled_case(dry_run: bool, nested: bool) -> Case:
    """The guide of a KITTI crop on the three levels that are distilled; one launch, no gradient."""
    batch, height, width = (_TINY_GUIDES if dry_run else _GUIDES)[nested]
    sizes = [(-(-height // k), -(-width // k)) for k in (8, 16, 32)]
    read, written = 4 * batch * height * width, 4 * batch * sum(h * w for h, w in sizes)
    return Case(
        name=f"pooled guide, fp32, B {batch}, {height}×{width}",
        dtype=SINGLE,
        shape={"batch": batch, "height": height, "width": width},
        kernel=adu_kernels.pooled_guide,
        reference=reference.pooled_guide,
        draw=lambda device: _guide((batch, 1, height, width), device),
        gradients=0,
        work=Work(read + written, 0, batch * height * width),
        options={"sizes": sizes},
    )


def _guide(size: Sequence[int], device: torch.device) -> list[torch.Tensor]:
    return [torch.rand(tuple(size), device=device)]
