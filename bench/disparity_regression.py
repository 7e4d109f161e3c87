"""Soft-argmin after ×s upsampling. Least bytes: adu_kernels/disparity_regression/README.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import adu_kernels
from adu_kernels import reference
from bench.harness.case import Case, Work
from bench.harness.suite import Suite, dtype_name, labelled

HALF, SINGLE = torch.bfloat16, torch.float32
OPERATIONS_PER_VALUE = 10
"""Arithmetic per fine pixel and candidate either way, an exponential counted as one: for the roofline's place alone."""


@dataclass(frozen=True)
class Shape:
    """Of the coarse logits, and how much finer the result is."""

    batch: int
    candidates: int
    height: int
    width: int
    scale: int


CROP = Shape(8, 48, 64, 128, 4)
KITTI = Shape(8, 48, 96, 312, 4)
ONE = Shape(1, 48, 96, 312, 4)
SMALL = Shape(1, 16, 24, 64, 4)
TINY = Shape(1, 4, 4, 6, 4)
OVERHEAD = Shape(1, 4, 8, 8, 4)


@dataclass(frozen=True)
class DisparityRegressionBenchmark(Suite):
    """Disparity and variance of a cost volume's logits, upsampled on the way."""

    @property
    def name(self) -> str:
        return "disparity-regression"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            found = [
                regression_case(CROP, SINGLE, headline=True),
                regression_case(KITTI, SINGLE),
                regression_case(CROP, HALF),
                regression_case(KITTI, HALF),
                regression_case(ONE, SINGLE),
            ]
        else:
            found = [regression_case(SMALL if size == "small" else TINY, SINGLE)]
        return [*found, regression_case(OVERHEAD, SINGLE, overhead=True)]


def regression_case(shape: Shape, dtype: torch.dtype, *, headline: bool = False, overhead: bool = False) -> Case:
    cells = shape.batch * shape.height * shape.width
    fine = cells * shape.scale**2
    values = fine * shape.candidates * shape.scale * OPERATIONS_PER_VALUE
    logits = dtype.itemsize * cells * shape.candidates
    label = labelled(B=shape.batch, D=shape.candidates * shape.scale)
    what = f"disparity regression{' (call overhead)' if overhead else ''}"
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {label}, {shape.scale * shape.height}×{shape.scale * shape.width}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=adu_kernels.disparity_regression,
        reference=reference.disparity_regression,
        draw=_logits(shape, dtype),
        gradients=1,
        work=Work(logits + 16 * fine, 2 * logits + 24 * fine, values, values),
        options={"scale": shape.scale},
        headline=headline,
        overhead=overhead,
    )


def _logits(shape: Shape, dtype: torch.dtype) -> Callable[[torch.device], list[Tensor]]:
    def draw(device: torch.device) -> list[Tensor]:
        size = (shape.batch, shape.candidates, shape.height, shape.width)
        return [(3 * torch.randn(size, device=device)).to(dtype)]

    return draw
