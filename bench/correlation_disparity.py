"""Disparity from correlation without a volume. Least work: adu_kernels/correlation_disparity/README.md."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import adu_kernels
from adu_kernels import reference
from bench.cost_volume import CROP, HALF, KITTI, OVERHEAD, SINGLE, SMALL, TINY, Shape
from bench.harness.case import Case, Work
from bench.harness.suite import Suite, dtype_name, labelled, normal


@dataclass(frozen=True)
class CorrelationDisparityBenchmark(Suite):
    """Disparity and variance straight from the correlation of two maps."""

    @property
    def name(self) -> str:
        return "correlation-disparity"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            chosen = [(CROP, HALF, True), (KITTI, HALF, False), (CROP, SINGLE, False)]
        else:
            chosen = [(SMALL if size == "small" else TINY, SINGLE, False)]
        found = [correlation_case(shape, dtype, headline=headline) for shape, dtype, headline in chosen]
        return [*found, correlation_case(OVERHEAD, SINGLE, overhead=True)]


def correlation_case(shape: Shape, dtype: torch.dtype, *, headline: bool = False, overhead: bool = False) -> Case:
    maps = [(shape.batch, shape.channels, shape.height, shape.width)] * 2
    cells, products = shape.batch * shape.height * shape.width, 2 * shape.channels * shape.pairs()
    label = labelled(B=shape.batch, C=shape.channels, D=shape.disparities)
    what = f"correlation disparity{' (call overhead)' if overhead else ''}"
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {label}, {shape.height}×{shape.width}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=adu_kernels.correlation_disparity,
        reference=reference.correlation_disparity,
        draw=normal(maps, dtype, channels_last=True),
        gradients=2,
        work=Work(
            cells * (2 * dtype.itemsize * shape.channels + 12),
            cells * (4 * dtype.itemsize * shape.channels + 12),
            products,
            4 * products,
            matrix=True,
        ),
        options={"num_disparities": shape.disparities},
        headline=headline,
        overhead=overhead,
    )
